"""Gamepads: buttons and sticks become the keys that they stand for. Pads may come and go.

A pad that SDL knows is read as a controller: its buttons have the same names on every system,
whoever made it. Any other is read as a joystick, by numbers that are right for most.
"""

import pygame
from pygame._sdl2 import controller

from envs.play.game.inputs import PAD_DEAD_ZONE, PAD_RUN_ZONE, Inputs

_FULL_AXIS = 32768.0
_TRIGGER_ZONE = 0.5
_PUSH_ZONE = 0.6  # from where on a stick moves in a menu, once
_CONTROLLER_BUTTONS = {
    pygame.CONTROLLER_BUTTON_A: "A",
    pygame.CONTROLLER_BUTTON_B: "B",
    pygame.CONTROLLER_BUTTON_X: "X",
    pygame.CONTROLLER_BUTTON_Y: "Y",
    pygame.CONTROLLER_BUTTON_LEFTSHOULDER: "LB",
    pygame.CONTROLLER_BUTTON_RIGHTSHOULDER: "RB",
    pygame.CONTROLLER_BUTTON_LEFTSTICK: "L3",
    pygame.CONTROLLER_BUTTON_RIGHTSTICK: "R3",
    pygame.CONTROLLER_BUTTON_BACK: "Back",
    pygame.CONTROLLER_BUTTON_START: "Start",
}
_CONTROLLER_ARROWS = {
    pygame.CONTROLLER_BUTTON_DPAD_UP: "up",
    pygame.CONTROLLER_BUTTON_DPAD_DOWN: "down",
    pygame.CONTROLLER_BUTTON_DPAD_LEFT: "left",
    pygame.CONTROLLER_BUTTON_DPAD_RIGHT: "right",
}
_TRIGGERS = {pygame.CONTROLLER_AXIS_TRIGGERLEFT: "LT", pygame.CONTROLLER_AXIS_TRIGGERRIGHT: "RT"}
# SDL's order of buttons on a common gamepad.
_JOYSTICK_BUTTONS = dict(enumerate(("A", "B", "X", "Y", "LB", "RB", "Back", "Start")))
_JOYSTICK_BUTTONS |= {9: "L3", 10: "R3"}
_HATS = {(0, 1): "up", (0, -1): "down", (-1, 0): "left", (1, 0): "right"}
_OF_JOYSTICKS = frozenset(
    (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP, pygame.JOYHATMOTION, pygame.JOYAXISMOTION)
)
_PARTS = ("buttons", "stick x", "stick y", "run", "hat")


def pressed_button(event: pygame.Event) -> str | None:
    """Return the name of the button or trigger that an event presses; None of any other."""
    if event.type == pygame.CONTROLLERBUTTONDOWN:
        return _CONTROLLER_BUTTONS.get(event.button)
    if event.type == pygame.JOYBUTTONDOWN:
        return _JOYSTICK_BUTTONS.get(event.button)
    is_pull = event.type == pygame.CONTROLLERAXISMOTION and event.value > _TRIGGER_ZONE * _FULL_AXIS
    return _TRIGGERS.get(event.axis) if is_pull else None


def pressed_arrow(event: pygame.Event) -> str | None:
    """Return "up", "down", "left" or "right", if a pad's cross goes there; None of any other."""
    if event.type == pygame.CONTROLLERBUTTONDOWN:
        return _CONTROLLER_ARROWS.get(event.button)
    return _HATS.get(tuple(event.value)) if event.type == pygame.JOYHATMOTION else None


