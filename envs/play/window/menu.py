"""A list to choose from, with keys, mouse or gamepad. Knows nothing of what is chosen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pygame

from envs.play.window.hud import MARGIN, PADDING, SHADE
from envs.play.window.letters import font, written

_SIZE = 26
_TITLE_SIZE = 36
_MIN_SIZE = 14
_CHOSEN_COLOR = (70, 90, 150)
_DIM = (170, 174, 196)
_UP, _DOWN, _LEFT, _RIGHT, _TAKE, _BACK = range(6)
_KEYS = {
    pygame.K_UP: _UP,
    pygame.K_DOWN: _DOWN,
    pygame.K_LEFT: _LEFT,
    pygame.K_RIGHT: _RIGHT,
    pygame.K_RETURN: _TAKE,
    pygame.K_KP_ENTER: _TAKE,
    pygame.K_ESCAPE: _BACK,
}
_CONTROLLER = {
    pygame.CONTROLLER_BUTTON_DPAD_UP: _UP,
    pygame.CONTROLLER_BUTTON_DPAD_DOWN: _DOWN,
    pygame.CONTROLLER_BUTTON_DPAD_LEFT: _LEFT,
    pygame.CONTROLLER_BUTTON_DPAD_RIGHT: _RIGHT,
    pygame.CONTROLLER_BUTTON_A: _TAKE,
    pygame.CONTROLLER_BUTTON_B: _BACK,
}
_JOYSTICK = {0: _TAKE, 1: _BACK}
_HATS = {(0, 1): _UP, (0, -1): _DOWN, (-1, 0): _LEFT, (1, 0): _RIGHT}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of a menu.

    Attributes:
        label: What it is; may change.
        take: Called when it is chosen; None where only left and right change it.
        change: Called with -1 or 1 for left and right.
        picture: Drawn beside it; None for none.
    """

    label: Callable[[], str]
    take: Callable[[], object] | None = None
    change: Callable[[int], object] | None = None
    picture: Callable[[], pygame.Surface | None] | None = None


class Menu:
    """A list of entries with a title.

    Args:
        title: Above.
        entries: To choose from.
        back: Called where the player wants none of them; None: there is no way back but these.
        notes: Lines between title and entries.

    Attributes:
        chosen: Index of the marked entry.
    """

    def __init__(
        self,
        title: str,
        entries: Sequence[Entry],
        *,
        back: Callable[[], object] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.title = title
        self.entries = tuple(entries)
        self.chosen = 0
        self._back = back
        self._notes = tuple(notes)
        self._rects: list[pygame.Rect] = []

    def handle(self, event: pygame.Event) -> bool:
        """Obey an event; return whether it was meant for the menu."""
        if event.type in (pygame.MOUSEMOTION, pygame.MOUSEBUTTONDOWN):
            return self._point(event)
        move = _move_of(event)
        if move is None or (move == _BACK and self._back is None):
            return False
        if move in (_UP, _DOWN):
            step = 1 if move == _DOWN else -1
            self.chosen = (self.chosen + step) % len(self.entries)
        elif move == _BACK:
            assert self._back is not None
            self._back()
        else:
            self._use(move)
        return True

    def draw(self, surface: pygame.Surface) -> None:
        """Draw the menu in the middle of a surface."""
        room = surface.get_height() - 2 * MARGIN
        size = _SIZE
        while size > _MIN_SIZE and self._height(size) > room:
            size -= 1
        heading = written(self.title, min(_TITLE_SIZE, size + 10))
        notes = [written(note, size - 4, color=_DIM) for note in self._notes]
        lines = [written(entry.label(), size) for entry in self.entries]
        pictures = [entry.picture() if entry.picture else None for entry in self.entries]
        beside = pictures[self.chosen]
        width = max(item.get_width() for item in (heading, *notes, *lines)) + 4 * PADDING
        plate = pygame.Surface((width, min(room, self._height(size))), pygame.SRCALPHA)
        plate.fill((*SHADE[:3], 225))
        place = plate.get_rect(center=surface.get_rect().center)
        y = PADDING
        for item in (heading, *notes):
            plate.blit(item, (2 * PADDING, y))
            y += item.get_height() + 2
        step = font(size).get_linesize() + 6
        first = self._first_shown((plate.get_height() - y - PADDING) // step)
        self._rects = []
        for index, line in enumerate(lines):
            rect = pygame.Rect(PADDING, y + (index - first) * step + 4, width - 2 * PADDING, step)
            is_shown = index >= first and rect.bottom <= plate.get_height()
            self._rects.append(rect.move(place.topleft) if is_shown else pygame.Rect(0, 0, 0, 0))
            if is_shown:
                if index == self.chosen:
                    pygame.draw.rect(plate, _CHOSEN_COLOR, rect, border_radius=4)
                plate.blit(line, (2 * PADDING, rect.top + 3))
        surface.blit(plate, place)
        if beside is not None:
            # At the right, or over the lower edge where the window is narrow.
            at = beside.get_rect(left=place.right + PADDING, centery=place.centery)
            surface.blit(beside, at.clamp(surface.get_rect()))

    def _use(self, move: int) -> None:
        entry = self.entries[self.chosen]
        if move in (_LEFT, _RIGHT) and entry.change is not None:
            entry.change(1 if move == _RIGHT else -1)
        elif move == _TAKE and entry.take is not None:
            entry.take()
        elif move == _TAKE and entry.change is not None:
            entry.change(1)

    def _point(self, event: pygame.Event) -> bool:
        for index, rect in enumerate(self._rects):
            if rect.collidepoint(event.pos):
                self.chosen = index
                if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
                    self._use(_TAKE)
                return True
        return False

    def _first_shown(self, num_shown: int) -> int:
        """Return the entry at the top, such that the chosen one is in sight."""
        last = max(0, len(self.entries) - num_shown)
        return min(max(0, self.chosen - num_shown // 2), last)

    def _height(self, size: int) -> int:
        lines = len(self.entries) * (font(size).get_linesize() + 6)
        notes = len(self._notes) * (font(size - 4).get_linesize() + 2)
        return lines + notes + font(min(_TITLE_SIZE, size + 10)).get_linesize() + 4 * PADDING


def _move_of(event: pygame.Event) -> int | None:
    if event.type == pygame.KEYDOWN:
        return _KEYS.get(event.key)
    if event.type == pygame.CONTROLLERBUTTONDOWN:
        return _CONTROLLER.get(event.button)
    if event.type == pygame.JOYBUTTONDOWN:
        return _JOYSTICK.get(event.button)
    if event.type == pygame.JOYHATMOTION:
        return _HATS.get(tuple(event.value))
    return None
