"""Gathers what an environment gives, step by step, into an Episode.

For the collector and for recorded play alike. Who acts is the caller's business; what an episode
is, and looks like on disk, is that of episodes.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from midas_world.data.episodes import Episode, EpisodeMetadata
from midas_world.types import StepConditions


class EpisodeRecorder:
    """Gathers what an env gives into an Episode.

    Info's "pose", "text" and "audio" become columns if reset's info has them, and so must every
    later info. Observations are copied: an env may reuse its buffer.

    Args:
        extra_keys: Other info keys to keep as columns, such as "keypoints" or "things".
    """

    def __init__(self, *, extra_keys: Sequence[str] = ()) -> None:
        self._extra_keys = tuple(extra_keys)
        self._keys: tuple[str, ...] = ()
        self._seen: list[tuple[np.ndarray, dict[str, Any]]] = []
        self._done: list[tuple[np.ndarray, float, bool, bool]] = []

    @property
    def num_steps(self) -> int:
        """Steps recorded since reset."""
        return len(self._done)

    def reset(self, observation: np.ndarray, info: Mapping[str, Any]) -> None:
        """Forget everything and begin an episode with its first frame."""
        self._seen, self._done = [], []
        self._keys = (*StepConditions.of(info).given(), *self._extra_keys)
        self._see(observation, info)

    def step(
        self,
        action: Any,
        observation: np.ndarray,
        reward: float,
        terminated: bool,
        truncated: bool,
        info: Mapping[str, Any],
    ) -> None:
        """Add what one env step took and gave.

        Raises:
            ValueError: reset was not called, the episode has ended, or info lacks a column.
        """
        if not self._seen:
            raise ValueError("call reset() before step()")
        if self._done and any(self._done[-1][2:]):
            raise ValueError(f"the episode ended at step {self.num_steps}; call reset()")
        self._see(observation, info)
        self._done.append((np.array(action), float(reward), bool(terminated), bool(truncated)))

    def to_episode(self, metadata: EpisodeMetadata) -> Episode:
        """Return what was recorded since reset; may be called before the episode ends."""
        if not self.num_steps:
            raise ValueError("nothing was recorded: call reset() and step() first")
        frames, infos = zip(*self._seen, strict=True)
        actions, rewards, terminated, truncated = zip(*self._done, strict=True)
        keys = [key for key in self._keys if key != "text"]
        columns = {key: np.stack([info[key] for info in infos]) for key in keys}
        known = {
            key: columns.pop(key).astype(np.float32) for key in ("pose", "audio") if key in columns
        }
        return Episode(
            frames=np.stack(frames),
            actions=np.stack(actions),
            rewards=np.array(rewards, np.float32),
            terminated=np.array(terminated),
            truncated=np.array(truncated),
            text=tuple(info["text"] for info in infos) if "text" in self._keys else None,
            extras=columns,
            metadata=metadata,
            **known,
        )

    def _see(self, observation: np.ndarray, info: Mapping[str, Any]) -> None:
        missing = [key for key in self._keys if info.get(key) is None]
        if missing:
            raise ValueError(f"info lacks {', '.join(missing)} at step {len(self._seen)}")
        columns: dict[str, Any] = {
            key: str(info[key]) if key == "text" else np.array(info[key]) for key in self._keys
        }
        self._seen.append((np.array(observation), columns))
