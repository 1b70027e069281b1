"""PPO with settings that make do with few steps, and how it is judged in the course of training."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticCnnPolicy
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from examples.actions import ACTION_INDICES, ACTION_NAMES
from examples.games import PICTURE_SHAPE, Choose, GameConfig, Played, small_pictures
from midas_world.checkpoint import load_tensors, load_weights

# Few steps must do: many passes over each rollout, and a view of some 20 choices ahead.
ROLLOUT_CHOICES = 256
PPO_SETTINGS = {
    "n_epochs": 8,
    "learning_rate": 5e-4,
    "gamma": 0.95,
    "gae_lambda": 0.9,
    "ent_coef": 0.01,
}


class Evaluate(BaseCallback):
    """Evaluates the policy now and then, and moves a progress bar."""

    def __init__(
        self, evaluate: Callable[[Choose], Played], *, every: float, frame_skip: int, bar: tqdm
    ) -> None:
        super().__init__()
        self.points: list[dict[str, Any]] = []
        self._evaluate = evaluate
        self._every = every
        self._frame_skip = frame_skip
        self._bar = bar

    def _on_rollout_start(self) -> None:
        # The policy of this moment is what the last rollout has made of it.
        if self.num_timesteps >= len(self.points) * self._every:
            self.add_point(self._evaluate)

    def _on_step(self) -> bool:
        self._bar.update(self.training_env.num_envs * self._frame_skip)
        return True

    def add_point(self, evaluate: Callable[[Choose], Played]) -> None:
        """Add a point to the curve."""
        lately = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        played = evaluate(choice_of(self.model))
        self.points.append(
            {
                "steps": self.num_timesteps * self._frame_skip,
                "training_return": float(np.mean(lately)) if lately else None,
                **asdict(played),
            }
        )
        self._bar.set_postfix_str(f"return in the teacher {played.mean_return:.2f}")


def choice_of(model: Any) -> Choose:
    """Return the choices of a trained model."""
    return lambda seen: model.predict(seen, deterministic=True)[0]


def load_choice(file: Path, config: GameConfig) -> Choose:
    """Return the choices of a policy that train_ppo.py trained and wrote to a file."""
    shape = 3 * config.num_stacked, *PICTURE_SHAPE
    space = spaces.Box(0, 255, shape, np.uint8)
    policy = ActorCriticCnnPolicy(space, spaces.Discrete(len(ACTION_NAMES)), lambda _: 0.0)
    load_weights(policy, load_tensors(file), source=str(file))
    return lambda seen: policy.predict(seen.transpose(0, 3, 1, 2), deterministic=True)[0]


class TrainedPolicy:
    """A policy of train_ppo.py as one that plays single frames, as those of Stage do."""

    def __init__(self, file: Path, config: GameConfig) -> None:
        self._choose = load_choice(file, config)
        self._config = config

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._seen = np.zeros((1, *PICTURE_SHAPE, 3 * self._config.num_stacked), np.uint8)
        self._num_left = 0

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return the action held at present."""
        if self._num_left == 0:
            newest = small_pictures(observation[None])
            self._seen = np.concatenate((self._seen[..., 3:], newest), axis=-1)
            self._action = ACTION_INDICES[int(self._choose(self._seen)[0])]
            self._num_left = self._config.frame_skip
        self._num_left -= 1
        return self._action


def make_ppo(games: VecEnv, config: GameConfig, *, num_steps: int, seed: int, device: str) -> PPO:
    """Return an untrained PPO for games."""
    choices = min(ROLLOUT_CHOICES, num_steps // config.frame_skip) // config.num_games
    choices = max(2, choices)
    return PPO(
        "CnnPolicy",
        games,
        n_steps=choices,
        batch_size=min(128, choices * config.num_games),
        **PPO_SETTINGS,
        seed=seed,
        device=device,
    )
