"""Gathers what an environment gives, step by step, into an Episode.

For the collector and for recorded play alike. Who acts is the caller's business; what an episode
is, and looks like on disk, is that of episodes.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from midas_world.data.episodes import Episode, EpisodeMetadata


class EpisodeRecorder:
    """Gathers what an env gives into an Episode.

    Info's "pose", "text" and "audio" become columns if reset's info has them, and so must every
    later info. Observations are copied: an env may reuse its buffer.

    Args:
        extra_keys: Other info keys to keep as columns, such as "keypoints" or "hearts".
    """

    def __init__(self, *, extra_keys: Sequence[str] = ()) -> None:
        self._extra_keys = tuple(extra_keys)
        self._frames: list[np.ndarray] = []

    @property
    def num_steps(self) -> int:
        """Steps recorded since reset."""
        return max(0, len(self._frames) - 1)

    def reset(self, observation: np.ndarray, info: Mapping[str, Any]) -> None:
        """Forget everything and begin an episode with its first frame."""
        self._frames = []
        self._actions: list[np.ndarray] = []
        self._rewards: list[float] = []
        self._terminated: list[bool] = []
        self._truncated: list[bool] = []
        present = [key for key in ("pose", "text", "audio") if info.get(key) is not None]
        self._columns: dict[str, list[Any]] = {key: [] for key in (*present, *self._extra_keys)}
        self._append(observation, info)

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
        if not self._frames:
            raise ValueError("call reset() before step()")
        if self.num_steps and (self._terminated[-1] or self._truncated[-1]):
            raise ValueError(f"the episode ended at step {self.num_steps}; call reset()")
        self._append(observation, info)
        self._actions.append(np.array(action))
        self._rewards.append(float(reward))
        self._terminated.append(bool(terminated))
        self._truncated.append(bool(truncated))

    def to_episode(self, metadata: EpisodeMetadata) -> Episode:
        """Return what was recorded since reset; may be called before the episode ends."""
        if not self.num_steps:
            raise ValueError("nothing was recorded: call reset() and step() first")
        columns = dict(self._columns)
        text = columns.pop("text", None)
        known = {
            key: np.stack([np.asarray(value, np.float32) for value in columns.pop(key)])
            for key in ("pose", "audio")
            if key in columns
        }
        return Episode(
            frames=np.stack(self._frames),
            actions=np.stack(self._actions),
            rewards=np.array(self._rewards, np.float32),
            terminated=np.array(self._terminated, bool),
            truncated=np.array(self._truncated, bool),
            text=None if text is None else tuple(text),
            extras={key: np.stack(values) for key, values in columns.items()},
            metadata=metadata,
            **known,
        )

    def _append(self, observation: np.ndarray, info: Mapping[str, Any]) -> None:
        missing = [key for key in self._columns if info.get(key) is None]
        if missing:
            raise ValueError(f"info lacks {', '.join(missing)} at step {len(self._frames)}")
        self._frames.append(np.array(observation))
        for key, values in self._columns.items():
            values.append(str(info[key]) if key == "text" else np.array(info[key]))
