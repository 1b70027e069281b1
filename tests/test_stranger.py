"""A stranger's first minutes by keys alone: overlay, a scene, a coin run, its end, its replay."""

from dataclasses import replace
from pathlib import Path

import pygame

from envs.play.game.goals import COIN_RUN, FREE_PLAY, BestList
from envs.play.game.opening import open_teacher
from envs.play.game.session import Session
from envs.play.game.settings import SettingsFile
from envs.play.window import screens
from envs.play.window.window import Window
from tests.windows import press, release, run_until, start


def test_a_stranger_finds_scenes_a_coin_run_the_best_list_and_the_replay(tmp_path, monkeypatch):
    short = replace(COIN_RUN, limit_s=2.0)
    monkeypatch.setattr(screens, "MODES", (FREE_PLAY, short))
    window = Window("stage, the real game", settings=SettingsFile(tmp_path / "settings.json"))
    session = Session(
        open_teacher, window.inputs, best=BestList(tmp_path / "best.json"), notify=window.notify
    )
    start(window, session, timeout_s=60.0)

    def look(name: str) -> None:
        drawn = window._drawn_at
        window._is_dirty = True
        run_until(window, session, lambda: window._drawn_at > drawn)
        pygame.image.save(window._surface, Path(tmp_path) / f"{name}.png")

    def choose(label: str) -> None:
        menu = window._screens.menu
        while not menu.entries[menu.chosen].label().startswith(label):
            before = menu.chosen
            press(pygame.K_DOWN)
            run_until(window, session, lambda was=before: menu.chosen != was)
        press(pygame.K_RETURN)

    look("1-overlay")
    press(pygame.K_ESCAPE)
    run_until(window, session, lambda: window._screens.menu is not None)
    look("2-menu")
    choose("Scenes")
    run_until(window, session, lambda: window._screens.menu.title == "Scenes")
    press(pygame.K_RIGHT)
    press(pygame.K_DOWN)
    press(pygame.K_RIGHT)
    run_until(window, session, lambda: window._screens.menu.chosen == 1)
    look("3-scenes")
    wanted = dict(window._screens._scene)
    choose("Go there")
    run_until(window, session, lambda: session.prompt is not None)
    run_until(window, session, lambda: session.status == "playing")
    steps = session.view.num_steps
    run_until(window, session, lambda: session.view.num_steps > steps + 1)
    assert wanted == dict(session.playable.scenes.read(session.view.text))
    look("4-scene")
    press(pygame.K_ESCAPE)
    run_until(window, session, lambda: window._screens.menu is not None)
    choose("Coin run")
    run_until(window, session, lambda: session.goals.mode is short)
    press(pygame.K_RIGHT)
    press(pygame.K_LSHIFT)
    run_until(window, session, lambda: session.view.action_name == "run_right")
    look("5-coin-run")
    run_until(window, session, lambda: session.status == "over")
    release(pygame.K_RIGHT)
    run_until(window, session, lambda: window._screens.menu is not None)
    assert window._screens.menu.title in ("Time!", "The end")
    look("6-end")
    choose("Watch")
    run_until(window, session, lambda: session.status == "watching")
    look("7-replay")
    run_until(window, session, lambda: window._screens.menu is not None)
    choose("Menu")
    run_until(window, session, lambda: window._screens.menu.title == "Menu")
    choose("Settings")
    run_until(window, session, lambda: window._screens.menu.title == "Settings")
    look("8-settings")
    choose("Keys")
    run_until(window, session, lambda: window._screens.menu.title == "Keys")
    look("9-keys")
    session.close()
    window.close()
    assert len(list(tmp_path.glob("*.png"))) == 9
