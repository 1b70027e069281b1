"""A film in the window: its keys, and a bar to scrub on. What it shows is up to a projector."""

from collections.abc import Callable
from functools import partial

import pygame

from envs.play.game.film import Projector
from envs.play.game.game_thread import GameThread
from envs.play.window.hud import DIM, MARGIN, SHADE
from envs.play.window.keys import meaning_of
from envs.play.window.letters import TEXT_COLOR, letter_size, written
from envs.play.window.menu import BACK, DOWN, LEFT, RIGHT, TAKE, UP, move_of
from envs.play.window.panels import ACCENT, LINE_COLOR

KEYS: tuple[tuple[str, str, str], ...] = (
    ("Space, P", "pause, go on", "A"),
    ("Left, Right", "one second back, on; with Shift ten", "stick"),
    ("Comma, Period", "one frame back, on (also N)", ""),
    ("Home, End", "first frame, last frame", ""),
    ("Down, Up", "slower, faster", "stick"),
    ("mouse", "click or drag on the bar", ""),
    ("T, Enter", "take over a recorded session: play on from here", "RT"),
    ("F12", "save a picture as it is shown", ""),
    ("M, - and +", "sound off, quieter and louder (heard at speed 1)", ""),
    ("F1, F3", "these keys, measurements of that time", ""),
    ("Esc", "leave the film", "B"),
)
# What these do is the window's business, and the same as in a game.
COMMANDS = frozenset(("f1", "f3", "f12", "m", "=", "+", "-", "[+]", "[-]"))

# A held key moves on after the first wait, and again after each of the second.
_REPEAT_S = (0.35, 0.1)
_PAD = {UP: "up", DOWN: "down", LEFT: "left", RIGHT: "right", TAKE: "space", BACK: "escape"}


class FilmControls:
    """Obeys the keys and the mouse while a film is shown."""

    def __init__(self) -> None:
        self._is_dragging = False
        self._held: Callable[[], object] | None = None
        self._repeats_at = 0.0

    def let_go(self) -> None:
        """Let what is held down be so no more."""
        self._held, self._is_dragging = None, False

    def repeat(self, now: float) -> None:
        """Do again what is held down, if it is time."""
        if self._held is not None and now >= self._repeats_at:
            self._held()
            self._repeats_at = now + _REPEAT_S[1]

    def name_of(self, event: pygame.Event) -> str:
        """Return the key that an event presses, or what a pad's button or stick stands for."""
        if event.type == pygame.KEYDOWN:
            return meaning_of(event)
        move = move_of(event)
        return "" if move is None else _PAD[move]

    def obey(self, name: str, thread: GameThread, *, is_far: bool, now: float) -> bool:
        """Do what a key stands for; return False if the window is to close."""
        projector = thread.films.projector
        if projector is None:
            return True
        second = max(1, round(projector.film.fps)) * (10 if is_far else 1)
        ways = {"left": -second, "right": second, ",": -1, ".": 1, "n": 1}
        if name in ways:
            is_step = abs(ways[name]) == 1
            skip = partial(Projector.skip, num_frames=ways[name], pauses=is_step)
            self._held = partial(thread.films.control, skip)
            self._held()
            self._repeats_at = now + _REPEAT_S[0]
        elif name in ("space", "p"):
            thread.films.control(Projector.toggle_pause)
        elif name in ("home", "end"):
            place = 0 if name == "home" else projector.last
            thread.films.control(partial(Projector.seek, number=place))
        elif name in ("up", "down"):
            thread.films.control(partial(Projector.change_speed, faster=name == "up"))
        elif name in ("t", "return", "enter"):
            thread.take_over()
        elif name == "escape":
            return thread.films.end()
        return True

    def point(self, event: pygame.Event, thread: GameThread, size: tuple[int, int]) -> None:
        """Go to the place of the bar at which the mouse is pressed or drawn along."""
        bar, projector = _bar(size), thread.films.projector
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self._is_dragging = bar.inflate(0, 16).collidepoint(event.pos)
        if self._is_dragging and projector is not None:
            share = (event.pos[0] - bar.left) / max(1, bar.width - 1)
            place = round(share * projector.last)
            thread.films.control(partial(Projector.seek, number=place))


def band_height(size: tuple[int, int]) -> int:
    """Return how much of the lower edge the bar takes in a window of (width, height) px."""
    return round(2.6 * letter_size(size)) + MARGIN


def draw_bar(surface: pygame.Surface, projector: Projector) -> None:
    """Draw the bar of a film, and above it what is shown and how fast."""
    size = surface.get_size()
    letters, bar, film = letter_size(size), _bar(size), projector.film
    plate = pygame.Surface((size[0], band_height(size)), pygame.SRCALPHA)
    plate.fill(SHADE)
    surface.blit(plate, (0, size[1] - plate.get_height()))
    middle = bar.top - letters
    if projector.is_paused:
        for left in (bar.left, bar.left + 7):
            pygame.draw.rect(surface, ACCENT, (left, middle - 7, 4, 14))
    else:
        points = [(bar.left, middle - 7), (bar.left, middle + 7), (bar.left + 12, middle)]
        pygame.draw.polygon(surface, ACCENT, points)
    seconds = projector.number / film.fps, projector.last / film.fps
    times = " / ".join(f"{int(value) // 60}:{value % 60:04.1f}" for value in seconds)
    pace = "" if projector.speed == 1.0 else f"   x {projector.speed:g}"
    words = written(f"{times}{pace}", letters)
    surface.blit(words, words.get_rect(left=bar.left + 22, centery=middle))
    hint = written("Esc leaves, F1 shows the keys", letters, color=DIM)
    if words.get_width() + hint.get_width() + 60 < bar.width:
        surface.blit(hint, hint.get_rect(right=bar.right, centery=middle))
    pygame.draw.rect(surface, LINE_COLOR, bar, border_radius=3)
    last = max(projector.last, 1)
    x = bar.left + round(projector.number / last * (bar.width - 1))
    done = pygame.Rect(bar.left, bar.top, x - bar.left, bar.height)
    pygame.draw.rect(surface, ACCENT, done, border_radius=3)
    for mark in film.beginnings:
        if mark:
            place = bar.left + round(mark / last * (bar.width - 1))
            pygame.draw.rect(surface, TEXT_COLOR, (place - 1, bar.top - 3, 2, bar.height + 6))
    pygame.draw.circle(surface, TEXT_COLOR, (x, bar.centery), bar.height)


def _bar(size: tuple[int, int]) -> pygame.Rect:
    """Return where the bar lies in a window of (width, height) px."""
    letters = letter_size(size)
    thick = max(6, letters // 3)
    return pygame.Rect(letters, size[1] - MARGIN - thick, max(1, size[0] - 2 * letters), thick)
