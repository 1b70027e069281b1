"""Named actions for any action space: what a world is played by, and what its env is given.

A world's action is one of a short list with names and keys. Discrete spaces have that list already;
MultiBinary, MultiDiscrete and Box ones get one of combinations:

- each entry has a rest (0, or the nearest allowed number) and its other values: on for a switch;
  every other number for a choice; the lowest and the highest for an axis (-1 and 1 where it has no
  bounds);
- all combinations, if they are at most `MAX_COMBINATIONS`; else each value by itself, and with the
  others of each neighbouring pair of entries as far as that goes.

The first action is what happens while no key is held: the rest, or the one called NOOP.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, product
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from midas_world.config import ActionConfig

MAX_COMBINATIONS = 32
MAX_ENTRIES = 64

IDLE_NAMES = ("noop", "no_op", "idle", "none", "nothing", "stay", "do_nothing", "coast")
# What words in an action's name are called by; a name of other words gets a key of its own.
_WORD_KEYS = {
    "up": "up",
    "down": "down",
    "left": "left",
    "right": "right",
    "forward": "up",
    "backward": "down",
    "back": "down",
    "turn": "",
    "move": "",
    "walk": "",
    "go": "",
    "fire": "space",
    "shoot": "space",
    "attack": "space",
    "jump": "space",
    "gas": "up",
    "brake": "down",
    "run": "left shift",
    "use": "e",
    "do": "space",
}
# What entries of a space are called by: its low and its high side. A switch takes the high one.
_ENTRY_KEYS = (("left", "right"), ("down", "up"), ("j", "l"), ("k", "i"))
_SWITCH_KEYS = ("left", "right", "up", "down", "space", "left shift", "e", "q")
# Neither digits nor the letters that the window itself listens to.
_SPARE_KEYS = tuple("zxcvfghyuomqkjil")


@dataclass(frozen=True, kw_only=True)
class NamedAction:
    """One action of a world.

    Attributes:
        keys: The keys that must all be held.
    """

    name: str
    value: Any
    keys: tuple[str, ...] = ()

    def to_config(self) -> ActionConfig:
        """Return it as a config holds it."""
        return ActionConfig(value=np.asarray(self.value).tolist(), keys=self.keys)


def name_actions(env: gymnasium.Env[Any, Any]) -> tuple[NamedAction, ...]:
    """Return actions for an env, from its space, its names or its `get_action_meanings()`.

    Raises:
        ValueError: The space is of another kind, or too large to be named.
    """
    space = env.action_space
    if isinstance(space, spaces.Discrete):
        return _discrete_actions(space, env)
    entries = _entries(space)
    if entries is None:
        raise ValueError(
            "a teacher's action space must be Discrete, MultiBinary, MultiDiscrete or Box, got "
            f"{space}; a wrapper of your own can make it one"
        )
    if len(entries) > MAX_ENTRIES:
        raise ValueError(
            f"an action space of {len(entries)} entries is more than keys can steer (at most "
            f"{MAX_ENTRIES}); name the actions that matter in a key map"
        )
    return tuple(_combined(entries, _entry_names(env, len(entries)), space))


def configured_actions(
    actions: Mapping[str, ActionConfig], space: gymnasium.Space[Any]
) -> tuple[NamedAction, ...]:
    """Return the actions that a config or a user's key map names, checked against the space.

    Raises:
        ValueError: An action is not in the space; the message names it.
    """
    found = []
    for place, (name, action) in enumerate(actions.items()):
        value = place if action.value is None else action.value
        try:
            if isinstance(space, spaces.Discrete):
                member: Any = space.dtype.type(value)
            else:
                member = np.asarray(value, space.dtype).reshape(space.shape or ())
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"key map: {name} is {value!r}, not a member of {space}") from error
        if not space.contains(member):
            raise ValueError(f"key map: {name} is {value!r}, not a member of {space}")
        found.append(NamedAction(name=name, value=member, keys=tuple(action.keys)))
    return tuple(found)


def keys_of(actions: Sequence[NamedAction]) -> dict[str, list[str]]:
    """Return the keys of each action that has some, those of more keys first, as a key map wants.

    The first entry whose keys are held wins: "up" and "left" together must come before "up".
    """
    ordered = sorted(actions, key=lambda action: -len(action.keys))
    return {action.name: list(action.keys) for action in ordered if action.keys}


def _discrete_actions(
    space: spaces.Discrete, env: gymnasium.Env[Any, Any]
) -> tuple[NamedAction, ...]:
    count = int(space.n)
    if count > MAX_ENTRIES:
        raise ValueError(
            f"an action space of {count} actions is more than keys can steer (at most "
            f"{MAX_ENTRIES}); name the actions that matter in a key map"
        )
    names = _meanings(env, count) or [f"action_{index}" for index in range(count)]
    given = getattr(env.unwrapped, "action_keys", None)
    keys = (
        {name: tuple(held) for name, held in given.items()}
        if isinstance(given, Mapping)
        else keys_of_names(names)
    )
    actions = [
        NamedAction(name=name, value=int(space.start) + index, keys=keys.get(name, ()))
        for index, name in enumerate(names)
    ]
    idle = next((place for place, name in enumerate(names) if name in IDLE_NAMES), 0)
    return (actions[idle], *actions[:idle], *actions[idle + 1 :])


def _meanings(env: gymnasium.Env[Any, Any], count: int) -> list[str] | None:
    """Return the env's own names of its actions; None if it has none, or not one for each."""
    inner = env.unwrapped
    meanings = getattr(inner, "get_action_meanings", None)
    given: Any = meanings() if callable(meanings) else getattr(inner, "action_names", None)
    if isinstance(given, Mapping):
        given = [given.get(index) for index in range(count)]
    if given is None or len(given) != count or not all(isinstance(name, str) for name in given):
        return None
    names = [plain_name(name) for name in given]
    return names if len(set(names)) == count and all(names) else None


