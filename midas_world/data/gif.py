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

_MAX_FRAMES = 1200
_MIN_FPS, _MAX_FPS = 5, 50  # below, a film stumbles; what is faster, browsers slow down
_LEAST_WIDTH = 80
_SMALLER = 0.75


def gif_frames(num_frames: int, fps: float) -> tuple[range, str]:
    """Return which frames of a film a GIF shows, and words on what is left out.

    A long one has fewer of them a second, and a very long one ends early.
    """
    slowest = max(1, int(fps / _MIN_FPS))
    every = max(1, round(fps / _MAX_FPS), min(-(-num_frames // _MAX_FRAMES), slowest))
    kept = range(0, num_frames, every)[:_MAX_FRAMES]
    if len(kept) * every < num_frames:
        return kept, f"the first {len(kept) * every / fps:.0f} s: a GIF holds {_MAX_FRAMES} frames"
    pace = f"with {fps / every:.3g} frames a second: a GIF holds {_MAX_FRAMES}"
    return kept, pace if num_frames > _MAX_FRAMES else ""


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
