"""Stage beside what was played in a world that learned from it, under the same actions."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from midas_world.sessions.log import Turn


class StageTwin:
    """A Stage that goes along with a game in a world.

    Attributes:
        frame: What it shows, uint8 (H, W, 3).
    """

    def __init__(self, env: gym.Env[np.ndarray, np.int64]) -> None:
        self.env: Any = env.unwrapped
        self.frame = np.zeros((0, 0, 3), np.uint8)
        self._seed: int | None = None

    def put(self, state: Mapping[str, np.ndarray], *, seed: int | None, prompt: str | None) -> None:
        """Go to where the conditioner of an episode's world was, under the player's words."""
        self._seed = seed
        self._go_on(state)
        if prompt:
            self.env.set_prompt(prompt)

    def play(self, turn: Turn) -> None:
        """Do what the player did."""
        for text in turn.words:
            self.env.set_prompt(text)
        if any(voice is not None for voice in turn.heard):
            self.env.set_voices(*turn.heard)
        if turn.action is None:
            return
        self.frame, _, terminated, truncated, info = self.env.step(turn.action)
        if terminated or truncated:
            # It lost its hearts; the world plays on, so it goes on from there with new ones.
            self._go_on(info["conditioner_state"])

    def _go_on(self, state: Mapping[str, np.ndarray]) -> None:
        options = {"conditioner_state": state, "scene_changes": False}
        self.frame, _ = self.env.reset(seed=self._seed, options=options)
