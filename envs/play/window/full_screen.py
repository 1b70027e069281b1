"""Filling the whole screen, and going back to a window where it was."""

import pygame

START_SIZE = (960, 576)


class FullScreen:
    """Whether the window fills the screen."""

    def __init__(self) -> None:
        self.is_on = False
        self._windowed = pygame.Rect((0, 0), START_SIZE)

    @staticmethod
    def is_its_key(event: pygame.Event) -> bool:
        """Return whether an event is F11 or Alt+Enter."""
        if event.type != pygame.KEYDOWN:
            return False
        is_enter = event.key in (pygame.K_RETURN, pygame.K_KP_ENTER)
        return event.key == pygame.K_F11 or (is_enter and bool(event.mod & pygame.KMOD_ALT))

    def turn(self, *, is_on: bool) -> None:
        """Fill the screen, or do not; the display's surface is another one then."""
        if is_on == self.is_on:
            return
        self.is_on = is_on
        # Where there is no window manager to do it, a window fills the screen from its corner only.
        # Of several screens one does not know where the window's own begins.
        moves = len(pygame.display.get_desktop_sizes()) == 1
        if is_on:
            size = pygame.display.get_window_size()
            self._windowed = pygame.Rect(pygame.display.get_window_position(), size)
            if moves:
                pygame.display.set_window_position((0, 0))
            pygame.display.set_mode((0, 0), pygame.FULLSCREEN)
        else:
            pygame.display.set_mode(self._windowed.size, pygame.RESIZABLE)
            if moves:
                pygame.display.set_window_position(self._windowed.topleft)
