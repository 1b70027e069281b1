"""Games do not depend on what the caller has set in torch, nor on other threads' games."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import numpy as np
import pytest
import torch

import envs  # noqa: F401 - registers the ids
from engine.on_onnx.engine import OnnxEngine
from engine.on_torch.engine import TorchEngine
from engine.spec import Engine
from envs.world.env import WorldEnv
from midas_world.world import World

RUN = 4
ACTIONS = (RUN, RUN, 5, 14, 0, RUN)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


BLOCKS = {
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "dtype": lambda: default_dtype(torch.float64),
    "device": lambda: torch.device("meta"),
}


def make(world: World, kind: str, kept_graphs) -> Engine:
    if kind == "onnx":
        return OnnxEngine(world, folder=kept_graphs)
    return TorchEngine(world, device="cpu", dtype=torch.float32)


def play(env: WorldEnv, seed: int, block=contextlib.nullcontext) -> np.ndarray:
    frames = [env.reset(seed=seed)[0]]
    for action in ACTIONS:
        with block():
            frames.append(env.step(action)[0])
    frames.append(env.reset()[0])
    with block():
        frames.append(env.step(RUN)[0])
        frames.append(env.reset()[0])
        futures = env.fork(2)
        state = env.save_state()
    frames.append(env.step(RUN)[0])
    frames += list(futures.step(np.array([RUN, 0]))[0])
    with block():
        frames += list(futures.step(np.array([0, RUN]))[0])
    env.restore_state(state)
    np.testing.assert_array_equal(env.step(RUN)[0], frames[-5])
    with block():
        env.restore_state(state)
    np.testing.assert_array_equal(env.step(RUN)[0], frames[-5])
    return np.stack(frames)


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_steps_inside_and_outside_of_a_block_are_one_game(tiny_world, kept_graphs, kind, block):
    engine = make(tiny_world, kind, kept_graphs)
    expected = play(WorldEnv(tiny_world, engine=engine), 3)
    np.testing.assert_array_equal(play(WorldEnv(tiny_world, engine=engine), 3, block), expected)


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
def test_a_game_made_inside_a_block_is_the_game_made_outside(tiny_folder, block):
    make = {"world": str(tiny_folder), "backend": "torch:float32"}
    expected = play(gym.make("midas/Stage-v0", **make).unwrapped, 3)
    with block():
        env = gym.make("midas/Stage-v0", **make).unwrapped
        given = env.reset(options={"start_state": {"frames": np.full((1, 48, 80, 3), 9, np.uint8)}})
    env.reset()
    env.step(RUN)
    assert given[0].shape == (48, 80, 3)
    np.testing.assert_array_equal(play(env, 3), expected)


def test_making_and_playing_leave_torch_as_it_was(tiny_folder):
    before = torch.random.get_rng_state()
    with default_dtype(torch.float64):
        env = gym.make("midas/Stage-v0", world=str(tiny_folder), backend="torch")
        env.reset(seed=0)
        env.step(RUN)
        assert torch.get_default_dtype() == torch.float64
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_games_that_share_an_engine_may_play_in_threads(tiny_world, kept_graphs, kind):
    engine = make(tiny_world, kind, kept_graphs)
    seeds = range(3)

    def episode(seed: int) -> np.ndarray:
        return play(WorldEnv(tiny_world, engine=engine), seed)

    expected = [episode(seed) for seed in seeds]
    with ThreadPoolExecutor(3) as threads:
        for made, alone in zip(threads.map(episode, seeds), expected, strict=True):
            np.testing.assert_array_equal(made, alone)
