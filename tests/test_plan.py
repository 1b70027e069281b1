"""The planner finds what pays and leaves the world as it was; throughput measures what it says."""

from concurrent.futures import ThreadPoolExecutor

import gymnasium as gym
import numpy as np
import pytest
import torch

import envs  # noqa: F401 - registers the ids
from envs.stage.controller import ACTIONS
from envs.world.env import WorldEnv
from examples import plan, throughput
from midas_world.world import World

LEAP = ACTIONS.index("leap_right")


@pytest.fixture
def latent_world(tiny_world: World):
    env = WorldEnv(tiny_world, observation="latent", horizon=40)
    yield env
    env.close()


class CoinWorld:
    """Forks into games in which running right is worth 1 a step, left 2; a jump ends all.

    To the left lies what hurts.
    """

    def __init__(self) -> None:
        self.num_forks = 0

    def fork(self, num_games, *, seeds):
        assert len(seeds) == num_games
        self.num_forks += 1
        return self

    def step(self, actions):
        names = np.array(ACTIONS)[np.asarray(actions)]
        is_left, ends = names == "run_left", names == "jump"
        rewards = (names == "run_right") + 2.0 * is_left
        return None, rewards, ends, np.zeros_like(ends), {"cost": 1.5 * is_left}

    def close(self) -> None: ...


def test_the_planner_finds_the_action_that_pays():
    config = plan.PlanConfig(num_futures=400, depth=8, hold=4, commitment=4)
    world = CoinWorld()
    actions = plan.shoot(world, config, np.random.default_rng(0))
    assert actions.tolist() == [ACTIONS.index("run_right")] * 4
    assert world.num_forks == 1


def test_planning_leaves_the_world_as_it_was(latent_world):
    config = plan.PlanConfig(num_futures=3, depth=4, hold=2, commitment=2)
    latent_world.reset(seed=3)
    before = latent_world.save_state()
    plan.shoot(latent_world, config, np.random.default_rng(1))
    after = latent_world.save_state()
    for name, tensor in before.tensors.items():
        np.testing.assert_array_equal(_bits(after.tensors[name]), _bits(tensor), err_msg=name)
    ahead = latent_world.step(LEAP)[0]
    latent_world.restore_state(before)
    np.testing.assert_array_equal(latent_world.step(LEAP)[0], ahead)


def test_plans_for_the_teacher_begin_where_it_is_and_are_played_to_their_end(latent_world):
    config = plan.PlanConfig(num_futures=2, depth=2, hold=2, commitment=2)
    policy = plan.TeacherPlanner(config, latent_world)
    rng = np.random.default_rng(2)
    frames = rng.integers(256, size=(3, *latent_world.engine.spec.frame_shape), dtype=np.uint8)
    seen = latent_world.engine.encode(frames).numpy()
    policy.reset(rng)
    for number, is_shown in enumerate((0, 0, 2)):
        policy.act(frames[number], {})
        np.testing.assert_allclose(latent_world.observe(), seen[is_shown], rtol=1e-4, atol=1e-4)


def _bits(tensor: torch.Tensor) -> np.ndarray:
    """NumPy has no bfloat16: compare its bits."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


@pytest.mark.parametrize("where", ["world", "teacher"])
def test_plan_runs_in_the_world_and_in_the_teacher(where, tiny_world, monkeypatch, capsys):
    if where == "teacher":  # the tiny world draws smaller frames than the teacher
        shape = tiny_world.config.world.height, tiny_world.config.world.width
        make = gym.make

        def make_small(name: str, **kwargs) -> gym.Env:
            env = make(name, **kwargs)
            return Shrunk(env, shape) if name == plan.TEACHER_ID else env

        monkeypatch.setattr(plan.gym, "make", make_small)
    arguments = ["--world", str(tiny_world.folder), "--act-in", where, "--seeds", "2"]
    arguments += ["--futures", "2", "--depth", "4", "--horizon", "8"]
    arguments += ["--hold", "2", "--commitment", "4"]
    plan.main(arguments)
    table = capsys.readouterr().out.splitlines()
    assert table[0].startswith(f"| policy | return in the {where} ")
    expert = ["scripted expert"] if where == "teacher" else []
    names = ["random", "always leaps right", *expert, "planner"]
    assert [line.split("|")[1].strip() for line in table[2:]] == names
    assert all(line.endswith("| 100% | 2 |") for line in table[2:])


class Shrunk(gym.ObservationWrapper):
    """Frames of the teacher in the tiny world's size."""

    def __init__(self, env, shape):
        super().__init__(env)
        self.step_px = env.observation_space.shape[0] // shape[0]
        self.observation_space = gym.spaces.Box(0, 255, (*shape, 3), np.uint8)

    def observation(self, observation):
        return observation[:: self.step_px, :: self.step_px]


def test_throughput_measures_each_number_of_games(tiny_folder, monkeypatch, capsys):
    here = lambda *_, **__: ThreadPoolExecutor(1)  # noqa: E731
    monkeypatch.setattr(throughput, "ProcessPoolExecutor", here)
    words = ["--world", str(tiny_folder), "--observation", "latent", "--backend", "torch"]
    throughput.main([*words, "--batch", "1", "2", "--steps", "2"])
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[:2] for row in rows] == [["| latent", "1"], ["| latent", "2"]]
    assert all(float(row.split(" | ")[2]) > 0 for row in rows)
    throughput.main([*words, "--states", "--steps", "2"])
    (row,) = capsys.readouterr().out.splitlines()[2:]
    assert len(row.split(" | ")) == 4
    assert float(row.split(" | ")[-1].rstrip(" |")) > 0
    monkeypatch.setattr(throughput, "FIRST_STEPS", 2)
    throughput.main([*words, "--memory-steps", "4"])
    (row,) = capsys.readouterr().out.splitlines()[2:]
    assert "%" in row
    with pytest.raises(SystemExit):
        throughput.main([*words, "--memory-steps", "2"])
    assert "must be more than 2, got 2" in capsys.readouterr().err
