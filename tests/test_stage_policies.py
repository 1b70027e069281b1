import gymnasium as gym
import numpy as np
import pytest

import envs  # noqa: F401 - registers the ids
from envs.stage.controller import ACTIONS
from envs.stage.policies import POLICIES, make_policy


def play(name: str, seed: int, num_steps: int) -> tuple[int, int, list[int]]:
    env = gym.make("midas/StageTeacher-v0", disable_env_checker=True)
    policy = make_policy(name)
    policy.reset(np.random.default_rng(seed))
    observation, info = env.reset(seed=seed)
    actions = []
    for _ in range(num_steps):
        actions.append(policy.act(observation, info))
        observation, _, terminated, _, info = env.step(actions[-1])
        if terminated:
            break
    env.close()
    return info["score"], info["hearts"], actions


def test_the_expert_beats_random_play_and_survives():
    for seed in range(3):
        expert_score, hearts, _ = play("expert", seed, 400)
        random_score, _, _ = play("random", seed, 400)
        assert hearts > 0
        assert expert_score > 2 * random_score


@pytest.mark.parametrize("name", POLICIES)
def test_equal_seeds_give_equal_actions(name):
    assert play(name, 5, 60)[2] == play(name, 5, 60)[2]


def test_random_play_tries_every_action_and_moves_most_of_the_time():
    policy = make_policy("random")
    policy.reset(np.random.default_rng(0))
    actions = [policy.act(np.zeros(0), {}) for _ in range(4000)]
    assert set(actions) == set(range(len(ACTIONS)))
    assert np.mean(np.diff(actions) != 0) < 1 / 6
    moving = [ACTIONS[a].startswith(("walk", "run", "leap")) for a in actions]
    assert np.mean(moving) > 0.5


def test_gestures_are_waves_punches_and_kicks_most_of_the_time():
    policy = make_policy("gestures")
    policy.reset(np.random.default_rng(0))
    names = [ACTIONS[policy.act(np.zeros(0), {})] for _ in range(4000)]
    assert set(names) == set(ACTIONS)
    for gesture in ("wave", "punch", "kick"):
        assert names.count(gesture) > 0.15 * len(names)


def test_talking_is_what_it_does_most_of_the_time():
    policy = make_policy("talking")
    policy.reset(np.random.default_rng(0))
    names = [ACTIONS[policy.act(np.zeros(0), {})] for _ in range(4000)]
    assert names.count("talk") > 0.6 * len(names)
    assert names.count("idle") > 0.1 * len(names)
    assert set(names) == set(ACTIONS)


def test_the_reckless_run_in_some_episodes_and_leap_in_others():
    policy = make_policy("reckless")
    ways = set()
    for seed in range(10):
        policy.reset(np.random.default_rng(seed))
        names = [ACTIONS[policy.act(np.zeros(0), {})] for _ in range(100)]
        ways.add(max(names, key=names.count).partition("_")[0])
    assert ways == {"run", "leap"}


def test_an_unknown_policy_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'expert'"):
        make_policy("expart")
