"""What the window writes over the picture: measurements, the key map, a line to type into.

Draws text only; takes its numbers from the session as they are.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pygame

from envs.play.window.letters import TEXT_COLOR, font, width_of, written

RECORDING_COLOR = (255, 96, 80)
SHADE = (10, 12, 20, 190)
PADDING = 8
MARGIN = 14

_MIN_SIZE = 12

COMMANDS: tuple[tuple[str, str], ...] = (
    ("T", "type what the world should look like"),
    ("P, N", "pause, one step"),
    ("Backspace", "hold: run backwards; let go: play on from there"),
    ("B, 1 to 9", "drop a bookmark, jump back to one"),
    ("F2", "the teacher beside the world"),
    ("R, Shift+R", "start again (asks), next start state"),
    ("G", "an agent plays, or you again"),
    ("F12, F9", "save a screenshot, record"),
    ('T, then "', "type what the character says"),
    ("L", "the next language"),
    ("M, - and +", "sound off, quieter and louder"),
    ("F1, F3", "these keys, measurements"),
    ("F11", "full screen (also Alt+Enter)"),
    ("Esc", "menu: modes, scenes, settings, quit"),
)


def key_lines(keys: Mapping[str, Sequence[str]], aliases: Mapping[str, str]) -> list[str]:
    """Return one line per action and per command: which keys call it."""
    others: dict[str, list[str]] = {}
    for alias, name in aliases.items():
        if not alias.startswith("[") and alias != "right shift":
            others.setdefault(name, []).append(alias)
    lines = []
    for action, held in sorted(keys.items(), key=lambda item: len(item[1])):
        words = " + ".join("/".join([name, *others.get(name, [])]) for name in held)
        lines.append(f"{words}  {action.replace('_', ' ')}")
    lines.append("")
    return lines + [f"{words}  {meaning}" for words, meaning in COMMANDS]


def draw_lines(
    surface: pygame.Surface, lines: Sequence[str], *, size: int = 20, above: int = 3 * MARGIN
) -> pygame.Rect:
    """Draw lines of text on a dark plate at the lower left and return where they lie.

    The plate ends `above` px over the lower edge. Two spaces in a line are a gap to the second
    column. Where there is no room for all lines, their letters are smaller, down to 12 px.
    """
    while size > _MIN_SIZE and _plate_height(lines, size) > surface.get_height():
        size -= 1
    column = max((width_of(line.split("  ")[0], size) for line in lines if "  " in line), default=0)
    parts = [[part.strip() for part in line.split("  ", 1)] for line in lines]
    widths = [
        column + size + width_of(part[1], size) if len(part) > 1 else width_of(part[0], size)
        for part in parts
    ]
    step = font(size).get_linesize()
    plate = pygame.Surface(
        (max(widths, default=0) + 2 * PADDING, _plate_height(lines, size)), pygame.SRCALPHA
    )
    plate.fill(SHADE)
    for row, part in enumerate(parts):
        y = PADDING + row * step
        plate.blit(written(part[0], size), (PADDING, y))
        if len(part) > 1:
            plate.blit(written(part[1], size), (PADDING + column + size, y))
    place = plate.get_rect(left=MARGIN, bottom=surface.get_height() - above)
    return surface.blit(plate, place.move(0, max(0, -place.top)))


def _plate_height(lines: Sequence[str], size: int) -> int:
    return font(size).get_linesize() * len(lines) + 2 * PADDING


def draw_banner(surface: pygame.Surface, text: str, *, size: int = 34) -> None:
    """Draw a line of text on a dark band across the middle."""
    words = written(text, size)
    width, height = surface.get_size()
    band = pygame.Surface((width, words.get_height() + 2 * PADDING), pygame.SRCALPHA)
    band.fill(SHADE)
    top = (height - band.get_height()) // 2
    surface.blit(band, (0, top))
    surface.blit(words, ((width - words.get_width()) // 2, top + PADDING))


def draw_bottom_line(surface: pygame.Surface, text: str, *, size: int = 24) -> pygame.Rect:
    """Draw a text on a dark band along the lower edge, on as many lines as it takes."""
    width, height = surface.get_size()
    words = written(text, size, width=width - 2 * PADDING)
    band = pygame.Surface((width, words.get_height() + 2 * PADDING), pygame.SRCALPHA)
    band.fill(SHADE)
    band.blit(words, (PADDING, PADDING))
    return surface.blit(band, (0, height - band.get_height()))


def draw_recording(
    surface: pygame.Surface, text: str, *, is_error: bool = False, at_left: bool = False
) -> None:
    """Draw words after a red light in an upper corner, the right one; long ones take lines."""
    light = font(20).get_linesize() // 3
    room = surface.get_width() - 2 * MARGIN - 3 * light - 2 * PADDING
    color = RECORDING_COLOR if is_error else TEXT_COLOR
    words = written(text, 20, color=color, width=max(1, room))
    width, height = words.get_size()
    plate = pygame.Surface((width + 3 * light + 2 * PADDING, height + PADDING), pygame.SRCALPHA)
    plate.fill(SHADE)
    pygame.draw.circle(plate, RECORDING_COLOR, (PADDING + light, plate.get_height() // 2), light)
    plate.blit(words, (PADDING + 3 * light, PADDING // 2))
    place = plate.get_rect(right=surface.get_width() - MARGIN, top=MARGIN)
    surface.blit(plate, plate.get_rect(left=MARGIN, top=MARGIN) if at_left else place)


def draw_loading(
    surface: pygame.Surface, title: str, elapsed_s: float, *, stage: str = "loading"
) -> None:
    """Draw a picture for the time until the first frame: title, stage and a light that wanders."""
    width, height = surface.get_size()
    surface.fill((18, 20, 34))
    for index in range(5):
        glow = 0.5 + 0.5 * np.cos(4.0 * elapsed_s - 0.9 * index)
        color = pygame.Color(40, 44, 70).lerp(pygame.Color(255, 196, 92), float(glow) ** 3)
        pygame.draw.circle(surface, color, (width // 2 + (index - 2) * 28, height // 2 + 34), 7)
    name = written(title, 48)
    surface.blit(name, ((width - name.get_width()) // 2, height // 2 - 44))
    hint = written(f"{stage}; F1 shows the keys, Esc leaves", 20, color=(150, 154, 180))
    surface.blit(hint, ((width - hint.get_width()) // 2, height // 2 + 62))
