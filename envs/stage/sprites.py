"""Coins, rocks, fires and hearts of Stage: painted once, then blitted.

Positions are px of the 192 x 320 frame at every scale; they may be fractions and may lie off the
screen. `scale` is how many pixels the surface has for each px.
"""

import math
from functools import lru_cache

import pygame

from envs.stage.canvas import Canvas, Color, mix, nearest_pixel, surface_of, tinted
from envs.stage.looks import load_tables

COIN_RADIUS = 8
COIN_PERIOD = 16
FIRE_PERIOD = 8
NUM_ROCKS = 3
HEART_SIZE = (15, 14)
HEART_GAP = 4

Light = tuple[int, int, int]

_COIN_CENTER = 11
_ROCK_SIZE, _ROCK_FOOT = (34, 24), 21
_FIRE_SIZE, _FIRE_FOOT = (44, 46), 42
_TABLES = load_tables("sprites")


def draw_coin(
    surface: pygame.Surface, x: float, y: float, *, light: Light, step: int, scale: int = 1
) -> None:
    """Draw a gold coin of radius 8 around (x, y); it turns once in 16 steps."""
    coin = _coin(step % COIN_PERIOD, light, scale)
    _blit(surface, coin, x - _COIN_CENTER, y - _COIN_CENTER, scale)


def draw_rock(
    surface: pygame.Surface,
    x: float,
    ground_y: float,
    *,
    light: Light,
    variant: int,
    scale: int = 1,
) -> None:
    """Draw a rock, 28 x 18, that stands on ground_y with its middle at x."""
    rock = _rock(int(variant) % NUM_ROCKS, light, scale)
    _blit(surface, rock, x - _ROCK_SIZE[0] / 2, ground_y - _ROCK_FOOT, scale)


def draw_fire(
    surface: pygame.Surface, x: float, ground_y: float, *, step: int, scale: int = 1
) -> None:
    """Draw a camp fire, 24 x 32 with a soft glow around it; it flickers in a loop of 8 steps."""
    fire = _fire(step % FIRE_PERIOD, scale)
    _blit(surface, fire, x - _FIRE_SIZE[0] / 2, ground_y - _FIRE_FOOT, scale)


def draw_hearts(surface: pygame.Surface, hearts: int, max_hearts: int, *, scale: int = 1) -> None:
    """Draw max_hearts hearts from (8, 8) on, of which the first `hearts` are red."""
    for i in range(max_hearts):
        heart = _heart(i < hearts, scale)
        _blit(surface, heart, 8 + i * (HEART_SIZE[0] + HEART_GAP), 8, scale)


def _blit(surface: pygame.Surface, sprite: pygame.Surface, x: float, y: float, scale: int) -> None:
    place = (nearest_pixel(x, scale), nearest_pixel(y, scale))
    surface.blit(sprite, place, special_flags=pygame.BLEND_PREMULTIPLIED)


@lru_cache(maxsize=1024)
def _coin(frame: int, light: Light, scale: int) -> pygame.Surface:
    # Metal shines, so a coin keeps part of its colour in the dark.
    return tinted(_plain_coin(frame, scale), mix(light, (255, 255, 255), 0.45))


@lru_cache(maxsize=2 * COIN_PERIOD)
def _plain_coin(frame: int, scale: int) -> pygame.Surface:
    turn = 2 * math.pi * frame / COIN_PERIOD
    half = COIN_RADIUS * (0.68 + 0.32 * math.cos(turn))
    edge = 1.6 * math.sin(turn)
    c = Canvas(22, 22, loop=False, scale=scale)
    radius, m = COIN_RADIUS, _COIN_CENTER
    if abs(edge) > 0.2:
        c.ellipse(m - edge, m, half, radius, (150, 86, 18))
    c.ellipse(m, m, half, radius, (168, 98, 20))
    c.ellipse(m, m, half - 1.1, radius - 1.1, (255, 222, 92), (250, 172, 34))
    c.ellipse(m, m, half * 0.66, radius * 0.66, (226, 144, 26), (236, 160, 34))
    c.ellipse(m, m + 0.4, half * 0.58, radius * 0.58, (255, 214, 78), (255, 196, 58))
    c.rect(m - half * 0.17, m - 3, half * 0.34, 6.4, (214, 130, 24), radius=0.6)
    c.ellipse(m - half * 0.44, m - radius * 0.44, half * 0.22, radius * 0.18, (255, 252, 226, 235))
    return surface_of(c.pixels())


