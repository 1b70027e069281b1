"""GIFs that are small enough to be sent and shown: no wider and no larger than most places take.

Shapes: H W picture size.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from midas_world.data.video import write_gif
from midas_world.files import whole

MAX_GIF_WIDTH = 480
MAX_GIF_BYTES = 10_000_000

_LEAST_WIDTH = 80
_SMALLER = 0.75


def shrunk(picture: np.ndarray, width: int) -> np.ndarray:
    """Return a picture, uint8 (H, W, 3), that is no wider than a width in px."""
    height, own, _ = picture.shape
    if own <= width:
        return picture
    size = width, max(1, round(height * width / own))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def write_small_gif(path: Path, pictures: Sequence[np.ndarray], *, fps: float) -> None:
    """Write pictures, uint8 (H, W, 3), as a looping GIF; they shrink until it is small enough."""
    width = min(MAX_GIF_WIDTH, pictures[0].shape[1])
    with whole(path) as place:
        while True:
            write_gif(place, [shrunk(picture, width) for picture in pictures], fps=fps)
            if place.stat().st_size <= MAX_GIF_BYTES or width <= _LEAST_WIDTH:
                return
            width = max(_LEAST_WIDTH, round(width * _SMALLER))
