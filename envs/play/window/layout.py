"""Where plates lie over a picture: in rows from its edges, never one over another.

Knows sizes alone. What does not fit is drawn smaller, down to a limit, and then left out: plates
come the most important first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pygame

GAP = 6

Side = Literal["left", "center", "right"]


@dataclass(frozen=True, kw_only=True)
class Plate:
    """Something to be drawn over the picture.

    Attributes:
        name: Of what it is; no two have the same.
        edge: From which the rows are counted.
        side: Where in its row.
        least: The scale down to which it may shrink.
    """

    name: str
    picture: pygame.Surface
    edge: Literal["top", "bottom"]
    side: Side = "left"
    least: float = 0.6


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where plates lie.

    Attributes:
        rects: By name; what did not fit is not there.
        free: What is left between the rows of both edges.
    """

    rects: dict[str, pygame.Rect]
    free: pygame.Rect


class _Row:
    def __init__(self, area: pygame.Rect) -> None:
        self.rects: dict[str, pygame.Rect] = {}
        self._area = area

    @property
    def height(self) -> int:
        return max((rect.height for rect in self.rects.values()), default=0)

    def place(self, size: tuple[int, int], side: Side) -> pygame.Rect:
        rect = pygame.Rect((self._area.left + GAP, 0), size)
        if side == "center":
            rect.centerx = self._area.centerx
        elif side == "right":
            rect.right = self._area.right - GAP
        return rect

    def has_room(self, rect: pygame.Rect) -> bool:
        return all(
            rect.right + GAP <= other.left or other.right + GAP <= rect.left
            for other in self.rects.values()
        )


def arrange(area: pygame.Rect, plates: Sequence[Plate], *, middle: int = 0) -> Layout:
    """Return where plates lie, the most important first; none takes the middle's height in px."""
    rows: dict[str, list[_Row]] = {"top": [], "bottom": []}
    left = area.height - middle - 2 * GAP
    for plate in plates:
        scale = min(1.0, (area.width - 2 * GAP) / plate.picture.get_width())
        known = rows[plate.edge]
        for row in known:
            rect = row.place(_scaled(plate, scale), plate.side)
            growth = max(0, rect.height - row.height)
            if row.has_room(rect) and growth <= left:
                break
        else:
            scale = min(scale, (left - GAP) / plate.picture.get_height())
            if scale < plate.least:
                continue
            row = _Row(area)
            rect = row.place(_scaled(plate, scale), plate.side)
            growth = rect.height + GAP
            known.append(row)
        row.rects[plate.name] = rect
        left -= growth
    top, bottom = area.top + GAP, area.bottom - GAP
    rects: dict[str, pygame.Rect] = {}
    for row in rows["top"]:
        rects |= {name: rect.move(0, top - rect.top) for name, rect in row.rects.items()}
        top += row.height + GAP
    for row in rows["bottom"]:
        rects |= {name: rect.move(0, bottom - rect.bottom) for name, rect in row.rects.items()}
        bottom -= row.height + GAP
    return Layout(rects=rects, free=pygame.Rect(area.left, top, area.width, max(0, bottom - top)))


def _scaled(plate: Plate, scale: float) -> tuple[int, int]:
    width, height = plate.picture.get_size()
    return max(1, int(width * scale)), max(1, int(height * scale))


def draw(surface: pygame.Surface, plates: Sequence[Plate], layout: Layout) -> None:
    """Draw plates where they lie."""
    for plate in plates:
        rect = layout.rects.get(plate.name)
        if rect is not None and rect.size == plate.picture.get_size():
            surface.blit(plate.picture, rect)
        elif rect is not None and rect.width and rect.height:
            surface.blit(pygame.transform.smoothscale(plate.picture, rect.size), rect)
