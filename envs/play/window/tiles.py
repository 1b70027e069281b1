"""Rows of pictures to choose from, with keys, mouse or gamepad. Knows nothing of what is chosen."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pygame

from envs.picture import picture_of
from envs.play.window.hud import DIM, PADDING, SHADE
from envs.play.window.letters import TEXT_COLOR, fitted, font, letter_size, width_of, written
from envs.play.window.menu import BACK, CHOSEN_COLOR, DOWN, LEFT, RIGHT, TAKE, UP, move_of
from envs.play.window.panels import ACCENT

_RATIO = 0.6  # height by width of a tile
_MOST_IN_SIGHT = 6  # tiles of a row, unless the window is small
_FARTHEST = 1.5  # widths from tile to tile
_EMPTY_COLOR = (40, 44, 62)
_KEPT = 400


class Pictures:
    """Small pictures, each made once; one at a time, so that the window goes on meanwhile."""

    def __init__(self) -> None:
        self.is_behind = False
        self._made: dict[Hashable, pygame.Surface | None] = {}
        self._may_make = True

    def begin(self) -> None:
        """Begin to draw: one picture may be made."""
        self.is_behind, self._may_make = False, True

    def get(self, key: Hashable, make: Callable[[], np.ndarray | None]) -> pygame.Surface | None:
        """Return a picture, or None as long as there is none."""
        if key in self._made:
            return self._made[key]
        self.is_behind = True
        if not self._may_make:
            return None
        self._may_make = False
        frame = make()
        if frame is None:
            return None
        if len(self._made) >= _KEPT:
            del self._made[next(iter(self._made))]
        self._made[key] = picture_of(frame)
        return self._made[key]


@dataclass(kw_only=True)
class Row:
    """A row of tiles.

    Attributes:
        key: Returns what tells a tile's picture from others.
        draw: Returns a tile's picture, uint8 (H, W, 3); None as long as there is none.
        take: Called with a tile's number when it is chosen.
        chosen: Number of the marked tile.
        is_choice: Whether the row's mark counts while another row is used.
    """

    title: str
    labels: Sequence[str]
    key: Callable[[int], Hashable]
    draw: Callable[[int], np.ndarray | None]
    take: Callable[[int], object]
    chosen: int = 0
    is_choice: bool = False
    rects: dict[int, pygame.Rect] = field(default_factory=dict)


class Tiles:
    """Rows of tiles with a title, to be used like a menu."""

    def __init__(
        self,
        title: str,
        rows: Sequence[Row],
        *,
        back: Callable[[], object],
        pictures: Pictures,
        hint: str,
    ) -> None:
        self.title = title
        self.rows = [row for row in rows if row.labels]
        self.current = 0
        self._back = back
        self._pictures = pictures
        self._hint = hint

    def handle(self, event: pygame.Event) -> bool:
        """Obey an event; return whether it was meant for the tiles."""
        if event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEWHEEL):
            return self._point(event)
        move = move_of(event)
        if move is None:
            return False
        if move == BACK:
            self._back()
        elif not self.rows:
            pass
        elif move in (UP, DOWN):
            self.current = (self.current + (1 if move == DOWN else -1)) % len(self.rows)
        elif move in (LEFT, RIGHT):
            row = self.rows[self.current]
            row.chosen = (row.chosen + (1 if move == RIGHT else -1)) % len(row.labels)
        elif move == TAKE:
            self.rows[self.current].take(self.rows[self.current].chosen)
        return True

    def draw(self, surface: pygame.Surface, area: pygame.Rect) -> None:
        """Draw as many rows as fit an area of a surface, the one that is used among them."""
        self._pictures.begin()
        size = letter_size(surface.get_size())
        line = font(size).get_linesize()
        shade = pygame.Surface(area.size, pygame.SRCALPHA)
        shade.fill((*SHADE[:3], 235))
        surface.blit(shade, area)
        inner = area.inflate(-2 * PADDING, -2 * PADDING)
        title = self.title
        if self.rows:
            row = self.rows[self.current]
            title += f": {row.labels[row.chosen]}"
        heading = fitted(title, round(1.3 * size), width=inner.width)
        surface.blit(heading, inner.topleft)
        room = inner.width - heading.get_width() - 2 * size
        if width_of(self._hint, size) <= room:
            hint = written(self._hint, size, color=DIM)
            surface.blit(hint, hint.get_rect(right=inner.right, top=inner.top + size // 4))
        if not self.rows:
            words = written("there is nothing yet: F8 saves the last 30 seconds", size)
            surface.blit(words, words.get_rect(center=inner.center))
            return
        top = inner.top + heading.get_height() + PADDING
        room = inner.bottom - top
        # A tile that can be seen, a label, a gap.
        least = line + 2 * size + PADDING
        count = min(len(self.rows), max(1, room // least))
        indent = max(width_of(row.title, size) for row in self.rows) + size
        most = min(max(4, *(len(row.labels) for row in self.rows)), _MOST_IN_SIGHT)
        tile = round(_RATIO * ((inner.width - indent) / most - PADDING))
        height = min(room // count, line + PADDING + max(2 * size, tile))
        first = min(max(0, self.current - count // 2), len(self.rows) - count)
        for number, row in enumerate(self.rows):
            row.rects = {}
            if first <= number < first + count:
                place = pygame.Rect(
                    inner.left, top + (number - first) * height, inner.width, height
                )
                color = TEXT_COLOR if number == self.current else DIM
                surface.blit(written(row.title, size, color=color), place.topleft)
                place = pygame.Rect(place.move(indent, 0).topleft, (place.width - indent, height))
                self._draw_row(surface, row, place, size, is_current=number == self.current)

    def _draw_row(
        self, surface: pygame.Surface, row: Row, place: pygame.Rect, size: int, *, is_current: bool
    ) -> None:
        line = font(size).get_linesize()
        color = TEXT_COLOR if is_current else DIM
        height = max(size, place.height - line - PADDING)
        width = round(height / _RATIO)
        # Where there is room, tiles stand apart, for what is written below them.
        wide = min(place.width // _MOST_IN_SIGHT, round(_FARTHEST * width))
        pitch = max(width + PADDING, wide)
        count = max(1, place.width // pitch)
        first = min(max(0, row.chosen - count // 2), max(0, len(row.labels) - count))
        for index in range(first, min(first + count, len(row.labels))):
            left = place.left + (index - first) * pitch
            rect = pygame.Rect(left, place.top, width, height)
            row.rects[index] = pygame.Rect(rect.topleft, (width, height + line))
            picture = self._pictures.get(row.key(index), lambda i=index: row.draw(i))
            if picture is not None:
                surface.blit(pygame.transform.smoothscale(picture, rect.size), rect)
            else:
                pygame.draw.rect(surface, _EMPTY_COLOR, rect, border_radius=4)
            if index == row.chosen and (is_current or row.is_choice):
                mark = ACCENT if is_current else CHOSEN_COLOR
                pygame.draw.rect(surface, mark, rect.inflate(6, 6), 3, border_radius=6)
            label = fitted(row.labels[index], size, width=pitch - PADDING, color=color)
            surface.blit(label, (rect.left, rect.bottom + 2))

    def _point(self, event: pygame.Event) -> bool:
        """Mark what is clicked, or take it if it is marked; the wheel goes along the row."""
        if event.type == pygame.MOUSEWHEEL and self.rows:
            row = self.rows[self.current]
            row.chosen = min(max(row.chosen - event.y, 0), len(row.labels) - 1)
            return True
        if event.type != pygame.MOUSEBUTTONDOWN or event.button != 1:
            return True
        for number, row in enumerate(self.rows):
            for index, rect in row.rects.items():
                if rect.collidepoint(event.pos):
                    is_marked = number == self.current and row.chosen == index
                    self.current, row.chosen = number, index
                    if is_marked:
                        row.take(index)
        return True
