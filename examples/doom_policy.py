"""A marine for midas/DoomChase-v0 who runs for the medkits, to collect what a player would see.

`midas-world dream envs:midas/DoomChase-v0 --env-kwargs tics=1 --repeat 1 --policy
examples.doom_policy:make_policy`. Policies that know nothing of the game lie dead on the floor,
which burns, after some seconds.
"""

from typing import Any

import numpy as np

from envs.vizdoom_chase import ACTIONS

_ROWS = slice(118, 232)  # of the 240 x 320 screen: the floor
_MARINE = slice(128, 192)  # columns: his shoulders are as grey as a medkit
_MIDDLE = 160.0
_NEAR = 22.0  # px: this far to a side is straight enough
_LEAST_PIXELS = 12
_WANDERS = 0.02
_WANDER_STEPS = 14.0


class Marine:
    """Runs for the nearest medkit in view, else about; now and then does anything for a moment."""

    def __init__(self) -> None:
        self._place = {name: place for place, name in enumerate(ACTIONS)}

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._rng = rng
        self._left_steps, self._action = 0, self._place["forward"]

    def act(self, observation: Any, info: dict[str, Any]) -> int:
        """Return the place of an action in `ACTIONS`."""
        rng = self._rng
        if self._left_steps:
            self._left_steps -= 1
            return self._action
        if rng.random() < _WANDERS:
            self._hold(int(rng.integers(len(self._place))), rng.geometric(1.0 / _WANDER_STEPS))
            return self._action
        column = _medkit_column(info["observation"])
        if column is None:
            turn = str(rng.choice(["forward_left", "forward_right", "forward"]))
            self._hold(self._place[turn], rng.geometric(1.0 / _WANDER_STEPS))
            return self._action
        off = column - _MIDDLE
        way = "forward" if abs(off) < _NEAR else ("forward_left" if off < 0 else "forward_right")
        return self._place[way]

    def _hold(self, action: int, steps: int) -> None:
        self._action, self._left_steps = action, int(steps)


def make_policy(name: str) -> Marine:  # noqa: ARG001 - it is the only one
    """Return a marine."""
    return Marine()


def _medkit_column(screen: np.ndarray) -> float | None:
    """Return the column of the lowest light grey on the floor: the nearest medkit's."""
    floor = screen[_ROWS].astype(np.int16)
    is_light = (floor.min(axis=-1) > 130) & (np.ptp(floor, axis=-1) < 40)
    is_light[:, _MARINE] = False
    rows, columns = np.nonzero(is_light)
    if len(rows) < _LEAST_PIXELS:
        return None
    return float(columns[rows > rows.max() - 8].mean())
