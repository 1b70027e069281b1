"""What the player holds down: keys and gamepads become the action of the next step.

The window's thread reports presses and releases; the stepping thread takes what is held as late as
it can. A tap between two steps counts for one step, so none is lost. Draws nothing.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pygame

# Keys that are as good as each other: where a key map uses one of a group, the others count as it.
ALTERNATIVES: tuple[tuple[str, ...], ...] = (
    ("left", "a"),
    ("right", "d"),
    ("down", "s"),
    ("space", "up", "w"),
    ("left shift", "right shift"),
    ("h", "[1]"),
    ("j", "[2]"),
    ("k", "[3]"),
)

# Buttons of a gamepad and the keys that they stand for: those of the game, and of commands.
PAD_BUTTONS: dict[str, str] = {
    "A": "space",
    "B": "k",
    "X": "j",
    "Y": "h",
    "LB": "left shift",
    "RB": "e",
    "LT": "backspace",
    "RT": "t",
    "L3": "b",
    "R3": "0",
    "Back": "p",
    "Start": "escape",
}
_STICK_KEYS = ("left", "right", "down")
PAD_DEAD_ZONE = 0.35
PAD_RUN_ZONE = 0.9

_OPPOSITES = {"left": "right", "right": "left", "up": "down", "down": "up"}


@dataclass(frozen=True, kw_only=True)
class Held:
    """What is held at the moment of a step.

    Attributes:
        pressed_at: When the oldest press that no step has used yet happened, in seconds of
            `time.perf_counter`; None if nothing is new.
    """

    keys: frozenset[str]
    pressed_at: float | None


def aliases_of(keys: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return which other keys count as which keys of a key map (action name to held keys)."""
    used = {name for held in keys.values() for name in held}
    aliases: dict[str, str] = {}
    for group in ALTERNATIVES:
        own = [name for name in group if name in used]
        if len(own) == 1:
            aliases |= {name: own[0] for name in group if name not in used}
    return aliases


def buttons_of(pad: Mapping[str, str], aliases: Mapping[str, str]) -> dict[str, str]:
    """Return the button, or "stick", of each key that a gamepad has."""
    of_keys = dict.fromkeys(_STICK_KEYS, "stick") | {name: button for button, name in pad.items()}
    return {aliases.get(name, name): button for name, button in of_keys.items()}


def unknown_keys(keys: Mapping[str, Sequence[str]]) -> str:
    """Return in words which keys of a key map no keyboard has; empty if all exist.

    pygame's display must be open.
    """
    unknown = []
    for name in dict.fromkeys(name for held in keys.values() for name in held):
        try:
            pygame.key.key_code(name)
        except ValueError:
            unknown.append(name)
    return f"no keyboard has the keys {', '.join(unknown)}" if unknown else ""


class Inputs:
    """Held keys, from any number of devices.

    Attributes:
        aliases: Other keys that count as keys of the key map.
        game_keys: Keys of the key map.
        bindings: Keys that stand for others because the player wants it so.
        pad: Buttons of gamepads, and the keys that they stand for.
    """

    def __init__(self, keys: Mapping[str, Sequence[str]] | None = None) -> None:
        self.aliases: dict[str, str] = {}
        self.bindings: dict[str, str] = {}
        self.pad: dict[str, str] = dict(PAD_BUTTONS)
        self.game_keys: frozenset[str] = frozenset()
        self.use_keys(keys or {})
        self._lock = threading.Lock()
        self._held: dict[tuple[object, str], None] = {}  # in the order of the presses
        self._taps: dict[str, None] = {}
        self._pressed_at: float | None = None

    def use_keys(self, keys: Mapping[str, Sequence[str]]) -> None:
        """Change which keys are known: those of a key map, and their alternatives."""
        self.aliases = aliases_of(keys)
        self.game_keys = frozenset(name for held in keys.values() for name in held)

    def bind(self, places: Mapping[str, str], buttons: Mapping[str, str]) -> None:
        """Give keys places and buttons of the player's own: key to place, key to button."""
        self.release_all()
        self.bindings = {place: name for name, place in places.items()}
        moved = {button: name for name, button in buttons.items()}
        kept = {button: name for button, name in PAD_BUTTONS.items() if name not in buttons}
        self.pad = kept | moved

    def command_of(self, place: str, meaning: str) -> str:
        """Return the command that a key stands for, by its place or by what it says.

        Empty for a key of the game.
        """
        bound = self.bindings.get(place)
        if bound is not None:
            return "" if bound in self.game_keys else bound
        return "" if place in self.game_keys else meaning

    def press(self, name: str, *, source: object = "keyboard") -> None:
        """Change what is held: a key went down on a device."""
        name = self._meant(name, source)
        with self._lock:
            if (source, name) in self._held:
                return
            self._held[source, name] = None
            self._taps[name] = None
            if self._pressed_at is None:
                self._pressed_at = time.perf_counter()

    def release(self, name: str, *, source: object = "keyboard") -> None:
        """Change what is held: a key came up on a device."""
        name = self._meant(name, source)
        with self._lock:
            self._held.pop((source, name), None)

    def release_all(self, *, source: object | None = None) -> None:
        """Change what is held: nothing of a device, or of any, is held any more."""
        with self._lock:
            kept = {} if source is None else {k: None for k in self._held if k[0] != source}
            self._held = kept
            if source is None:
                self._taps.clear()

    def set_axis(self, value: float, names: tuple[str, str], *, source: object) -> None:
        """Change what is held by a stick: below, above or inside its dead zone."""
        for name, amount in zip(names, (-value, value), strict=True):
            if amount > PAD_DEAD_ZONE:
                self.press(name, source=source)
            else:
                self.release(name, source=source)

    @property
    def is_held(self) -> bool:
        """Whether anything is held."""
        return bool(self._held)

    def take(self) -> Held:
        """Return what is held or was tapped since the last call, and forget the taps.

        Of two opposite directions the one pressed last counts.
        """
        with self._lock:
            order = list(dict.fromkeys([name for _, name in self._held] + list(self._taps)))
            pressed_at, self._pressed_at = self._pressed_at, None
            self._taps.clear()
        keys = set(order)
        for name in order:
            other = _OPPOSITES.get(name)
            if other in keys and order.index(other) > order.index(name):
                keys.discard(name)
        return Held(keys=frozenset(keys), pressed_at=pressed_at)

    def _meant(self, name: str, source: object) -> str:
        """Return the key of the key map that a key stands for; a pad's buttons are not rebound."""
        if source == "keyboard" and name in self.bindings:
            return self.bindings[name]
        return self.aliases.get(name, name)
