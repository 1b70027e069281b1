"""What the window draws beside the text: bookmarks, the way back, and the world beside its teacher.

Draws only; knows no keys and no session.
"""

import math
from collections.abc import Sequence

import numpy as np
import pygame

from envs.picture import BORDER_COLOR
from envs.play.game.compare import TRACE_STEPS
from envs.play.window.hud import MARGIN, PADDING, SHADE
from envs.play.window.letters import TEXT_COLOR, font, width_of, written

ACCENT = (255, 196, 92)
TIMELINE_HEIGHT = 62
_DIM = (150, 154, 180)
_LINE = (70, 74, 100)
_THUMBNAIL_WIDTH = 84
_TRACE_DB = (10.0, 30.0)


def draw_bookmarks(
    surface: pygame.Surface, bookmarks: Sequence[tuple[int, np.ndarray]], *, bottom: int
) -> None:
    """Draw small pictures with their numbers in a row at the right, above a height in px."""
    if not bookmarks:
        return
    height, width, _ = bookmarks[0][1].shape
    size = _THUMBNAIL_WIDTH, max(1, round(_THUMBNAIL_WIDTH * height / width))
    gap = PADDING // 2
    row_width = len(bookmarks) * (size[0] + gap) + gap
    row = pygame.Surface((row_width, size[1] + 2 * gap), pygame.SRCALPHA)
    row.fill(SHADE)
    for place, (number, frame) in enumerate(bookmarks):
        left = gap + place * (size[0] + gap)
        row.blit(pygame.transform.smoothscale(_picture(frame), size), (left, gap))
        words = written(str(number), 20)
        plate = pygame.Surface((words.get_width() + 8, words.get_height()), pygame.SRCALPHA)
        plate.fill(SHADE)
        plate.blit(words, (4, 0))
        row.blit(plate, (left, gap))
    room = surface.get_width() - 2 * MARGIN
    if row.get_width() > room > 0:
        scale = room / row.get_width()
        row = pygame.transform.smoothscale(row, (room, max(1, round(row.get_height() * scale))))
    surface.blit(row, row.get_rect(right=surface.get_width() - MARGIN, bottom=bottom))


