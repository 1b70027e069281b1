"""The light that shows that something is recorded: a small red window above all others."""

import os

import pygame

from envs.capture.screen import CaptureError, Region

_SIZE = (132, 28)
_MARGIN = 8
_RED, _DARK, _WHITE = (225, 40, 40), (24, 24, 28), (255, 255, 255)


class Light:
    """Is shown while it exists; close it, or use it in a ``with``. A click on it is heard.

    Args:
        beside: What is recorded: the light lies outside of it, where the screen has room.
        screen: All of it.

    Raises:
        CaptureError: No window can be opened.
    """

    def __init__(self, beside: Region, screen: Region) -> None:
        place = place_beside(beside, screen)
        try:
            # It must not take the focus from what is recorded.
            os.environ.setdefault("SDL_WINDOW_NO_ACTIVATION_WHEN_SHOWN", "1")
            pygame.display.init()
            pygame.font.init()
            if pygame.display.get_driver() in ("dummy", "offscreen"):
                raise pygame.error("SDL_VIDEODRIVER names no screen")
            self._window = pygame.Window(
                "midas-world records",
                _SIZE,
                place,
                borderless=True,
                always_on_top=True,
                utility=True,
            )
        except pygame.error as error:
            raise CaptureError(
                f"nothing is recorded where no light can be shown: {error}"
            ) from error
        self._font = pygame.font.Font(None, 24)
        self.show(0.0)

    def __enter__(self) -> "Light":
        return self

    def __exit__(self, *_: object) -> None:
        self._window.destroy()
        pygame.display.quit()

    def show(self, seconds: float) -> None:
        """Show how long it has been recording; the light blinks."""
        picture = self._window.get_surface()
        picture.fill(_DARK)
        pygame.draw.circle(picture, _RED, (16, 14), 9 if seconds % 1.0 < 0.6 else 6)
        text = f"REC {int(seconds) // 60}:{int(seconds) % 60:02}"
        picture.blit(self._font.render(text, True, _WHITE), (32, 6))
        self._window.flip()

    def is_clicked(self) -> bool:
        """Whether somebody clicked on it, or closed it, since the last call."""
        ends = (pygame.MOUSEBUTTONDOWN, pygame.WINDOWCLOSE, pygame.QUIT)
        return any(event.type in ends for event in pygame.event.get())


def place_beside(region: Region, screen: Region) -> tuple[int, int]:
    """Return where the light lies: above, below, beside a region, else in a corner of it."""
    width, height = _SIZE
    right, bottom = screen.left + screen.width, screen.top + screen.height
    left = max(screen.left, min(region.left, right - width))
    top = max(screen.top, min(region.top, bottom - height))
    if region.top - height - _MARGIN >= screen.top:
        return left, region.top - height - _MARGIN
    if region.top + region.height + _MARGIN + height <= bottom:
        return left, region.top + region.height + _MARGIN
    if region.left - width - _MARGIN >= screen.left:
        return region.left - width - _MARGIN, top
    if region.left + region.width + _MARGIN + width <= right:
        return region.left + region.width + _MARGIN, top
    return right - width, screen.top
