"""A tiny data set and config to train on, for the tests of training."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from midas_world.config import ProjectConfig, load_preset
from midas_world.episodes import Episode, EpisodeMetadata

CPU = torch.device("cpu")
STATE = "train_state.safetensors"
# A refiner for the tiny preset.
REFINED = (
    "world.refiner={widths: [8, 8], depths: [1, 1], window: [24, 24], lift: 0, reach: 6.0, fade: 2,"
    " context_width: 8}",
    "world.conditions.limbs=[[0, 0], [0, 1]]",
)


def make_episode(seed: int, *, num_steps: int = 30) -> Episode:
    """Return an episode in which a bright square walks with the action before a striped wall."""
    rng = np.random.default_rng(seed)
    count = num_steps + 1
    actions = rng.integers(0, 3, num_steps)
    x = np.clip(40 + np.cumsum(np.concatenate(([0], 3 * (actions - 1)))), 8, 72)
    frames = np.zeros((count, 48, 80, 3), np.uint8)
    frames[:, :, ::8] = rng.integers(60, 200, 3)
    for frame, place in zip(frames, x, strict=True):
        frame[16:32, place - 6 : place + 6] = (250, 200, 40)
    pose = np.zeros((count, 48), np.float32)
    pose[:, 0] = x / 40 - 1
    keypoints = np.tile(np.array([0.0, 24.0], np.float32), (count, 15, 1))
    keypoints[:, :, 0] = x[:, None]
    ends = np.zeros(num_steps, bool)
    ends[-1] = True
    return Episode(
        frames=frames,
        actions=actions,
        rewards=(actions == 2).astype(np.float32),
        terminated=ends,
        truncated=np.zeros(num_steps, bool),
        pose=pose,
        text=("standing", *(("left", "still", "right")[action] for action in actions)),
        audio=rng.random((count, 40), dtype=np.float32),
        extras={"keypoints": keypoints},
        metadata=EpisodeMetadata(env_id="test", seed=seed, policy="random", fps=20.0),
    )


@cache
def tiny(*overrides: str) -> ProjectConfig:
    # bfloat16 is slow on CPUs without it; what is tested here does not depend on it.
    base = [
        f"train_{part}.optimizer.bf16=false" for part in ("autoencoder", "renderer", "dynamics")
    ]
    return load_preset("tiny", [*base, *overrides])


def tiny_that_moves(*overrides: str) -> ProjectConfig:
    """Return a tiny config with a linear autoencoder, whose latents move with the camera."""
    coder = {"widths": "[]", "encoder_depths": "[]", "decoder_depths": "[]", "patch_size": 16}
    coder |= {"latent_channels": 6, "transform_rows": 3}
    moves = {"wavelength": 50.0, "parallax": "[1.0,0.5]", "step": 3, "reach": 2, "channels": 5}
    return tiny(
        *(f"world.autoencoder.{name}={value}" for name, value in coder.items()),
        *(f"world.transport.{name}={value}" for name, value in moves.items()),
        *overrides,
    )


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)
