"""A stranger's first minutes by keys alone: overlay, a scene, a coin run, its end, films of it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import pygame
import pytest

from envs.play.game.goals import COIN_RUN, FREE_PLAY, BestList
from envs.play.game.opening import open_teacher
from envs.play.game.settings import SettingsFile
from envs.play.window import screens
from envs.play.window.menu import Menu
from envs.play.window.tiles import Tiles
from tests.displays import needs_xvfb, x_server
from tests.windows import in_window, press, release, run_until, start

# At seed 0 whoever runs right for so long has a coin.
SHORT_RUN = replace(COIN_RUN, limit_s=3.0, is_daily=False)

# The game's own command, that tells what is on the screen.
TELLS = f"""
import play
from dataclasses import replace
from envs.play.window import screens

class Tells(play.Window):
    last = ""

    def run_once(self, session):
        goes_on = super().run_once(session)
        menu, told = self._screens.menu, self.overlays.message
        now = f"{{session.status}}: {{menu.title if menu else told}}"
        if now != self.last:
            print(now, flush=True)
            self.last = now
        return goes_on

run = replace(screens.MODES[1], limit_s={SHORT_RUN.limit_s}, is_daily=False)
screens.MODES = (screens.MODES[0], run)
play.Window = Tells
raise SystemExit(play.main(["--teacher"]))
"""


def test_a_stranger_finds_scenes_a_coin_run_the_best_list_and_the_film(here, monkeypatch):
    monkeypatch.setattr(screens, "MODES", (FREE_PLAY, SHORT_RUN))
    settings, best = SettingsFile(here / "settings.json"), BestList(here / "best.json")
    with in_window(open_teacher, settings=settings, best=best) as (window, session):
        start(window, session, timeout_s=60.0)
        wait = partial(run_until, window, session, timeout_s=60.0)

        def choose(label: str) -> None:
            menu = window._screens.menu
            while not str(menu.entries[menu.chosen]).startswith(label):
                before = menu.chosen
                press(pygame.K_DOWN)
                wait(lambda was=before: menu.chosen != was)
            press(pygame.K_RETURN)

        def shown(kind: type, title: str) -> Callable[[], bool]:
            return lambda: (
                isinstance(window._screens.menu, kind) and window._screens.menu.title == title
            )

        press(pygame.K_ESCAPE)
        wait(shown(Menu, "Menu"))
        choose("Scenes")
        wait(shown(Tiles, "Scenes"))
        wait(lambda: not window._screens.pictures.is_behind)
        for key in (pygame.K_RIGHT, pygame.K_DOWN, pygame.K_RIGHT):
            press(key)
        tiles = window._screens.menu
        wait(lambda: tiles.current == 1)
        wanted = [row.labels[row.chosen] for row in tiles.rows]
        press(pygame.K_RETURN)
        wait(lambda: session.prompt is not None and session.status == "playing")
        steps = session.view.num_steps
        wait(lambda: session.view.num_steps > steps + 1)
        assert wanted == list(session.playable.scenes.read(session.view.text).values())
        press(pygame.K_ESCAPE)
        wait(shown(Menu, "Menu"))
        choose("Coin run")
        wait(lambda: session.goals.mode is SHORT_RUN)
        press(pygame.K_RIGHT)
        press(pygame.K_LSHIFT)
        wait(lambda: session.view.action_name == "run_right")
        wait(lambda: session.status == "over")
        release(pygame.K_RIGHT)
        wait(lambda: window._screens.menu is not None)
        assert window._screens.menu.title in ("Time!", "The end")
        assert "number 1 of the best" in window._screens.menu._notes[0]
        assert json.loads((here / "best.json").read_text()) == {
            "stage (the teacher), coin run": [1.0]
        }
        press(pygame.K_F8)
        wait(lambda: "(F10 shows it)" in window.overlays.message)
        choose("Watch")
        wait(lambda: session.status == "watching")
        press(pygame.K_END)
        wait(lambda: session.films.projector.is_paused)
        press(pygame.K_ESCAPE)
        wait(lambda: session.status == "over" and window._screens.menu is not None)
        press(pygame.K_F10)
        wait(shown(Tiles, "Recordings"))
        wait(lambda: not window._screens.pictures.is_behind)
        press(pygame.K_RETURN)
        wait(lambda: isinstance(window._screens.menu, Menu))
        choose("Watch")
        wait(lambda: session.status == "watching" and session.view.frame.shape[0] == 384)


@pytest.mark.slow
@needs_xvfb
@pytest.mark.skipif(shutil.which("xdotool") is None, reason="needs xdotool")
def test_a_stranger_plays_on_a_real_x_server(tmp_path):
    with contextlib.ExitStack() as stack:
        changes = {
            "DISPLAY": stack.enter_context(x_server()),
            "SDL_VIDEODRIVER": "x11",
            "SDL_VIDEO_X11_WMCLASS": "midas",
            "SDL_AUDIODRIVER": "dummy",
            "XDG_CONFIG_HOME": str(tmp_path),
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        env = os.environ | changes
        options = {"cwd": tmp_path, "env": env, "stdout": subprocess.PIPE, "text": True}
        game = stack.enter_context(subprocess.Popen([sys.executable, "-c", TELLS], **options))
        stack.callback(game.kill)

        def wait(words: str) -> None:
            while words not in (line := game.stdout.readline()):
                assert line, f"it ended before {words!r}"

        def do(*words: str) -> None:
            subprocess.run(["xdotool", "mousemove", "170", "240", *words], check=True, env=env)

        def place() -> str:
            search = ["xdotool", "search", "--class", "midas", "getwindowgeometry"]
            return subprocess.run(search, env=env, stdout=subprocess.PIPE, text=True).stdout

        wait("playing")
        before = place()
        do("key", "F11")  # without a window manager
        while not ("Position: 0,0 " in (now := place()) and "Geometry: 1280x1024" in now):
            time.sleep(0.1)
        time.sleep(0.5)  # until it has the keyboard, too
        do("key", "F11")
        while place().split()[2:] != before.split()[2:]:
            time.sleep(0.1)
        time.sleep(0.5)
        for keys, told in (
            (["Escape"], "paused: Menu"),
            (["Down", "Down", "Down", "Return"], "paused: Scenes"),
            (["Right", "Down", "Right", "Return"], "playing: "),
            (["Escape"], "paused: Menu"),
            (["Down", "Down", "Return"], "playing: "),
        ):
            do("key", "--delay", "60", *keys)
            wait(told)
        do("keydown", "Right", "keydown", "Shift_L")
        wait("over: Time!")
        do("keyup", "Right", "keyup", "Shift_L", "key", "F8")
        best = json.loads((tmp_path / "midas-world" / "best.json").read_text())
        assert best == {"stage (the teacher), coin run": [1.0]}
        do("key", "F10")
        wait("over: Recordings")
        do("key", "Escape")
        wait("over: Menu")
        do("key", "--delay", "60", "Up", "Return")  # its last entry, which waits for the film
        assert game.wait(timeout=60) == 0
    [film] = (tmp_path / "recordings").glob("*.mp4")
    with av.open(str(film)) as opened:
        assert opened.streams.video[0].frames > 60
