"""The picture beside its teacher's, that plates lie over; bookmarks, the way back.

Knows no keys and no session.
"""

import math
from collections.abc import Sequence

import numpy as np
import pygame

from envs.picture import BORDER_COLOR, picture_of
from envs.play.game.compare import TRACE_STEPS, Comparison, Pair
from envs.play.game.moments import View
from envs.play.window.hud import DIM, MARGIN, PADDING, SHADE, row_plate
from envs.play.window.layout import Layout, Plate, arrange
from envs.play.window.letters import TEXT_COLOR, fitted, font, letter_size, width_of, written

ACCENT = (255, 196, 92)
LINE_COLOR = (70, 74, 100)
_TRACE_DB = (10.0, 30.0)
# Beside the teacher so much height belongs to the frames and the trace, in px and as a share.
_SPLIT_HEIGHT, _SPLIT_SHARE = 130, 0.5


def bookmarks_plate(bookmarks: Sequence[tuple[int, np.ndarray]], size: int) -> pygame.Surface:
    """Return small pictures of bookmarks with their numbers, in a row."""
    parts = []
    for number, frame in bookmarks:
        height, width, _ = frame.shape
        shown = 4 * size, max(1, round(4 * size * height / width))
        picture = pygame.transform.smoothscale(picture_of(frame), shown)
        words = written(str(number), size)
        label = pygame.Surface((words.get_width() + 8, words.get_height()), pygame.SRCALPHA)
        label.fill(SHADE)
        label.blit(words, (4, 0))
        picture.blit(label, (0, 0))
        parts.append(picture)
    return row_plate(parts, gap=PADDING // 2)


def rewind_plate(*, share: float, seconds: float, size: int) -> pygame.Surface:
    """Return two arrows to the left, the time left to go back, and a bar of the share of it."""
    text = f"{seconds:.1f} s left" if share > 0 else "this is as far back as it goes"
    arrows = pygame.Surface((26, size), pygame.SRCALPHA)
    for left in (0, 14):
        points = [(left, size // 2), (left + 12, size // 2 - 7), (left + 12, size // 2 + 7)]
        pygame.draw.polygon(arrows, ACCENT, points)
    made = row_plate([arrows, written(text, size)])
    bar = pygame.Rect(PADDING, made.get_height() - 5, made.get_width() - 2 * PADDING, 3)
    pygame.draw.rect(made, LINE_COLOR, bar)
    pygame.draw.rect(made, ACCENT, (bar.topleft, (round(bar.width * share), bar.height)))
    return made


def draw_beside(
    surface: pygame.Surface,
    area: pygame.Rect,
    view: View,
    plates: Sequence[Plate],
    comparison: Comparison,
    pair: Pair | None,
) -> Layout:
    """Draw world and teacher at the same step, and below them how like each other they were.

    Return where plates lie over them, and these: "left", "right", "trace".
    """
    middle = max(_SPLIT_HEIGHT, round(_SPLIT_SHARE * area.height))
    layout = arrange(area, plates, middle=middle)
    free, note, world = layout.free, "", view
    if comparison.error is not None:
        note = f"it failed: {comparison.error}"
    elif pair is None or abs(view.num_steps - pair.view.num_steps) > 1:
        behind = comparison.num_behind
        note = f"{behind} steps behind" if behind else "the teacher comes"
    else:
        world = pair.view  # the same step on both sides
    letters = letter_size(surface.get_size())
    surface.fill(BORDER_COLOR)
    gap, head = 6, letters + 8
    foot = min(max(34, free.height // 5), free.height // 2)
    frame_height, frame_width, _ = world.frame.shape
    room = max(1, (free.width - 3 * gap) // 2), max(1, free.height - head - foot - 2 * gap)
    scale = min(room[0] / frame_width, room[1] / frame_height)
    scale = float(int(scale)) if scale >= 2 else scale
    size = max(1, round(frame_width * scale)), max(1, round(frame_height * scale))
    block = 2 * size[0] + gap
    x = free.left + (free.width - block) // 2
    y = free.top + head + max(0, free.height - head - size[1] - foot - 2 * gap) // 2
    left, right = pygame.Rect((x, y), size), pygame.Rect((x + size[0] + gap, y), size)
    for rect, frame, words, color in (
        (left, world.frame, "the world", TEXT_COLOR),
        (right, pair and pair.teacher_frame, note or "the teacher", ACCENT if note else TEXT_COLOR),
    ):
        if frame is None:
            pygame.draw.rect(surface, (22, 24, 36), rect)
        else:
            # Sharp if the scale is whole, else without uneven pixels.
            is_whole = scale == int(scale)
            draw = pygame.transform.scale if is_whole else pygame.transform.smoothscale
            surface.blit(draw(picture_of(frame), size), rect)
        label = fitted(words, letters, width=size[0], color=color)
        surface.blit(label, label.get_rect(left=rect.left + 2, bottom=rect.top - 3))
    top = y + size[1] + gap
    width = max(block, min(free.width - 2 * gap, 220))
    trace = pygame.Rect(0, top, width, max(0, min(foot, free.bottom - top - gap)))
    trace.centerx = free.centerx
    _draw_trace(surface, trace, pair.trace if pair is not None else ())
    layout.rects.update(left=left, right=right, trace=trace)
    return layout


def _draw_trace(
    surface: pygame.Surface, rect: pygame.Rect, trace: Sequence[tuple[int, float]]
) -> None:
    """Draw PSNR by step as a line, its newest value at the right, with two lines to read it by."""
    if rect.height < 24:
        return
    low, high = _TRACE_DB
    size = letter_size(surface.get_size())
    small, letters = round(0.75 * size), font(size)
    value_width = letters.size("00.0 dB")[0] + 2 * PADDING
    plot = pygame.Rect(rect.left, rect.top, rect.width - value_width, rect.height)
    pygame.draw.rect(surface, (20, 22, 34), plot)

    def y_of(decibel: float) -> int:
        share = (min(max(decibel, low), high) - low) / (high - low)
        return round(plot.bottom - 2 - share * (plot.height - 4))

    for decibel in (15.0, 20.0, 25.0):
        pygame.draw.line(
            surface, LINE_COLOR, (plot.left, y_of(decibel)), (plot.right, y_of(decibel))
        )
        label = written(f"{decibel:.0f}", small, color=DIM)
        if y_of(20.0) - y_of(25.0) < label.get_height():
            continue
        surface.blit(label, (plot.left + 3, y_of(decibel) - label.get_height()))
    title = f"how like the teacher's: PSNR of the last {TRACE_STEPS} steps"
    if width_of(title, small) + 3 * MARGIN > plot.width:
        title = "PSNR"
    words = written(title, small, color=DIM)
    surface.blit(words, words.get_rect(right=plot.right - 6, bottom=plot.bottom - 3))
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
        value = written(f"{psnr:.1f} dB", size, color=ACCENT)
        place = value.get_rect(left=plot.right + PADDING, centery=y_of(psnr))
        surface.blit(value, place.clamp(rect))
