"""What recorded deeds are called: the actions of a key map, of the source itself, or as found.

A key map is the YAML of docs/own-worlds.md. By it, an action that is told by name is that name's,
one told by a number is the one of that `value` (without values, of that place), a list of numbers
is the one whose `value` is nearest, and held keys are what the keys of the map mean.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from midas_world.config import ActionConfig
from midas_world.importing.recording import Moment, RecordingError
from midas_world.teachers.actions import IDLE_NAMES, MAX_ENTRIES, keys_of_names, plain_name
from midas_world.world import KeyMap

WATCHED = "watch"
"""The one action of a film that nobody steers."""


class Namer:
    """Tells which action a deed is.

    Args:
        actions: By name; the first is what happens while no key is held.

    Attributes:
        unnamed: Keys that were held, and that no action has.
    """

    def __init__(self, actions: Mapping[str, ActionConfig]) -> None:
        self.actions = dict(actions)
        self.names = tuple(actions)
        self._places = {name: place for place, name in enumerate(self.names)}
        values = [action.value for action in actions.values()]
        self._by_number = {
            place if value is None else value: place
            for place, value in enumerate(values)
            if value is None or isinstance(value, int | float | str)
        }
        vectors = [
            np.ravel(value) for value in values if isinstance(value, list | tuple | float | int)
        ]
        same = len(vectors) == len(values) and len({len(vector) for vector in vectors}) == 1
        self._vectors = np.array(vectors, float) if same else None
        self._keymap = KeyMap.of(actions)
        self._keys = frozenset().union(*self._keymap.keys.values())
        self.unnamed: set[str] = set()

    def place_of(self, action: Any) -> int | None:
        """Return an action's place among the names; None if it is not known.

        Raises:
            RecordingError: The action is known, and none of these.
        """
        if action is None:
            return None
        if isinstance(action, frozenset):
            self.unnamed |= action - self._keys
            return self._keymap.action_of(action)
        if isinstance(action, str) and action in self._places:
            return self._places[action]
        if isinstance(action, int | float | str) and action in self._by_number:
            return self._by_number[action]
        if isinstance(action, list | tuple | float) and self._vectors is not None:
            given = np.array(action, float).ravel()
            if given.shape == self._vectors.shape[1:]:
                return int(np.square(self._vectors - given).sum(axis=1).argmin())
        nearest = difflib.get_close_matches(str(action), self.names, n=1, cutoff=0.0)
        raise RecordingError(
            f"the action {action!r:.60} is none of {', '.join(self.names)}; nearest is "
            f"{nearest[0]!r}. Name it in a key map: --keymap FILE"
        )


def found_actions(moments: Iterable[Moment]) -> dict[str, ActionConfig]:
    """Return names and keys for whatever actions a recording tells of.

    The first is idle by its name or without keys, else the most frequent one.

    Raises:
        RecordingError: There are none, too many, or lists of numbers.
    """
    counts: Counter[Any] = Counter()
    for moment in moments:
        for deed in moment.deeds:
            if isinstance(deed.action, list | float):
                raise RecordingError(
                    f"actions are numbers such as {deed.action!r:.60}: name those that matter in a "
                    "key map (--keymap FILE); the nearest one counts"
                )
            if deed.action is not None:
                counts[deed.action] += 1
        if len(counts) > MAX_ENTRIES:
            raise RecordingError(
                f"there are more than {MAX_ENTRIES} different actions: name those that matter in "
                "a key map (--keymap FILE)"
            )
    if not counts:
        raise RecordingError("it tells of no action")
    found = {_name(action): action for action in sorted(counts, key=_order)}
    idle = [name for name in found if name in IDLE_NAMES]
    first = idle[0] if idle else _name(counts.most_common(1)[0][0])
    names = [first, *(name for name in found if name != first)]
    keys = keys_of_names(names[1:])
    keys |= {n: tuple(sorted(a)) for n, a in found.items() if isinstance(a, frozenset)}
    return {
        name: ActionConfig(
            value=None if isinstance(found[name], frozenset) else found[name],
            keys=keys.get(name, ()),
        )
        for name in names
    }


def _name(action: Any) -> str:
    if isinstance(action, frozenset):
        return plain_name("_".join(sorted(action))) or "idle"
    return plain_name(str(action)) if isinstance(action, str) else f"action_{action}"


def _order(action: Any) -> tuple[int, Any]:
    """Return what sorts numbers by size before names by letters."""
    if isinstance(action, int):
        return 0, action
    return 1, _name(action)
