"""What falls or drifts in front of a scene: rain, snow and fog.

All of it is sparse, soft and loops in `WEATHER_PERIOD` steps, so that a strongly compressing
autoencoder can learn it. Drops and flakes belong to the world: they pass by as the camera moves.
Positions are px of the 192 x 320 frame at every scale; `camera` is one of whole pixels.
"""

import math
from functools import lru_cache

import numpy as np
import pygame

from envs.stage.moods import HEIGHT, WIDTH, Mood
from envs.stage.pen import Pen
from envs.stage.pixels import nearest_pixel, pixel_centers, surface_of

WEATHER_PERIOD = 16
_TILE = 400
_DROPS = 34
_FLAKE_COLUMNS = 13


def draw_rain(
    surface: pygame.Surface, mood: Mood, camera: float, step: int, *, scale: int = 1
) -> None:
    """Draw slanted translucent streaks; each falls two screens in a period, at its own place."""
    drop = _drop(_pale(mood, 0.72), scale)
    blits = []
    for i in range(_DROPS):
        phase = (i * 0.618034) % 1.0
        fall = (step / WEATHER_PERIOD * 2 + phase * 2) % 2
        y = (fall % 1.0) * (HEIGHT + 30) - 26
        x = (i * 67 + (fall >= 1) * 193 - 0.2 * y - camera) % _TILE - 40
        place = (round(x * scale), round(y * scale))
        blits.append((drop, place, None, pygame.BLEND_PREMULTIPLIED))
    surface.blits(blits, doreturn=False)


def draw_snow(
    surface: pygame.Surface, mood: Mood, camera: float, step: int, *, scale: int = 1
) -> None:
    """Draw soft flakes on swaying paths; within a period each takes the place of the next one."""
    blits = []
    color = _pale(mood, 0.96)
    for speed, parallax, radius in ((3, 0.5, 1.6), (4, 1.0, 2.3)):
        flake = _flake(color, radius, scale)
        gap = speed * WEATHER_PERIOD
        scroll = nearest_pixel(camera * parallax, scale) / scale
        for i in range(_FLAKE_COLUMNS):
            start = (i * 29) % gap + (step % WEATHER_PERIOD) * speed
            for y in range(start % gap - gap, HEIGHT, gap):
                sway = 5 * math.sin(y * 0.045 + i * 2.4)
                x = (i * _TILE / _FLAKE_COLUMNS + sway + (i * i * 7) % 23 - scroll) % _TILE - 20
                place = (round(x * scale), y * scale)
                blits.append((flake, place, None, pygame.BLEND_PREMULTIPLIED))
    surface.blits(blits, doreturn=False)


def draw_fog(
    surface: pygame.Surface, mood: Mood, camera: float, step: int, *, scale: int = 1
) -> None:
    """Draw a veil with soft banks that sway a little."""
    veil = _veil(tuple(round(c) for c in mood.haze), scale)
    sway = round(3 * math.sin(2 * math.pi * step / WEATHER_PERIOD) * scale)
    period, width = _TILE * scale, WIDTH * scale
    left = (nearest_pixel(camera * 0.5, scale) - width // 2 + sway) % period
    for x in (-left, period - left):
        if x < width:
            surface.blit(veil, (x, 0), special_flags=pygame.BLEND_PREMULTIPLIED)


def _pale(mood: Mood, amount: float) -> tuple[int, ...]:
    return tuple(
        round(c + (255 * (0.4 + 0.6 * light / 255) - c) * amount)
        for c, light in zip(mood.haze, mood.light, strict=True)
    )


@lru_cache(maxsize=32)
def _drop(color: tuple[int, ...], scale: int) -> pygame.Surface:
    zoom, alpha = Pen.zoom_of(scale), 70
    drawn = pygame.Surface((12 * zoom, 26 * zoom), pygame.SRCALPHA, 32)
    red, green, blue = (c * alpha // 255 for c in color)
    tone = red, green, blue, alpha
    Pen(drawn, origin=(0.0, 0.0), scale=scale).capsule((8.4, 2), (3.6, 24), 0.45, 1.2, tone)
    return pygame.transform.smoothscale(drawn, (12 * scale, 26 * scale))


@lru_cache(maxsize=32)
def _flake(color: tuple[int, ...], radius: float, scale: int) -> pygame.Surface:
    """Return a soft light that fades to nothing at 1.7 times the radius."""
    zoom, reach = Pen.zoom_of(scale), 1.7 * radius
    across = np.linspace(-1, 1, math.ceil(2 * reach * zoom), dtype=np.float32) ** 2
    alpha = 0.95 * np.maximum(0, 1 - across[None, :] - across[:, None]) ** 2
    light = surface_of(alpha[..., None] * np.array([*color, 255], dtype=np.float32))
    drawn = pygame.Surface((8 * zoom, 8 * zoom), pygame.SRCALPHA, 32)
    place = math.floor((4 - reach) * zoom)
    drawn.blit(light, (place, place), special_flags=pygame.BLEND_PREMULTIPLIED)
    return pygame.transform.smoothscale(drawn, (8 * scale, 8 * scale))


@lru_cache(maxsize=32)
def _veil(color: tuple[int, ...], scale: int) -> pygame.Surface:
    rows, columns = pixel_centers(HEIGHT, scale), pixel_centers(_TILE, scale)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    turn = 2 * math.pi * x / _TILE
    bank = np.sin(turn * 2 + y * 0.03) * np.sin(y * 0.05 + turn + 1.0)
    depth = np.exp(-(((y - 140) / 62) ** 2))
    alpha = np.clip(0.1 + 0.2 * depth + 0.08 * bank, 0, 1)
    return surface_of(alpha[..., None] * np.array([*color, 255], dtype=np.float32))
