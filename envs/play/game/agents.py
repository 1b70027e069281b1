"""Who plays while nobody does: Stage's expert where it sees what lies ahead, else a wanderer."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from envs.stage.policies import Policy


class Wanderer:
    """Holds each action for a while, never the first, which is to do nothing."""

    def __init__(self, num_actions: int) -> None:
        self._num_actions = num_actions

    def reset(self, rng: np.random.Generator) -> None:
        """Start to play."""
        self._rng = rng
        self._action, self._num_left = 0, 0

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return the action that is held."""
        if self._num_left == 0:
            self._action = int(self._rng.integers(min(1, self._num_actions - 1), self._num_actions))
            self._num_left = int(self._rng.integers(10, 41))
        self._num_left -= 1
        return self._action


class Seer:
    """Shows an agent, which expects `info["objects"]`, a world that tells of them by itself."""

    def __init__(self, agent: Policy, look: Callable[[], np.ndarray]) -> None:
        self._agent, self._look = agent, look

    def reset(self, rng: np.random.Generator) -> None:
        """Start to play."""
        self._agent.reset(rng)

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return the agent's action."""
        return self._agent.act(observation, {**info, "objects": self._look()})


class Pilot:
    """An agent that can take over from the player and hand back."""

    def __init__(self, make_agent: Callable[[], Policy] | None, num_actions: int) -> None:
        self._agent = make_agent() if make_agent is not None else Wanderer(num_actions)
        self.is_flying = False

    def take(self, *, is_flying: bool) -> None:
        """Let the agent play, or not."""
        if is_flying and not self.is_flying:
            self._agent.reset(np.random.default_rng(0))
        self.is_flying = is_flying

    def act(self, frame: np.ndarray, info: Mapping[str, Any]) -> int:
        """Return what the agent does."""
        return self._agent.act(frame, dict(info))
