"""Modes, results and the best list; agents that play, and the show while nobody plays."""

import threading
import time
from datetime import date

import numpy as np
import pygame
import pytest

from envs.play.game.agents import Pilot
from envs.play.game.game import Game
from envs.play.game.goals import COIN_RUN, FREE_PLAY, SURVIVE, BestList, Run
from envs.play.game.moments import View
from envs.play.game.opening import open_teacher, open_world
from envs.play.window import attract
from envs.play.window.scoreboard import Flashes, amount, first_keys
from envs.stage.picture import objects_of_things
from envs.stage.policies import ExpertPolicy
from tests.fakes import CountingEnv
from tests.windows import playing, press, press_until, push, release, run_until, words_shown

DAY = date(2026, 3, 1)


def view(num_steps: int, **changes) -> View:
    values = {"action_name": "idle", "total_reward": 0.0, "is_over": False}
    return View(frame=np.zeros((2, 2, 3), np.uint8), num_steps=num_steps, **(values | changes))


def run_of(mode, best: BestList, **changes) -> Run:
    return Run(mode, **({"title": "stage", "fps": 20, "best": best, "today": DAY} | changes))


# What is counted


def test_a_coin_run_ends_after_a_minute_and_counts_if_it_was_played_to_the_end():
    best = BestList(None)
    run = run_of(COIN_RUN, best)
    run.finish(view(300, score=9.0))  # broken off
    assert run.best == ()
    assert run.seconds_left(view(300)) == 45.0
    assert not run.is_done(view(1199))
    assert run.is_done(view(1200))
    run.finish(view(1200, score=4.0))
    run.finish(view(1200, score=5.0))  # told twice
    assert (run.best, run.place) == ((4.0,), 1)
    assert run_of(COIN_RUN, best, today=date(2026, 3, 2)).best == ()
    early = run_of(COIN_RUN, best)
    early.finish(view(80, score=2.0, is_over=True))
    assert early.place == 2


def test_survival_counts_seconds_and_what_was_not_played_in_one_go_counts_nothing():
    best = BestList(None)
    run = run_of(SURVIVE, best)
    run.finish(view(90, is_over=True))
    assert run.best == (4.5,)
    run = run_of(SURVIVE, best)
    run.is_counted = False
    run.finish(view(900, is_over=True))
    assert run.best == (4.5,)


def test_results_are_written_as_the_score_is():
    coins, seconds = (run_of(mode, BestList(None)) for mode in (COIN_RUN, SURVIVE))
    assert [amount(coins, value) for value in (4.0, 70.93131, -0.5)] == ["4", "70.9", "-0.5"]
    assert amount(seconds, 12.0) == "12 s"


def test_the_best_ten_are_kept_in_a_file_and_a_file_of_others_is_left_alone(tmp_path):
    path = tmp_path / "new" / "best.json"
    for value in (3, 0, *range(1, 13)):
        BestList(path).add("stage, coin run", value)
    assert BestList(path).best("stage, coin run") == tuple(range(12, 2, -1))
    assert BestList(path).add("stage, coin run", 2) is None
    path.write_text("[1")
    broken = BestList(path)
    assert broken.add("stage, coin run", 50) == 1
    assert "cannot be read" in broken.problem
    assert path.read_text() == "[1"


# In the window


def test_coins_hits_and_the_end_are_seen_once_and_jumps_are_none():
    flashes, surface = Flashes(), pygame.Surface((320, 192))
    lights = []
    moments = (
        *(view(1), view(2, score=1.0), view(2, score=1.0), view(3, score=1.0, num_hits=1)),
        *(view(90, score=9.0), view(4), view(5, is_over=True)),
    )
    for now, moment in enumerate(moments):  # in a second, a light is out
        flashes.see(moment, now)
        is_lit, is_coin = flashes.draw(surface, now), flashes.glow(now) > 0
        lights.append("coin" if is_coin else "hit" if is_lit else "")
    assert lights == ["", "coin", "", "hit", "", "", "hit"]
    assert surface.get_at((0, 90))[0] > 40


