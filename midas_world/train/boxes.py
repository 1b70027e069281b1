"""Boxes in the picture as weights on the fine grid.

Shapes: h w fine grid, K keypoints.
"""

from collections.abc import Iterable

import numpy as np

from midas_world.config import DynamicsTrainConfig
from midas_world.train.data import FrameStore

_MARGIN = 10


def character_box(keypoints: np.ndarray) -> np.ndarray:
    """Return the character's box, (4,) centre x, y, half width and height px, of (K, 2) px."""
    low, high = keypoints.min(axis=0) - _MARGIN, keypoints.max(axis=0) + _MARGIN
    return np.concatenate(((low + high) / 2, (high - low) / 2))


def paint_box(weight: np.ndarray, box: np.ndarray, value: float, *, step: int) -> None:
    """Set the weights (h, w) that a box touches.

    Args:
        weight: Is changed.
        box: (4,) centre x, y, half width and height px; may lie outside.
        value: What is set.
        step: Pixels of a place of the grid.
    """
    x, y, half_width, half_height = box
    top, bottom = int(max(0, (y - half_height) // step)), int((y + half_height) // step) + 1
    left, right = int(max(0, (x - half_width) // step)), int((x + half_width) // step) + 1
    if right > 0 and bottom > 0:
        weight[top:bottom, left:right] = value


def place_weights(
    frames: FrameStore,
    row: int,
    config: DynamicsTrainConfig,
    grid: tuple[int, int],
    *,
    more: Iterable[np.ndarray] = (),
) -> np.ndarray:
    """Return how much each place of a row's frame counts, (h, w) float32, 1 where nothing is.

    Args:
        frames: That list keypoints, things and regions.
        row: Of them.
        config: Has the weights.
        grid: (h, w).
        more: Boxes that count as things.
    """
    step = frames.frames[0].shape[1] // grid[0]
    weight = np.ones(grid, np.float32)
    if len(frames.keypoints[row]):
        box = character_box(frames.keypoints[row])
        paint_box(weight, box, config.character_weight, step=step)
    for region in frames.regions[row]:
        if region[2] > 0:
            paint_box(weight, region, config.region_weight, step=step)
    listed = frames.things[row]
    for box in (*more, *listed[listed[:, 0] >= 0, 1:5]):
        paint_box(weight, box, config.thing_weight, step=step)
    return weight
