"""Policies that play Stage to collect data: from random and scripted play to much talking."""

from typing import Any

import numpy as np

from envs.contract import check_names
from envs.stage.controller import ACTIONS
from envs.stage.game import Kind
from midas_world.teachers.policies import Policy

_RUN = {-1: ACTIONS.index("run_left"), 1: ACTIONS.index("run_right")}
_LEAP = {-1: ACTIONS.index("leap_left"), 1: ACTIONS.index("leap_right")}
_IDLE, _KICK, _TALK = (ACTIONS.index(name) for name in ("idle", "kick", "talk"))

# Where things must lie ahead of a runner for the expert's moves. A leap clears about 12 to 78 px.
_LEAP_NEAR_PX = 20.0
_LEAP_FROM_PX = 56.0
_LANDING_PX = 120.0
_DECIDE_PX = 90.0
_KICK_FROM_PX = 47.0
_KICK_STEPS = 5
_KICK_CHANCE = 0.3
_HIGH_COIN_DY = -110.0
_HEIGHT = 32  # index in the pose vector


class _HoldingPolicy:
    """Holds an action for some steps, then chooses the next."""

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng
        self._action = 0
        self._num_left = 0
        self._is_special = False

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return the action held at present."""
        if self._num_left == 0:
            self._is_special = not self._is_special
            self._action, self._num_left = self._choose(self._rng)
        self._num_left -= 1
        return self._action

    def _choose(self, rng: np.random.Generator) -> tuple[int, int]:
        """Return an action and its steps; every other one is what the policy is for."""
        raise NotImplementedError


class RandomPolicy(_HoldingPolicy):
    """Holds random actions for 4 to 20 steps; moves more often than not."""

    def _choose(self, rng: np.random.Generator) -> tuple[int, int]:
        moves = np.array([name.startswith(("walk", "run", "leap")) for name in ACTIONS])
        weights = np.where(moves, 2.0, 1.0)
        action = int(rng.choice(len(ACTIONS), p=weights / weights.sum()))
        return action, int(rng.integers(4, 21))


class ExpertPolicy:
    """Runs one way, leaps over rocks and fires and for high coins, kicks a rock at times."""

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng
        self.direction = 1
        self._kicks = False
        self._num_kick_steps = 0

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return the action that serves best now."""
        if self._num_kick_steps > 0:
            self._num_kick_steps -= 1
            return _KICK
        kinds, ahead = info["objects"][:, 0], info["objects"][:, 1] * self.direction
        is_obstacle = (kinds == Kind.ROCK) | (kinds == Kind.FIRE)
        obstacles = ahead[is_obstacle & (ahead > -_LEAP_NEAR_PX)]
        distance = float(obstacles.min(initial=np.inf))
        if distance > _DECIDE_PX:
            self._kicks = bool(self._rng.random() < _KICK_CHANCE)
        if info["pose"][_HEIGHT] > 0.0:
            return _RUN[self.direction]
        is_rock = bool(np.any((kinds == Kind.ROCK) & (ahead == distance)))
        if self._kicks and is_rock and 0.0 < distance < _KICK_FROM_PX:
            self._kicks = False
            self._num_kick_steps = _KICK_STEPS
            return _KICK
        if not (self._kicks and is_rock) and 0.0 < distance < _LEAP_FROM_PX:
            return _LEAP[self.direction]
        is_high = (kinds == Kind.COIN) & (info["objects"][:, 2] < _HIGH_COIN_DY)
        coins = ahead[is_high & (ahead > _LEAP_NEAR_PX) & (ahead < _LEAP_FROM_PX)]
        lands_on = (obstacles > _LEAP_FROM_PX) & (obstacles < _LANDING_PX)
        if coins.size and not lands_on.any():
            return _LEAP[self.direction]
        return _RUN[self.direction]


class MixedPolicy:
    """Changes between expert and random play every 30 to 80 steps, and its way at times."""

    _TURN_CHANCE = 0.3

    def __init__(self) -> None:
        self._expert = ExpertPolicy()
        self._random = RandomPolicy()

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng
        self._expert.reset(rng)
        self._random.reset(rng)
        self._is_expert = bool(rng.random() < 0.5)
        self._num_left = int(rng.integers(30, 81))

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return the action of the policy whose turn it is."""
        if self._num_left == 0:
            self._is_expert = not self._is_expert
            self._num_left = int(self._rng.integers(30, 81))
            if self._rng.random() < self._TURN_CHANCE:
                self._expert.direction *= -1
        self._num_left -= 1
        policy = self._expert if self._is_expert else self._random
        return policy.act(observation, info)


class RecklessPolicy:
    """Runs or leaps one way whatever lies there: else hits and ends would be too rare to learn."""

    _PAUSE_CHANCE = 0.03
    _LEAP_CHANCE = 0.3

    def reset(self, rng: np.random.Generator) -> None:
        """Start an episode."""
        self._rng = rng
        self._direction = int(rng.choice((-1, 1)))
        self._way = _LEAP if rng.random() < self._LEAP_CHANCE else _RUN
        self._pause = 0
        self._num_left = 0

    def act(self, observation: np.ndarray, info: dict[str, Any]) -> int:
        """Return running or leaping one way, or now and then a few steps of anything."""
        if self._num_left > 0:
            self._num_left -= 1
            return self._pause
        if self._rng.random() < self._PAUSE_CHANCE:
            self._pause = int(self._rng.integers(len(ACTIONS)))
            self._num_left = int(self._rng.integers(3, 10))
            self._direction *= int(self._rng.choice((-1, 1, 1)))
        return self._way[self._direction]


class GesturesPolicy(_HoldingPolicy):
    """Waves, punches and kicks for 8 to 24 steps at a time, and takes a few steps in between.

    Without it, stretched arms and legs are so rare that they are learned as a blur.
    """

    _GESTURES = tuple(ACTIONS.index(name) for name in ("wave", "punch", "kick"))

    def _choose(self, rng: np.random.Generator) -> tuple[int, int]:
        if self._is_special:
            return int(rng.choice(self._GESTURES)), int(rng.integers(8, 25))
        return int(rng.integers(len(ACTIONS))), int(rng.integers(2, 8))


class TalkingPolicy(_HoldingPolicy):
    """Talks for 10 to 60 steps at a time; in between it listens, or does anything for a moment.

    Without it, mouth and portrait are so rare that they are learned as a blur.
    """

    def _choose(self, rng: np.random.Generator) -> tuple[int, int]:
        if self._is_special:
            return _TALK, int(rng.integers(10, 61))
        listens = rng.random() < 0.4
        action = _IDLE if listens else int(rng.integers(len(ACTIONS)))
        return action, int(rng.integers(2, 30 if listens else 12))


POLICIES: dict[str, type[Policy]] = {
    "random": RandomPolicy,
    "expert": ExpertPolicy,
    "mixed": MixedPolicy,
    "reckless": RecklessPolicy,
    "gestures": GesturesPolicy,
    "talking": TalkingPolicy,
}


def make_policy(name: str) -> Policy:
    """Return a policy by its name; call its `reset` before the first action.

    Raises:
        ValueError: There is no such policy; the message names the nearest.
    """
    check_names("policy", [name], list(POLICIES))
    return POLICIES[name]()
