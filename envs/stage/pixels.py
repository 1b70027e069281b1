"""Painted pictures of Stage, and pixels of surfaces.

The places, clouds and sprites are pictures in art/, one file for each scale, with alpha that is
premultiplied: what covers half of a pixel has half of its colour, so that blits need
`BLEND_PREMULTIPLIED` and leave no dark fringes. They are WebP without loss; one that was changed is
written by PIL's `save(path, lossless=True, exact=True)`, and worlds have to be trained anew. Of a
place far, mid and ground lie side by side; what shines by itself lies below what light shades.

Coordinates all over Stage are px of the 192 x 320 frame, whatever the scale. A frame of scale 2 is
drawn, not enlarged, with two pixels for each px; `nearest_pixel` and `pixel_centers` convert.
"""

import math
from pathlib import Path

import numpy as np
import pygame
from PIL import Image

Pixels = np.ndarray
Rgb = tuple[int, int, int]


def load_art(name: str, *, scale: int) -> Pixels:
    """Return a painted picture, (H, W, 4) uint8, premultiplied."""
    file = f"{name.replace(' ', '_')}_{scale}x.webp"
    with Image.open(Path(__file__).parent / "art" / file) as picture:
        return np.array(picture)


def nearest_pixel(position: float, scale: int) -> int:
    """Return the number of the pixel at a scale that begins nearest to a position in px."""
    return math.floor(position * scale + 0.5)


def pixel_centers(size: int, scale: int) -> np.ndarray:
    """Return where the size * scale pixels of a picture lie, in px, (size * scale,) float32.

    A pixel of scale 1 counts as lying at its number, so one of scale 2 lies a quarter beside it.
    """
    return ((np.arange(size * scale) + 0.5) / scale - 0.5).astype(np.float32)


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


def tinted(surface: pygame.Surface, light: Rgb) -> pygame.Surface:
    """Return a copy with its colours multiplied by light / 255."""
    copy = surface.copy()
    copy.fill((*light, 255), special_flags=pygame.BLEND_RGBA_MULT)
    return copy


def mix(first: Rgb, second: Rgb, amount: float) -> Rgb:
    """Return the colour that is `amount` of the way from first to second."""
    r, g, b = (round(a + (b - a) * amount) for a, b in zip(first, second, strict=True))
    return r, g, b
