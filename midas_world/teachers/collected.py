"""What was collected for a world: its frames, the balance of actions, and the size of rewards."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from midas_world.config import ProjectConfig
from midas_world.data.episodes import iter_episodes

FEW_FRAMES = 20_000
"""A world of fewer frames knows little."""

# Of the rewards that are not 0, by size: an odd small one is not the unit.
_UNIT_QUANTILE = 0.05


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What the episodes in a folder that can be read hold.

    Attributes:
        shares: Of the steps that each action took, by its name, the world's first action first.
        reward_sizes: Of all rewards that are not 0.
    """

    num_episodes: int
    num_frames: int
    shares: dict[str, float]
    reward_sizes: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def mean_steps(self) -> float:
        """Of an episode."""
        return self.num_frames / max(1, self.num_episodes) - 1

    @property
    def rare_actions(self) -> list[str]:
        """Actions that took less than a tenth of what each would in balance."""
        least = 0.1 / max(1, len(self.shares))
        return [name for name, share in self.shares.items() if share < least]

    def scale(self, config: ProjectConfig) -> ProjectConfig:
        """Return a config whose rewards are of the size that they have here.

        The unit is about the smallest of them, the limit the largest. Without any reward both stay
        as they are.
        """
        if not len(self.reward_sizes):
            return config
        unit = float(np.quantile(self.reward_sizes, _UNIT_QUANTILE, method="lower"))
        limits = {"reward_unit": unit, "reward_limit": float(self.reward_sizes.max())}
        return replace(config, world=replace(config.world, **limits))


def look_at(folder: Path, actions: Sequence[str] = ()) -> Collected:
    """Return what a folder of episodes holds, of a teacher with these actions."""
    counts = np.zeros(len(actions), int)
    sizes = [np.zeros(0)]
    num_episodes = num_frames = 0
    for episode in iter_episodes(folder, frames=False):
        num_episodes += 1
        num_frames += episode.num_steps + 1
        counts += np.bincount(episode.actions.astype(int), minlength=len(actions))[: len(actions)]
        sizes.append(np.abs(episode.rewards[episode.rewards != 0]).astype(np.float64))
    return Collected(
        num_episodes=num_episodes,
        num_frames=num_frames,
        shares=dict(zip(actions, (counts / max(1, counts.sum())).tolist(), strict=True)),
        reward_sizes=np.concatenate(sizes),
    )
