"""Frames on a window: whole-number scaling without blur, black borders around."""

import io
import os

import numpy as np
import pygame
from PIL import Image

from midas_world.types import MidasWorldError

BORDER_COLOR = (12, 12, 16)


class NoDisplayError(MidasWorldError):
    """There is no display to open a window on; the message says what can be done without."""


def open_display(*, instead: str) -> None:
    """Start pygame's display, unless nobody would see a window and nobody asked for that.

    Raises:
        NoDisplayError: There is none.
    """
    # Else SDL takes SIGTERM for a click on a window's cross, which environments do not look for.
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
    try:
        pygame.display.init()
        driver = pygame.display.get_driver()
        if driver in ("dummy", "offscreen") and "SDL_VIDEODRIVER" not in os.environ:
            pygame.display.quit()
            raise pygame.error("SDL found no video device")
    except pygame.error as error:
        message = f"there is no display to open a window on ({error}); {instead}"
        raise NoDisplayError(message) from error


def picture_rect(
    window_size: tuple[int, int], frame_size: tuple[int, int], *, is_whole: bool = True
) -> pygame.Rect:
    """Return where in a window a frame goes: in the middle, as large as it fits.

    Args:
        window_size: (width, height) in px.
        frame_size: (width, height) in px. A window smaller than that gets it scaled down.
        is_whole: Whether it is scaled up by whole numbers alone, which keeps it sharp.
    """
    ratio = min(window_size[0] / frame_size[0], window_size[1] / frame_size[1])
    scale = float(int(ratio)) if ratio >= 1 and is_whole else ratio
    size = max(1, round(frame_size[0] * scale)), max(1, round(frame_size[1] * scale))
    rect = pygame.Rect((0, 0), size)
    rect.center = window_size[0] // 2, window_size[1] // 2
    return rect


def draw_frame(surface: pygame.Surface, frame: np.ndarray, *, is_whole: bool = True) -> pygame.Rect:
    """Draw a frame, uint8 (H, W, 3), into the middle of a surface; return where it lies."""
    height, width, _ = frame.shape
    rect = picture_rect(surface.get_size(), (width, height), is_whole=is_whole)
    picture = picture_of(frame)
    if not rect.contains(surface.get_rect()):
        surface.fill(BORDER_COLOR)
    surface.blit(pygame.transform.scale(picture, rect.size), rect)
    return rect


def picture_of(frame: np.ndarray) -> pygame.Surface:
    """Return a frame, uint8 (H, W, 3), as a picture."""
    height, width, _ = frame.shape
    return pygame.image.frombytes(frame.tobytes(), (width, height), "RGB")


def pack_frame(frame: np.ndarray) -> bytes:
    """Return a frame, uint8 (H, W, 3), as JPEG: a fifteenth of the size, in a quarter of a ms."""
    packed = io.BytesIO()
    # Not pygame.image.save: pygame-ce 2.5 never lets go of what it has written to.
    Image.fromarray(frame).save(packed, "JPEG", quality=85)
    return packed.getvalue()


def unpack_frame(packed: bytes) -> np.ndarray:
    """Return the frame of a JPEG, nearly as it was, uint8 (H, W, 3)."""
    return np.array(Image.open(io.BytesIO(packed)))


class FrameWindow:
    """A plain window that shows frames at a fixed rate: what render_mode="human" opens.

    Raises:
        NoDisplayError: There is no display.
    """

    def __init__(self, title: str, frame_shape: tuple[int, int, int], *, scale: int = 3) -> None:
        open_display(instead='make the environment with render_mode="rgb_array"')
        height, width, _ = frame_shape
        self._window = pygame.Window(title, (width * scale, height * scale))
        self._clock = pygame.time.Clock()

    def show(self, frame: np.ndarray, *, fps: int) -> None:
        """Draw a frame and wait until 1 / fps seconds have passed since the last."""
        pygame.event.pump()
        draw_frame(self._window.get_surface(), frame)
        self._window.flip()
        self._clock.tick(fps)

    def close(self) -> None:
        """Close this window, and no other; may be called twice."""
        self._window.destroy()
