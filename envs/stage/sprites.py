"""Coins, rocks, fires and hearts of Stage: painted in art/, blitted here.

Positions are px of the 192 x 320 frame at every scale; they may be fractions and may lie off the
screen. `scale` is how many pixels the surface has for each px.
"""

from functools import lru_cache

import pygame

from envs.stage.pixels import Pixels, Rgb, load_art, mix, nearest_pixel, surface_of, tinted

COIN_PERIOD = 16
FIRE_PERIOD = 8
NUM_ROCKS = 3
HEART_SIZE = (15, 14)
HEART_GAP = 4

_WHITE = (255, 255, 255)
_COIN_CENTER = 11
_ROCK_SIZE, _ROCK_FOOT = (34, 24), 21
_FIRE_SIZE, _FIRE_FOOT = (44, 46), 42
# In the picture each kind has a row of its own: where that begins, and the size of each, px.
_ROWS = {
    "coin": (0, (22, 22)),
    "fire": (22, _FIRE_SIZE),
    "rock": (68, _ROCK_SIZE),
    "heart": (92, HEART_SIZE),
}


def draw_coin(
    surface: pygame.Surface, x: float, y: float, *, light: Rgb, step: int, scale: int = 1
) -> None:
    """Draw a gold coin of radius 8 around (x, y); it turns once in 16 steps."""
    # Metal shines, so a coin keeps part of its colour in the dark.
    coin = _sprite("coin", step % COIN_PERIOD, scale, mix(light, _WHITE, 0.45))
    _blit(surface, coin, x - _COIN_CENTER, y - _COIN_CENTER, scale)


def draw_rock(
    surface: pygame.Surface,
    x: float,
    ground_y: float,
    *,
    light: Rgb,
    variant: int,
    scale: int = 1,
) -> None:
    """Draw a rock, 28 x 18, that stands on ground_y with its middle at x."""
    rock = _sprite("rock", int(variant) % NUM_ROCKS, scale, light)
    _blit(surface, rock, x - _ROCK_SIZE[0] / 2, ground_y - _ROCK_FOOT, scale)


def draw_fire(
    surface: pygame.Surface, x: float, ground_y: float, *, step: int, scale: int = 1
) -> None:
    """Draw a camp fire, 24 x 32 with a soft glow around it; it flickers in a loop of 8 steps."""
    fire = _sprite("fire", step % FIRE_PERIOD, scale)
    _blit(surface, fire, x - _FIRE_SIZE[0] / 2, ground_y - _FIRE_FOOT, scale)


def draw_hearts(surface: pygame.Surface, hearts: int, max_hearts: int, *, scale: int = 1) -> None:
    """Draw max_hearts hearts from (8, 8) on, of which the first `hearts` are red."""
    for i in range(max_hearts):
        heart = _sprite("heart", int(i < hearts), scale)
        _blit(surface, heart, 8 + i * (HEART_SIZE[0] + HEART_GAP), 8, scale)


def _blit(surface: pygame.Surface, sprite: pygame.Surface, x: float, y: float, scale: int) -> None:
    place = (nearest_pixel(x, scale), nearest_pixel(y, scale))
    surface.blit(sprite, place, special_flags=pygame.BLEND_PREMULTIPLIED)


@lru_cache(maxsize=1024)
def _sprite(kind: str, number: int, scale: int, light: Rgb = _WHITE) -> pygame.Surface:
    """Return the sprite of a number in its row, under a light."""
    top, (width, height) = _ROWS[kind]
    rows = slice(top * scale, (top + height) * scale)
    columns = slice(number * width * scale, (number + 1) * width * scale)
    sprite = surface_of(_sheet(scale)[rows, columns])
    return sprite if light == _WHITE else tinted(sprite, light)


@lru_cache(maxsize=2)
def _sheet(scale: int) -> Pixels:
    return load_art("sprites", scale=scale)
