"""Screenshots: the picture as it is shown, as a PNG."""

from pathlib import Path

import pygame

from envs.recording.record import new_path
from midas_world.files import whole

SCREENSHOTS_FOLDER = Path("screenshots")


def save_screenshot(picture: pygame.Surface, folder: Path = SCREENSHOTS_FOLDER) -> str:
    """Write a picture as PNG; return where it is, or why it is not, in words."""
    path = new_path(folder, "picture", ".png")
    try:
        with whole(path) as place:
            pygame.image.save(picture, str(place))
    except (OSError, pygame.error) as error:  # a full disk, a folder that is not ours
        return f"no screenshot: {error}"
    return f"saved {path}"