@lru_cache(maxsize=128)
def _rock(variant: int, light: Light, scale: int) -> pygame.Surface:
    return tinted(_plain_rock(variant, scale), light)


@lru_cache(maxsize=2 * NUM_ROCKS)
def _plain_rock(variant: int, scale: int) -> pygame.Surface:
    c = Canvas(*_ROCK_SIZE, loop=False, scale=scale)
    m, foot = _ROCK_SIZE[0] / 2, _ROCK_FOOT
    outline = [(m + x, foot + y) for x, y in _TABLES["rocks"][variant]]
    center = (m, foot - 8.0)
    inner = [(x + (center[0] - x) * 0.12, y + (center[1] - y) * 0.14) for x, y in outline]
    c.ellipse(m, foot + 0.5, 16, 2.5, (30, 24, 44, 90))
    c.polygon(outline, (52, 48, 70))
    c.polygon(inner, (150, 148, 168), (96, 92, 118))
    shade = [p for p in inner if p[0] > m + 2]
    c.polygon([(m + 4, foot - 10), *shade, (m - 1, foot - 0.5)], (112, 108, 134), (80, 76, 104))
    top = [(m + x * 0.88, foot - 8 + (y + 8) * 0.86) for x, y in _TABLES["rock_tops"][variant]]
    c.polygon(top, (214, 212, 224), (186, 184, 202))
    return surface_of(c.pixels())


@lru_cache(maxsize=2 * FIRE_PERIOD)
def _fire(frame: int, scale: int) -> pygame.Surface:
    turn = 2 * math.pi * frame / FIRE_PERIOD
    c = Canvas(*_FIRE_SIZE, loop=False, scale=scale)
    m, foot = _FIRE_SIZE[0] / 2, float(_FIRE_FOOT)
    c.glow(m, foot - 14, 21.5, 22 + math.sin(turn), (255, 150, 50), 0.5)
    sway, rise = math.sin(turn), math.cos(turn)
    flames: tuple[tuple[float, float, Color, Color], ...] = (
        (12, 31, (255, 120, 40), (226, 52, 36)),
        (8.6, 22, (255, 190, 60), (255, 132, 40)),
        (5, 13, (255, 250, 200), (255, 224, 100)),
    )
    for half, tall, tip, low in flames:
        c.polygon(_flame(m, foot - 2, half, tall + rise * tall * 0.05, sway), tip, low)
    c.ellipse(m + 8 - sway, foot - 27 - rise * 2, 1.8, 2.2, (255, 190, 70))
    c.stroke([(m - 11, foot - 0.5), (m + 9, foot - 4.5)], 4, (96, 58, 44))
    c.stroke([(m + 11, foot - 0.5), (m - 9, foot - 4.5)], 4, (136, 86, 56))
    c.ellipse(m + 10.6, foot - 0.7, 1.5, 1.7, (220, 166, 110))
    return surface_of(c.pixels())


def _flame(
    x: float, foot: float, half: float, tall: float, sway: float
) -> list[tuple[float, float]]:
    """Return a drop-shaped outline with two side tongues whose tips lean with sway."""
    return [
        (x + half * (side + 0.2 * sway * up * up), foot - tall * up)
        for side, up in _TABLES["flame"]
    ]


@lru_cache(maxsize=4)
def _heart(full: bool, scale: int) -> pygame.Surface:
    c = Canvas(*HEART_SIZE, loop=False, scale=scale)
    rim: Color = (70, 8, 30) if full else (20, 20, 28, 170)
    c.polygon(_heart_outline(1.0), rim)
    if full:
        c.polygon(_heart_outline(0.78), (255, 84, 96), (222, 24, 58))
        c.ellipse(4.7, 4.6, 1.7, 1.3, (255, 214, 216))
    else:
        c.polygon(_heart_outline(0.74), (112, 112, 126, 150))
    return surface_of(c.pixels())


def _heart_outline(scale: float) -> list[tuple[float, float]]:
    points = []
    for i in range(48):
        turn = 2 * math.pi * i / 48
        side = math.sin(turn) ** 3
        up = (13 * math.cos(turn) - 5 * math.cos(2 * turn) - 2 * math.cos(3 * turn)) / 16
        points.append((7.5 + 7.2 * side * scale, 6.4 - (7.2 * up - 0.2) * scale))
    return points
