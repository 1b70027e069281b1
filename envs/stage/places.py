"""The places of Stage: which painter paints which, and how their layers loop."""

from collections.abc import Callable

from envs.stage.canvas import Layer
from envs.stage.paintings.beach import paint_beach
from envs.stage.paintings.desert import paint_desert
from envs.stage.paintings.meadow import paint_meadow
from envs.stage.paintings.snow_forest import paint_snow_forest
from envs.stage.paintings.towns import paint_city, paint_night_city

HEIGHT = 192
FAR_PERIOD = 400
MID_PERIOD = 800
GROUND_PERIOD = 800

_PAINTERS: dict[str, Callable[[Layer, Layer, Layer], None]] = {
    "meadow": paint_meadow,
    "city": paint_city,
    "beach": paint_beach,
    "snow forest": paint_snow_forest,
    "desert": paint_desert,
    "night city": paint_night_city,
}

PLACES: tuple[str, ...] = tuple(_PAINTERS)


def paint_place(place: str, *, scale: int = 1) -> tuple[Layer, Layer, Layer]:
    """Return the far, mid and ground layers of a place, `scale` pixels to each px."""
    periods = (FAR_PERIOD, MID_PERIOD, GROUND_PERIOD)
    far, mid, ground = (Layer(period, HEIGHT, scale=scale) for period in periods)
    _PAINTERS[place](far, mid, ground)
    return far, mid, ground
