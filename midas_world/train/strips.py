"""Strips of frames as PNG: the teacher above, the model below."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def save_strip(rows: Sequence[Sequence[np.ndarray]], path: Path, *, gap: int = 4) -> None:
    """Write rows of equally large frames, each (H, W, 3) uint8, as one PNG.

    Raises:
        ValueError: There is no frame, or a row is longer than another.
    """
    if not rows or not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(f"rows must be equally long, got {[len(row) for row in rows]}")
    from matplotlib import image  # slow to load, and not wanted by those who only train

    height, width = rows[0][0].shape[:2]
    sheet = np.full(
        (len(rows) * (height + gap) - gap, len(rows[0]) * (width + gap) - gap, 3), 255, np.uint8
    )
    for row, frames in enumerate(rows):
        for column, frame in enumerate(frames):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = frame
    path.parent.mkdir(parents=True, exist_ok=True)
    image.imsave(str(path), sheet)
