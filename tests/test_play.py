import contextlib
import time

import numpy as np
import pygame
import pytest

from envs.picture import draw_frame, picture_rect
from envs.play.game.game_thread import GameThread
from envs.play.game.inputs import Inputs
from envs.play.game.playable import Playable
from envs.play.game.settings import Settings
from envs.play.game.stepper import StepClock
from envs.play.window import hud
from envs.play.window.overlays import OverlayLook, Overlays
from envs.play.window.window import Window
from envs.stage.controller import ACTIONS
from envs.stage.env import ACTION_KEYS
from midas_world.world import KeyMap
from tests import windows
from tests.fakes import CountingEnv, stage_keymap
from tests.windows import press, press_until, push, release, run_until, type_in

KICK, LEAP_RIGHT = ACTIONS.index("kick"), ACTIONS.index("leap_right")


@pytest.fixture
def playing():
    """Return a function that plays a CountingEnv in a window: both, and the session."""
    with contextlib.ExitStack() as stack:
        yield lambda env, **changes: stack.enter_context(windows.playing(env, **changes))


# Inputs


def test_held_keys_mean_the_first_action_whose_keys_are_all_held():
    inputs = Inputs(ACTION_KEYS)
    for name in ("right", "left shift", "up"):
        inputs.press(name)
    assert stage_keymap().action_of(inputs.take().keys) == LEAP_RIGHT
    inputs.release("up")
    inputs.press("[3]")
    assert stage_keymap().action_of(inputs.take().keys) == KICK


def test_a_tap_between_two_steps_counts_for_one_step():
    inputs = Inputs()
    inputs.press("3")
    inputs.release("3")
    assert inputs.take().keys == {"3"}
    assert inputs.take().keys == frozenset()


def test_of_two_opposite_directions_the_later_one_counts():
    inputs = Inputs(ACTION_KEYS)
    inputs.press("right")
    inputs.press("a")
    assert inputs.take().keys == {"left"}
    inputs.release("a")
    assert inputs.take().keys == {"right"}


def test_devices_hold_keys_apart_from_each_other():
    inputs = Inputs()
    inputs.press("up")
    inputs.set_axis(-0.9, ("left", "right"), source="stick")
    inputs.set_axis(0.1, ("up", "down"), source="other stick")
    assert inputs.take().keys == {"up", "left"}
    inputs.release_all(source="keyboard")
    assert inputs.take().keys == {"left"}


# Clock, measurements and drawing


def test_clock_keeps_its_rate_and_counts_late_steps_without_catching_up():
    clock = StepClock(0.05)
    assert clock.wait_s(1.0) == 0.0
    clock.start_step(1.0)
    assert clock.wait_s(1.0) == pytest.approx(0.05)
    clock.start_step(1.051)  # a sleep that was a little long
    assert clock.num_missed == 0
    assert clock.wait_s(1.06) == pytest.approx(0.04)
    clock.start_step(1.3)
    assert clock.num_missed == 1
    assert clock.wait_s(1.3) == pytest.approx(0.05)
    clock.restart()  # a pause is no step
    clock.start_step(9.0)
    assert list(clock.intervals) == pytest.approx([0.051, 0.249])


def test_pictures_grow_by_whole_numbers_and_stay_sharp():
    assert picture_rect((970, 600), (320, 192)) == pygame.Rect(5, 12, 960, 576)
    assert picture_rect((160, 300), (320, 192)) == pygame.Rect(0, 102, 160, 96)
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 1] = 255
    surface = pygame.Surface((9, 8))
    surface.fill("red")
    assert draw_frame(surface, frame) == pygame.Rect(0, 0, 8, 8)
    shown = pygame.surfarray.array3d(surface)
    assert set(np.unique(shown[:8])) == {0, 255}
    assert (shown[4:8, :4] == 255).all()
    assert not shown[:4].any()


def test_the_key_map_names_every_action_and_command_and_the_pad():
    rows = hud.key_rows(ACTION_KEYS, Inputs(ACTION_KEYS))
    lines = "\n".join("  ".join(row) for row in rows)
    for words in ("j  punch  X", "space/up", "left/a, right/d  walk left, right  stick",
                  "left, right  leap left, right  A + LB + stick", "type what", "Shift+R",
                  "then play on  LT", "Esc", "to the newest  R3"):  # fmt: skip
        assert words in lines
    assert "[2]" not in lines


