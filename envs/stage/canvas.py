"""A small antialiased canvas on which scenery and sprites are painted once.

Shapes are drawn three times too large and averaged down. Everything is kept with premultiplied
alpha: averaging then leaves no dark fringes, and blits need `BLEND_PREMULTIPLIED`. A looping canvas
repeats each shape across its left and right edges, so that it tiles without a seam.

Coordinates all over Stage are px of the 192 x 320 frame, whatever the scale. A frame of scale 2 is
drawn, not enlarged, with two pixels for each px; `nearest_pixel` and `pixel_centers` convert.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pygame

_OVERSAMPLING = 3

Color = tuple[int, int, int] | tuple[int, int, int, int]
Point = tuple[float, float]
Pixels = np.ndarray

# The light of lamps and windows.
WARM: Color = (255, 214, 130)


class Canvas:
    """Paints filled shapes; coordinates are px of the 192 x 320 frame, as floats.

    Each shape takes one colour, or two for a vertical gradient from its top to its bottom. A fourth
    colour component is alpha.

    Args:
        width: Of the picture, in px of the 192 x 320 frame.
        height: Likewise.
        loop: Whether it repeats itself to the left and right.
        scale: Pixels of the finished picture per px.
    """

    def __init__(self, width: int, height: int, *, loop: bool, scale: int = 1) -> None:
        self.width = width
        self.height = height
        self.loop = loop
        self.scale = scale
        self._zoom = _OVERSAMPLING * scale
        size = (width * self._zoom, height * self._zoom)
        self._surface = pygame.Surface(size, pygame.SRCALPHA, 32)

    def polygon(self, points: Sequence[Point], color: Color, color2: Color | None = None) -> None:
        """Paint a filled polygon."""
        zoom = self._zoom
        xs = [p[0] for p in points]
        ys = [p[1] for p in points]

        def draw(target: pygame.Surface, left: int, top: int, fill: Color) -> None:
            pygame.draw.polygon(
                target, fill, [(x * zoom - left, y * zoom - top) for x, y in points]
            )

        self._shape((min(xs), min(ys), max(xs), max(ys)), draw, color, color2)

    def ellipse(
        self,
        x: float,
        y: float,
        radius_x: float,
        radius_y: float,
        color: Color,
        color2: Color | None = None,
    ) -> None:
        """Paint a filled ellipse around (x, y)."""
        zoom = self._zoom
        box = (x - radius_x, y - radius_y, x + radius_x, y + radius_y)

        def draw(target: pygame.Surface, left: int, top: int, fill: Color) -> None:
            area = pygame.Rect(
                round(box[0] * zoom) - left,
                round(box[1] * zoom) - top,
                max(1, round(2 * radius_x * zoom)),
                max(1, round(2 * radius_y * zoom)),
            )
            pygame.draw.ellipse(target, fill, area)

        self._shape(box, draw, color, color2)

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        color: Color,
        color2: Color | None = None,
        *,
        radius: float = 0,
    ) -> None:
        """Paint a filled rectangle with its left top corner at (x, y)."""
        zoom = self._zoom

        def draw(target: pygame.Surface, left: int, top: int, fill: Color) -> None:
            area = pygame.Rect(
                round(x * zoom) - left,
                round(y * zoom) - top,
                round(width * zoom),
                round(height * zoom),
            )
            pygame.draw.rect(target, fill, area, border_radius=round(radius * zoom))

        self._shape((x, y, x + width, y + height), draw, color, color2)

    def stroke(
        self, points: Sequence[Point], width: float, color: Color, end_width: float | None = None
    ) -> None:
        """Paint a thick line with round joints that may taper towards its end."""
        zoom = self._zoom
        last = width if end_width is None else end_width
        half = max(width, last) / 2
        radii = np.linspace(width / 2, last / 2, len(points)).tolist()
        xs = [p[0] for p in points]
        ys = [p[1] for p in points]

        def draw(target: pygame.Surface, left: int, top: int, fill: Color) -> None:
            scaled = [(x * zoom - left, y * zoom - top) for x, y in points]
            for (a, b), (ra, rb) in zip(
                pairwise(scaled),
                pairwise(radii),
                strict=True,
            ):
                length = math.hypot(b[0] - a[0], b[1] - a[1]) or 1.0
                nx = (a[1] - b[1]) / length * zoom
                ny = (b[0] - a[0]) / length * zoom
                quad = [
                    (a[0] + nx * ra, a[1] + ny * ra),
                    (b[0] + nx * rb, b[1] + ny * rb),
                    (b[0] - nx * rb, b[1] - ny * rb),
                    (a[0] - nx * ra, a[1] - ny * ra),
                ]
                pygame.draw.polygon(target, fill, quad)
            for center, radius in zip(scaled, radii, strict=True):
                pygame.draw.circle(target, fill, center, radius * zoom)

        box = (min(xs) - half, min(ys) - half, max(xs) + half, max(ys) + half)
        self._shape(box, draw, color, None)

    def ridge(
        self,
        base: float,
        waves: Sequence[tuple[float, int, float]],
        color: Color,
        color2: Color | None = None,
        *,
        bottom: float | None = None,
    ) -> None:
        """Paint everything below a sum of sines: base - amplitude * sin(turns * x + phase)."""
        low = self.height if bottom is None else bottom
        xs = [2 * step for step in self.steps(self.width // 2)]
        points = [(x, self.ridge_height(x, base, waves)) for x in xs]
        self.polygon([(0, low), *points, (self.width, low)], color, color2)

    def ridge_height(
        self, x: float, base: float, waves: Sequence[tuple[float, int, float]]
    ) -> float:
        """Return the y of a ridge at x."""
        turn = 2 * math.pi * x / self.width
        return base - sum(size * math.sin(turns * turn + phase) for size, turns, phase in waves)

    def steps(self, count: int) -> list[float]:
        """Return 0 to `count` in steps of 1 / scale: where a curve has its corners."""
        return [step / self.scale for step in range(count * self.scale + 1)]

    def glow(
        self, x: float, y: float, radius_x: float, radius_y: float, color: Color, strength: float
    ) -> None:
        """Paint a soft light that fades to nothing at its rim; strength is its alpha, 0 to 1."""
        zoom = self._zoom
        left, top = math.floor((x - radius_x) * zoom), math.floor((y - radius_y) * zoom)
        width, height = math.ceil(2 * radius_x * zoom), math.ceil(2 * radius_y * zoom)
        across = np.linspace(-1, 1, width, dtype=np.float32) ** 2
        down = np.linspace(-1, 1, height, dtype=np.float32) ** 2
        alpha = strength * np.maximum(0, 1 - across[None, :] - down[:, None]) ** 2
        rgba = alpha[..., None] * np.array([*color[:3], 255], dtype=np.float32)
        self._stamp(surface_of(rgba), left, top)

    def pixels(self) -> Pixels:
        """Return the finished picture, premultiplied, 0 to 255.

        Returns:
            (height * scale, width * scale, 4) float32.
        """
        size = (self.width * self.scale, self.height * self.scale)
        small = pygame.transform.smoothscale(self._surface, size)
        return pixels_of(small)

    def _shape(
        self,
        box: tuple[float, float, float, float],
        draw: Callable[[pygame.Surface, int, int, Color], None],
        color: Color,
        color2: Color | None,
    ) -> None:
        zoom = self._zoom
        left, top = math.floor(box[0] * zoom) - 1, math.floor(box[1] * zoom) - 1
        size = (math.ceil(box[2] * zoom) - left + 2, math.ceil(box[3] * zoom) - top + 2)
        shape = pygame.Surface(size, pygame.SRCALPHA, 32)
        if color2 is None:
            draw(shape, left, top, _premultiplied(color))
        else:
            draw(shape, left, top, (255, 255, 255, 255))
            gradient = _gradient(size[1], _premultiplied(color), _premultiplied(color2))
            shape.blit(
                pygame.transform.scale(gradient, size), (0, 0), special_flags=pygame.BLEND_RGBA_MULT
            )
        self._stamp(shape, left, top)

    def _stamp(self, shape: pygame.Surface, left: int, top: int) -> None:
        zoom = self._zoom
        span = self.width * zoom
        for shift in (-span, 0, span) if self.loop else (0,):
            if left + shift < span and left + shift + shape.get_width() > 0:
                self._surface.blit(
                    shape, (left + shift, top), special_flags=pygame.BLEND_PREMULTIPLIED
                )


def placed(
    outline: Sequence[Point], x: float, y: float, width: float = 1.0, height: float = 1.0
) -> list[Point]:
    """Return the corners of an outline of units, at (x, y) and so large."""
    return [(x + across * width, y + down * height) for across, down in outline]


def nearest_pixel(position: float, scale: int) -> int:
    """Return the number of the pixel at a scale that begins nearest to a position in px."""
    return math.floor(position * scale + 0.5)


def pixel_centers(size: int, scale: int) -> np.ndarray:
    """Return where the size * scale pixels of a picture lie, in px, (size * scale,) float32.

    A pixel of scale 1 counts as lying at its number, so one of scale 2 lies a quarter beside it.
    """
    return ((np.arange(size * scale) + 0.5) / scale - 0.5).astype(np.float32)


def pixels_of(surface: pygame.Surface) -> Pixels:
    """Return an alpha surface's pixels, (H, W, 4) float32, 0 to 255."""
    rgb = pygame.surfarray.array3d(surface)
    alpha = pygame.surfarray.array_alpha(surface)
    return np.dstack([rgb, alpha]).swapaxes(0, 1).astype(np.float32)


