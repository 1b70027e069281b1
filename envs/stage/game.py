"""The rules of Stage: coins, rocks, fires, hearts and score. Nothing is drawn here.

Objects lie along an unbounded x. Each segment of the x axis has its own random stream, so what lies
there depends on the episode's seed alone and not on how one came there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from envs.stage.controller import PoseController
from envs.stage.skeleton import GROUND_Y

MAX_HEARTS = 3
INVULNERABLE_STEPS = 20
FLINCH_STEPS = 8
COIN_HEIGHTS = (120.0, 80.0, 40.0)  # screen y: chest, head, above the head

_SEGMENT_PX = 160
_CLEAR_START_PX = 120.0
_OBSTACLE_CHANCE = 0.8
_SECOND_COIN_CHANCE = 0.45
_VISIBLE_PX = 190.0
_BODY_HALF_WIDTH = 14.0
_COIN_RADIUS = 9.0
_HIT_HALF_WIDTH = 14.0
_CLEARANCE_PX = 16.0
_KICK_REACH_PX = 48.0
_HEAD_Y = 66.0
_CROUCHED_HEAD_Y = 92.0


class Kind(IntEnum):
    """What an object is."""

    COIN = 0
    ROCK = 1
    FIRE = 2


@dataclass(frozen=True)
class GameObject:
    """One thing on the stage."""

    kind: Kind
    x: float
    y: float
    variant: int


class StageGame:
    """Score, hearts and the objects that are left, for one episode.

    Args:
        seed: Of what lies where.
        start_x: World x in px near which nothing lies.
        has_things: Whether anything lies anywhere.
    """

    def __init__(self, *, seed: int, start_x: float, has_things: bool = True) -> None:
        self.seed = seed
        self.has_things = has_things
        self.start_x = start_x
        self.score = 0
        self.hearts = MAX_HEARTS
        self.steps_since_hit = INVULNERABLE_STEPS
        self._gone: set[GameObject] = set()
        self._segments: dict[int, tuple[GameObject, ...]] = {}

    @property
    def is_over(self) -> bool:
        """Whether no heart is left."""
        return self.hearts == 0

    @property
    def is_invulnerable(self) -> bool:
        """Whether a hit was so recent that the next one does not count."""
        return self.steps_since_hit < INVULNERABLE_STEPS

    @property
    def flinch(self) -> float:
        """1 at the step of a hit, 0 after FLINCH_STEPS."""
        return max(0.0, 1.0 - self.steps_since_hit / FLINCH_STEPS)

    def step(self, controller: PoseController) -> float:
        """Apply the rules to where the character is now and return the reward."""
        self.steps_since_hit = min(self.steps_since_hit + 1, INVULNERABLE_STEPS)
        reward = 0.0
        for item in self.visible(controller.x):
            if item.kind is Kind.COIN:
                if _collects(controller, item):
                    self._gone.add(item)
                    self.score += 1
                    reward += 1.0
            elif item.kind is Kind.ROCK and _kicks(controller, item):
                self._gone.add(item)
            elif not self.is_invulnerable and _runs_into(controller, item):
                self.hearts -= 1
                self.steps_since_hit = 0
        return reward

    def visible(self, camera_x: float) -> list[GameObject]:
        """Return the objects that the camera may see, from left to right."""
        if not self.has_things:
            return []
        first = int((camera_x - _VISIBLE_PX) // _SEGMENT_PX)
        last = int((camera_x + _VISIBLE_PX) // _SEGMENT_PX)
        return [
            item
            for segment in range(first, last + 1)
            for item in self._segment(segment)
            if abs(item.x - camera_x) < _VISIBLE_PX and item not in self._gone
        ]

    def _segment(self, segment: int) -> tuple[GameObject, ...]:
        """Return what lay in a segment when the episode began."""
        if segment not in self._segments:
            items = (i for i in self._make(segment) if abs(i.x - self.start_x) >= _CLEAR_START_PX)
            self._segments[segment] = tuple(sorted(items, key=lambda item: item.x))
        return self._segments[segment]

    def _make(self, segment: int) -> Iterator[GameObject]:
        # Seeds must not be negative: even numbers for the right side, odd ones for the left.
        number = 2 * segment if segment >= 0 else -2 * segment - 1
        rng = np.random.default_rng((self.seed, number))
        left = segment * _SEGMENT_PX
        # In the middle of its segment, so that there is always room to land.
        obstacle_x = left + float(rng.integers(45, 116))
        has_obstacle = rng.random() < _OBSTACLE_CHANCE
        if has_obstacle:
            kind = Kind.ROCK if rng.random() < 0.6 else Kind.FIRE
            yield GameObject(kind, obstacle_x, GROUND_Y, int(rng.integers(3)))
        slots = rng.permutation(4)[: 1 + (rng.random() < _SECOND_COIN_CHANCE)]
        for slot in slots:
            x = left + 40.0 * float(slot) + float(rng.integers(8, 33))
            height = COIN_HEIGHTS[rng.integers(len(COIN_HEIGHTS))]
            if has_obstacle and abs(x - obstacle_x) < 24.0:
                height = COIN_HEIGHTS[2]
            yield GameObject(Kind.COIN, x, height, 0)


def _collects(controller: PoseController, coin: GameObject) -> bool:
    """Whether the body touches a coin."""
    head = _CROUCHED_HEAD_Y if controller.crouching else _HEAD_Y
    feet = GROUND_Y - controller.height
    return (
        abs(coin.x - controller.x) < _BODY_HALF_WIDTH + _COIN_RADIUS
        and head - controller.height - _COIN_RADIUS < coin.y < feet
    )


def _runs_into(controller: PoseController, obstacle: GameObject) -> bool:
    """Whether the feet are in an obstacle."""
    near = abs(obstacle.x - controller.x) < _HIT_HALF_WIDTH
    return near and controller.height < _CLEARANCE_PX


def _kicks(controller: PoseController, rock: GameObject) -> bool:
    """Whether a kick reaches a rock in front."""
    distance = (rock.x - controller.x) * controller.facing
    return controller.attack == "kick" and 0.0 <= distance < _KICK_REACH_PX
