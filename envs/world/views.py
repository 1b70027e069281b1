"""What B games of a world show: observations, whose frames are decoded when somebody looks.

Shapes: B games, N latent tokens per frame, C latent channels, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from envs.world.course import Course
from envs.world.spaces import LATENT_LIMIT
from midas_world.types import StepConditions, stack_vectors


@dataclass(frozen=True, kw_only=True)
class Last:
    """The last moment of a game that ended before its action was held for long enough."""

    conditions: StepConditions
    action: int | None
    latents: np.ndarray
    frame: np.ndarray | None
    step: int


class Views:
    """What games show."""

    def __init__(self, course: Course, space: spaces.Space[Any]) -> None:
        self._course, self._space = course, space
        self.last: dict[int, Last] = {}
        self._frames: np.ndarray | None = None
        self._undecoded = np.ones(len(course.over), bool)

    def changed(self, rows: Sequence[int] | slice = slice(None)) -> None:
        """Say that some games, or all, have other frames now."""
        self._undecoded[rows] = True

    def moment(self, row: int) -> Last:
        """Return a game's present moment."""
        course, has_pixels = self._course, self._space.dtype != np.float32
        return Last(
            conditions=course.conditions[row],
            action=course.actions[row],
            latents=course.rollout.latents[row].numpy(),
            frame=course.rollout.frames([row])[0] if has_pixels else None,
            step=int(course.rollout.num_steps[row]),
        )

    def observe(self, rows: int | slice = slice(None)) -> Any:
        """Return the present observation of one game, or those of all, (B, ...): new arrays."""
        seen = self._seen()
        if isinstance(seen, dict):
            return {name: of_all[rows].copy() for name, of_all in seen.items()}
        return seen[rows].copy()

    def frames(self) -> np.ndarray:
        """Return the present frames, uint8 (B, H, W, 3); not to be changed.

        Decodes those that were not decoded yet.
        """
        rows = np.flatnonzero(self._undecoded)
        if self._frames is None or len(rows) == len(self._undecoded):
            self._frames = self._course.rollout.frames()
        elif len(rows):
            self._frames[rows] = self._course.rollout.frames(rows.tolist())
        self._undecoded[:] = False
        for row, last in self.last.items():
            if last.frame is not None:
                self._frames[row] = last.frame
        return self._frames

    def _seen(self) -> np.ndarray | dict[str, np.ndarray]:
        """Return what all games show, (B, ...); not to be changed."""
        if isinstance(self._space, spaces.Dict):
            parts = self._space.spaces.items()
            vectors = {name: self._vectors(name, box) for name, box in parts if name != "pixels"}
            return {"pixels": self.frames(), **vectors}
        if self._space.dtype == np.uint8:
            return self.frames()
        latents = self._course.rollout.latents.numpy()
        for row, last in self.last.items():
            latents[row] = last.latents
        return latents.clip(-LATENT_LIMIT, LATENT_LIMIT)

    def _vectors(self, name: str, space: spaces.Space[Any]) -> np.ndarray:
        """Return the present pose or audio of all games, cut to its space; zeros if absent."""
        assert isinstance(space, spaces.Box)
        vectors = stack_vectors(self._course.conditions, name, space.shape[0])
        return np.clip(vectors, space.low, space.high)
