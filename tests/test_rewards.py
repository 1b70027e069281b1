from dataclasses import replace

import numpy as np
import pytest

from midas_world.config import load_preset
from midas_world.data.episodes import save_episode
from midas_world.teachers.collected import look_at
from tests.training import make_episode


@pytest.mark.parametrize(
    ("rewards", "unit", "limit"),
    [
        ([0.0, 1.0, 0.0, 2.0], 1.0, 2.0),
        ([-0.1] * 20 + [3.2], 0.1, 3.2),  # as CarRacing
        ([0.5, -100.0, 100.0], 0.5, 100.0),  # as LunarLander
        ([0.0, 0.0], 1.0, 20.0),
    ],
)
def test_unit_and_limit_follow_the_data(tmp_path, rewards, unit, limit):
    for seed in (1, 2):
        episode = make_episode(seed)
        filled = np.resize(np.array(rewards, np.float32), episode.rewards.shape)
        episode = replace(episode, rewards=filled)
        save_episode(episode, tmp_path / f"episode-{seed}", codec="raw")
    world = look_at(tmp_path).scale(load_preset("tiny")).world
    assert world.reward_unit == pytest.approx(unit)
    assert world.reward_limit == pytest.approx(limit)
