"""Every backend on presets of real size: held to plain float32 torch over a game."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.bench.quality import conditions_of
from engine.on_torch.engine import TorchEngine
from engine.rollout import Rollout
from engine.spec import Engine
from midas_world.config import load_preset
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.world_model import WorldModel
from midas_world.types import StepConditions
from midas_world.world import KeyMap, StartState, World, load_world
from tests.engines import make_backend, psnr
from tests.fakes import damp, randomize

STEPS = 50
IS_LARGE = bool(os.environ.get("MIDAS_TEST_LARGE"))
# The least PSNR of frames against float32 torch: of the last of 50 steps of a game that each plays
# by itself, and of a start state's latents decoded by each.
LEAST_PSNR = {"torch-bfloat16": (30.0, 40.0), "onnx": (60.0, 40.0), "onnx-narrow": (60.0, 40.0)}
# Of expected rewards, likewise.
MOST_REWARD_ERROR = {"torch-bfloat16": 0.1, "onnx": 1e-3, "onnx-narrow": 1e-3}


def random_world(preset: str) -> World:
    """Return a world of random weights with a start state that fills the context."""
    config, rng = load_preset(preset), np.random.default_rng(0)
    sizes, frames = config.world.conditions, config.world.backbone.context_frames
    model, autoencoder = WorldModel(config.world).eval(), Autoencoder(config.world.autoencoder)
    randomize(autoencoder.eval(), 1)
    randomize(model, 2)
    damp(model)
    step = StepConditions(
        pose=rng.uniform(-1, 1, sizes.pose_size).astype(np.float32) if sizes.pose_size else None,
        text="a figure runs along a beach at noon",
        audio=rng.uniform(0, 1, sizes.audio_size).astype(np.float32) if sizes.audio_size else None,
    )
    shape = frames, config.world.tokens_per_frame, config.world.token_channels
    latents = torch.from_numpy(rng.standard_normal(shape, np.float32))
    return World(
        folder=Path(f"random-{preset}"),
        config=config,
        autoencoder=autoencoder,
        model=model,
        start_states=(StartState(latents=latents, conditions=(step,) * frames),),
        keymap=KeyMap(actions=("none",), keys={}),
    )


@pytest.fixture(scope="module", params=["stage", "carracing", "stage-hd"])
def world(request: pytest.FixtureRequest) -> World:
    """Return a shipped world, or a preset with random weights where none was trained."""
    if request.param in ("stage", "carracing"):
        return load_world(request.param)
    if request.param == "stage-hd" and not IS_LARGE:
        pytest.skip("minutes of work: set MIDAS_TEST_LARGE=1")
    return random_world(request.param)


@pytest.fixture(scope="module")
def plain(world: World) -> TorchEngine:
    return TorchEngine(world, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def game(plain: TorchEngine, world: World) -> tuple[Tensor, Tensor]:
    return play_on(plain, world, STEPS)


def play_on(engine: Engine, world: World, count: int) -> tuple[Tensor, Tensor]:
    """Return latents (count, 1, N, C) and rewards (count, 1) of a game by true conditions."""
    rollout, start = Rollout(engine, 1), world.start_states[0]
    rollout.reset([start], seeds=[0])
    latents, rewards = [], []
    for step in conditions_of(start, count):
        rewards.append(torch.from_numpy(rollout.step([step]).reward))
        latents.append(rollout.latents)
    return torch.stack(latents), torch.stack(rewards)


@pytest.mark.parametrize("name", sorted(LEAST_PSNR))
def test_a_game_is_close_to_float32_torch(name, world, plain, game, kept_graphs):
    # Of what takes long, the shipped world alone is tested: people play it.
    if name.startswith("onnx") and world.folder.name != "stage" and not IS_LARGE:
        pytest.skip("minutes of exporting: set MIDAS_TEST_LARGE=1")
    engine = make_backend(name, world, kept_graphs)
    latents, rewards = play_on(engine, world, STEPS)
    again, _ = play_on(engine, world, 2)
    assert torch.equal(again, latents[:2])
    expected, expected_rewards = game
    # Latents of random weights grow; no decoder, least of all an int8 one, is made for that.
    scale = max(1.0, float(expected[-1].std()))
    made, right = plain.decode(latents[-1] / scale), plain.decode(expected[-1] / scale)
    least_game, least_decoder = LEAST_PSNR[name]
    assert psnr(made, right) >= least_game
    real = world.start_states[0].latents.float()
    assert psnr(engine.decode(real), plain.decode(real)) >= least_decoder
    distance = (rewards - expected_rewards).abs().max() / expected_rewards.abs().max().clamp(min=1)
    assert distance <= MOST_REWARD_ERROR[name]
    # Frames of a rollout that stands still would be close, too.
    assert expected.diff(dim=0).std() > 0.01
