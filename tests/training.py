"""A tiny data set and config to train on, for the tests of training."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from midas_world.config import ProjectConfig, load_preset
from midas_world.data.episodes import Episode, EpisodeMetadata, save_episode

CPU = torch.device("cpu")
STATE = "train_state.safetensors"
CAMERA, CLOCK, SHOWS_FACE, LOOP = 36, 37, 38, 400
# Px from the picture's middle to where things are listed.
LISTED = 90


def make_episode(seed: int, *, num_steps: int = 30) -> Episode:
    """Return an episode in which a bright square walks before a striped wall.

    The camera travels with a will of its own: 3 px a step, now to the right, now to the left.
    Green discs stand along its way, of classes 0 to 6, told as a teacher tells things. Those of
    the first four classes are gone where the square touches their middles.
    """
    rng = np.random.default_rng(seed)
    count = num_steps + 1
    actions = rng.integers(0, 3, num_steps)
    x = np.clip(40 + np.cumsum(np.concatenate(([0], 3 * (actions - 1)))), 8, 72)
    way = np.where(np.sin(np.arange(num_steps) / 12 + seed) > -0.3, 3, -3)
    # Not on whole px: a share of the loop in float32 is not exact.
    camera = 1590.3 + np.concatenate(([0], np.cumsum(way)))
    spots = 1500.5 + np.cumsum(rng.integers(12, 60, 40))
    kinds = rng.integers(0, 7, len(spots))
    frames = np.zeros((count, 48, 80, 3), np.uint8)
    stripes = rng.integers(60, 200, 3)
    things = np.full((count, 16, 6), -1.0, np.float32)
    is_there = np.ones(len(spots), bool)
    for t, place in enumerate(x):
        frames[t, :, (np.arange(80) + int(camera[t])) % 8 == 0] = stripes
        frames[t, 16:32, place - 6 : place + 6] = (250, 200, 40)
        middles = spots - camera[t] + 40
        if t:
            is_there &= (kinds > 3) | (abs(middles - place) >= 6)
        near = np.flatnonzero(is_there & (abs(middles - 40) < LISTED))[:16]
        for row, thing in enumerate(near):
            left = int(max(0, middles[thing] - 3))
            frames[t, 36:42, left : int(max(0, middles[thing] + 3))] = (20, 220, 30)
            things[t, row] = kinds[thing], middles[thing], 39, 3, 3, spots[thing]
    pose = np.zeros((count, 39), np.float32)
    pose[:, 0] = x / 40 - 1
    pose[:, CAMERA] = camera % LOOP / LOOP
    pose[:, CLOCK] = np.arange(count) % 16 / 16
    pose[:, SHOWS_FACE] = np.arange(count) % 3 == 0
    keypoints = np.tile(np.array([0.0, 24.0], np.float32), (count, 15, 1))
    keypoints[:, :, 0] = x[:, None]
    regions = np.zeros((count, 2, 4), np.float32)
    regions[:, 0] = 6, 4, 5, 3
    ends = np.zeros(num_steps, bool)
    ends[-1] = True
    cost = np.zeros(count, np.float32)
    cost[1:] = actions == 0
    return Episode(
        frames=frames,
        actions=actions,
        rewards=(actions == 2).astype(np.float32),
        terminated=ends,
        truncated=np.zeros(num_steps, bool),
        pose=pose,
        text=("standing", *(("left", "still", "right")[action] for action in actions)),
        audio=rng.random((count, 40), dtype=np.float32),
        extras={"keypoints": keypoints, "things": things, "regions": regions, "cost": cost},
        metadata=EpisodeMetadata(env_id="test", seed=seed, policy="random", fps=20.0),
    )


def save_data(folder: Path) -> Path:
    """Write two training episodes and one held out into a folder; return it."""
    for name, seeds in (("train", (1, 2)), ("validation", (3,))):
        for seed in seeds:
            path = folder / name / f"episode-{seed:08d}"
            save_episode(make_episode(seed), path, codec="raw")
    return folder


@cache
def tiny(*overrides: str) -> ProjectConfig:
    # bfloat16 is slow on CPUs without it; what is tested here does not depend on it.
    base = [f"train_{part}.optimizer.bf16=false" for part in ("autoencoder", "dynamics")]
    return load_preset("tiny", [*base, *overrides])


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether all tensors are equal, bit for bit; what is not a number equals itself."""
    assert first.keys() == second.keys()
    return all(
        torch.equal(first[name].isnan(), second[name].isnan())
        and torch.equal(first[name].nan_to_num(), second[name].nan_to_num())
        for name in first
    )
