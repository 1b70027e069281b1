"""A driver for CarRacing-v3 that mostly stays on the road, to collect what a player would see.

`midas-world dream CarRacing-v3 --policy examples.racing_policy:make_policy`. Policies that know
nothing of the game soon spin on the grass, and a world that learned from them knows no road. It
looks at frames alone, so it can drive in the dream, too.
"""

from typing import Any

import numpy as np

from midas_world.config import load_config
from midas_world.teachers.env import shipped_keymap
from midas_world.teachers.project import KeyMapFile

_AHEAD = (0.19, 0.52)  # shares of the frame's height: the road ahead of the car
_NEAR = 0.03  # share of its width: this far to a side is straight enough
_WANDERS = (0.02, 0.2)  # in most episodes, and in those of a driver who often leaves the road
_LEAVES = 0.2  # share of the latter: who plays leaves it, too
_LEAVES_AFTER = 150  # steps: worlds begin where a driver was in the first half of an episode
_WANDER_STEPS = 9.0
_GAS_SHARES = (0.12, 0.45)


class Driver:
    """Steers to the middle of the grey ahead; now and then it does anything for a moment."""

    def __init__(self) -> None:
        keymap = shipped_keymap("CarRacing-v3")
        assert keymap is not None
        names = list(load_config(KeyMapFile, keymap).actions)
        self._place = {name: place for place, name in enumerate(names)}

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._rng = rng
        self._gas_share = rng.uniform(*_GAS_SHARES)
        self._leaves, self._step = rng.random() < _LEAVES, 0
        self._wander_steps, self._wander, self._side = 0, 0, 0.0

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return the place of an action in the shipped key map, by a frame (H, W, 3) uint8."""
        rng, self._step = self._rng, self._step + 1
        wanders = _WANDERS[int(self._leaves and self._step > _LEAVES_AFTER)]
        if self._wander_steps == 0 and rng.random() < wanders:
            self._wander_steps = int(rng.geometric(1.0 / _WANDER_STEPS))
            self._wander = int(rng.integers(len(self._place)))
        if self._wander_steps:
            self._wander_steps -= 1
            return self._wander
        columns = _road_columns(observation)
        if len(columns):
            self._side = (float(columns.mean()) + 0.5) / observation.shape[1] - 0.5
        turn = "" if abs(self._side) < _NEAR else ("left" if self._side < 0 else "right")
        push = "gas" if rng.random() < self._gas_share else ""
        return self._place["_".join(word for word in (push, turn) if word) or "coast"]


def make_policy(name: str) -> Driver:  # noqa: ARG001 - it is the only one
    """Return a driver."""
    return Driver()


def _road_columns(frame: np.ndarray) -> np.ndarray:
    """Return the columns of all pixels of road ahead, of a frame (H, W, 3) uint8."""
    top, bottom = (round(share * len(frame)) for share in _AHEAD)
    ahead = frame[top:bottom].astype(np.int16)
    is_grey = (np.ptp(ahead, axis=-1) < 14) & (ahead[..., 0] > 78) & (ahead[..., 0] < 135)
    return np.nonzero(is_grey)[1]