def test_a_run_from_the_menu_to_its_end_again_and_its_replay():
    env = CountingEnv(over_after=6)
    with playing(env, fps=20, counts_coins=True) as (window, session):
        run_until(window, session, lambda: session.status == "over")
        run_until(window, session, lambda: window._screens.menu is not None)
        assert window._screens.menu.title == "The end"
        press_until(window, session, pygame.K_ESCAPE, lambda: window._screens.menu.title == "Menu")
        press(pygame.K_DOWN)
        press(pygame.K_DOWN)
        press_until(window, session, pygame.K_RETURN, lambda: session.goals.mode is COIN_RUN)
        run_until(window, session, lambda: session.status == "over")
        assert env.resets[-1][0] == date.today().toordinal()
        assert session.goals.run.best == (6.0,)
        run_until(window, session, lambda: window._screens.menu is not None)
        press(pygame.K_DOWN)
        press(pygame.K_DOWN)
        press(pygame.K_RETURN)  # watch it
        run_until(window, session, lambda: session.status == "watching")
        shown = []
        run_until(
            window, session,
            lambda: shown.append(session.view.num_steps) or session.films.projector.is_paused,
        )  # fmt: skip
        assert shown[-1] == 6
        assert min(shown) < 6
        press_until(window, session, pygame.K_ESCAPE, lambda: session.status == "over")
        num_resets = len(env.resets)
        run_until(window, session, lambda: window._screens.menu is not None)
        press(pygame.K_RETURN)  # again
        run_until(window, session, lambda: len(env.resets) == num_resets + 1)
        assert env.resets[-1][0] == date.today().toordinal()


def test_the_end_is_seen_though_nobody_touches_anything(monkeypatch):
    # A slow disk: the light of the end is out by then.
    monkeypatch.setattr(BestList, "add", lambda *_: time.sleep(0.7))
    with playing(CountingEnv(over_after=6), fps=20) as (window, session):
        run_until(window, session, lambda: session.status == "over")
        run_until(window, session, lambda: window._screens.menu and window._screens.menu._rects)


def test_keys_of_the_game_mean_nothing_while_it_waits_for_a_menu():
    with playing(CountingEnv(), fps=50) as (window, session):
        press_until(window, session, pygame.K_ESCAPE, lambda: session.status == "paused")
        steps = session.view.num_steps
        for key in (pygame.K_p, pygame.K_n, pygame.K_b, pygame.K_t, pygame.K_g, pygame.K_BACKSPACE):
            press(key)
        push(6)  # of the pad: pause
        press_until(window, session, pygame.K_MINUS, lambda: "volume" in window.overlays.message)
        done = threading.Event()
        session._commands.put(lambda _: done.set())
        assert done.wait(10.0)
        assert (session.status, session.view.num_steps) == ("paused", steps)
        assert not any(
            (session.past.bookmarks.shown, window._prompt.is_open, session.pilot.is_flying)
        )


def test_a_time_limit_ends_a_run_though_the_game_goes_on():
    with playing(CountingEnv(), fps=400) as (window, session):
        session.playable.env.fps = 20
        session.begin_mode(COIN_RUN)
        run_until(window, session, lambda: session.goals.mode is COIN_RUN)
        session._commands.put(lambda game: game.branch.actions.extend([0] * 1190))
        run_until(window, session, lambda: session.status == "over")
        run_until(window, session, lambda: window._screens.menu is not None)
        assert window._screens.menu.title == "Time!"
        assert not session.goals.run.is_counted  # it was played at another speed


@pytest.mark.parametrize("spoil", ["rewind", "step", "agent", "bookmark"])
def test_what_is_not_played_in_one_go_is_not_counted(spoil):
    with playing(CountingEnv(), fps=20) as (window, session):
        assert session.goals.run.is_counted
        act = {
            "rewind": session.past.start_rewind,
            "step": session.single_step,
            "agent": lambda: session.fly(True),
            "bookmark": lambda: (session.past.drop_bookmark(), session.past.jump(1)),
        }[spoil]
        act()
        run_until(window, session, lambda: not session.goals.run.is_counted)


