"""B games, dreamt or of the teacher, as a vector environment of Stable-Baselines3.

The dream and the teacher go through the same code: the same few actions, each held for some steps,
the same small picture. So a policy cannot tell them apart by anything but what they show.

Shapes: B games, H W pixels, h w of the small picture, K pictures in a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv

import envs  # noqa: F401 - registers the ids
from engine import Engine
from envs.stage.policies import ExpertPolicy
from examples.actions import ACTION_INDICES, ACTION_NAMES, TEACHER_ID, WORLD_ID
from midas_world.world import World

PICTURE_HEIGHT = 48

Choose = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """What a policy sees and does, in the dream and in the teacher alike.

    Attributes:
        num_games: B.
        horizon: Steps of the environment after which an episode is truncated.
        frame_skip: Steps for which each action is held; divides the horizon.
        num_stacked: K, the last pictures that are seen at once.
    """

    num_games: int = 8
    horizon: int = 200
    frame_skip: int = 4
    num_stacked: int = 2

    def __post_init__(self) -> None:
        """Check that episodes are whole numbers of choices."""
        for name in ("num_games", "horizon", "frame_skip", "num_stacked"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.horizon % self.frame_skip:
            raise ValueError(
                f"horizon must be a multiple of frame_skip ({self.frame_skip}), got {self.horizon}"
            )


class LearnerGames(VecEnv):
    """A vector environment of Gymnasium, for learners of Stable-Baselines3.

    Observations are (B, 3 K, h, w) uint8.

    Args:
        games: In same-step autoreset mode.
        config: What the policy sees and does.
        convert: Makes frames (B, H, W, 3) of what the games show; None if those are frames.
    """

    def __init__(
        self,
        games: VectorEnv,
        config: GameConfig,
        *,
        convert: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        if games.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
            raise ValueError("games must be in the autoreset mode AutoresetMode.SAME_STEP")
        self.games = games
        self.config = config
        self._convert = convert
        self._actions = np.array(ACTION_INDICES)
        shape = games.single_observation_space.shape
        assert shape is not None
        one = self._see(np.zeros((1, *shape), games.single_observation_space.dtype))
        self._num_channels = one.shape[1]
        self._seen = np.repeat(np.repeat(one, games.num_envs, 0), config.num_stacked, 1)
        space = spaces.Box(0, 255, self._seen.shape[1:], np.uint8)
        super().__init__(games.num_envs, space, spaces.Discrete(len(ACTION_NAMES)))

    def reset(self) -> np.ndarray:
        """Begin all games anew, from the seeds that `seed` or `start` gave."""
        seeds = None if self._seeds[0] is None else [int(seed or 0) for seed in self._seeds]
        self._reset_seeds()
        # Gymnasium's base class knows one seed only, its vector environments take a list.
        seen = self._see(self.games.reset(seed=seeds)[0])  # pyright: ignore[reportArgumentType]
        self._seen = np.tile(seen, (1, self.config.num_stacked, *[1] * (seen.ndim - 2)))
        return self._seen.copy()

    def start(self, seeds: Sequence[int]) -> np.ndarray:
        """Begin all games anew from one seed each."""
        self._seeds = list(seeds)
        return self.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Remember what the policy wants."""
        self._wanted = self._actions[np.asarray(actions)]

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Hold the actions for `frame_skip` steps; a game that ends has begun anew after them."""
        rewards = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros((2, self.num_envs), bool)
        last: dict[int, np.ndarray] = {}
        observation = None
        for _ in range(self.config.frame_skip):
            over = terminated | truncated
            # The rest of the steps belongs to the next episode, which begins by standing still.
            actions = np.where(over, 0, self._wanted)
            observation, reward, ends, cuts, info = self.games.step(actions)
            rewards += np.where(over, 0.0, reward)
            for row in np.flatnonzero((ends | cuts) & ~over):
                last[int(row)] = np.asarray(info["final_obs"][row])
            terminated |= ends & ~over
            truncated |= cuts & ~over
        assert observation is not None
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row, final in last.items():
            infos[row] = {
                "terminal_observation": self._stacked([row], self._see(final[None]))[0],
                "TimeLimit.truncated": bool(truncated[row] and not terminated[row]),
            }
        seen = self._see(observation)
        self._seen = self._stacked(range(self.num_envs), seen)
        for row in last:
            repeats = (self.config.num_stacked, *[1] * (seen.ndim - 2))
            self._seen[row] = np.tile(seen[row], repeats)
        return self._seen.copy(), rewards, terminated | truncated, infos

    def close(self) -> None:
        """Close the games."""
        self.games.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the vector environment, once per game."""
        return [getattr(self.games, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """The games share their attributes: there is none to set for one."""
        raise AttributeError(f"games of one vector environment share {attr_name!r}")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """The games are no environments of their own: there is no method to call on one."""
        raise AttributeError(f"games of one vector environment have no own method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return False: games have no wrappers."""
        return [False] * len(list(self._get_indices(indices)))

    def _see(self, observation: np.ndarray) -> np.ndarray:
        """Return one picture per game as the policy sees it, (B, 3, h, w)."""
        return small_pictures(self._convert(observation) if self._convert else observation)

    def _stacked(self, rows: Sequence[int], newest: np.ndarray) -> np.ndarray:
        """Return what games see once the newest observation has pushed out the oldest."""
        return np.concatenate((self._seen[list(rows), self._num_channels :], newest), axis=1)


def small_pictures(frames: np.ndarray) -> np.ndarray:
    """Return frames, (B, H, W, 3) uint8, as (B, 3, h, w) uint8 means of square blocks."""
    block = max(1, frames.shape[1] // PICTURE_HEIGHT)
    batch, height, width, channels = frames.shape
    shape = (batch, height // block, block, width // block, block, channels)
    means = frames[:, : height // block * block, : width // block * block].reshape(shape)
    return means.mean(axis=(2, 4)).round().astype(np.uint8).transpose(0, 3, 1, 2).copy()


def make_teacher(config: GameConfig) -> LearnerGames:
    """Return games of the teacher."""
    games = gym.make_vec(
        TEACHER_ID,
        num_envs=config.num_games,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        horizon=config.horizon,
    )
    return LearnerGames(games, config)


def make_dream(
    config: GameConfig, world: World, engine: Engine, *, reward_threshold: float | None = None
) -> LearnerGames:
    """Return games of the world; of the frames that an action is held, only the last is decoded.

    Args:
        config: What policies see and do.
        world: Whose start states the games begin from.
        engine: Of the world.
        reward_threshold: Smaller expected rewards are paid as 0; None takes the world's.
    """
    games = gym.make_vec(
        WORLD_ID,
        num_envs=config.num_games,
        vectorization_mode="vector_entry_point",
        world=world,
        engine=engine,
        observation="latent",
        horizon=config.horizon,
        reward_threshold=reward_threshold,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    return LearnerGames(games, config, convert=lambda seen: engine.decode(torch.from_numpy(seen)))


@dataclass(frozen=True, kw_only=True)
class Played:
    """What some episodes brought.

    Attributes:
        returns: Sum of the rewards of each episode.
        lengths: Choices (not steps) of each episode.
        ended: Whether each episode was terminated, not truncated.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    ended: tuple[bool, ...]

    @property
    def mean_return(self) -> float:
        """Mean over the episodes."""
        return float(np.mean(self.returns))


def play(games: LearnerGames, choose: Choose, *, seeds: Sequence[int]) -> Played:
    """Play one episode from each seed.

    Args:
        games: Where to play.
        choose: Returns one action per game for what each sees.
        seeds: Any number of them.
    """
    returns, lengths, ended = [], [], []
    for first in range(0, len(seeds), games.num_envs):
        group = list(seeds[first : first + games.num_envs])
        # All games of a vector environment run; those beyond the last seed do not count.
        seen = games.start(group + group[:1] * (games.num_envs - len(group)))
        total, length = np.zeros(games.num_envs), np.zeros(games.num_envs, int)
        is_over, is_ended = np.zeros((2, games.num_envs), bool)
        while not is_over[: len(group)].all():
            games.step_async(choose(seen))
            seen, reward, done, infos = games.step_wait()
            total += np.where(is_over, 0.0, reward)
            length += ~is_over
            cut = np.array([info.get("TimeLimit.truncated", False) for info in infos])
            is_ended |= done & ~cut & ~is_over
            is_over |= done
        returns += total[: len(group)].tolist()
        lengths += length[: len(group)].tolist()
        ended += is_ended[: len(group)].tolist()
    return Played(returns=tuple(returns), lengths=tuple(lengths), ended=tuple(ended))


def play_expert(config: GameConfig, *, seeds: Sequence[int], policy_seed: int) -> Played:
    """Let the scripted expert play the teacher; it knows where things lie and acts every step."""
    env = gym.make(TEACHER_ID, horizon=config.horizon)
    expert = ExpertPolicy()
    returns, lengths, ended = [], [], []
    for seed in seeds:
        frame, info = env.reset(seed=seed)
        expert.reset(np.random.default_rng((policy_seed, seed)))
        total, length, terminated, truncated = 0.0, 0, False, False
        while not (terminated or truncated):
            frame, reward, terminated, truncated, info = env.step(expert.act(frame, info))
            total += float(reward)
            length += 1
        returns.append(total)
        lengths.append(-(-length // config.frame_skip))
        ended.append(terminated)
    env.close()
    return Played(returns=tuple(returns), lengths=tuple(lengths), ended=tuple(ended))


def choose_at_random(seed: int) -> Choose:
    """Return a policy that takes every action equally often."""
    rng = np.random.default_rng(seed)
    return lambda seen: rng.integers(len(ACTION_NAMES), size=len(seen))


def choose_always(name: str) -> Choose:
    """Return a policy that takes one action for ever and looks at nothing."""
    action = ACTION_NAMES.index(name)
    return lambda seen: np.full(len(seen), action)
