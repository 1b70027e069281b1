"""A policy of one's own for `midas-world dream` and `collect --env`: keeps a car on its road.

    midas-world dream CarRacing-v3 --policy examples.road_policy:make_policy

The policies for any env soon leave the road, and a world learns what it is shown. This one reads
the env's own 96x96 picture, steers towards the grey of the road ahead, and now and then does
something else for a while, so that the world also learns what happens then.
"""

from typing import Any

import numpy as np

# The shipped key map's actions, in its order.
COAST, LEFT, RIGHT, GAS, BRAKE, GAS_LEFT, GAS_RIGHT = range(7)
_AHEAD = slice(48, 58)  # rows in front of the car, which is at about row 70, column 48
_LARGEST_GREY = 30  # colours of the road differ by less, those of grass by more


class RoadPolicy:
    """Follows the road, with lapses."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._rng = rng
        self._step = 0
        self._lapse, self._num_left = COAST, 0
        self._lapse_chance = float(rng.choice([0.0, 0.02, 0.06]))

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return the next action; `info["observation"]` is what the env itself gave."""
        self._step += 1
        if self._num_left == 0 and self._rng.random() < self._lapse_chance:
            self._lapse, self._num_left = int(self._rng.integers(7)), int(self._rng.integers(3, 15))
        if self._num_left:
            self._num_left -= 1
            return self._lapse
        picture = info["observation"][_AHEAD].astype(int)
        is_road = np.ptp(picture, axis=-1) < _LARGEST_GREY
        if not is_road.any():
            return LEFT if self._step % 40 < 20 else GAS
        offset = float(np.nonzero(is_road)[1].mean()) - 48.0
        if abs(offset) < 4:
            return GAS if self._step % 4 < 2 else COAST
        if abs(offset) < 12:
            return GAS_LEFT if offset < 0 else GAS_RIGHT
        return LEFT if offset < 0 else RIGHT


def make_policy(name: str) -> RoadPolicy:  # noqa: ARG001 - there is only one
    """Return the policy, whatever it is called."""
    return RoadPolicy()
