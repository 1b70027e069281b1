"""What a step pays, costs and ends: rules for what the network tells, or a user's own functions.

The network tells expectations: of the reward, and the probabilities of a hit and of the end. Where
rewards come in whole units (`WorldConfig.reward_unit`), the expectation says how likely one is.

Shapes: B games, N latent tokens per frame, C latent channels, P pose size, K keypoints.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from midas_world.config import WorldConfig

# "threshold" pays, costs and ends what is likelier than not; "expected" pays and costs what is
# expected; "sample" draws from each game's own chance.
OUTCOMES = ("threshold", "expected", "sample")


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What the network tells of a step, and of the frames that it made.

    Attributes:
        config: Of the world.
        step: (B,) int64 steps since each game's reset.
        pose: (B, P) float32; not a number where a game has none.
        latents: (B, N, C) float32.
        expected_reward: (B,) float64.
        hit_probability: (B,) float64.
        termination_probability: (B,) float64.
        entries: Entry of the pose and its unit, of what the world's conditioner has names for.
    """

    config: WorldConfig
    step: np.ndarray
    pose: np.ndarray
    latents: np.ndarray
    expected_reward: np.ndarray
    hit_probability: np.ndarray
    termination_probability: np.ndarray
    entries: Mapping[str, tuple[int, float]]

    @property
    def x(self) -> np.ndarray:
        """(B,) px: the place in the loop of a world whose pose tells a camera."""
        camera = self.config.conditions.camera
        if not camera.is_declared:
            raise ValueError("this world's pose tells no x")
        return self.pose[:, camera.index] * camera.loop

    @property
    def keypoints(self) -> np.ndarray:
        """(B, K, 2) px of the frame."""
        count = self.config.conditions.num_keypoints
        places = self.pose[:, : 2 * count].reshape(-1, count, 2)
        return (places + 1.0) / 2.0 * (self.config.width, self.config.height)

    @property
    def velocity(self) -> np.ndarray:
        """(B,) px per step along x."""
        return self._entry("velocity")

    @property
    def height(self) -> np.ndarray:
        """(B,) px above the ground."""
        return self._entry("height")

    def _entry(self, name: str) -> np.ndarray:
        if name not in self.entries:
            raise ValueError(f"this world's pose tells no {name}")
        index, unit = self.entries[name]
        return self.pose[:, index] * unit


OutcomeFunction = Callable[[Outlook], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came of a step, before horizons, lives and games that are over.

    Attributes:
        rewards: (B,) float64.
        reward_probabilities: (B,) float64: that there is a reward.
        costs: (B,) float64.
        hits: (B,) bool: what takes a life.
        ends: (B,) bool.
    """

    rewards: np.ndarray
    reward_probabilities: np.ndarray
    costs: np.ndarray
    hits: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True, kw_only=True)
class OutcomeRule:
    """How what the network tells becomes rewards, costs and ends.

    Raises:
        ValueError: A threshold cannot be used, or there is no such rule.
    """

    outcomes: str = "threshold"
    reward_threshold: float | None = None
    cost_threshold: float = 0.5
    termination_threshold: float = 0.5
    reward: OutcomeFunction | None = None
    cost: OutcomeFunction | None = None
    end: OutcomeFunction | None = None

    def __post_init__(self) -> None:
        if self.outcomes not in OUTCOMES:
            raise ValueError(f"outcomes must be one of {', '.join(OUTCOMES)}, got {self.outcomes}")
        if self.reward_threshold is not None and not self.reward_threshold >= 0:
            raise ValueError(f"reward_threshold must be at least 0, got {self.reward_threshold}")
        for name in ("cost_threshold", "termination_threshold"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")

    def apply(self, outlook: Outlook, chance: Callable[[int], float]) -> Told:
        """Return what comes of a step; `chance` draws from a game's own stream, [0, 1)."""
        unit = outlook.config.reward_unit
        units = outlook.expected_reward / unit
        hits = outlook.hit_probability > self.cost_threshold
        ends = outlook.termination_probability > self.termination_threshold
        rewards, costs = outlook.expected_reward.copy(), hits.astype(np.float64)
        if self.outcomes == "threshold":
            least = unit / 2 if self.reward_threshold is None else self.reward_threshold
            rewards[np.abs(rewards) <= least] = 0.0
        elif self.outcomes == "expected":
            costs = outlook.hit_probability.copy()
        else:
            drawn = np.array([[chance(row) for _ in range(3)] for row in range(len(units))])
            # Whole units, right in the mean.
            rewards = unit * (np.floor(units) + (drawn[:, 0] < units - np.floor(units)))
            hits = drawn[:, 1] < outlook.hit_probability
            ends = drawn[:, 2] < outlook.termination_probability
            costs = hits.astype(np.float64)
        if self.reward is not None:
            rewards = _checked("reward", self.reward(outlook), rewards)
        if self.cost is not None:
            costs = _checked("cost", self.cost(outlook), costs)
        if self.end is not None:
            ends = _checked("end", self.end(outlook), ends)
        return Told(
            rewards=rewards,
            reward_probabilities=np.minimum(np.abs(units), 1.0),
            costs=costs,
            hits=hits,
            ends=ends,
        )


def _checked(name: str, given: Any, own: np.ndarray) -> np.ndarray:
    """Return what a user's function gave, as what stands in its place.

    Raises:
        ValueError: There is not one value per game, or one is not finite.
    """
    values = np.asarray(given)
    if values.shape != own.shape or not np.isfinite(values.astype(np.float64)).all():
        raise ValueError(
            f"{name} must return a finite value per game, of shape {own.shape}, got {given!r}"
        )
    return values.astype(own.dtype)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step brought to each game."""

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    @classmethod
    def none(cls, num_games: int) -> "Outcome":
        """Return that of no step."""
        ends = np.zeros(num_games, bool)
        return cls(rewards=np.zeros(num_games), terminated=ends, truncated=ends)

    def joined(self, later: "Outcome") -> "Outcome":
        """Return what this and a later step brought together."""
        return Outcome(
            rewards=self.rewards + later.rewards,
            terminated=self.terminated | later.terminated,
            truncated=self.truncated | later.truncated,
        )
