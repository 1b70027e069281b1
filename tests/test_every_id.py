"""What Gymnasium's own tests ask of its environments (tests/envs), of every id of ours."""

import pickle
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

import midas_world  # noqa: F401 - registers the ids

TASKS = ("Coins", "Care", "Goal")
WORLDS = ("midas/Stage-v0", "midas/World-v0", *(f"midas/Stage{task}-v0" for task in TASKS))
TEACHERS = ("midas/StageTeacher-v0", *(f"midas/Stage{task}Teacher-v0" for task in TASKS))
IDS = (*WORLDS, *TEACHERS, "midas/DoomChase-v0")

Make = Callable[..., gym.Env]


@pytest.fixture(params=IDS)
def make(request, tiny_folder: Path, tmp_path: Path, monkeypatch) -> Make:
    if "Doom" in request.param:
        pytest.importorskip("vizdoom")
        monkeypatch.chdir(tmp_path)  # it writes where it is started
    is_world = request.param in WORLDS
    own = {"world": str(tiny_folder), "backend": "torch:float32"} if is_world else {}
    return lambda **options: gym.make(request.param, **own, **options)


def test_these_are_all_ids():
    assert {name for name in gym.registry if name.startswith("midas/")} == set(IDS)


def test_the_checkers_have_nothing_to_say(make):
    env = make(render_mode="rgb_array").unwrapped
    check_env(env, skip_render_check=True)
    check_env_of_sb3(env)
    env.close()


def test_equal_seeds_and_actions_give_equal_episodes(make):
    envs = [make().unwrapped for _ in range(2)]
    assert data_equivalence(*[env.reset(seed=1) for env in envs], exact=True)
    envs[0].action_space.seed(1)
    for _ in range(20):
        action = envs[0].action_space.sample()
        first, second = (env.step(action) for env in envs)
        assert data_equivalence(first, second, exact=True)
        if first[2] or first[3]:
            assert data_equivalence(*[env.reset(seed=2) for env in envs], exact=True)
    for env in envs:
        env.close()


def test_every_render_mode_renders(make):
    first = make()
    modes = first.unwrapped.metadata["render_modes"]
    first.close()
    for mode in modes:
        env = make(render_mode=mode)
        frame, _ = env.reset(seed=0)
        env.step(0)
        seen = env.render()
        assert (seen is None) == (mode == "human")
        if seen is not None:
            assert (seen.shape, seen.dtype) == (frame.shape, np.uint8)
        env.close()


def test_a_copy_by_pickling_goes_on_alike(make):
    env = make()
    again = pickle.loads(pickle.dumps(env))
    assert again.spec == env.spec
    assert data_equivalence(env.reset(seed=1), again.reset(seed=1), exact=True)
    assert data_equivalence(env.step(1), again.step(1), exact=True)
    env.close()
    again.close()


def test_a_spec_makes_the_same_again(make):
    env = make(render_mode="rgb_array")
    for spec in (EnvSpec.from_json(env.spec.to_json()), pickle.loads(pickle.dumps(env.spec))):
        assert spec == env.spec
        again = gym.make(spec)
        assert again.observation_space == env.observation_space
        assert again.action_space == env.action_space
        again.close()
    env.close()


def test_tasks_have_their_horizon_and_rule(make):
    env = make()
    task = next((task.lower() for task in TASKS if task in env.spec.id), None)
    assert env.spec.kwargs.get("task") == task
    assert "Doom" in env.spec.id or env.unwrapped.horizon == 1000
    env.close()


def test_minari_recovers_what_it_collected(make, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    from minari.data_collector.episode_buffer import EpisodeBuffer

    env = make()
    frames, actions = [env.reset(seed=0)[0]], [0, 1, 2]
    frames += [env.step(action)[0] for action in actions]
    flags = [False, False, False]
    data = EpisodeBuffer(
        observations=frames,
        actions=actions,
        rewards=[0.0] * 3,
        terminations=flags,
        truncations=[False, False, True],
    )
    own = {"author": "-", "author_email": "-", "code_permalink": "-", "description": "-"}
    minari.create_dataset_from_buffers(
        "ours-v0", [data], env=env, eval_env=env, algorithm_name="-", **own
    )
    again = minari.load_dataset("ours-v0").recover_environment()
    # What Minari's own check_env_recovery compares.
    assert again.spec == env.spec
    assert again.observation_space == env.observation_space
    assert again.action_space == env.action_space
    env.close()
    again.close()
