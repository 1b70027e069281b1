"""Screenshots: the frame that is shown, as a PNG of its own."""

from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from midas_world.files import whole

SCREENSHOTS_FOLDER = Path("screenshots")


def save_screenshot(frame: np.ndarray, folder: Path = SCREENSHOTS_FOLDER) -> str:
    """Write a frame, uint8 (H, W, 3), as PNG; return where it is, or why it is not, in words."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S-%f")
    path = folder / f"{stamp}.png"
    try:
        with whole(path) as place:
            Image.fromarray(frame).save(place)
    except OSError as error:  # a full disk, a folder that is not ours
        return f"no screenshot: {error}"
    return f"saved {path}"