class Pads:
    """All gamepads."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._joysticks: dict[int, pygame.joystick.JoystickType] = {}
        self._controllers: dict[int, controller.Controller] = {}
        self._rests_at_middle: dict[tuple[int, int], bool] = {}
        self._pulled: set[tuple[int, int]] = set()
        self._pushed: dict[tuple[int, int], int] = {}

    def open(self) -> None:
        """Start listening; pads that are there already answer with an event."""
        pygame.joystick.init()
        controller.init()

    def close(self) -> None:
        """Stop listening and let go of everything; may be called twice."""
        for pad in (*self._joysticks, *self._controllers):
            self._remove(pad)
        controller.quit()
        pygame.joystick.quit()

    def is_told_twice(self, event: pygame.Event) -> bool:
        """Return whether an event is a controller's as a joystick's, which SDL tells, too."""
        return event.type in _OF_JOYSTICKS and event.instance_id in self._controllers

    def push_of(self, event: pygame.Event) -> pygame.Event | None:
        """Return that the left stick was pushed to a side, as a hat's event; None of any other."""
        is_controller = event.type == pygame.CONTROLLERAXISMOTION
        if not (is_controller or event.type == pygame.JOYAXISMOTION) or event.axis not in (0, 1):
            return None
        key = event.instance_id, event.axis
        if not (is_controller or self._rests_at_middle.get(key)):
            return None
        value = event.value / _FULL_AXIS if is_controller else event.value
        before = self._pushed.get(key, 0)
        way = before if PAD_DEAD_ZONE < abs(value) < _PUSH_ZONE else round(value)
        self._pushed[key] = way
        if way in (0, before):
            return None
        moved = (way, 0) if event.axis == 0 else (0, -way)
        return pygame.Event(pygame.JOYHATMOTION, hat=0, value=moved, instance_id=event.instance_id)

    def handle(self, event: pygame.Event) -> tuple[str, bool] | None:
        """Change what is held if the event is a pad's.

        Returns:
            The key that a button stands for, and whether it went down; None of anything else, and
            of keys of the game, which are held or let go here.
        """
        if event.type == pygame.JOYDEVICEADDED:
            if controller.get_init():  # else it is an event from before `close`
                self._add(event.device_index)
        elif event.type == pygame.JOYDEVICEREMOVED:
            self._remove(event.instance_id)
        elif event.type in (pygame.CONTROLLERBUTTONDOWN, pygame.CONTROLLERBUTTONUP):
            is_down = event.type == pygame.CONTROLLERBUTTONDOWN
            if event.button in _CONTROLLER_ARROWS:
                name = _CONTROLLER_ARROWS[event.button]
                self._hold(name, is_down, source=(event.instance_id, "hat"))
            else:
                button = _CONTROLLER_BUTTONS.get(event.button)
                return self._button(event.instance_id, button, is_down=is_down)
        elif event.type == pygame.CONTROLLERAXISMOTION:
            if event.axis in _TRIGGERS:
                return self._trigger(event.instance_id, event.axis, event.value / _FULL_AXIS)
            self._stick(event.instance_id, event.axis, event.value / _FULL_AXIS)
        elif event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP):
            is_down = event.type == pygame.JOYBUTTONDOWN
            button = _JOYSTICK_BUTTONS.get(event.button)
            return self._button(event.instance_id, button, is_down=is_down)
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

    def _remove(self, pad: int) -> None:
        self._joysticks.pop(pad, None)
        self._controllers.pop(pad, None)
        self._rests_at_middle = {k: v for k, v in self._rests_at_middle.items() if k[0] != pad}
        self._pulled = {key for key in self._pulled if key[0] != pad}
        for part in _PARTS:
            self._inputs.release_all(source=(pad, part))

    def _hold(self, name: str, is_down: bool, *, source: tuple[int, str]) -> None:
        act = self._inputs.press if is_down else self._inputs.release
        act(name, source=source)

    def _button(self, pad: int, button: str | None, *, is_down: bool) -> tuple[str, bool] | None:
        name = self._inputs.pad.get(button or "")
        if name is None:
            return None
        if name not in self._inputs.game_keys and name not in self._inputs.aliases:
            return name, is_down
        self._hold(name, is_down, source=(pad, "buttons"))
        return None

    def _trigger(self, pad: int, axis: int, value: float) -> tuple[str, bool] | None:
        is_down = value > _TRIGGER_ZONE
        if is_down == ((pad, axis) in self._pulled):
            return None
        (self._pulled.add if is_down else self._pulled.discard)((pad, axis))
        return self._button(pad, _TRIGGERS[axis], is_down=is_down)

    def _stick(self, pad: int, axis: int, value: float) -> None:
        if axis == 0:
            self._inputs.set_axis(value, ("left", "right"), source=(pad, "stick x"))
            self._hold("left shift", abs(value) > PAD_RUN_ZONE, source=(pad, "run"))
        elif axis == 1:
            # Up on the stick does not jump: thumbs that run would jump by accident.
            self._inputs.set_axis(max(0.0, value), ("up", "down"), source=(pad, "stick y"))
