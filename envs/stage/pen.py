"""A pen that draws outlined shapes on an enlarged surface, in px of the 192 x 320 frame."""

import math
from collections.abc import Sequence
from functools import lru_cache

import pygame

from envs.stage.looks import OUTLINE, Color, Point

OUTLINE_WIDTH = 1.3
_OVERSAMPLING = 3


class Pen:
    """Draws shapes given in px on a surface that will be shrunk, which antialiases them.

    Attributes:
        zoom: Pixels of the surface per px.
        detail: How many times as many corners as at scale 1 a curve should have.
    """

    def __init__(self, surface: pygame.Surface, *, origin: Point, scale: int) -> None:
        self.surface = surface
        self.zoom = self.zoom_of(scale)
        self.detail = scale
        self.left, self.top = origin

    @staticmethod
    def zoom_of(scale: int) -> int:
        """Return how many pixels of its surface a pen has per px, for a frame of this scale."""
        return _OVERSAMPLING * scale

    @property
    def circle(self) -> tuple[Point, ...]:
        """The corners of a polygon that passes for a circle of radius 1."""
        return _circle(18 * self.detail)

    def at(self, point: Sequence[float]) -> Point:
        """Return where a point of the frame lies on the surface."""
        return (point[0] - self.left) * self.zoom, (point[1] - self.top) * self.zoom

    def disc(self, center: Sequence[float], radius: float, color: Color) -> None:
        """Draw a disc, its radius in frame px."""
        pygame.draw.circle(self.surface, color, self.at(center), radius * self.zoom)

    def polygon(self, points: Sequence[Point], color: Color, *, outline: float = 0.0) -> None:
        """Draw a filled polygon with an outline of so many frame px."""
        spots = [self.at(point) for point in points]
        if outline:
            width = outline * self.zoom
            pygame.draw.lines(self.surface, OUTLINE, True, spots, round(2.0 * width))
            for spot in spots:
                pygame.draw.circle(self.surface, OUTLINE, spot, width)
        pygame.draw.polygon(self.surface, color, spots)

    def capsule(
        self,
        start: Sequence[float],
        end: Sequence[float],
        wide: float,
        thin: float,
        color: Color | tuple[int, int, int, int],
    ) -> None:
        """Draw a limb that tapers from half width `wide` at its start to `thin` at its end."""
        (ax, ay), (bx, by) = self.at(start), self.at(end)
        wide, thin = wide * self.zoom, thin * self.zoom
        length = math.hypot(bx - ax, by - ay) or 1.0
        nx, ny = (ay - by) / length, (bx - ax) / length
        pygame.draw.circle(self.surface, color, (ax, ay), wide)
        pygame.draw.circle(self.surface, color, (bx, by), thin)
        pygame.draw.polygon(
            self.surface,
            color,
            (
                (ax + nx * wide, ay + ny * wide),
                (bx + nx * thin, by + ny * thin),
                (bx - nx * thin, by - ny * thin),
                (ax - nx * wide, ay - ny * wide),
            ),
        )

    def limb(
        self, joints: Sequence[Sequence[float]], widths: Sequence[float], color: Color
    ) -> None:
        """Draw a chain of capsules with one outline around it."""
        for grow, tone in ((OUTLINE_WIDTH, OUTLINE), (0.0, color)):
            for i in range(len(joints) - 1):
                self.capsule(joints[i], joints[i + 1], widths[i] + grow, widths[i + 1] + grow, tone)


@lru_cache(maxsize=4)
def _circle(num_corners: int) -> tuple[Point, ...]:
    turns = [2.0 * math.pi * i / num_corners for i in range(num_corners)]
    return tuple((math.cos(turn), math.sin(turn)) for turn in turns)
