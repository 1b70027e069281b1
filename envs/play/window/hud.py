"""What the window writes over the picture: measurements, the key map, a line to type into.

Draws text only; takes its numbers from the session as they are.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pygame

TEXT_COLOR = (240, 240, 235)
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
    ("R, Shift+R", "start again, next start state"),
    ("S, F9", "save a screenshot, record"),
    ("F1, F3", "these keys, measurements"),
    ("Esc", "quit"),
)


class Samples:
    """The last measurements of something, up to a fixed number, and their percentiles."""

    def __init__(self, capacity: int = 512) -> None:
        self._values = np.zeros(capacity)
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, len(self._values))

    def add(self, value: float) -> None:
        """Keep a measurement, in place of the oldest if there is no room."""
        self._values[self._count % len(self._values)] = value
        self._count += 1

    def percentile(self, percent: float) -> float:
        """Return the smallest value that `percent` of the values do not exceed; NaN of none."""
        if not len(self):
            return float("nan")
        ordered = np.sort(self._values[: len(self)])
        rank = int(np.ceil(percent / 100 * len(ordered)))
        return float(ordered[max(rank, 1) - 1])

    def mean(self) -> float:
        """Return the mean; NaN of none."""
        return float(self._values[: len(self)].mean()) if len(self) else float("nan")


def milliseconds(samples: Samples, percents: Sequence[float]) -> str:
    """Return percentiles of seconds as words, such as "12 / 15 / 20 ms"."""
    if not len(samples):
        return "-"
    return " / ".join(f"{1000 * samples.percentile(p):.0f}" for p in percents) + " ms"


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


@lru_cache(maxsize=16)
def font(size: int) -> pygame.font.Font:
    """Return the letters of a size in px."""
    pygame.font.init()  # may be called often
    return pygame.font.Font(None, size)


def draw_lines(
    surface: pygame.Surface, lines: Sequence[str], *, size: int = 20, above: int = 3 * MARGIN
) -> pygame.Rect:
    """Draw lines of text on a dark plate at the lower left and return where they lie.

    The plate ends `above` px over the lower edge. Two spaces in a line are a gap to the second
    column. Where there is no room for all lines, their letters are smaller, down to 12 px.
    """
    while size > _MIN_SIZE and _plate_height(lines, size) > surface.get_height():
        size -= 1
    letters = font(size)
    column = max(
        (letters.size(line.split("  ")[0])[0] for line in lines if "  " in line), default=0
    )
    parts = [[part.strip() for part in line.split("  ", 1)] for line in lines]
    widths = [
        column + size + letters.size(part[1])[0] if len(part) > 1 else letters.size(part[0])[0]
        for part in parts
    ]
    step = letters.get_linesize()
    plate = pygame.Surface(
        (max(widths, default=0) + 2 * PADDING, _plate_height(lines, size)), pygame.SRCALPHA
    )
    plate.fill(SHADE)
    for row, part in enumerate(parts):
        y = PADDING + row * step
        plate.blit(letters.render(part[0], True, TEXT_COLOR), (PADDING, y))
        if len(part) > 1:
            plate.blit(letters.render(part[1], True, TEXT_COLOR), (PADDING + column + size, y))
    place = plate.get_rect(left=MARGIN, bottom=surface.get_height() - above)
    return surface.blit(plate, place.move(0, max(0, -place.top)))


def _plate_height(lines: Sequence[str], size: int) -> int:
    return font(size).get_linesize() * len(lines) + 2 * PADDING


def draw_banner(surface: pygame.Surface, text: str, *, size: int = 34) -> None:
    """Draw a line of text on a dark band across the middle."""
    words = font(size).render(text, True, TEXT_COLOR)
    width, height = surface.get_size()
    band = pygame.Surface((width, words.get_height() + 2 * PADDING), pygame.SRCALPHA)
    band.fill(SHADE)
    top = (height - band.get_height()) // 2
    surface.blit(band, (0, top))
    surface.blit(words, ((width - words.get_width()) // 2, top + PADDING))


def draw_bottom_line(surface: pygame.Surface, text: str, *, size: int = 24) -> None:
    """Draw a line of text on a dark band along the lower edge; its end stays in sight."""
    words = font(size).render(text, True, TEXT_COLOR)
    width, height = surface.get_size()
    band = pygame.Surface((width, words.get_height() + 2 * PADDING), pygame.SRCALPHA)
    band.fill(SHADE)
    band.blit(words, (min(PADDING, width - PADDING - words.get_width()), PADDING))
    surface.blit(band, (0, height - band.get_height()))


def draw_recording(surface: pygame.Surface, text: str, *, is_error: bool = False) -> None:
    """Draw words about recording at the upper right, after a red light; long ones take lines."""
    letters = font(20)
    light = letters.get_linesize() // 3
    room = surface.get_width() - 2 * MARGIN - 3 * light - 2 * PADDING
    color = RECORDING_COLOR if is_error else TEXT_COLOR
    words = letters.render(text, True, color, wraplength=max(1, room))
    width, height = words.get_size()
    plate = pygame.Surface((width + 3 * light + 2 * PADDING, height + PADDING), pygame.SRCALPHA)
    plate.fill(SHADE)
    pygame.draw.circle(plate, RECORDING_COLOR, (PADDING + light, plate.get_height() // 2), light)
    plate.blit(words, (PADDING + 3 * light, PADDING // 2))
    surface.blit(plate, plate.get_rect(right=surface.get_width() - MARGIN, top=MARGIN))


def draw_loading(surface: pygame.Surface, title: str, elapsed_s: float) -> None:
    """Draw a picture for the time until the first frame: a title and a light that wanders."""
    width, height = surface.get_size()
    surface.fill((18, 20, 34))
    for index in range(5):
        glow = 0.5 + 0.5 * np.cos(4.0 * elapsed_s - 0.9 * index)
        color = pygame.Color(40, 44, 70).lerp(pygame.Color(255, 196, 92), float(glow) ** 3)
        pygame.draw.circle(surface, color, (width // 2 + (index - 2) * 28, height // 2 + 34), 7)
    name = font(48).render(title, True, TEXT_COLOR)
    surface.blit(name, ((width - name.get_width()) // 2, height // 2 - 44))
    hint = font(20).render("loading the world; F1 shows the keys", True, (150, 154, 180))
    surface.blit(hint, ((width - hint.get_width()) // 2, height // 2 + 62))


class PromptLine:
    """A line that the player types a prompt into.

    Attributes:
        is_open: Whether keys go into the line.
        text: What was typed.
    """

    def __init__(self, max_bytes: int = 300) -> None:
        self.is_open = False
        self.text = ""
        self._max_bytes = max_bytes

    def open(self, text: str = "") -> None:
        """Start typing, from a text."""
        self.is_open, self.text = True, text
        pygame.key.start_text_input()

    def close(self) -> None:
        """Stop typing."""
        self.is_open = False
        pygame.key.stop_text_input()

    def handle(self, event: pygame.Event) -> str | None:
        """Take an event and return the finished text once Enter is pressed; Esc closes."""
        if event.type == pygame.TEXTINPUT:
            self._insert(event.text)
        elif event.type == pygame.KEYDOWN:
            if event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
                self.close()
                return self.text.strip()
            if event.key == pygame.K_ESCAPE:
                self.close()
            elif event.key == pygame.K_BACKSPACE:
                whole_word = event.mod & pygame.KMOD_CTRL
                self.text = self.text.rpartition(" ")[0] if whole_word else self.text[:-1]
        return None

    def _insert(self, text: str) -> None:
        if len((self.text + text).encode()) <= self._max_bytes:
            self.text += text
