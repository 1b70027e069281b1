"""However a game is ended, it ends at once and closes what was open; its output comes through."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pygame
import pytest

import play
from envs.picture import FrameWindow
from envs.play.game.game_thread import GameThread
from envs.play.window.window import Window
from midas_world import __version__
from midas_world.commands import cli
from tests.fakes import CountingEnv
from tests.windows import playable, playing, press, run_until, type_in


@pytest.fixture
def _heeds_ctrl_c():
    """Whoever starts tests in the background of a script has them ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeds_ctrl_c")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_game_within_a_second_and_closes_it(monkeypatch, number, code):
    sessions, once = [], Window.run_once

    def run_once(window: Window, session: GameThread) -> bool:
        if session.view is not None and not sessions:
            sessions.append((session, time.perf_counter()))
            os.kill(os.getpid(), number)
        return once(window, session)

    monkeypatch.setattr(Window, "run_once", run_once)
    before = signal.getsignal(signal.SIGTERM)
    assert play.main(["--teacher"]) == code
    ((session, at),) = sessions
    assert time.perf_counter() - at < 1.0
    assert session.status == "closed"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_window_that_is_closed_while_loading_does_not_wait():
    window, may_load = Window("a world"), threading.Event()

    def load():
        may_load.wait(10.0)
        return playable(CountingEnv())

    session = GameThread(load, window.inputs, notify=window.notify)
    session.start()
    press(pygame.K_ESCAPE)
    press(pygame.K_ESCAPE)
    started = time.perf_counter()
    window.run(session)
    window.close()
    assert time.perf_counter() - started < 1.0
    may_load.set()
    session._thread.join(10.0)
    assert session.status == "closed"


def test_a_film_that_is_still_written_is_waited_for_but_not_by_a_signal(caplog):
    window, may_end, done = Window("a world"), threading.Event(), []
    window._gallery.jobs.start(
        lambda: (may_end.wait(20.0) and done.append(1)) or "", words="a film"
    )
    started = time.perf_counter()
    window.close(waits=False)  # as play.py does for Ctrl-C and SIGTERM
    assert time.perf_counter() - started < 1.0
    assert not pygame.display.get_init()
    threading.Timer(0.2, may_end.set).start()
    with caplog.at_level("INFO"):
        window.close()
    assert done == [1]
    assert "a film, and then it ends" in caplog.text


def test_the_process_ends_at_once_whatever_still_runs():
    code = """
import atexit, sys, threading, time
from midas_world.terminal import leave
threading.Thread(target=time.sleep, args=(30.0,)).start()  # as a world that is still loading
atexit.register(print, "closed", end="")
print("told, ", end="")
leave(4)
"""
    ended = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=20)
    assert (ended.returncode, ended.stdout) == (4, b"told, closed")


def test_closing_one_window_leaves_the_others():
    first, second = (FrameWindow(name, (24, 40, 3)) for name in ("first", "second"))
    first.show(np.zeros((24, 40, 3), np.uint8), fps=1000)
    first.close()
    first.close()
    second.show(np.full((24, 40, 3), 255, np.uint8), fps=1000)
    assert second._window.get_surface().get_at((9, 9))[:3] == (255, 255, 255)
    second.close()


def test_letters_that_the_terminal_lacks_do_not_end_the_program(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    assert play.main(["--headless", "--teacher", "--steps", "1", "--prompt", "Strand, Drache"]) == 0
    sys.stdout.flush()
    assert b"prompt: beach; not understood: drache" in raw.getvalue()
    print("a \u00b7 b", flush=True)
    assert raw.getvalue().endswith(b"a ? b\n")


@pytest.mark.parametrize("main", [play.main, cli.main])
def test_both_commands_tell_their_version(main, capsys):
    with contextlib.suppress(SystemExit):  # argparse's own way
        assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"midas-world {__version__}"


def test_a_prompt_with_nul_and_half_letters_plays_and_is_drawn():
    with playing(CountingEnv()) as (window, session):
        session.set_prompt("snow\0 at \ud800night")
        run_until(window, session, lambda: session.prompt == "snow at night")
        press(pygame.K_t)
        type_in("\0\udfff")
        run_until(window, session, lambda: window._prompt.is_open)
        window.run_once(session)


def test_a_window_of_an_environment_leaves_sigterm_as_it_was():
    FrameWindow("a world", (24, 40, 3)).close()
    assert os.environ["SDL_NO_SIGNAL_HANDLERS"] == "1"
