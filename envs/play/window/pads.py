"""Gamepads: buttons and sticks become the keys that they stand for. Pads may come and go.

A pad that SDL knows is read as a controller: its buttons have the same names on every system,
whoever made it. Any other is read as a joystick, by numbers that are right for most.
"""

import pygame
from pygame._sdl2 import controller

from envs.play.game.inputs import PAD_BUTTONS, PAD_RUN_ZONE, Inputs

_START_BUTTON = 7
_BACK_BUTTON = 6
_FULL_AXIS = 32768.0
# A controller's buttons as the numbers that most joysticks have for them.
_CONTROLLER_BUTTONS = {
    pygame.CONTROLLER_BUTTON_A: 0,
    pygame.CONTROLLER_BUTTON_B: 1,
    pygame.CONTROLLER_BUTTON_X: 2,
    pygame.CONTROLLER_BUTTON_Y: 3,
    pygame.CONTROLLER_BUTTON_LEFTSHOULDER: 4,
    pygame.CONTROLLER_BUTTON_RIGHTSHOULDER: 5,
    pygame.CONTROLLER_BUTTON_BACK: _BACK_BUTTON,
    pygame.CONTROLLER_BUTTON_START: _START_BUTTON,
}
_CONTROLLER_ARROWS = {
    pygame.CONTROLLER_BUTTON_DPAD_UP: "up",
    pygame.CONTROLLER_BUTTON_DPAD_DOWN: "down",
    pygame.CONTROLLER_BUTTON_DPAD_LEFT: "left",
    pygame.CONTROLLER_BUTTON_DPAD_RIGHT: "right",
}
_PARTS = ("buttons", "stick x", "stick y", "run", "hat")


class Pads:
    """All gamepads.

    Args:
        inputs: Told what is held.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._joysticks: dict[int, pygame.joystick.JoystickType] = {}
        self._controllers: dict[int, controller.Controller] = {}
        self._rests_at_middle: dict[tuple[int, int], bool] = {}

    def open(self) -> None:
        """Start listening; pads that are there already answer with an event."""
        pygame.joystick.init()
        controller.init()

    def close(self) -> None:
        """Stop listening; may be called twice."""
        self._joysticks.clear()
        self._controllers.clear()
        controller.quit()
        pygame.joystick.quit()

    def handle(self, event: pygame.Event) -> str | None:
        """Change what is held if the event is a pad's; return "start" or "back" when pressed."""
        if event.type == pygame.JOYDEVICEADDED:
            self._add(event.device_index)
        elif event.type == pygame.JOYDEVICEREMOVED:
            self._joysticks.pop(event.instance_id, None)
            self._controllers.pop(event.instance_id, None)
            self._rests_at_middle = {
                key: rests
                for key, rests in self._rests_at_middle.items()
                if key[0] != event.instance_id
            }
            for part in _PARTS:
                self._inputs.release_all(source=(event.instance_id, part))
        elif event.type in (pygame.CONTROLLERBUTTONDOWN, pygame.CONTROLLERBUTTONUP):
            is_down = event.type == pygame.CONTROLLERBUTTONDOWN
            if event.button in _CONTROLLER_ARROWS:
                name = _CONTROLLER_ARROWS[event.button]
                self._hold(name, is_down, source=(event.instance_id, "hat"))
            elif event.button in _CONTROLLER_BUTTONS:
                number = _CONTROLLER_BUTTONS[event.button]
                return self._button(event.instance_id, number, is_down=is_down)
        elif event.type == pygame.CONTROLLERAXISMOTION:
            self._stick(event.instance_id, event.axis, event.value / _FULL_AXIS)
        elif getattr(event, "instance_id", None) in self._controllers:
            return None  # the same once more, as a joystick's
        elif event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP):
            is_down = event.type == pygame.JOYBUTTONDOWN
            return self._button(event.instance_id, event.button, is_down=is_down)
        elif event.type == pygame.JOYAXISMOTION:
            # SDL tells first where an axis rests: one that rests at an end is a trigger, no stick.
            rests_at_middle = abs(event.value) < PAD_RUN_ZONE
            key = event.instance_id, event.axis
            if self._rests_at_middle.setdefault(key, rests_at_middle):
                self._stick(event.instance_id, event.axis, event.value)
        elif event.type == pygame.JOYHATMOTION:
            source = (event.instance_id, "hat")
            self._inputs.set_axis(event.value[0], ("left", "right"), source=source)
            self._inputs.set_axis(-event.value[1], ("up", "down"), source=source)
        return None

    def _add(self, index: int) -> None:
        if controller.is_controller(index):
            pad = controller.Controller(index)
            self._controllers[pad.as_joystick().get_instance_id()] = pad
        else:
            joystick = pygame.joystick.Joystick(index)
            self._joysticks[joystick.get_instance_id()] = joystick

    def _hold(self, name: str, is_down: bool, *, source: tuple[int, str]) -> None:
        act = self._inputs.press if is_down else self._inputs.release
        act(name, source=source)

    def _button(self, pad: int, button: int, *, is_down: bool) -> str | None:
        if button in (_START_BUTTON, _BACK_BUTTON):
            return ("start" if button == _START_BUTTON else "back") if is_down else None
        name = PAD_BUTTONS.get(button)
        if name is not None:
            self._hold(name, is_down, source=(pad, "buttons"))
        return None

    def _stick(self, pad: int, axis: int, value: float) -> None:
        if axis == 0:
            self._inputs.set_axis(value, ("left", "right"), source=(pad, "stick x"))
            self._hold("left shift", abs(value) > PAD_RUN_ZONE, source=(pad, "run"))
        elif axis == 1:
            # Up on the stick does not jump: thumbs that run would jump by accident.
            self._inputs.set_axis(max(0.0, value), ("up", "down"), source=(pad, "stick y"))
