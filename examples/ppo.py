"""PPO with settings that make do with few steps, and how it is judged in the course of training."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv
from tqdm import tqdm

from examples.games import Choose, GameConfig, Played

# Few steps must do: many passes over each rollout, and a view of some 20 choices ahead.
ROLLOUT_CHOICES = 512
PPO_SETTINGS = {
    "n_epochs": 8,
    "learning_rate": 5e-4,
    "gamma": 0.95,
    "gae_lambda": 0.9,
    "ent_coef": 0.01,
}


class Evaluate(BaseCallback):
    """Evaluates the policy now and then, and moves a progress bar.

    Args:
        evaluate: Called with the policy's choice at the steps of the curve.
        every: Choices between two evaluations.
        frame_skip: Steps per choice.
        bar: Of the training's steps.
    """

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
