"""Scenery loops, is deterministic, and every place, time and weather has its own look."""

from itertools import product

import numpy as np
import pygame
import pytest

from envs.stage.moods import PLACES, TIMES, WEATHERS
from envs.stage.pixels import load_art
from envs.stage.scene import Scene
from envs.stage.scenery import Scenery
from envs.stage.weather import WEATHER_PERIOD

WORLD_LENGTH = 1600


@pytest.mark.parametrize("name", [*PLACES, "clouds", "sprites"])
def test_what_is_painted_is_the_same_at_both_scales(name: str) -> None:
    small, large = (load_art(name, scale=scale).astype(float) for scale in (1, 2))
    height, width, _ = small.shape
    halved = large.reshape(height, 2, width, 2, 4).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 2.0


@pytest.fixture(scope="module")
def scenery() -> Scenery:
    return Scenery()


def background(scenery: Scenery, words: Scene, camera_x: float) -> np.ndarray:
    surface = pygame.Surface((320, 192), 0, 32)
    surface.fill((255, 0, 255))
    scenery.draw_background(surface, words, camera_x)
    return pygame.surfarray.array3d(surface)


def weather(words: Scene, camera_x: float, step: int, *, scale: int = 1) -> np.ndarray:
    surface = pygame.Surface((320 * scale, 192 * scale), 0, 32)
    surface.fill((60, 90, 120))
    Scenery(scale=scale).draw_weather(surface, words, camera_x, step)
    return pygame.surfarray.array3d(surface)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("camera_x", [0, 3, 157, 1598, -2501])
def test_background_loops_after_world_length(scenery: Scenery, place: str, camera_x: int) -> None:
    words = Scene(place)
    first = background(scenery, words, camera_x)
    np.testing.assert_array_equal(first, background(scenery, words, camera_x + WORLD_LENGTH))


@pytest.mark.parametrize("place", PLACES)
def test_ground_moves_with_the_camera(scenery: Scenery, place: str) -> None:
    first = background(scenery, Scene(place), 700)
    moved = background(scenery, Scene(place), 740)
    np.testing.assert_array_equal(first[40:, 170:], moved[:-40, 170:])


def test_every_scene_has_its_own_look(scenery: Scenery) -> None:
    looks = {}
    for place, time_of_day, falling in product(PLACES, TIMES, WEATHERS):
        if place == "night city" and time_of_day != "night":
            continue
        words = Scene(place, time_of_day, falling)
        looks[words] = background(scenery, words, 200).mean(axis=0).round(1).tobytes()
    assert len(set(looks.values())) == len(looks)


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("falling", WEATHERS[1:])
def test_weather_repeats_after_its_period_and_after_the_world(falling: str, scale: int) -> None:
    words = Scene("city", "morning", falling)
    first = weather(words, 41, 5, scale=scale)
    again = weather(words, 41, 5 + WEATHER_PERIOD, scale=scale)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, weather(words, 41 + WORLD_LENGTH, 5, scale=scale))
    assert (first != weather(words, 41, 9, scale=scale)).any()


@pytest.mark.parametrize("falling", ["rain", "snow"])
def test_rain_and_snow_are_sparse_and_visible(falling: str) -> None:
    words = Scene("meadow", "noon", falling)
    changed = (weather(words, 0, 3) != (60, 90, 120)).any(axis=2)
    assert 0.002 < changed.mean() < 0.1
