"""What Gymnasium's own tests ask of its environments (tests/envs), of every id of ours."""

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.wrappers import FrameStackObservation, NormalizeReward
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
    check_env(env)
    check_env_of_sb3(env)
    env.close()


def test_wrong_calls_are_told_in_the_same_words_by_all(make):
    env = make(render_mode="rgb_array").unwrapped
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before step\(\), and again after"):
        env.step(0)
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before render\(\)"):
        env.render()
    env.reset(seed=0)
    last = env.action_space.n - 1
    for action in (last + 1, -1, 1.5, "run"):
        with pytest.raises(InvalidAction, match=rf"must be an integer 0 to {last}, got"):
            env.step(action)
    frame = env.step(0)[0]
    np.testing.assert_array_equal(env.render(), frame)
    frame[:] = 0
    assert env.render().any()
    env.render_mode = None
    with pytest.warns(UserWarning, match="does nothing without a render_mode") as warnings:
        assert env.render() is None
    assert warnings[0].filename == inspect.getfile(type(env))
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


def by_pickled(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def by_spec(env: gym.Env) -> gym.Env:
    assert env.spec.pprint(disable_print=True)
    return gym.make(EnvSpec.from_json(env.spec.to_json()))


@pytest.mark.parametrize("again", [by_spec, by_pickled, lambda env: gym.make(by_pickled(env.spec))])
def test_a_copy_with_its_wrappers_goes_on_alike(make, again):
    env = make(render_mode="rgb_array", max_episode_steps=9)
    env = NormalizeReward(FrameStackObservation(env, 2))
    other = again(env)
    assert other.spec == env.spec
    assert type(other) is type(env)
    assert other.observation_space == env.observation_space
    assert other.action_space == env.action_space
    assert data_equivalence(env.reset(seed=1), other.reset(seed=1), exact=True)
    assert data_equivalence(env.step(1), other.step(1), exact=True)
    np.testing.assert_array_equal(env.render(), other.render())
    env.close()
    other.close()


def test_tasks_have_their_horizon_and_rule(make):
    env = make()
    task = next((task.lower() for task in TASKS if task in env.spec.id), None)
    assert env.spec.kwargs.get("task") == task
    assert "Doom" in env.spec.id or env.unwrapped.horizon == 1000
    env.close()


# Minari's collector leaves its folder to be cleaned up.
@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_minari_collects_all_and_recovers_the_environment(make, tmp_path, monkeypatch):
    pytest.importorskip("jax")  # of minari[create]
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = make()
    games = minari.DataCollector(env, record_infos=True, jpeg_encoding=False)
    frames = [games.reset(seed=0)[0]]
    for action in (0, 1, 2):
        frame, *_, info = games.step(action)
        frames.append(frame)
    own = dict.fromkeys(("author", "author_email", "code_permalink", "description"), "-")
    games.create_dataset("ours-v0", eval_env=env, algorithm_name="-", **own)
    data = minari.load_dataset("ours-v0")
    (episode,) = data.iterate_episodes()
    np.testing.assert_array_equal(episode.observations, frames)
    assert episode.infos.keys() == info.keys()
    # What Minari's own check_env_recovery compares.
    for again in (data.recover_environment(), data.recover_environment(eval_env=True)):
        assert again.spec == env.spec
        assert again.observation_space == env.observation_space == data.observation_space
        assert again.action_space == env.action_space == data.action_space
        again.close()
    games.close()
