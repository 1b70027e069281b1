from itertools import pairwise

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


def names_of(policy, seed: int, count: int) -> list[str]:
    policy.reset(np.random.default_rng(seed))
    return [ACTIONS[policy.act(np.zeros(0), {})] for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("random", {"walk": 0.1, "run": 0.1, "leap": 0.1}),  # it moves more often than not
        ("gestures", {"wave": 0.15, "punch": 0.15, "kick": 0.15}),
        ("talking", {"talk": 0.6, "idle": 0.1}),
    ],
)
def test_a_policy_does_most_of_the_time_what_it_is_for_and_everything_at_times(name, shares):
    names = names_of(make_policy(name), 0, 4000)
    assert set(names) == set(ACTIONS)
    assert np.mean([one != other for one, other in pairwise(names)]) < 1 / 6
    kinds = [action.partition("_")[0] for action in names]
    for kind, share in shares.items():
        assert kinds.count(kind) > share * len(kinds)
    assert name != "random" or sum(kinds.count(kind) for kind in shares) > 0.5 * len(kinds)


def test_the_reckless_run_in_some_episodes_and_leap_in_others():
    ways = set()
    for seed in range(10):
        names = names_of(make_policy("reckless"), seed, 100)
        ways.add(max(names, key=names.count).partition("_")[0])
    assert ways == {"run", "leap"}


def test_an_unknown_policy_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'expert'"):
        make_policy("expart")
