"""What was collected for a world: its frames, and the balance of actions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from midas_world.data.episodes import iter_episodes

FEW_FRAMES = 20_000
"""A world of fewer frames knows little."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What the episodes in a folder hold.

    Attributes:
        shares: Of the steps that each action took, by its name, the world's first action first.
    """

    num_episodes: int
    num_frames: int
    shares: dict[str, float]

    @property
    def mean_steps(self) -> float:
        """Of an episode."""
        return self.num_frames / max(1, self.num_episodes) - 1

    @property
    def rare_actions(self) -> list[str]:
        """Actions that took less than a tenth of what each would in balance."""
        least = 0.1 / max(1, len(self.shares))
        return [name for name, share in self.shares.items() if share < least]


def look_at(folder: Path, actions: Sequence[str]) -> Collected:
    """Return what a folder of episodes holds, of a teacher with these actions."""
    counts = np.zeros(len(actions), int)
    num_episodes = num_frames = 0
    for episode in iter_episodes(folder, frames=False):
        num_episodes += 1
        num_frames += episode.num_steps + 1
        counts += np.bincount(episode.actions.astype(int), minlength=len(actions))[: len(actions)]
    return Collected(
        num_episodes=num_episodes,
        num_frames=num_frames,
        shares=dict(zip(actions, (counts / max(1, counts.sum())).tolist(), strict=True)),
    )