def test_keys_are_told_where_the_player_has_them_and_without_words_where_those_mean_nothing(
    playing, monkeypatch
):
    lines = windows.words_shown(monkeypatch)
    car = KeyMap(actions=("noop", "gas", "left", "horn"),
                 keys={"gas": ["up"], "left": ["a"], "horn": ["q"]})  # fmt: skip
    window, session = playing(CountingEnv(), keymap=car, takes_words=False)
    run_until(window, session, lambda: any("Up  gas" in line for line in lines))
    assert "another scene" not in "".join(lines)
    assert window._key_rows(session)[:3] == [
        *(("up/space/w", "gas", "A"), ("a/left", "left", "stick"), ("q", "horn", "")),
    ]
    window._settings.change(keys={"p": "o", "up": "n", "t": "y"}, pad={"p": "RB", "up": "LB"})
    window._apply_settings()
    rows = window._key_rows(session)
    assert rows[0] == ("n/space/w", "gas", "LB")
    assert ("O, Ctrl+N", "pause, one step", "RB") in rows
    assert not {row[0] for row in rows} & {"Y", "L", 'Y, then "'}
    assert ('Y, then "', "type what the character says", "") in hud.key_rows({}, window.inputs)


@pytest.mark.parametrize("area", [(300, 170), (620, 360), (1260, 740)])
def test_the_key_map_fits_in_letters_that_can_be_read_or_comes_in_parts_and_goes(area):
    overlays, look = Overlays(), OverlayLook(size=40, area=area, settings=Settings())
    rows = hud.key_rows(ACTION_KEYS, Inputs(ACTION_KEYS))
    seen = []
    overlays.toggle_keys()
    while overlays.shows_keys:
        seen.append(overlays.keys(rows, look).picture)
        overlays.toggle_keys()
    assert all(plate.get_width() <= area[0] and plate.get_height() <= area[1] for plate in seen)
    assert len(set(map(id, seen))) == len(seen) < 8
    assert (len(seen) == 1) == (area[0] > 400)


# The window


def test_held_keys_reach_the_picture_and_the_way_is_timed(playing):
    window, session = playing(CountingEnv())
    press(pygame.K_k)

    def shown() -> tuple[int, ...]:
        return tuple(pygame.display.get_surface().get_at((480, 288)))[:3]

    run_until(window, session, lambda: shown()[1] == 10 * KICK)
    run_until(window, session, lambda: len(window.latencies) > 0)
    assert 0.0 < window.latencies.percentile(50) < 5.0
    release(pygame.K_k)
    run_until(window, session, lambda: shown()[1] == 0)


def test_pause_single_step_and_reset(playing):
    env = CountingEnv()
    window, session = playing(env)
    press_until(window, session, pygame.K_p, lambda: session.status == "paused")
    count = session.view.num_steps
    press_until(window, session, pygame.K_n, lambda: session.view.num_steps == count + 1)
    assert session.status == "paused"
    press(pygame.K_r)  # asks
    press_until(window, session, pygame.K_r, lambda: len(env.resets) == 2)
    assert env.resets[0] == env.resets[1]
    press(pygame.K_r, pygame.KMOD_LSHIFT)
    run_until(window, session, lambda: len(env.resets) == 3)
    assert env.resets[2][0] == env.resets[0][0] + 1


def test_keys_of_the_game_are_no_commands(playing):
    window, session = playing(CountingEnv(), keymap=KeyMap(actions=ACTIONS, keys={"kick": ["p"]}))
    press_until(window, session, pygame.K_p, lambda: session.view.action_name == "kick")
    assert session.status == "playing"
    press(pygame.K_p, pygame.KMOD_LCTRL)
    run_until(window, session, lambda: session.status == "paused")


def test_prompt_is_typed_and_applied(playing):
    env = CountingEnv()
    window, session = playing(env)
    press(pygame.K_t)
    for letter in "snowx":
        type_in(letter)
    press(pygame.K_BACKSPACE)
    press(pygame.K_p)  # a letter, not a command, while the line is open
    press_until(window, session, pygame.K_RETURN, lambda: env.prompt is not None)
    assert env.prompt == "snow"
    assert session.prompt == "snow"
    assert session.status == "playing"


