"""Menus and settings: scenes, keys and buttons with other meanings, and languages."""

import json
import time

import numpy as np
import pygame
import pytest

from envs.play.game.opening import open_teacher
from envs.play.game.settings import Settings, SettingsFile
from tests.fakes import CountingEnv
from tests.windows import choose, playing, press, press_until, push, release, run_until


def click(rect: pygame.Rect) -> None:
    pygame.event.post(pygame.Event(pygame.MOUSEBUTTONDOWN, pos=rect.center, button=1))


def hat(value: tuple[int, int]) -> None:
    for place in (value, (0, 0)):
        pygame.event.post(pygame.Event(pygame.JOYHATMOTION, hat=0, value=place, instance_id=1))


def test_settings_are_kept_and_a_file_that_is_none_is_told_and_left(tmp_path):
    path = tmp_path / "settings.json"
    SettingsFile(path).change(volume=3, keys={"left": "q"})
    assert SettingsFile(path).settings == Settings(volume=3, keys={"left": "q"})
    for text in (
        *("{", "[]", "[" * 10_000, '{"volume": 11}', '{"volume": "loud"}'),
        *('{"keys": {"left": 3}}', '{"uses_pads": "no"}', '{"film_shape": "5:4"}'),
    ):
        path.write_text(text)
        file = SettingsFile(path)
        assert file.settings == Settings()
        assert "settings are not read" in file.problem
        file.change(volume=1)
        assert (file.settings.volume, path.read_text()) == (1, text)


def test_scenes_are_shown_and_gone_to_and_start_states_too():
    scenes = open_teacher().scenes
    starts = ("first", "second")
    pictures = [np.full((24, 40, 3), value, np.uint8) for value in (10, 200)]
    env = CountingEnv()
    with playing(env, scenes=scenes, starts=starts, show_start=pictures.__getitem__) as (
        window, session,
    ):  # fmt: skip
        window._screens.open_scenes(session)
        press(pygame.K_RIGHT)  # the place after the first
        press_until(window, session, pygame.K_RETURN, lambda: env.prompt is not None)
        assert env.prompt.split(", ")[0] == scenes.fields["place"][1]
        run_until(window, session, lambda: window._screens.menu is None)
        window._screens.open_scenes(session)
        tiles = window._screens.menu
        for _ in range(4):
            press(pygame.K_DOWN)
        press_until(window, session, pygame.K_RIGHT, lambda: 1 in session.start_pictures)
        run_until(window, session, lambda: tiles.rows[4].rects and not window._is_dirty)
        click(tiles.rows[0].rects[2])  # marks a place alone
        run_until(window, session, lambda: tiles.rows[0].chosen == 2)
        click(tiles.rows[4].rects[1])
        run_until(window, session, lambda: tiles.current == 4)
        click(tiles.rows[4].rects[1])
        run_until(window, session, lambda: env.resets[-1][1] == {"start_state": 1})


def test_scenes_are_offered_where_there_are_some():
    for changes, has_some in (({}, False), ({"starts": ("first",)}, True)):
        with playing(CountingEnv(), **changes) as (window, session):
            window._screens.open_main(session)
            labels = [str(entry) for entry in window._screens.menu.entries]
            assert ("Scenes" in labels) == has_some


def test_a_gamepad_picks_a_scene():
    env = CountingEnv()
    with playing(env, scenes=open_teacher().scenes) as (window, session):
        push(7)
        run_until(window, session, lambda: window._screens.menu is not None)
        window._screens.open_scenes(session)
        row = window._screens.menu.rows[1]
        before = row.chosen
        hat((0, -1))
        hat((1, 0))
        push(0)
        run_until(window, session, lambda: env.prompt is not None)
        assert env.prompt.split(", ")[1] == row.labels[(before + 1) % len(row.labels)]


