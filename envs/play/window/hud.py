"""Plates of text over the picture: lines in columns, words, the key map; and the loading picture.

Makes pictures; where they lie is layout.py's business. `size` is that of the letters, px.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import numpy as np
import pygame

from envs.play.game.inputs import Inputs, buttons_of
from envs.play.window.letters import TEXT_COLOR, fitted, font, letter_size, written

RECORDING_COLOR = (255, 96, 80)
SHADE = (10, 12, 20, 190)
DIM = (170, 174, 196)
PADDING = 8
_MIN_SIZE = 13
MARGIN = 14

SAY = "say"  # begins as the command "t" does, with a quote
# By rows of the key map: commands by their keys, and what each does.
COMMANDS: tuple[Mapping[str, str], ...] = (
    {"escape": "menu: modes, scenes, recordings, settings, quit"},
    {"t": "type what the world should look like"},
    {"backspace": "run backwards while held, then play on"},
    {"b": "drop a bookmark"},
    {"1 to 9": "jump to a bookmark", "0": "jump to the newest"},
    {"p": "pause", "n": "one step"},
    {"r": "start again (asks)", "shift+R": "next start state"},
    {"g": "an agent plays, or you again"},
    {"f2": "the teacher beside the world"},
    {"f8": "save the last 30 seconds as a film"},
    {"f9": "record a session, or end it"},
    {"f10": "recordings: watch, export, delete"},
    {"f12": "save a picture as it is shown"},
    {SAY: "type what the character says"},
    {"l": "the next language"},
    {"m": "sound off", "-": "quieter", "+": "louder"},
    {"f1": "these keys", "f3": "measurements", "f4": "keys held"},
    {"f11": "full screen (also Alt+Enter)"},
)
# Those that have their keys for good; the player may move the others.
FIXED = frozenset(("escape", "1 to 9", "shift+R", SAY, "-", "+", "f11"))


def key_rows(
    keys: Mapping[str, Sequence[str]], inputs: Inputs, *, without: Collection[str] = ()
) -> list[tuple[str, str, str]]:
    """Return of actions and commands: the player's keys for them, what they do, and buttons."""
    places = {name: place for place, name in inputs.bindings.items()}
    buttons = buttons_of(inputs.pad, inputs.aliases)
    others: dict[str, list[str]] = {}
    for alias, name in inputs.aliases.items():
        if not alias.startswith("[") and alias != "right shift":
            others.setdefault(name, []).append(alias)
    rows = []
    for action, held in sorted(keys.items(), key=lambda item: len(item[1])):
        mirrored = keys.get(re.sub("left$", "right", action), held)
        if action.endswith("right") and re.sub("right$", "left", action) in keys:
            continue  # told beside the left
        parts = []
        for pair in zip(held, mirrored, strict=False):
            names = dict.fromkeys(pair)
            if len(held) == 1:
                either = ([places.get(name, name), *others.get(name, [])] for name in names)
                parts.append(", ".join(map("/".join, either)))
            else:
                parts.append(", ".join(places.get(name, name) for name in names))
        pressed = [buttons.get(name, "") for name in held]
        meaning = action.replace("_", " ") + (", right" if mirrored != held else "")
        rows.append((" + ".join(parts), meaning, " + ".join(pressed) if all(pressed) else ""))
    for row in COMMANDS:
        if here := [name for name in row if name not in without]:
            rows.append(
                (
                    ", ".join(_where(name, places, inputs) for name in here),
                    ", ".join(row[name] for name in here),
                    ", ".join(buttons[name] for name in here if name in buttons),
                )
            )
    return rows


def _where(command: str, places: Mapping[str, str], inputs: Inputs) -> str:
    """Return the key of a command: the player's own for it, or with Ctrl where another has it."""
    if command == SAY:
        return f'{_where("t", places, inputs)}, then "'
    name = places.get(command, command)
    shown = name[0].upper() + name[1:]
    is_taken = command in inputs.game_keys or command in inputs.bindings
    return f"Ctrl+{shown}" if is_taken and command not in places else shown


def plate(size: tuple[int, int]) -> pygame.Surface:
    """Return a dark plate to write on."""
    made = pygame.Surface(size, pygame.SRCALPHA)
    pygame.draw.rect(made, SHADE, made.get_rect(), border_radius=6)
    return made


