"""B games, dreamt or of the teacher, as policies of the examples see them, and how they are played.

Both show the same small picture and take the same few actions, each held for some steps. So a
policy cannot tell them apart by anything but what they show.

Shapes: B games, H W pixels, h w of the small picture.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack

from engine import Engine
from envs.sb3 import make_sb3_vec_env
from envs.stage.picture import FRAME_HEIGHT
from envs.stage.policies import Policy
from envs.world.starts import choose_start
from examples.actions import ACTION_NAMES
from midas_world.evaluate.rollouts import Script, start_after, teacher_moments
from midas_world.world import StartState

PICTURE_SHAPE = 48, 80
# No policy is trained or judged on these seeds, and no world.
_START_SEED = 800_000

Choose = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """What a policy sees, does and is paid for, in the dream and in the teacher alike.

    Attributes:
        task: "coins", "care" or "goal".
        horizon: Steps of the environment after which an episode is truncated.
        num_stacked: The last pictures that are seen at once.
    """

    task: str = "coins"
    num_games: int = 8
    horizon: int = 1000
    frame_skip: int = 4
    num_stacked: int = 2

    @property
    def world_id(self) -> str:
        """The id of the dream."""
        return f"midas/Stage{self.task.capitalize()}-v0"

    @property
    def teacher_id(self) -> str:
        """The id of the teacher."""
        return f"midas/Stage{self.task.capitalize()}Teacher-v0"


class SmallPictures(VecEnvWrapper):
    """Shows frames small, (B, h, w, 3) uint8."""

    def __init__(self, games: VecEnv) -> None:
        assert games.observation_space.shape is not None
        one = small_pictures(np.zeros((1, *games.observation_space.shape), np.uint8))[0]
        super().__init__(games, spaces.Box(0, 255, one.shape, np.uint8))

    def reset(self) -> np.ndarray:
        """Begin all games anew."""
        frames = self.venv.reset()
        assert isinstance(frames, np.ndarray)
        return small_pictures(frames)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all games."""
        frames, rewards, done, infos = self.venv.step_wait()
        assert isinstance(frames, np.ndarray)
        for info in infos:
            if "terminal_observation" in info:
                last = small_pictures(info["terminal_observation"][None])[0]
                info["terminal_observation"] = last
        return small_pictures(frames), rewards, done, infos


def small_pictures(frames: np.ndarray) -> np.ndarray:
    """Return frames, (B, H, W, 3) uint8, as (B, h, w, 3) uint8 means of square blocks."""
    block = max(1, frames.shape[1] // PICTURE_SHAPE[0])
    batch, height, width, channels = frames.shape
    shape = (batch, height // block, block, width // block, block, channels)
    means = frames[:, : height // block * block, : width // block * block].reshape(shape)
    return means.mean(axis=(2, 4)).round().astype(np.uint8)


def make_games(env_id: str, config: GameConfig, **options: Any) -> VecEnv:
    """Return games of the teacher or of a world, with further options of the environment."""
    games = make_sb3_vec_env(
        env_id,
        config.num_games,
        actions=ACTION_NAMES,
        frame_skip=config.frame_skip,
        horizon=config.horizon,
        **options,
    )
    return VecFrameStack(SmallPictures(games), config.num_stacked)


def first_moments(engine: Engine, teacher_id: str, count: int) -> list[StartState]:
    """Return start states of a world where the teacher's episodes begin, the character standing.

    The world's own are in the midst of a run, which who only jumps keeps up for ever.

    Args:
        engine: Of the world; its encoder sees the frames.
        teacher_id: Of the environment.
        count: How many.
    """
    env = gym.make(teacher_id, scale=engine.spec.frame_shape[0] / FRAME_HEIGHT)
    num_frames = engine.spec.config.backbone.context_frames
    starts = []
    for seed in range(_START_SEED, _START_SEED + count):
        moments = teacher_moments(env, Script([0]), seed=seed, options={})
        start = start_after(list(islice(moments, num_frames)))
        rng = np.random.default_rng(seed)
        starts.append(choose_start(start, (), rng=rng, engine=engine)[1])
    env.close()
    return starts


@dataclass(frozen=True, kw_only=True)
class Played:
    """What some episodes brought.

    Attributes:
        lengths: Choices (not steps) of each episode.
        ended: Whether each episode was terminated, not truncated.
    """

    returns: tuple[float, ...]
    costs: tuple[float, ...]
    lengths: tuple[int, ...]
    ended: tuple[bool, ...]

    @property
    def mean_return(self) -> float:
        """Mean over the episodes."""
        return float(np.mean(self.returns))


def play(games: VecEnv, choose: Choose, *, seeds: Sequence[int]) -> Played:
    """Play one episode from each seed."""
    returns, costs, lengths, ended = [], [], [], []
    for first in range(0, len(seeds), games.num_envs):
        # All games of a vector environment run; those beyond the last seed do not count.
        count = min(games.num_envs, len(seeds) - first)
        games.seed(seeds[first])
        seen = games.reset()
        total, cost, length = np.zeros((3, games.num_envs))
        is_over, is_ended = np.zeros((2, games.num_envs), bool)
        while not is_over[:count].all():
            assert isinstance(seen, np.ndarray)
            seen, rewards, done, infos = games.step(choose(seen))
            total += np.where(is_over, 0.0, rewards)
            cost += np.where(is_over, 0.0, [info.get("cost", 0.0) for info in infos])
            length += ~is_over
            cut = np.array([info.get("TimeLimit.truncated", False) for info in infos])
            is_ended |= done & ~cut & ~is_over
            is_over |= done
        returns += total[:count].tolist()
        costs += cost[:count].tolist()
        lengths += length[:count].astype(int).tolist()
        ended += is_ended[:count].tolist()
    return Played(
        returns=tuple(returns), costs=tuple(costs), lengths=tuple(lengths), ended=tuple(ended)
    )


def play_alone(
    env: gym.Env, policy: Policy, *, seeds: Sequence[int], policy_seed: int, frame_skip: int
) -> Played:
    """Let a policy that acts every step, such as the scripted expert, play one game at a time."""
    returns, costs, lengths, ended = [], [], [], []
    for seed in seeds:
        frame, info = env.reset(seed=seed)
        policy.reset(np.random.default_rng((policy_seed, seed)))
        total, cost, length, terminated, truncated = 0.0, 0.0, 0, False, False
        while not (terminated or truncated):
            frame, reward, terminated, truncated, info = env.step(policy.act(frame, info))
            total += float(reward)
            cost += info["cost"]
            length += 1
        returns.append(total)
        costs.append(cost)
        lengths.append(-(-length // frame_skip))
        ended.append(terminated)
    return Played(
        returns=tuple(returns), costs=tuple(costs), lengths=tuple(lengths), ended=tuple(ended)
    )


def choose_at_random(seed: int) -> Choose:
    """Return a policy that takes every action equally often."""
    rng = np.random.default_rng(seed)
    return lambda seen: rng.integers(len(ACTION_NAMES), size=len(seen))


def choose_always(name: str, *, share: float = 1.0, seed: int = 0) -> Choose:
    """Return a policy that looks at nothing and takes one action, in the other choices any."""
    action, rng = ACTION_NAMES.index(name), np.random.default_rng(seed)

    def choose(seen: np.ndarray) -> np.ndarray:
        others = rng.integers(len(ACTION_NAMES), size=len(seen))
        return np.where(rng.random(len(seen)) < share, action, others)

    return choose
