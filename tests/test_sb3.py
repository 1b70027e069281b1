"""Worlds and teachers as vector environments of Stable-Baselines3, and what makes them alike."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3 as sb3
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.vec_env import VecNormalize

from envs.choices import Choices
from envs.stage.controller import ACTIONS
from envs.world.latents import LatentObservation, LatentVectorObservation
from midas_world.environments import WorldVectorEnv, make_sb3_vec_env
from midas_world.teachers.env import fit_frame

NAMES = ["idle", "leap_right"]
IDLE, LEAP = range(2)


class CoinEnv(gym.Env):
    """Every leap is worth 1 and costs 2; the fifth step ends the episode. Frames show the step."""

    action_names = ACTIONS

    def __init__(self, ends_after: int = 5, horizon: int = 100) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (48, 80, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(len(ACTIONS))
        self.ends_after, self.horizon = ends_after, horizon
        self.num_steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.num_steps = 0
        return self.frame(), {"cost": 0.0, "text": "begin", "step": 0}

    def step(self, action):
        self.num_steps += 1
        is_leap = float(ACTIONS[action] == "leap_right")
        is_over, is_cut = self.num_steps >= self.ends_after, self.num_steps >= self.horizon
        info = {"cost": 2 * is_leap, "text": "go", "step": self.num_steps}
        return self.frame(), is_leap, is_over, is_cut, info

    def frame(self):
        return np.full((48, 80, 3), self.num_steps, np.uint8)


@pytest.fixture
def make_coins(monkeypatch):
    def make(num_envs: int, frame_skip: int, **kwargs):
        kwargs = {"frame_skip": frame_skip, "actions": NAMES} | kwargs
        return make_sb3_vec_env("midas-tests/Coins-v0", num_envs, **kwargs)

    gym.register("midas-tests/Coins-v0", entry_point=CoinEnv, disable_env_checker=True)
    yield make
    del gym.registry["midas-tests/Coins-v0"]


def test_an_action_is_held_and_its_rewards_and_costs_add_up(make_coins):
    games = make_coins(2, 2)
    games.reset()
    seen, rewards, done, infos = games.step(np.array([LEAP, IDLE]))
    assert rewards.tolist() == [2.0, 0.0]
    assert rewards.dtype == np.float32
    assert [info["cost"] for info in infos] == [4.0, 0.0]
    assert not done.any()
    assert seen[:, 0, 0, 0].tolist() == [2, 2]


def test_a_game_that_ends_shows_its_last_moment_and_begins_anew(make_coins):
    games = make_coins(1, 4)
    games.reset()
    assert games.reset_infos == [{"cost": 0.0, "text": "begin", "step": 0}]
    games.step(np.array([LEAP]))
    seen, rewards, done, infos = games.step(np.array([LEAP]))  # ends at the first of these four
    assert rewards.tolist() == [1.0]
    assert done.tolist() == [True]
    last = infos[0].pop("terminal_observation")
    assert last[0, 0].tolist() == [5] * 3
    expected = {"cost": 2.0, "text": "go", "step": 5, "TimeLimit.truncated": False}
    assert infos == [expected]
    assert seen[0, 0, 0].tolist() == [0] * 3
    assert games.reset_infos[0]["text"] == "begin"


def test_options_are_one_for_all_games(make_coins):
    games = make_coins(2, 1)
    games.set_options([{"a": 1}, {}])
    with pytest.raises(ValueError, match="the same for all games"):
        games.reset()
    with pytest.raises(ValueError, match="must be in the autoreset mode"):
        type(games)(SyncVectorEnv([CoinEnv], autoreset_mode=AutoresetMode.NEXT_STEP))


@pytest.mark.parametrize("observation", ["pixels", "latent", "dict"])
def test_games_of_a_world_are_its_vector_s(tiny_folder, observation):
    options = {"world": str(tiny_folder), "backend": "torch:float32", "observation": observation}
    options |= {"horizon": 3, "frame_skip": 2, "actions": NAMES}
    games = make_sb3_vec_env("midas/Stage-v0", 2, **options)
    plain = WorldVectorEnv(2, autoreset_mode="SameStep", **options)
    games.seed(4)
    seen, expected = games.reset(), plain.reset(seed=4)[0]
    for action in ([0, 1], [1, 0], [0, 0]):
        for name in expected if isinstance(expected, dict) else [...]:
            want = expected[name]
            got = seen[name] if isinstance(seen, dict) else seen
            np.testing.assert_array_equal(got, want.reshape(got.shape))
        assert games.observation_space.shape in (None, np.shape(seen)[1:])
        seen, rewards, done, infos = games.step(np.array(action))
        expected, want_rewards, _, cut, told = plain.step(np.array(action))
        np.testing.assert_array_equal(rewards, want_rewards.astype(np.float32))
        np.testing.assert_array_equal(done, cut)
        if cut.any():
            assert [info["step"] for info in infos] == told["final_info"]["step"].tolist()


@pytest.mark.parametrize("env_id", ["midas/StageCare-v0", "midas/StageCareTeacher-v0"])
def test_ppo_learns_from_latents_and_it_and_its_wrapper_can_be_saved(tiny_folder, tmp_path, env_id):
    options = {"actions": NAMES, "frame_skip": 4, "horizon": 16, "observation": "latent"}
    games = make_sb3_vec_env(env_id, 2, world=str(tiny_folder), **options)
    assert len(games.observation_space.shape) == 1
    wrapped = VecNormalize(games)
    model = sb3.PPO("MlpPolicy", wrapped, n_steps=4, batch_size=8, n_epochs=1, device="cpu")
    model.learn(16)
    wrapped.save(str(tmp_path / "wrapped"))
    model.save(tmp_path / "model")
    seen = wrapped.normalize_obs(np.ones(games.observation_space.shape, np.float32))
    again = VecNormalize.load(str(tmp_path / "wrapped"), games)
    np.testing.assert_array_equal(again.normalize_obs(np.ones_like(seen)), seen)
    other = sb3.PPO.load(tmp_path / "model", env=again)
    np.testing.assert_array_equal(
        other.predict(seen, deterministic=True)[0], model.predict(seen, deterministic=True)[0]
    )
    games.close()


# The teacher, made like a world


def test_the_teacher_s_latents_are_the_world_s(tiny_folder):
    env = LatentObservation(gym.make("midas/StageTeacher-v0"), str(tiny_folder))
    same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
    games = gym.make_vec("midas/StageTeacher-v0", 2, "sync", vector_kwargs=same_step, horizon=2)
    games = LatentVectorObservation(games, str(tiny_folder))
    frames = gym.make("midas/StageTeacher-v0")
    world = gym.make("midas/Stage-v0", world=str(tiny_folder), observation="latent")
    assert env.observation_space == games.single_observation_space == world.observation_space
    own, _ = env.reset(seed=8)
    rows, _ = games.reset(seed=7)
    frame, _ = frames.reset(seed=8)
    small = fit_frame(frame, (48, 80), fit="pad")
    expected = world.unwrapped.engine.encode(small[None]).numpy()[0]
    np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(rows[1], expected, rtol=1e-4, atol=1e-4)
    for _ in range(2):
        infos, own = games.step(np.array([4, 4]))[4], env.step(4)[0]
    np.testing.assert_allclose(infos["final_obs"][1], own, rtol=1e-4, atol=1e-4)


def test_choices_are_checked_and_survive_pickling():
    env = Choices(CoinEnv(), actions=NAMES, frame_skip=3, infos="numeric")
    env.reset()
    with pytest.raises(InvalidAction):
        env.step(2)
    assert env.step(LEAP)[1:] == (3.0, False, False, {"cost": 6.0, "step": 3})
    again = pickle.loads(pickle.dumps(env))
    assert again.step(LEAP)[1:] == (2.0, True, False, {"cost": 4.0, "step": 5})
    made = gym.make("midas/StageTeacher-v0")
    spec = pickle.loads(pickle.dumps(Choices(made, actions=NAMES).spec))
    assert spec.make().action_space.n == 2
    for wrong, says in (
        ({"actions": ["leap"]}, "did you mean 'leap_"),
        ({"frame_skip": 0}, "at least 1"),
        ({"infos": "some"}, "unknown infos"),
    ):
        with pytest.raises(ValueError, match=says):
            Choices(CoinEnv(), **wrong)