def surface_of(pixels: Pixels) -> pygame.Surface:
    """Return a surface of (H, W, 3) or (H, W, 4) pixels, 0 to 255; needs no display."""
    height, width, channels = pixels.shape
    flags = pygame.SRCALPHA if channels == 4 else 0
    surface = pygame.Surface((width, height), flags, 32)
    values = np.clip(pixels + 0.5, 0, 255).astype(np.uint8).swapaxes(0, 1)
    pygame.surfarray.pixels3d(surface)[...] = values[..., :3]
    if channels == 4:
        pygame.surfarray.pixels_alpha(surface)[...] = values[..., 3]
    return surface


def tinted(surface: pygame.Surface, light: tuple[int, int, int]) -> pygame.Surface:
    """Return a copy with its colours multiplied by light / 255."""
    copy = surface.copy()
    copy.fill((*light, 255), special_flags=pygame.BLEND_RGBA_MULT)
    return copy


def mix(first: Color, second: Color, amount: float) -> tuple[int, int, int]:
    """Return the colour that is `amount` of the way from first to second."""
    r, g, b = (round(a + (b - a) * amount) for a, b in zip(first[:3], second[:3], strict=True))
    return r, g, b


def _premultiplied(color: Color) -> tuple[int, int, int, int]:
    alpha = color[3] if len(color) == 4 else 255
    r, g, b = (c * alpha // 255 for c in color[:3])
    return r, g, b, alpha


@lru_cache(maxsize=256)
def _gradient(
    height: int, top: tuple[int, int, int, int], bottom: tuple[int, int, int, int]
) -> pygame.Surface:
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    return surface_of(np.asarray(top) * (1 - share) + np.asarray(bottom) * share)


class Layer:
    """One looping layer of a place.

    `base` holds the colours that time and weather shade; `lamp` holds what shines by itself
    (windows, lamps, neon) and comes out when it is dark.
    """

    def __init__(self, period: int, height: int, *, scale: int = 1) -> None:
        self.base = Canvas(period, height, loop=True, scale=scale)
        self.lamp = Canvas(period, height, loop=True, scale=scale)
