"""Boxes in the picture as weights on the fine grid.

Shapes: h w fine grid, K keypoints.
"""

import numpy as np

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
