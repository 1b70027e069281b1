"""Everyday uses of researchers: processes, threads, copies, shared engines, wrappers to torch."""

import copy
import gc
import pickle
from functools import partial
from pathlib import Path
from weakref import ref

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AsyncVectorEnv
from gymnasium.wrappers import NumpyToTorch
from gymnasium.wrappers.vector import NumpyToTorch as VectorNumpyToTorch
from stable_baselines3.common.vec_env import SubprocVecEnv

from engine.on_onnx.engine import OnnxEngine
from envs.world.env import WorldEnv
from midas_world.config import ProjectConfig, load_config
from midas_world.environments import WorldVectorEnv
from midas_world.world import CONFIG_NAME, find_world

WORLD = "midas/Stage-v0"
RUN = 4


def make(folder: Path, **kwargs) -> gym.Env:
    return gym.make("midas_world:" + WORLD, world=str(folder), backend="torch:float32", **kwargs)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    # So that there are threads which a fork leaves behind.
    torch.randn(2000, 2000, generator=torch.Generator().manual_seed(0)).exp().sum()
    yield
    torch.set_num_threads(before)


def test_the_default_context_of_async_vectors_works(tiny_folder, two_threads):
    games = AsyncVectorEnv([partial(make, tiny_folder)] * 2, context="fork")
    alone = make(tiny_folder)
    try:
        games.reset_async(seed=3)
        frames, _ = games.reset_wait(timeout=60)
        np.testing.assert_array_equal(frames[0], alone.reset(seed=3)[0])
        games.step_async(np.array([RUN, 0]))
        np.testing.assert_array_equal(games.step_wait(timeout=60)[0][0], alone.step(RUN)[0])
    finally:
        games.close(terminate=True)


def test_an_onnx_game_of_another_process_is_refused(tiny_world, kept_graphs, monkeypatch):
    engine = OnnxEngine(tiny_world, folder=kept_graphs)
    env = WorldEnv(tiny_world, engine=engine)
    env.reset(seed=0)
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="make the environment here"):
        env.step(0)


def test_processes_of_stable_baselines3_find_the_id(tiny_folder):
    games = SubprocVecEnv([partial(make, tiny_folder)], start_method="spawn")
    try:
        assert games.reset().shape == (1, 48, 80, 3)
        assert games.step([RUN])[1].shape == (1,)
    finally:
        games.close()


def episode(env: gym.Env) -> list:
    return [env.step(action) for action in (RUN, RUN, 5, 14)] + [env.reset(), env.step(0)]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize("kind", ["world", "teacher"])
def test_copies_go_on_alike(tiny_folder, kind, has_begun, again):
    env = make(tiny_folder, horizon=30) if kind == "world" else gym.make("midas/StageTeacher-v0")
    if has_begun:
        env.reset(seed=4)
        for _ in range(3):
            env.step(RUN)
    other = again(env)
    assert other.spec == env.spec
    if kind == "world":  # no copy carries networks
        assert other.unwrapped.engine is env.unwrapped.engine
    if not has_begun:
        assert data_equivalence(env.reset(seed=5), other.reset(seed=5), exact=True)
    assert data_equivalence(episode(env), episode(other), exact=True)
    assert env.np_random_seed == other.np_random_seed


def test_copies_of_vectors_go_on_alike(tiny_folder):
    games = WorldVectorEnv(2, tiny_folder, backend="torch:float32", horizon=4)
    games.reset(seed=1)
    for other in (copy.deepcopy(games), pickle.loads(pickle.dumps(games))):
        state = games.save_state()
        for _ in range(6):
            pair = [vector.step(np.array([RUN, 0])) for vector in (games, other)]
            assert data_equivalence(*pair, exact=True)
        games.restore_state(state)


def test_an_environment_on_a_given_engine_says_what_to_do_instead(tiny_world, fake):
    env = WorldEnv(tiny_world, engine=fake)
    env.reset(seed=0)
    with pytest.raises(TypeError, match="save_state"):
        pickle.dumps(env)
    assert copy.deepcopy(env).engine is env.engine


def test_environments_of_a_world_share_its_engine_for_as_long_as_one_lives(tiny_folder):
    env, other = make(tiny_folder).unwrapped, make(tiny_folder, horizon=5).unwrapped
    assert env.engine is other.engine
    assert env.world is other.world
    games = gym.make_vec(WORLD, 2, world=str(tiny_folder), backend="torch:float32")
    assert games.engine is env.engine
    assert make(tiny_folder, num_denoise_steps=3).unwrapped.engine is not env.engine
    assert "engine" not in env.spec.kwargs
    last = ref(env.engine)
    del env, other, games
    gc.collect()
    assert last() is None


def test_a_world_that_was_trained_on_is_loaded_anew(own_world):
    env = make(own_world).unwrapped
    weights = own_world / "weights.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert make(own_world).unwrapped.world is not env.world


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_make_vec_takes_max_episode_steps(tiny_folder, mode):
    games = gym.make_vec(
        WORLD, 2, mode, max_episode_steps=2, world=str(tiny_folder), backend="torch:float32"
    )
    games.reset(seed=0)
    truncated = [games.step(np.array([0, 0]))[3].all() for _ in range(2)]
    assert truncated == [False, True]
    games.close()


def test_numeric_infos_become_tensors(tiny_folder):
    env = NumpyToTorch(make(tiny_folder, infos="numeric"))
    frame, _ = env.reset(seed=0)
    assert isinstance(frame, torch.Tensor)
    assert isinstance(env.step(torch.tensor(RUN))[4]["pose"], torch.Tensor)
    games = VectorNumpyToTorch(
        gym.make_vec(WORLD, 2, world=str(tiny_folder), backend="torch:float32", infos="numeric")
    )
    games.reset(seed=0)
    infos = games.step(torch.tensor([RUN, 0]))[4]
    assert isinstance(infos["cost"], torch.Tensor)
    with pytest.raises(ValueError, match="did you mean 'numeric'"):
        make(tiny_folder, infos="numbers")


def test_a_row_on_int8_is_the_game_alone(tiny_world, kept_graphs):
    engine = OnnxEngine(tiny_world, folder=kept_graphs)
    modes = {"engine": engine, "observation": "latent", "render_mode": "rgb_array"}
    games, alone = WorldVectorEnv(3, tiny_world, **modes), WorldEnv(tiny_world, **modes)
    rows, (own, _) = games.reset(seed=5)[0], alone.reset(seed=7)
    for _ in range(8):
        np.testing.assert_allclose(rows[2], own, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(games.render()[2], alone.render(), atol=2)
        rows, own = games.step(np.array([0, 14, RUN]))[0], alone.step(RUN)[0]


def test_the_documented_shapes_are_the_shipped_world_s():
    world = load_config(ProjectConfig, find_world("stage") / CONFIG_NAME).world
    shape = world.tokens_per_frame, world.token_channels
    assert f"{shape} for `stage`" in WorldEnv.__doc__
    assert f"{world.height} x {world.width} for `stage`" in WorldEnv.__doc__


@pytest.mark.parametrize("action", ["discrete", "keys"])
def test_infos_of_resets_and_steps_have_the_same_keys(tiny_folder, action):
    env = make(tiny_folder, action=action)
    _, first = env.reset(seed=0)
    *_, info = env.step(env.action_space.sample())
    assert first.keys() == info.keys()
    assert first["start_state"] == info["start_state"]
