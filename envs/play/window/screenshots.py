"""Screenshots: the picture as it is shown, as a PNG."""

from datetime import datetime
from pathlib import Path

import pygame

from midas_world.files import whole

SCREENSHOTS_FOLDER = Path("screenshots")


def save_screenshot(picture: pygame.Surface, folder: Path = SCREENSHOTS_FOLDER) -> str:
    """Write a picture as PNG; return where it is, or why it is not, in words."""
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S-%f")
    path = folder / f"{stamp}.png"
    try:
        with whole(path) as place:
            pygame.image.save(picture, str(place))
    except (OSError, pygame.error) as error:  # a full disk, a folder that is not ours
        return f"no screenshot: {error}"
    return f"saved {path}"
