"""The reward scale of a world, from the episodes that it learns from."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from midas_world.config import ProjectConfig
from midas_world.data.episodes import iter_episodes

# Of the rewards that are not 0, by size: an odd small one is not the unit.
_UNIT_QUANTILE = 0.05


def with_reward_scale(config: ProjectConfig, folder: Path) -> ProjectConfig:
    """Return a config whose rewards are of the size that a folder's episodes have.

    The unit is about the smallest of them, the limit the largest. Without any reward both stay as
    they are.
    """
    rewards = [np.abs(episode.rewards) for episode in iter_episodes(folder, frames=False)]
    sizes = np.concatenate([*rewards, np.zeros(0, np.float32)]).astype(np.float64)
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return config
    unit = float(np.quantile(sizes, _UNIT_QUANTILE, method="lower"))
    scale = {"reward_unit": unit, "reward_limit": float(sizes.max())}
    return replace(config, world=replace(config.world, **scale))
