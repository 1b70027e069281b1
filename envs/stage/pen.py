"""A pen that draws outlined shapes on an enlarged surface, in the coordinates of the frame."""

import math
from collections.abc import Sequence

import pygame

from envs.stage.looks import OUTLINE, Color, Point

OUTLINE_WIDTH = 1.3
CIRCLE = tuple(
    (math.cos(2.0 * math.pi * i / 18), math.sin(2.0 * math.pi * i / 18)) for i in range(18)
)


class Pen:
    """Draws shapes given in px on a surface that is `scale` times larger."""

    def __init__(self, surface: pygame.Surface, *, origin: Point, scale: float) -> None:
        self.surface = surface
        self.scale = scale
        self.left, self.top = origin

    def at(self, point: Sequence[float]) -> Point:
        """Return where a point of the frame lies on the surface."""
        """Return where a point of the frame lies on the surface."""
        return (point[0] - self.left) * self.scale, (point[1] - self.top) * self.scale

    def disc(self, center: Sequence[float], radius: float, color: Color) -> None:
        """Draw a disc, its radius in frame px."""
        """Draw a disc, its radius in frame px."""
        pygame.draw.circle(self.surface, color, self.at(center), radius * self.scale)

    def polygon(self, points: Sequence[Point], color: Color, *, outline: float = 0.0) -> None:
        """Draw a filled polygon with an outline of so many frame px."""
        """Draw a filled polygon with an outline of so many frame px."""
        spots = [self.at(point) for point in points]
        if outline:
            width = outline * self.scale
            pygame.draw.lines(self.surface, OUTLINE, True, spots, round(2.0 * width))
            for spot in spots:
                pygame.draw.circle(self.surface, OUTLINE, spot, width)
        pygame.draw.polygon(self.surface, color, spots)

    def capsule(
        self, start: Sequence[float], end: Sequence[float], wide: float, thin: float, color: Color
    ) -> None:
        """Draw a limb that tapers from half width `wide` at its start to `thin` at its end."""
        (ax, ay), (bx, by) = self.at(start), self.at(end)
        wide, thin = wide * self.scale, thin * self.scale
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
