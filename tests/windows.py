"""For tests that play in a window: making a game, pressing keys, and waiting for what follows."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pygame

from envs.play.game.game_thread import GameThread
from envs.play.game.playable import Playable
from envs.play.game.settings import SettingsFile
from envs.play.window import hud
from envs.play.window.window import Window
from tests.fakes import CountingEnv, stage_keymap


def playable(env: CountingEnv, **changes) -> Playable:
    values = {"keymap": stage_keymap(), "fps": 20, "title": "counting", "backend": "sums"}
    return Playable(env=env, **(values | changes))


def press(key: int, mod: int = 0) -> None:
    pygame.event.post(pygame.Event(pygame.KEYDOWN, key=key, mod=mod, unicode="", scancode=0))


def release(key: int) -> None:
    pygame.event.post(pygame.Event(pygame.KEYUP, key=key, mod=0, unicode="", scancode=0))


def type_in(text: str) -> None:
    pygame.event.post(pygame.Event(pygame.TEXTINPUT, text=text))


def choose(window: Window, label: str) -> None:
    """Take an entry of the menu that is open."""
    menu = window._screens.menu
    menu.chosen = [str(entry) for entry in menu.entries].index(label)
    press(pygame.K_RETURN)


def push(button: int) -> None:
    """Push a gamepad's button."""
    pygame.event.post(pygame.Event(pygame.JOYBUTTONDOWN, button=button, instance_id=1))


def run_until(window: Window, session: GameThread, condition, *, timeout_s: float = 10.0) -> None:
    end = time.perf_counter() + timeout_s
    while not condition():
        assert time.perf_counter() < end, f"not within {timeout_s} s; status {session.status}"
        assert session.error is None, session.error
        window.run_once(session)


def press_until(window: Window, session: GameThread, key: int, condition) -> None:
    """Press a key and wait for what it leads to."""
    press(key)
    run_until(window, session, condition)


def start(window: Window, session: GameThread, *, timeout_s: float = 10.0) -> None:
    """Start a session and wait until it plays; what is pressed earlier is not meant for it."""
    session.start()
    run_until(window, session, lambda: session.status != "loading", timeout_s=timeout_s)


def words_shown(monkeypatch) -> list[str]:
    """Return a list of all words that windows put on plates from now on."""
    said: list[str] = []
    words_plate, table = hud.words_plate, hud.table

    def note_words(text, *args, **options):
        said.append(text)
        return words_plate(text, *args, **options)

    def note_rows(rows, *args, **options):
        said.extend("  ".join(row) for row in rows)
        return table(rows, *args, **options)

    monkeypatch.setattr(hud, "words_plate", note_words)
    monkeypatch.setattr(hud, "table", note_rows)
    return said


@contextmanager
def in_window(
    make: Callable[[], Playable], *, settings: SettingsFile | None = None, **options
) -> Iterator[tuple[Window, GameThread]]:
    """Yield a window and the session of a game that is to be played on it."""
    window = Window("a world", settings=settings)
    session = GameThread(make, window.inputs, notify=window.notify, **options)
    try:
        yield window, session
    finally:
        for _ in range(2):  # nothing is amiss if it is said twice
            session.close()
            window.close()


@contextmanager
def playing(
    env: CountingEnv, *, fps: float = 200, settings: SettingsFile | None = None, **changes
) -> Iterator[tuple[Window, GameThread]]:
    """Yield the same of a game that is being played."""
    with in_window(lambda: playable(env, **changes), settings=settings, fps=fps) as both:
        start(*both)
        yield both
