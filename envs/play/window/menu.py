"""A list to choose from, with keys, mouse or gamepad. Knows nothing of what is chosen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pygame

from envs.play.window.hud import DIM, PADDING, SHADE
from envs.play.window.letters import font, letter_size, written
from envs.play.window.pads import pressed_arrow, pressed_button

_MIN_SIZE = 14
_LEAST = 0.75
CHOSEN_COLOR = (70, 90, 150)
UP, DOWN, LEFT, RIGHT, TAKE, BACK = range(6)
_KEYS = {
    pygame.K_UP: UP,
    pygame.K_DOWN: DOWN,
    pygame.K_LEFT: LEFT,
    pygame.K_RIGHT: RIGHT,
    pygame.K_RETURN: TAKE,
    pygame.K_KP_ENTER: TAKE,
    pygame.K_ESCAPE: BACK,
}
PAD_AS_KEYS: dict[int | None, int] = {move: key for key, move in _KEYS.items()}
_BUTTONS = {"A": TAKE, "B": BACK, "Start": BACK}
_ARROWS = {"up": UP, "down": DOWN, "left": LEFT, "right": RIGHT}


@dataclass(frozen=True)
class Entry:
    """A line of a menu.

    Attributes:
        label: What it is, or returns that where it changes.
        take: Called when it is chosen; None where only left and right change it.
        change: Called with -1 or 1 for left and right.
    """

    label: str | Callable[[], str]
    take: Callable[[], object] | None = None
    change: Callable[[int], object] | None = None

    def __str__(self) -> str:
        return self.label if isinstance(self.label, str) else self.label()


class Menu:
    """A list of entries with a title."""

    def __init__(
        self,
        title: str,
        entries: Sequence[Entry],
        *,
        back: Callable[[], object],
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
        move = move_of(event)
        if move is None:
            return False
        if move in (UP, DOWN):
            step = 1 if move == DOWN else -1
            self.chosen = (self.chosen + step) % len(self.entries)
        elif move == BACK:
            self._back()
        else:
            self._use(move)
        return True

    def draw(self, surface: pygame.Surface, area: pygame.Rect) -> None:
        """Draw the menu in the middle of an area of a surface."""
        size = letter_size(surface.get_size()) + 2
        least = max(_MIN_SIZE, round(_LEAST * size))  # below, the list is scrolled
        while size > least and self._height(size) > area.height:
            size -= 1
        heading = written(self.title, round(1.4 * size))
        notes = [written(note, size - 2, color=DIM, width=area.width - 4 * PADDING)
                 for note in self._notes]  # fmt: skip
        lines = [written(str(entry), size) for entry in self.entries]
        width = max(item.get_width() for item in (heading, *notes, *lines)) + 4 * PADDING
        height = min(area.height, self._height(size))
        plate = pygame.Surface((min(width, area.width), height), pygame.SRCALPHA)
        pygame.draw.rect(plate, (*SHADE[:3], 235), plate.get_rect(), border_radius=8)
        place = plate.get_rect(center=area.center)
        y = PADDING
        for item in (heading, *notes):
            plate.blit(item, (2 * PADDING, y))
            y += item.get_height() + 2
        step = font(size).get_linesize() + 6
        first = self._first_shown((height - y - PADDING) // step)
        self._rects = []
        for index, line in enumerate(lines):
            rect = pygame.Rect(PADDING, y + (index - first) * step + 4, width - 2 * PADDING, step)
            is_shown = index >= first and rect.bottom <= height
            self._rects.append(rect.move(place.topleft) if is_shown else pygame.Rect(0, 0, 0, 0))
            if is_shown:
                if index == self.chosen:
                    pygame.draw.rect(plate, CHOSEN_COLOR, rect, border_radius=4)
                plate.blit(line, (2 * PADDING, rect.top + 3))
        last = max((index for index, rect in enumerate(self._rects) if rect), default=0)
        x = plate.get_width() - 2 * PADDING
        if first > 0:
            pygame.draw.polygon(plate, DIM, [(x - 6, y + 2), (x + 6, y + 2), (x, y - 6)])
        if last < len(lines) - 1:
            edge = height - PADDING
            pygame.draw.polygon(plate, DIM, [(x - 6, edge), (x + 6, edge), (x, edge + 6)])
        surface.blit(plate, place)

    def _use(self, move: int) -> None:
        entry = self.entries[self.chosen]
        if move in (LEFT, RIGHT) and entry.change is not None:
            entry.change(1 if move == RIGHT else -1)
        elif move == TAKE and entry.take is not None:
            entry.take()
        elif move == TAKE and entry.change is not None:
            entry.change(1)

    def _point(self, event: pygame.Event) -> bool:
        for index, rect in enumerate(self._rects):
            if rect.collidepoint(event.pos):
                self.chosen = index
                if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
                    self._use(TAKE)
                return True
        return False

    def _first_shown(self, num_shown: int) -> int:
        """Return the entry at the top, such that the chosen one is in sight."""
        last = max(0, len(self.entries) - num_shown)
        return min(max(0, self.chosen - num_shown // 2), last)

    def _height(self, size: int) -> int:
        lines = len(self.entries) * (font(size).get_linesize() + 6)
        notes = len(self._notes) * (font(size - 2).get_linesize() + 2)
        return lines + notes + font(round(1.4 * size)).get_linesize() + 4 * PADDING


def move_of(event: pygame.Event) -> int | None:
    """Return which way an event of a key or a pad moves in a menu; None of any other."""
    if event.type == pygame.KEYDOWN:
        return _KEYS.get(event.key)
    arrow = pressed_arrow(event)
    return _BUTTONS.get(pressed_button(event) or "") if arrow is None else _ARROWS[arrow]
