"""What a player wants to see at all times: score, hearts, clock, the best; and what just happened.

Draws only; what is counted is in envs/play/game/goals.py.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest

import pygame

from envs.play.game.goals import Run
from envs.play.game.moments import View
from envs.play.window.hud import DIM, row_plate
from envs.play.window.letters import TEXT_COLOR, font, written

COIN_COLOR = (255, 206, 84)
_HEART_COLOR = (232, 72, 85)
_LOST_COLOR = (80, 84, 100)
# Actions that a stranger is told.
_MOST_FIRST = 5
_FLASH_S = 0.45
_MAX_STEPS_APART = 20  # further apart, two views are not one after the other


def clock(seconds: float) -> str:
    """Return seconds as minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"


def amount(run: Run, value: float) -> str:
    """Return a result of a run in words."""
    said = f"{value:.1f}".removesuffix(".0")
    return f"{said} s" if run.mode.counts == "seconds" else said


def score_plate(
    run: Run, view: View, *, max_lives: int, counts_coins: bool, size: int, glow: float = 0.0
) -> pygame.Surface:
    """Return score, hearts, time and the best in a row."""
    left = run.seconds_left(view)
    value = run.value(view) if run.is_counted else 0.0
    lit = pygame.Color(TEXT_COLOR).lerp(pygame.Color(COIN_COLOR), glow)
    color = lit.r, lit.g, lit.b
    parts: list[pygame.Surface] = []
    if counts_coins:
        parts += [_coin(size), written(f"{view.score:.0f}", size, color=color)]
    else:
        parts.append(written(f"score {view.score:.1f}", size, color=color))
    if view.lives is not None:
        parts.append(_hearts(view.lives, max_lives, size))
    parts.append(written(clock(run.seconds(view) if left is None else left + 0.999), size))
    if run.best:
        color = (190, 194, 210) if value <= run.best[0] else COIN_COLOR
        parts.append(written(f"best {amount(run, max(value, run.best[0]))}", size, color=color))
    words = run.mode.name + ("" if run.is_counted else ", not counted")
    parts.append(written(words, round(0.75 * size), color=DIM))
    return row_plate(parts)


class Flashes:
    """Short lights at the picture's edge: a coin is golden, a hit is red."""

    def __init__(self) -> None:
        self._last: View | None = None
        self._color = COIN_COLOR
        self._until = 0.0

    def see(self, view: View, now: float) -> None:
        """Compare a view with the one before, and light up if something happened in between."""
        last, self._last = self._last, view
        if last is None or not 0 < view.num_steps - last.num_steps <= _MAX_STEPS_APART:
            return
        is_bad = view.num_hits > last.num_hits or (view.is_over and not last.is_over)
        if is_bad or view.score >= last.score + 0.5:
            self._color = _HEART_COLOR if is_bad else COIN_COLOR
            self._until = now + _FLASH_S

    def glow(self, now: float) -> float:
        """Return how bright the light of a coin is, from 0 to 1."""
        return self._share(now) if self._color == COIN_COLOR else 0.0

    def draw(self, surface: pygame.Surface, now: float) -> bool:
        """Draw the light that is on; return whether there is one."""
        share = self._share(now)
        if not share:
            return False
        width, height = surface.get_size()
        light = pygame.Surface((width, height), pygame.SRCALPHA)
        edge = max(4, height // 28)
        for ring in range(edge):
            strength = round(200 * share * (1.0 - ring / edge))
            pygame.draw.rect(light, (*self._color, strength),
                             (ring, ring, width - 2 * ring, height - 2 * ring), 1)  # fmt: skip
        surface.blit(light, (0, 0))
        return True

    def _share(self, now: float) -> float:
        return min(max(0.0, (self._until - now) / _FLASH_S), 1.0)


def first_keys(keys: Mapping[str, Sequence[str]], *, takes_words: bool) -> list[tuple[str, ...]]:
    """Return what a stranger needs first: two keys and what they do in each row."""
    if {"walk_left", "walk_right"} <= keys.keys():
        rows = [("Left, Right", "walk")]
        if "run_right" in keys:
            rows.append(("with Shift", "run"))
        if "jump" in keys:
            rows.append(("Space", "jump"))
    else:
        alone = {name: held[0] for name, held in keys.items() if len(held) == 1}
        rows = [(key.capitalize(), name.replace("_", " ")) for name, key in alone.items()]
        rows = rows[:_MOST_FIRST]
    if takes_words:
        rows.append(("T", "type another scene"))
    rows += [("Backspace", "hold: go back in time"), ("Esc", "menu, all keys")]
    half = -(-len(rows) // 2)
    return [
        (*left, *right) for left, right in zip_longest(rows[:half], rows[half:], fillvalue=("", ""))
    ]


def _coin(size: int) -> pygame.Surface:
    side = font(size).get_linesize() - 4
    coin = pygame.Surface((side, side), pygame.SRCALPHA)
    pygame.draw.circle(coin, COIN_COLOR, (side // 2, side // 2), side // 2 - 1)
    pygame.draw.circle(coin, (190, 140, 40), (side // 2, side // 2), side // 2 - 1, 2)
    return coin


def _hearts(num_left: int, num_all: int, size: int) -> pygame.Surface:
    side = font(size).get_linesize() - 3
    row = pygame.Surface((side * max(num_all, num_left, 1), side), pygame.SRCALPHA)
    for index in range(max(num_all, num_left)):
        color = _HEART_COLOR if index < num_left else _LOST_COLOR
        x, radius = index * side, side // 4
        for center in (x + radius + 1, x + 3 * radius - 1):
            pygame.draw.circle(row, color, (center, radius + 1), radius)
        pygame.draw.polygon(row, color, [(x + 1, radius + 2), (x + 4 * radius - 1, radius + 2),
                                         (x + 2 * radius, side - 2)])  # fmt: skip
    return row