def test_escape_leaves_the_prompt_as_it_was(playing):
    window, session = playing(CountingEnv())
    press(pygame.K_t)
    type_in("x")
    press(pygame.K_ESCAPE)
    for _ in range(3):
        assert window.run_once(session)
    assert session.prompt is None
    press(pygame.K_ESCAPE)
    run_until(window, session, lambda: session.status == "paused")  # behind the menu
    press(pygame.K_UP)
    press(pygame.K_RETURN)  # its last entry
    # More than one wait: the thread's own events come in between.
    assert not all(window.run_once(session) for _ in range(20))


def test_overlays_and_screenshot(playing, here):
    window, session = playing(CountingEnv())
    press(pygame.K_F3)

    def num_colors() -> int:
        corner = pygame.surfarray.array3d(pygame.display.get_surface())[20:200, 420:540]
        return len(np.unique(corner.reshape(-1, 3), axis=0))

    run_until(window, session, lambda: session.view.num_steps > 5 and num_colors() > 20)
    press(pygame.K_F1)
    press_until(window, session, pygame.K_F12, lambda: list(here.glob("screenshots/*.png")))
    saved = pygame.image.load(next(iter(here.glob("screenshots/*.png"))))
    assert saved.get_size() == (960, 576)  # as it is shown
    assert len(np.unique(pygame.surfarray.array3d(saved).reshape(-1, 3), axis=0)) == 1  # no words


def test_a_screenshot_that_cannot_be_saved_is_told_and_play_goes_on(playing, here):
    (here / "screenshots").write_text("no folder")
    window, session = playing(CountingEnv())
    press_until(window, session, pygame.K_F12, lambda: "no screenshot: " in window.overlays.message)
    count = session.view.num_steps
    run_until(window, session, lambda: session.view.num_steps > count)


def test_keys_that_do_not_exist_are_told(playing):
    keymap = KeyMap(actions=ACTIONS, keys={"wave": ["lefft", "left"], "kick": ["[1]", "k"]})
    window, session = playing(CountingEnv(), keymap=keymap)
    told = "no keyboard has the keys lefft"
    run_until(window, session, lambda: window.overlays.message == told)


def test_a_gamepad_plays_until_it_is_pulled_out_and_commands(playing):
    window, session = playing(CountingEnv(), fps=100)
    for kind, values, name in (
        (pygame.JOYAXISMOTION, {"axis": 0, "value": -0.5}, "walk_left"),
        (pygame.JOYAXISMOTION, {"axis": 0, "value": -1.0}, "run_left"),
        (pygame.JOYBUTTONDOWN, {"button": 0}, "leap_left"),
        (pygame.JOYDEVICEREMOVED, {}, "idle"),
        (pygame.JOYHATMOTION, {"hat": 0, "value": (0, -1)}, "crouch"),
    ):
        pygame.event.post(pygame.Event(kind, instance_id=1, **values))
        run_until(window, session, lambda wanted=name: session.view.action_name == wanted)
    for button, is_done in (
        (6, lambda: session.status == "paused"),
        (6, lambda: session.status == "playing"),
        (7, lambda: window._screens.menu is not None),
        (7, lambda: session.status == "playing"),
        (9, lambda: session.past.bookmarks.shown),
    ):
        push(button)
        run_until(window, session, is_done)
    steps = session.view.num_steps
    run_until(window, session, lambda: session.view.num_steps > steps + 20)
    push(10)
    run_until(window, session, lambda: session.view.num_steps < steps + 10)


def test_a_game_that_cannot_be_opened_ends_the_window_with_its_error():
    def fails() -> Playable:
        raise ValueError("no such world")

    window = Window("a world")
    session = GameThread(fails, window.inputs, notify=window.notify)
    session.start()
    window.run(session)
    window.close()
    assert session.status == "failed"
    assert str(session.error) == "no such world"


def test_slow_steps_are_counted_as_missed_and_do_not_stop_the_window(playing):
    window, session = playing(CountingEnv(delay_s=0.03), fps=100)
    run_until(window, session, lambda: session.clock.num_missed >= 3)
    started = time.perf_counter()
    window.run_once(session)
    assert time.perf_counter() - started < 1.0