def test_an_agent_plays_after_a_while_until_a_key_is_pressed(monkeypatch):
    monkeypatch.setattr(attract, "IDLE_S", 0.05)
    with playing(CountingEnv(), fps=100) as (window, session):
        run_until(window, session, lambda: window._attract.is_on)
        run_until(window, session, lambda: session.view.action_name != "idle")
        monkeypatch.setattr(attract, "IDLE_S", 1000.0)
        press(pygame.K_r)  # means nothing but that somebody is there
        run_until(window, session, lambda: not session.pilot.is_flying)
        assert window._screens.menu is None
        assert not window._attract.is_on


@pytest.mark.parametrize("key", [pygame.K_g, pygame.K_RIGHT])
def test_a_key_hands_over_from_an_agent_that_was_asked_to_play(key, monkeypatch):
    said = words_shown(monkeypatch)
    with playing(CountingEnv(), fps=100) as (window, session):
        press_until(window, session, pygame.K_g, lambda: session.view.action_name != "idle")
        run_until(window, session, lambda: any("an agent plays" in words for words in said))
        press_until(window, session, key, lambda: not session.pilot.is_flying)
        release(key)
        run_until(window, session, lambda: session.view.action_name == "idle")


@pytest.mark.parametrize("is_on", [False, True])
def test_who_holds_a_key_is_there(monkeypatch, is_on):
    with playing(CountingEnv(), fps=100) as (window, session):
        monkeypatch.setattr(attract, "IDLE_S", 0.05)
        if is_on:
            run_until(window, session, lambda: window._attract.is_on)
        window.inputs.press("right")  # as a stick does, that tells no more until it is let go
        steps = session.view.num_steps
        run_until(window, session, lambda: session.view.num_steps > steps + 20)
        assert not window._attract.is_on
        assert session.view.action_name == "walk_right"
        window.inputs.release_all()
        run_until(window, session, lambda: window._attract.is_on)


def test_the_agent_of_a_world_sees_what_the_world_knows_to_be_near(tiny_folder):
    teacher = open_teacher()
    _, info = teacher.env.reset(seed=3, options={"scene_changes": False})
    for action in [4] * 40:
        seen = [row for row in info["things"] if row[0] >= 0]
        objects = objects_of_things(
            np.array([(kind, x - 160) for kind, x, *_ in seen]).reshape(-1, 2)
        )
        told = info["objects"][info["objects"][:, 0] >= 0]
        np.testing.assert_allclose(objects, told, atol=1e-3)
        _, _, over, _, info = teacher.env.step(action)
        assert not over
    world = open_world(str(tiny_folder))
    game, pilot = Game(world, seed=0), Pilot(world)
    game.reset()
    rock = 3
    world.env.unwrapped.things = lambda: np.array([(rock, 200.0)])
    pilot.take(is_flying=True)
    far = pilot.act(game.info, game.info)
    world.env.unwrapped.things = lambda: np.array([(rock, 40.0)])
    near = [pilot.act(game.info, game.info) for _ in range(2)]
    names = [world.keymap.actions[action] for action in (far, *near)]
    assert names[0] == "run_right"
    assert set(names[1:]) <= {"leap_right", "kick"}
    assert type(teacher.make_agent()) is ExpertPolicy
    game.close()


def test_a_stranger_s_first_keys_fit_the_game():
    rows = first_keys(open_teacher().keymap.keys, takes_words=True)
    assert [row[1] for row in rows] == ["walk", "run", "jump"]
    assert rows[0][2:] == ("T", "type another scene")
    assert rows[2][2:] == ("Esc", "menu, all keys")
    keys = {"gas_left": ["up", "left"], "left": ["left"], "gas": ["up"]}
    assert first_keys(keys, takes_words=False) == [
        ("Left", "left", "Backspace", "hold: go back in time"),
        ("Up", "gas", "Esc", "menu, all keys"),
    ]
    assert FREE_PLAY.limit_s is None