def test_a_key_gets_another_place_and_the_old_one_is_free(tmp_path):
    settings = SettingsFile(tmp_path / "settings.json")
    with playing(CountingEnv(), fps=100, settings=settings) as (window, session):
        window._screens._settings._open_keys(session, "keys", back=lambda: None)
        choose(window, "kick:  k")
        press(pygame.K_p)  # now kicks, and pauses no more
        run_until(window, session, lambda: settings.settings.keys == {"k": "p"})
        window._screens.close(session)
        press_until(window, session, pygame.K_p, lambda: session.view.action_name == "kick")
        assert session.status == "playing"
        release(pygame.K_p)
        run_until(window, session, lambda: session.view.action_name == "idle")
    assert json.loads((tmp_path / "settings.json").read_text())["keys"] == {"k": "p"}


def test_a_command_gets_another_key_and_a_button_another_meaning(tmp_path):
    settings = SettingsFile(tmp_path / "settings.json")
    with playing(CountingEnv(), fps=100, settings=settings) as (window, session):
        o = pygame.Event(pygame.KEYDOWN, key=pygame.K_o, mod=0, unicode="", scancode=0)
        button = pygame.Event(pygame.JOYBUTTONDOWN, button=5, instance_id=1)
        shown = []
        for kind, label, event in (
            ("keys", "pause:  p", o),
            ("pad", "drop a bookmark:  L3", button),
        ):
            window._screens._settings._open_keys(session, kind, back=lambda: None)
            choose(window, label)
            pygame.event.post(event)
            run_until(window, session, lambda kind=kind: getattr(settings.settings, kind))
            shown += map(str, window._screens.menu.entries)
            window._screens.close(session)
        press_until(window, session, pygame.K_o, lambda: session.status == "paused")
        push(5)
        run_until(window, session, lambda: session.past.bookmarks.shown)
    kept = json.loads((tmp_path / "settings.json").read_text())
    assert (kept["keys"], kept["pad"]) == ({"p": "o"}, {"b": "RB"})
    assert {"pause:  o", "drop a bookmark:  RB", "talk:  -", "kick:  B"} <= set(shown)


@pytest.mark.parametrize(("language", "spoken"), [("", ""), ("fr-fr", "fr-fr"), ("nobody's", "")])
def test_a_language_that_was_chosen_is_spoken_the_next_time(tmp_path, language, spoken):
    settings = SettingsFile(tmp_path / "settings.json")
    settings.change(language=language)
    with playing(CountingEnv(), settings=settings) as (window, session):
        run_until(window, session, lambda: window._has_begun)
        assert session.voices.is_live == bool(spoken)
        assert session.voices.language == (spoken or "en-us")
        window._screens._settings.open(session, back=lambda: None)
        window._screens.menu.entries[1].change(1)
        assert settings.settings.language not in ("", language)
        window._screens.close(session)
        press_until(window, session, pygame.K_l, lambda: settings.settings.language != language)
    assert SettingsFile(tmp_path / "settings.json").settings.language == session.voices.language


@pytest.mark.parametrize("size", [(320, 192), (960, 576)])
def test_menus_fit_and_are_clicked(size):
    with playing(CountingEnv(), scenes=open_teacher().scenes) as (window, session):
        window._surface = pygame.display.set_mode(size, pygame.RESIZABLE)
        window._screens.open_main(session)
        run_until(window, session, lambda: session.status == "paused")
        window.run_once(session)
        window._is_dirty = True
        time.sleep(0.02)
        window.run_once(session)
        menu = window._screens.menu
        shown = [rect for rect in menu._rects if rect.width]
        assert all(window._surface.get_rect().contains(rect) for rect in shown)
        click(menu._rects[0])
        run_until(window, session, lambda: session.status == "playing")


def test_a_menu_that_is_closed_at_once_leaves_a_slow_game_playing():
    with playing(CountingEnv(delay_s=0.3), fps=50) as (window, session):
        steps = session.view.num_steps
        window._screens.open_main(session)  # both within one step
        window._screens.close(session)
        run_until(window, session, lambda: session.view.num_steps > steps + 2)
        assert session.status == "playing"


def test_full_screen_and_back_by_key():
    with playing(CountingEnv()) as (window, session):
        for key, mod, is_full in (
            (pygame.K_F11, 0, True),
            (pygame.K_RETURN, pygame.KMOD_ALT, False),
        ):
            press(key, mod)
            run_until(window, session, lambda wanted=is_full: window._full_screen.is_on is wanted)