def plain_name(text: str) -> str:
    """Return a name in the project's way: "UPRIGHTFIRE" -> "up_right_fire"."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower()
    if re.fullmatch("(up|down|left|right|fire)+", text):  # the arcade machines' names
        text = "_".join(re.findall("up|down|left|right|fire", text))
    return re.sub(r"\W+", "_", text).strip("_")


def keys_of_names(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return keys for names: what their words say, else spare ones; none for idle actions."""
    spare = iter(_SPARE_KEYS)
    found: dict[str, tuple[str, ...]] = {}
    for name in names:
        words = name.split("_")
        keys = tuple(key for word in words if (key := _WORD_KEYS.get(word, "")))
        is_known = all(word in _WORD_KEYS for word in words) and len(set(keys)) == len(keys)
        if name in IDLE_NAMES:
            continue
        if not keys or not is_known or keys in found.values():
            keys = tuple(islice(spare, 1))
        found[name] = keys
    return found


@dataclass(frozen=True)
class _Entry:
    """One entry of a space: its rest, its other values, and what each is called and called by."""

    rest: float
    values: tuple[float, ...]
    suffixes: tuple[str, ...]
    keys: tuple[str, ...]


def _entries(space: gymnasium.Space[Any]) -> list[_Entry] | None:
    """Return the entries of a space, those of more dimensions in C order; None for other kinds."""
    if isinstance(space, spaces.MultiBinary):
        count = int(np.prod(space.shape, dtype=int))
        return [_Entry(0, (1,), ("",), (_switch_key(place),)) for place in range(count)]
    if isinstance(space, spaces.MultiDiscrete):
        starts = np.broadcast_to(getattr(space, "start", 0), space.nvec.shape)
        return [
            _choice(place, int(start), int(count))
            for place, (start, count) in enumerate(zip(starts.flat, space.nvec.flat, strict=True))
        ]
    if isinstance(space, spaces.Box):
        return [
            _axis(place, float(low), float(high))
            for place, (low, high) in enumerate(zip(space.low.flat, space.high.flat, strict=True))
        ]
    return None


def _switch_key(place: int) -> str:
    keys = (*_SWITCH_KEYS, *_SPARE_KEYS)
    return keys[place] if place < len(keys) else ""


def _choice(place: int, start: int, count: int) -> _Entry:
    values = tuple(range(start + 1, start + count))
    if count == 2:
        return _Entry(start, values, ("",), (_switch_key(place),))
    sides = _ENTRY_KEYS[place] if place < len(_ENTRY_KEYS) else ()
    keys = tuple(sides[i] if i < len(sides) else "" for i in range(len(values)))
    return _Entry(start, values, tuple(f"_{value}" for value in values), keys)


def _axis(place: int, low: float, high: float) -> _Entry:
    # A space without bounds says the largest number there is, or infinity.
    limit = 1e6
    low = low if -limit < low < limit else -1.0
    high = high if -limit < high < limit else 1.0
    rest = min(max(0.0, low), high)
    sides = _ENTRY_KEYS[place] if place < len(_ENTRY_KEYS) else ("", "")
    found = [
        (value, suffix, key)
        for value, suffix, key in zip((low, high), ("_low", "_high"), sides, strict=True)
        if value != rest
    ]
    if len(found) == 1:
        found = [(found[0][0], "", sides[1])]
    values, suffixes, keys = zip(*found, strict=True) if found else ((), (), ())
    return _Entry(rest, values, suffixes, keys)


def _entry_names(env: gymnasium.Env[Any, Any], count: int) -> list[str]:
    kinds = {spaces.MultiBinary: "button", spaces.MultiDiscrete: "choice", spaces.Box: "axis"}
    stem = next(word for kind, word in kinds.items() if isinstance(env.action_space, kind))
    return _meanings(env, count) or [f"{stem}_{place}" for place in range(count)]


def _combined(
    entries: Sequence[_Entry], names: Sequence[str], space: gymnasium.Space[Any]
) -> Iterator[NamedAction]:
    """Yield the rest, then single values, then combinations of more and more entries."""
    total = int(np.prod([1 + len(entry.values) for entry in entries], dtype=float))
    sizes = range(len(entries) + 1) if total <= MAX_COMBINATIONS else (0, 1, 2)
    spare = iter(_SPARE_KEYS)
    given = 0
    for size in sizes:
        for places in combinations(range(len(entries)), size):
            if size == 2 and total > MAX_COMBINATIONS:
                extra = int(np.prod([len(entries[place].values) for place in places]))
                if places[1] != places[0] + 1 or given + extra > MAX_COMBINATIONS:
                    continue
            for choice in product(*(range(len(entries[place].values)) for place in places)):
                value = np.array([entry.rest for entry in entries], space.dtype)
                value = value.reshape(space.shape or ())
                words, keys = [], []
                for place, index in zip(places, choice, strict=True):
                    entry = entries[place]
                    value.flat[place] = entry.values[index]
                    words.append(names[place] + entry.suffixes[index])
                    keys.append(entry.keys[index])
                if size and not all(keys):
                    # One that has no key by its place gets a spare one; combinations go without.
                    keys = list(islice(spare, 1)) if size == 1 else []
                given += 1
                yield NamedAction(name="_".join(words) or "idle", value=value, keys=tuple(keys))