def row_plate(parts: Sequence[pygame.Surface], *, gap: int = PADDING) -> pygame.Surface:
    """Return pictures in a row on a plate."""
    height = max(part.get_height() for part in parts) + PADDING
    made = plate((sum(part.get_width() for part in parts) + gap * (len(parts) + 1), height))
    x = gap
    for part in parts:
        made.blit(part, part.get_rect(left=x, centery=height // 2))
        x += part.get_width() + gap
    return made


def table(rows: Sequence[Sequence[str]], size: int, *, width: int) -> pygame.Surface:
    """Return rows of cells in columns on a plate; the last column breaks its lines at a width."""
    count = max(map(len, rows), default=1)
    cells = [[written(cell, size) for cell in row] for row in rows]
    widths = [
        max((row[place].get_width() for row in cells if len(row) > place), default=0)
        for place in range(count)
    ]
    room = max(10 * size, width - sum(widths[:-1]) - size * (count - 1) - 2 * PADDING)
    if widths[-1] > room:
        widths[-1] = room
        for row, words in zip(cells, rows, strict=True):
            if len(row) == count:
                row[-1] = written(words[-1], size, width=room)
    line = font(size).get_linesize()
    heights = [max([line, *(cell.get_height() for cell in row)]) for row in cells]
    made = plate((sum(widths) + size * (count - 1) + 2 * PADDING, sum(heights) + 2 * PADDING))
    y = PADDING
    for row, height in zip(cells, heights, strict=True):
        x = PADDING
        for cell, cell_width in zip(row, widths, strict=False):
            made.blit(cell, (x, y))
            x += cell_width + size
        y += height
    return made


@lru_cache(maxsize=4)
def keys_plates(
    rows: tuple[tuple[str, ...], ...], size: int, *, area: tuple[int, int]
) -> list[pygame.Surface]:
    """Return the key map in letters as large as fit (width, height) px, in one column or two.

    Where no letters that can be read are small enough, it comes in parts, without the buttons.
    What is made is kept: to find the letters takes longer than a frame.
    """
    half = -(-len(rows) // 2)
    for fits in range(size, _MIN_SIZE - 1, -1):
        one = table(rows, fits, width=area[0])
        both = [table(part, fits, width=area[0]) for part in (rows[:half], rows[half:])]
        width = sum(part.get_width() for part in both)
        two = pygame.Surface((width, max(part.get_height() for part in both)), pygame.SRCALPHA)
        two.blit(both[0], (0, 0))
        two.blit(both[1], both[1].get_rect(right=width))
        for made in (one, two):
            if made.get_width() <= area[0] and made.get_height() <= area[1]:
                return [made]
    pages, rest = [], [row[:2] for row in rows]
    while rest:
        count = len(rest)
        while True:
            more = [("F1", "more")] if count < len(rest) else []
            made = table([*rest[:count], *more], _MIN_SIZE, width=area[0])
            if made.get_height() <= area[1] or count == 1:
                break
            count -= 1
        pages.append(made)
        rest = rest[count:]
    return pages


def words_plate(
    text: str,
    size: int,
    *,
    width: int,
    color: tuple[int, int, int] = TEXT_COLOR,
    has_light: bool = False,
) -> pygame.Surface:
    """Return words on a plate, on as many lines as a width takes, after a red light if wanted."""
    light = size // 3 if has_light else 0
    words = written(text, size, color=color, width=max(1, width - 2 * PADDING - 3 * light))
    made = plate((words.get_width() + 3 * light + 2 * PADDING, words.get_height() + PADDING))
    if has_light:
        pygame.draw.circle(made, RECORDING_COLOR, (PADDING + light, made.get_height() // 2), light)
    made.blit(words, (PADDING + 3 * light, PADDING // 2))
    return made


def keycaps(names: Sequence[str], size: int) -> pygame.Surface | None:
    """Return keys as they look on a keyboard, in a row; None of none."""
    caps = []
    for name in names:
        words = written(name, size, color=(20, 22, 34))
        cap = pygame.Surface((words.get_width() + size, words.get_height() + 6), pygame.SRCALPHA)
        pygame.draw.rect(cap, (150, 154, 170), cap.get_rect(), border_radius=5)
        top = cap.get_rect().inflate(-2, -4).move(0, -1)
        pygame.draw.rect(cap, (232, 234, 240), top, border_radius=5)
        cap.blit(words, words.get_rect(center=top.center))
        caps.append(cap)
    return row_plate(caps) if caps else None


def draw_loading(
    surface: pygame.Surface, title: str, elapsed_s: float, *, stage: str = "loading"
) -> None:
    """Draw a picture for the time until the first frame: title, stage and a light that wanders."""
    size = letter_size(surface.get_size())
    width, height = surface.get_size()
    surface.fill((18, 20, 34))
    for index in range(5):
        glow = 0.5 + 0.5 * np.cos(4.0 * elapsed_s - 0.9 * index)
        color = pygame.Color(40, 44, 70).lerp(pygame.Color(255, 196, 92), float(glow) ** 3)
        place = width // 2 + round((index - 2) * 1.4 * size), height // 2 + 2 * size
        pygame.draw.circle(surface, color, place, size // 3)
    name = fitted(title, 2 * size, width=width - 2 * MARGIN)
    surface.blit(name, name.get_rect(centerx=width // 2, bottom=height // 2))
    hint = written(
        f"{stage}; F1 shows the keys, Esc leaves", size, color=DIM, width=width - 2 * MARGIN
    )
    surface.blit(hint, hint.get_rect(centerx=width // 2, top=height // 2 + 3 * size))