def draw_rewind(surface: pygame.Surface, *, share: float, seconds: float) -> None:
    """Draw two arrows to the left, the time left to go back, and a bar of the share of it."""
    width, height = surface.get_size()
    text = f"{seconds:.1f} s left" if share > 0 else "this is as far back as it goes"
    words = written(text, 24)
    plate = pygame.Surface((words.get_width() + 62, words.get_height() + 2 * PADDING))
    plate = plate.convert_alpha()
    plate.fill(SHADE)
    middle = plate.get_height() // 2
    for left in (12, 26):
        points = [(left, middle), (left + 12, middle - 8), (left + 12, middle + 8)]
        pygame.draw.polygon(plate, ACCENT, points)
    plate.blit(words, (50, PADDING))
    surface.blit(plate, plate.get_rect(centerx=width // 2, top=MARGIN))
    pygame.draw.rect(surface, BORDER_COLOR, (0, height - 6, width, 6))
    pygame.draw.rect(surface, ACCENT, (0, height - 6, round(width * share), 6))


def draw_split(
    surface: pygame.Surface,
    left: np.ndarray,
    right: np.ndarray | None,
    *,
    names: tuple[str, str],
    trace: Sequence[tuple[int, float]],
    note: str,
    text_height: int = 0,
) -> pygame.Rect:
    """Draw two frames side by side, and below them how like each other they were.

    Args:
        surface: What to draw on.
        left: uint8 (H, W, 3).
        right: The same shape; None where there is none yet.
        names: What stands above them.
        trace: (step, PSNR in dB), oldest first.
        note: Words below the right frame's name, such as why there is none.
        text_height: Room in px to leave for text above the trace, as far as there is any.

    Returns:
        Where the trace lies.
    """
    width, height = surface.get_size()
    surface.fill(BORDER_COLOR)
    gap, head, foot = 6, 28, max(60, height // 5)
    frame_height, frame_width, _ = left.shape
    room = max(1, (width - 3 * gap) // 2), max(1, height - head - foot - 2 * gap)
    scale = min(room[0] / frame_width, room[1] / frame_height)
    scale = float(int(scale)) if scale >= 2 else scale
    size = max(1, round(frame_width * scale)), max(1, round(frame_height * scale))
    block = 2 * size[0] + gap
    x = (width - block) // 2
    room_left = max(0, height - head - size[1] - foot - 2 * gap)
    text_height = min(text_height, room_left)
    y = head + (room_left - text_height) // 2
    for column, (frame, name) in enumerate(zip((left, right), names, strict=True)):
        rect = pygame.Rect((x + column * (size[0] + gap), y), size)
        if frame is None:
            pygame.draw.rect(surface, (22, 24, 36), rect)
        else:
            surface.blit(_scaled(frame, size, is_whole=scale == int(scale)), rect)
        label = written(name, 22)
        surface.blit(label, (rect.left + 2, rect.top - label.get_height() - 4))
        if column == 1 and note:
            words = written(note, 20, color=ACCENT)
            surface.blit(words, words.get_rect(right=rect.right, bottom=rect.top - 4))
    top = min(y + size[1] + gap + text_height, height)
    place = pygame.Rect(x, top, block, max(0, min(foot, height - top - gap)))
    _draw_trace(surface, place, trace)
    return place


def timeline_rect(size: tuple[int, int]) -> pygame.Rect:
    """Return where the bar of a film lies in a window of (width, height) px."""
    side = 3 * MARGIN
    return pygame.Rect(side, size[1] - 24, max(1, size[0] - 2 * side), 8)


def draw_timeline(
    surface: pygame.Surface,
    *,
    share: float,
    marks: Sequence[float],
    seconds: tuple[float, float],
    speed: float,
    is_paused: bool,
) -> None:
    """Draw the bar of a film, and above it what is shown and how fast.

    Args:
        surface: What to draw on.
        share: Of the film that lies before the frame that is shown.
        marks: Such shares at which something begins anew.
        seconds: Of the frame that is shown, and of the whole film.
        speed: 1 is that of play.
        is_paused: Whether the film stands still.
    """
    width, height = surface.get_size()
    bar = timeline_rect((width, height))
    plate = pygame.Surface((width, TIMELINE_HEIGHT), pygame.SRCALPHA)
    plate.fill(SHADE)
    surface.blit(plate, (0, height - plate.get_height()))
    middle = bar.top - 18
    if is_paused:
        for left in (bar.left, bar.left + 7):
            pygame.draw.rect(surface, ACCENT, (left, middle - 7, 4, 14))
    else:
        points = [(bar.left, middle - 7), (bar.left, middle + 7), (bar.left + 12, middle)]
        pygame.draw.polygon(surface, ACCENT, points)
    times = " / ".join(f"{int(value) // 60}:{value % 60:04.1f}" for value in seconds)
    pace = "" if speed == 1.0 else f"   x {speed:g}"
    words = written(f"{times}{pace}", 22)
    surface.blit(words, words.get_rect(left=bar.left + 22, centery=middle))
    hint = written("T takes over, F1 shows the keys", 20, color=_DIM)
    if words.get_width() + hint.get_width() + 60 < bar.width:
        surface.blit(hint, hint.get_rect(right=bar.right, centery=middle))
    pygame.draw.rect(surface, _LINE, bar, border_radius=3)
    x = bar.left + round(share * (bar.width - 1))
    pygame.draw.rect(surface, ACCENT, (bar.left, bar.top, x - bar.left, 8), border_radius=3)
    for mark in marks:
        place = bar.left + round(mark * (bar.width - 1))
        pygame.draw.rect(surface, TEXT_COLOR, (place - 1, bar.top - 3, 2, 14))
    pygame.draw.circle(surface, TEXT_COLOR, (x, bar.centery), 8)


def _draw_trace(
    surface: pygame.Surface, rect: pygame.Rect, trace: Sequence[tuple[int, float]]
) -> None:
    """Draw PSNR by step as a line, its newest value at the right, with two lines to read it by."""
    if rect.height < 24:
        return
    low, high = _TRACE_DB
    letters = font(20)
    value_width = letters.size("00.0 dB")[0] + 2 * PADDING
    plot = pygame.Rect(rect.left, rect.top, rect.width - value_width, rect.height)
    pygame.draw.rect(surface, (20, 22, 34), plot)

    def y_of(decibel: float) -> int:
        share = (min(max(decibel, low), high) - low) / (high - low)
        return round(plot.bottom - 2 - share * (plot.height - 4))

    for decibel in (15.0, 20.0, 25.0):
        pygame.draw.line(surface, _LINE, (plot.left, y_of(decibel)), (plot.right, y_of(decibel)))
        label = written(f"{decibel:.0f}", 16, color=_DIM)
        surface.blit(label, (plot.left + 3, y_of(decibel) - label.get_height()))
    title = f"how like the teacher's: PSNR of the last {TRACE_STEPS} steps"
    if width_of(title, 16) + 3 * MARGIN > plot.width:
        title = "PSNR"
    words = written(title, 16, color=_DIM)
    surface.blit(words, words.get_rect(right=plot.right - 6, top=plot.top + 4))
    if not trace:
        return
    newest = trace[-1][0]
    points = [
        (plot.right - 1 - round((newest - step) * plot.width / TRACE_STEPS), y_of(psnr))
        for step, psnr in trace
        if newest - step < TRACE_STEPS
    ]
    if len(points) > 1:
        pygame.draw.lines(surface, ACCENT, False, points, 2)
    psnr = trace[-1][1]
    if not math.isnan(psnr):
        value = written(f"{psnr:.1f} dB", 20, color=ACCENT)
        place = value.get_rect(left=plot.right + PADDING, centery=y_of(psnr))
        surface.blit(value, place.clamp(rect))


def _picture(frame: np.ndarray) -> pygame.Surface:
    height, width, _ = frame.shape
    return pygame.image.frombytes(frame.tobytes(), (width, height), "RGB")


def _scaled(frame: np.ndarray, size: tuple[int, int], *, is_whole: bool) -> pygame.Surface:
    """Return a frame in another size: sharp if the scale is whole, else without uneven pixels."""
    scale = pygame.transform.scale if is_whole else pygame.transform.smoothscale
    return scale(_picture(frame), size)
