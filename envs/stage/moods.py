"""How time and weather colour a place: sky, clouds, light, haze and lamps.

A `Mood` holds every colour that depends on time and weather; what falls in front is weather.py's.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from envs.stage.looks import load_tables
from envs.stage.pixels import Pixels, load_art, pixel_centers

WIDTH, HEIGHT = 320, 192
TIMES = ("morning", "noon", "sunset", "night")
WEATHERS = ("clear", "rain", "snow", "fog")

Rgb = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Mood:
    """The colours of one place, time and weather; colours are 0 to 255.

    Attributes:
        sky: Sky colours at the top, in the middle and at the horizon.
        light: What daylight colours are multiplied by, over 255.
        haze: Colour of the air in front of distant things.
        haze_far: Share of haze over the far layer, 0 to 1.
        haze_mid: Share of haze over the mid layer, 0 to 1.
        cloud: Colour of the clouds.
        cloud_alpha: Opacity of the clouds, 0 to 1.
        lamps: Strength of what shines by itself, 0 to 1.
        sun: Colour of sun or moon.
        sun_at: Its centre on the screen and its radius.
        sun_alpha: Its strength, 0 to 1.
        stars: Strength of the stars, 0 to 1.
        snow: How far the ground is whitened, 0 to 1.
        haze_ground: Share of haze over the ground layer, 0 to 1.
    """

    sky: tuple[Rgb, Rgb, Rgb]
    light: Rgb
    haze: Rgb
    haze_far: float
    haze_mid: float
    cloud: Rgb
    cloud_alpha: float
    lamps: float
    sun: Rgb
    sun_at: tuple[float, float, float]
    sun_alpha: float = 1.0
    stars: float = 0.0
    snow: float = 0.0
    haze_ground: float = 0.0


_MOODS = {name: Mood(**table) for name, table in load_tables("moods").items()}
# The night city is painted dark: only sprites need dimming there.
_NEON_LIGHT: Rgb = (176 / 255, 160 / 255, 214 / 255)
_SKY_TINTS: dict[str, Rgb] = {
    "meadow": (1.0, 1.0, 1.0),
    "city": (1.02, 0.98, 0.97),
    "beach": (0.94, 1.02, 1.03),
    "snow forest": (0.98, 0.99, 1.03),
    "desert": (1.08, 0.97, 0.88),
}
PLACES = (*_SKY_TINTS, "night city")


@lru_cache(maxsize=256)
def mood_of(place: str, time_of_day: str, weather: str) -> Mood:
    """Return the mood of a place, time and weather that Stage knows."""
    if place == "night city":
        mood = _MOODS["neon night"]
    else:
        mood = _MOODS[time_of_day]
        tint = _SKY_TINTS[place]
        top, middle, horizon = (_times(color, tint) for color in mood.sky)
        mood = replace(mood, sky=(top, middle, horizon), haze=_times(mood.haze, tint))
        if place == "beach":
            # The far layer is mostly near water, which thick air would turn gray.
            mood = replace(mood, haze_far=mood.haze_far * 0.4)
    dark = mood.lamps == 1.0
    if weather == "rain":
        gray = (46, 52, 86) if dark else (120, 136, 158)
        mood = _overcast(mood, gray, 0.66, light=(204, 214, 228), haze=0.16)
        mood = replace(
            mood, sun_alpha=0.0, cloud_alpha=0.95, stars=0.0, lamps=max(mood.lamps, 0.45)
        )
    elif weather == "snow":
        gray = (84, 92, 138) if dark else (206, 216, 234)
        mood = _overcast(mood, gray, 0.6, light=(236, 240, 250), haze=0.18)
        mood = replace(
            mood,
            sun_alpha=0.15,
            stars=0.0,
            lamps=max(mood.lamps, 0.3),
            snow=0.45 if place == "night city" else 1.0,
        )
    elif weather == "fog":
        gray = (76, 84, 126) if dark else (214, 218, 222)
        mood = _overcast(mood, gray, 0.62, light=(238, 238, 240), haze=0.42)
        mood = replace(mood, sun_alpha=0.35, stars=0.0, cloud_alpha=0.3, lamps=max(mood.lamps, 0.4))
    return mood


def sprite_light(place: str, time_of_day: str, weather: str) -> tuple[int, int, int]:
    """Return what the colours of sprites and character are multiplied by, 0 to 255."""
    mood = mood_of(place, time_of_day, weather)
    if place == "night city":
        light = _times(mood.light, _NEON_LIGHT)
    else:
        light = _blend(mood.light, (255, 255, 255), 0.15)
    r, g, b = (round(c) for c in light)
    return r, g, b


def paint_sky(mood: Mood, *, scale: int = 1) -> Pixels:
    """Return sky, stars and sun or moon, (192 * scale, 320 * scale, 3)."""
    rows, columns = pixel_centers(HEIGHT, scale), pixel_centers(WIDTH, scale)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    down = rows.astype(np.float64) / 150
    sky = np.stack(
        [np.interp(down, (0, 0.5, 0.92), [c[i] for c in mood.sky]) for i in range(3)], axis=1
    )
    image = np.repeat(sky[:, None, :], WIDTH * scale, axis=1).astype(np.float32)
    if mood.stars:
        for i in range(34):
            sx = (0.7549 * i + 0.09 * math.sin(i * 3.7)) % 1.0 * WIDTH
            sy = (0.5698 * i + 0.09 * math.sin(i * 5.1)) % 1.0 * 96
            size = 0.9 + (i * 7 % 5) * 0.16
            spot = np.exp(-((x - sx) ** 2 + (y - sy) ** 2) / size**2)
            image += spot[..., None] * mood.stars * (1 - sy / 120) * np.array([190, 195, 215])
    cx, cy, radius = mood.sun_at
    distance = np.hypot(x - cx, y - cy)
    halo = np.exp(-distance / (radius * 2.6)) * 0.55 * mood.sun_alpha
    disc = np.clip((radius - distance) * scale + 0.5, 0, 1) * mood.sun_alpha
    sun = np.asarray(mood.sun, dtype=np.float32)
    image += (sun - image) * halo[..., None]
    if mood.stars:
        shade = np.hypot(x - cx - 4, y - cy + 3) < radius * 0.3
        sun = sun - 22.0 * np.clip(shade, 0, 1)[..., None]
    else:
        sun = sun + (255 - sun) * 0.4
    return image + (sun - image) * disc[..., None]


def paint_clouds(mood: Mood, *, scale: int = 1) -> Pixels:
    """Return a looping strip of soft clouds, (192 * scale, 400 * scale, 4) float, premultiplied."""
    clouds = load_art("clouds", scale=scale).astype(np.float32)
    tint = np.array([*mood.cloud, 255], dtype=np.float32) / 255
    return clouds * tint * mood.cloud_alpha


def _overcast(mood: Mood, gray: Rgb, amount: float, *, light: Rgb, haze: float) -> Mood:
    """Return the mood under a closed gray sky."""
    tone = _blend(gray, mood.haze, 0.25)
    top, middle, horizon = (_blend(color, tone, amount) for color in mood.sky)
    return replace(
        mood,
        sky=(top, middle, horizon),
        light=_times(mood.light, (light[0] / 255, light[1] / 255, light[2] / 255)),
        haze=_blend(mood.haze, tone, 0.7),
        haze_far=min(0.85, mood.haze_far + haze),
        haze_mid=min(0.6, mood.haze_mid + haze * 0.75),
        haze_ground=mood.haze_ground + haze * 0.2,
        cloud=_blend(mood.cloud, tone, 0.7),
    )


def _blend(first: Rgb, second: Rgb, amount: float) -> Rgb:
    r, g, b = (a + (c - a) * amount for a, c in zip(first, second, strict=True))
    return r, g, b


def _times(color: Rgb, factors: Rgb) -> Rgb:
    r, g, b = (min(255.0, a * f) for a, f in zip(color, factors, strict=True))
    return r, g, b
