"""Who plays while nobody does: Stage's expert where it sees what lies ahead, else chance."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from envs.play.game.playable import Playable
from midas_world.teachers.policies import Policy, StickyPolicy


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

    def __init__(self, playable: Playable) -> None:
        make = playable.make_agent or partial(StickyPolicy, playable.env.action_space)
        self._agent = make()
        self.is_flying = False

    def take(self, *, is_flying: bool) -> None:
        """Let the agent play, or not."""
        if is_flying and not self.is_flying:
            self._agent.reset(np.random.default_rng(0))
        self.is_flying = is_flying

    def act(self, frame: np.ndarray, info: Mapping[str, Any]) -> int:
        """Return what the agent does."""
        return self._agent.act(frame, dict(info))
