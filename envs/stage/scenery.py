"""Draws the places of Stage: sky, three parallax layers and the weather in front.

A place is painted in neutral daylight (art/); a mood (moods.py) shades that for a time and a
weather. What comes out is cached, so that a frame costs only a few blits. All of it loops after
1600 px of the camera. Positions are px of the 192 x 320 frame at every scale.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pygame

from envs.stage.moods import (
    HEIGHT,
    PLACES,
    WIDTH,
    Mood,
    mood_of,
    paint_clouds,
    paint_sky,
    sprite_light,
)
from envs.stage.pixels import Pixels, load_art, nearest_pixel, pixel_centers, surface_of
from envs.stage.scene import Scene
from envs.stage.weather import WEATHER_PERIOD, draw_fog, draw_rain, draw_snow

# Where far, mid and ground end in a painting, in px; each loops.
_ENDS = (400, 1200, 2000)
_SOLID_GROUND = 160
# A shaded scene takes about 1.3 MB, four times that at scale 2.
_CACHED_SCENES = 48
_SCALES = 2


@dataclass(frozen=True)
class _Strip:
    """A looping picture in a frame's own pixels: rows from `top` on, scrolled by `parallax`."""

    surface: pygame.Surface
    top: int
    parallax: float
    flags: int

    def draw(self, target: pygame.Surface, camera_x: float, *, scale: int) -> None:
        period, width = self.surface.get_width(), WIDTH * scale
        left = (nearest_pixel(camera_x * self.parallax, scale) - width // 2) % period
        target.blit(self.surface, (-left, self.top), special_flags=self.flags)
        if period - left < width:
            target.blit(self.surface, (period - left, self.top), special_flags=self.flags)


class Scenery:
    """Draws any scene at any camera position; needs no display.

    The first frame of a scene takes some 50 ms, each later one about 0.1 ms; at scale 2, of four
    times the pixels, some 250 ms and 0.25 ms.

    Args:
        scale: Pixels of the frame per px: 1 for frames of 192 x 320, 2 for 384 x 640.
    """

    def __init__(self, *, scale: int = 1) -> None:
        self._scale = scale

    def draw_background(self, surface: pygame.Surface, scene: Scene, camera_x: float) -> None:
        """Draw sky, far, mid and ground layers over the whole surface.

        Args:
            surface: 320 x 192 pixels times the scale, 32 bits.
            scene: Its place, time of day and weather are used.
            camera_x: World x at the middle of the screen, in px.
        """
        sky, strips = _shaded(*_look(scene), self._scale)
        surface.blit(sky, (0, 0))
        for strip in strips:
            strip.draw(surface, camera_x, scale=self._scale)

    def draw_weather(
        self, surface: pygame.Surface, scene: Scene, camera_x: float, step: int
    ) -> None:
        """Draw what falls in front of the scene; it repeats every WEATHER_PERIOD steps."""
        mood = mood_of(scene.place, scene.time_of_day, scene.weather)
        scale, step = self._scale, step % WEATHER_PERIOD
        camera = nearest_pixel(camera_x, scale) / scale
        if scene.weather == "rain":
            draw_rain(surface, mood, camera, step, scale=scale)
        elif scene.weather == "snow":
            draw_snow(surface, mood, camera, step, scale=scale)
        elif scene.weather == "fog":
            draw_fog(surface, mood, camera, step, scale=scale)

    def light(self, scene: Scene) -> tuple[int, int, int]:
        """Return what the colours of sprites and character are multiplied by, 0 to 255."""
        return sprite_light(scene.place, scene.time_of_day, scene.weather)


def _look(scene: Scene) -> tuple[str, str, str]:
    """Return what tells two pictures apart: it is always night in the night city."""
    time_of_day = "night" if scene.place == "night city" else scene.time_of_day
    return scene.place, time_of_day, scene.weather


@lru_cache(maxsize=_CACHED_SCENES)
def _shaded(
    place: str, time_of_day: str, weather: str, scale: int
) -> tuple[pygame.Surface, tuple[_Strip, ...]]:
    """Return sky and layers of a scene, from far to near; nobody may draw on them."""
    mood = mood_of(place, time_of_day, weather)
    far, mid, ground = _painting(place, scale)
    far_pixels = _lit(*far, mood, mood.haze_far, 0.4 * mood.snow)
    far_pixels = _over(paint_clouds(mood, scale=scale), far_pixels)
    mid_pixels = _lit(*mid, mood, mood.haze_mid, mood.snow)
    ground_pixels = _lit(*ground, mood, mood.haze_ground, mood.snow)
    solid_from = _SOLID_GROUND * scale
    solid = surface_of(ground_pixels[solid_from:, :, :3])
    strips = (
        _strip(far_pixels, 0.25),
        _strip(mid_pixels, 0.5),
        _strip(ground_pixels[:solid_from], 1.0),
        _Strip(solid, solid_from, 1.0, 0),
    )
    return surface_of(paint_sky(mood, scale=scale)), strips


@lru_cache(maxsize=len(PLACES) * _SCALES)
def _painting(place: str, scale: int) -> list[tuple[Pixels, Pixels]]:
    """Return far, mid and ground in daylight: what light shades, and what shines by itself.

    The latter are windows, lamps and neon, which come out when it is dark. In a picture they lie
    below what they are in.
    """
    layers = np.split(load_art(place, scale=scale), [scale * x for x in _ENDS[:-1]], axis=1)
    return [(layer[: HEIGHT * scale], layer[HEIGHT * scale :]) for layer in layers]


def _strip(pixels: Pixels, parallax: float) -> _Strip:
    rows = np.flatnonzero(pixels[..., 3].any(axis=1))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return _Strip(surface_of(pixels[top:bottom]), top, parallax, pygame.BLEND_PREMULTIPLIED)


def _lit(base: Pixels, lamp: Pixels, mood: Mood, haze: float, snow: float) -> Pixels:
    """Return base under the mood's light, whitened by snow, behind haze, with its lamps on."""
    painted = base.astype(np.float32)
    rgb, alpha = painted[..., :3], painted[..., 3:]
    if snow:
        rows = pixel_centers(HEIGHT, painted.shape[0] // HEIGHT)
        cover = snow * np.interp(rows, (138, 156), (0.24, 0.64))[:, None, None]
        white = alpha * np.array([0.94, 0.97, 1.0], dtype=np.float32)
        rgb = rgb + (white - rgb) * cover.astype(np.float32)
    rgb = rgb * (np.asarray(mood.light, dtype=np.float32) / 255)
    rgb = rgb + (alpha * (np.asarray(mood.haze, dtype=np.float32) / 255) - rgb) * haze
    return _over(np.concatenate([rgb, alpha], axis=2), lamp * (mood.lamps * (1 - haze * 0.6)))


def _over(below: Pixels, above: Pixels) -> Pixels:
    return above + below * (1 - above[..., 3:] / 255)
