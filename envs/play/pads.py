"""Gamepads: buttons and sticks become the keys that they stand for. Pads may come and go."""

import pygame

from envs.play.inputs import PAD_BUTTONS, PAD_RUN_ZONE, Inputs

_START_BUTTON = 7
_BACK_BUTTON = 6


class Pads:
    """All gamepads.

    Args:
        inputs: Told what is held.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._pads: dict[int, pygame.joystick.JoystickType] = {}

    def open(self) -> None:
        """Start listening; pads that are there already answer with an event."""
        pygame.joystick.init()

    def close(self) -> None:
        """Stop listening; may be called twice."""
        self._pads.clear()
        pygame.joystick.quit()

    def handle(self, event: pygame.Event) -> str | None:
        """Change what is held if the event is a pad's; return "start" or "back" when pressed."""
        if event.type == pygame.JOYDEVICEADDED:
            pad = pygame.joystick.Joystick(event.device_index)
            self._pads[pad.get_instance_id()] = pad
        elif event.type == pygame.JOYDEVICEREMOVED:
            self._pads.pop(event.instance_id, None)
            for part in ("buttons", "stick x", "stick y", "run", "hat"):
                self._inputs.release_all(source=(event.instance_id, part))
        elif event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP):
            return self._button(event)
        elif event.type == pygame.JOYAXISMOTION:
            self._stick(event)
        elif event.type == pygame.JOYHATMOTION:
            source = (event.instance_id, "hat")
            self._inputs.set_axis(event.value[0], ("left", "right"), source=source)
            self._inputs.set_axis(-event.value[1], ("up", "down"), source=source)
        return None

    def _button(self, event: pygame.Event) -> str | None:
        is_down = event.type == pygame.JOYBUTTONDOWN
        if event.button in (_START_BUTTON, _BACK_BUTTON):
            return ("start" if event.button == _START_BUTTON else "back") if is_down else None
        name = PAD_BUTTONS.get(event.button)
        if name is not None:
            act = self._inputs.press if is_down else self._inputs.release
            act(name, source=(event.instance_id, "buttons"))
        return None

    def _stick(self, event: pygame.Event) -> None:
        pad = event.instance_id
        if event.axis == 0:
            self._inputs.set_axis(event.value, ("left", "right"), source=(pad, "stick x"))
            runs = abs(event.value) > PAD_RUN_ZONE
            act = self._inputs.press if runs else self._inputs.release
            act("left shift", source=(pad, "run"))
        elif event.axis == 1:
            # Up on the stick does not jump: thumbs that run would jump by accident.
            self._inputs.set_axis(max(0.0, event.value), ("up", "down"), source=(pad, "stick y"))
