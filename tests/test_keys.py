"""Keys by their place for playing, by what they say for commands, on other layouts than ours."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pygame
import pytest

from envs.play.window.keys import meaning_of, place_of
from tests.displays import needs_xvfb, x_server
from tests.fakes import CountingEnv
from tests.windows import playing, run_until

# Places, as USB numbers them.
A, D, H, P, T, ONE = 4, 7, 11, 19, 23, 30
CYRILLIC_EF, CYRILLIC_ZE = 0x444, 0x437
A_CIRCUMFLEX_ROW = ord("&")  # what a French keyboard has at the place of 1

PRINTS = """
import sys, pygame
from envs.play.window.keys import meaning_of, place_of
pygame.display.init()
pygame.display.set_mode((200, 100))
print("open", flush=True)
while True:
    event = pygame.event.wait(10000)
    if event.type == pygame.NOEVENT:
        sys.exit("nothing was pressed")
    if event.type == pygame.KEYDOWN:
        print(place_of(event), meaning_of(event), flush=True)
"""
# What X11 calls the keys at the places of A, P and 1 on any layout.
CODES = {"a": 38, "p": 33, "1": 10}


def key(code: int, place: int, *, is_down: bool = True) -> pygame.Event:
    kind = pygame.KEYDOWN if is_down else pygame.KEYUP
    return pygame.Event(kind, key=code, mod=0, unicode="", scancode=place)


@pytest.mark.parametrize(
    ("code", "place", "names"),
    [
        (pygame.K_a, A, ("a", "a")),
        (pygame.K_q, A, ("a", "q")),  # French
        (CYRILLIC_EF, A, ("a", "a")),
        (CYRILLIC_ZE, P, ("p", "p")),
        (A_CIRCUMFLEX_ROW, ONE, ("1", "1")),
        (pygame.K_LEFT, 80, ("left", "left")),
        (pygame.K_KP_ENTER, 88, ("enter", "enter")),
    ],
)
def test_a_place_has_one_name_and_a_meaning_that_a_player_reads(code, place, names):
    pygame.display.init()
    event = key(code, place)
    assert (place_of(event), meaning_of(event)) == names


def test_a_russian_and_a_french_keyboard_play_and_command():
    with playing(CountingEnv(), fps=100) as (window, session):
        for code, place, action in (
            (CYRILLIC_EF, A, "walk_left"),
            (pygame.K_q, A, "walk_left"),
            (0x432, D, "walk_right"),  # the Cyrillic letter at the place of D
            (0x440, H, "wave"),
        ):
            pygame.event.post(key(code, place))
            run_until(window, session, lambda name=action: session.view.action_name == name)
            pygame.event.post(key(code, place, is_down=False))
            run_until(window, session, lambda: session.view.action_name == "idle")
        pygame.event.post(key(CYRILLIC_ZE, P))
        run_until(window, session, lambda: session.status == "paused")


@pytest.mark.parametrize(("enter", "place"), [(pygame.K_RETURN, 40), (pygame.K_KP_ENTER, 88)])
def test_enter_and_the_keypad_s_goes_on_and_starts_again(enter, place):
    env = CountingEnv(over_after=3)
    with playing(env) as (window, session):
        run_until(window, session, lambda: session.status == "over")
        assert session.view.total_reward == 3.0
        pygame.event.post(key(enter, place))
        run_until(window, session, lambda: len(env.resets) == 2)
    with playing(CountingEnv()) as (window, session):
        pygame.event.post(key(pygame.K_p, P))
        run_until(window, session, lambda: session.status == "paused")
        pygame.event.post(key(enter, place))
        run_until(window, session, lambda: session.status == "playing")


def test_pads_come_and_go_while_the_player_types():
    with playing(CountingEnv(), fps=100) as (window, session):

        def leads_to(name: str, kind: int, **values) -> None:
            pygame.event.post(pygame.Event(kind, instance_id=7, **values))
            run_until(window, session, lambda: session.view.action_name == name)

        leads_to("walk_right", pygame.JOYHATMOTION, hat=0, value=(1, 0))
        pygame.event.post(key(pygame.K_t, T))
        run_until(window, session, lambda: window._prompt.is_open)
        leads_to("walk_left", pygame.JOYHATMOTION, hat=0, value=(-1, 0))
        leads_to("idle", pygame.JOYDEVICEREMOVED)
        assert window._prompt.is_open


def test_an_axis_that_rests_at_its_end_does_not_walk():
    with playing(CountingEnv(), fps=100) as (window, session):
        for value in (-1.0, -0.2, -1.0):
            pygame.event.post(
                pygame.Event(pygame.JOYAXISMOTION, instance_id=7, axis=0, value=value)
            )
        steps = session.view.num_steps
        run_until(window, session, lambda: session.view.num_steps > steps + 5)
        assert session.view.action_name == "idle"


@pytest.mark.slow  # an X server, and keys typed into it
@needs_xvfb
@pytest.mark.skipif(
    not all(map(shutil.which, ("xdotool", "setxkbmap"))), reason="needs xdotool and setxkbmap"
)
@pytest.mark.parametrize(
    ("layout", "expected"),
    [("us", ["a a", "p p", "1 1"]), ("fr", ["a q", "p p", "1 1"]), ("ru", ["a a", "p p", "1 1"])],
)
def test_keys_of_a_real_x_server_have_these_names(layout, expected, monkeypatch):
    with x_server() as display:
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
        subprocess.run(["setxkbmap", layout], check=True)
        command = [sys.executable, "-c", PRINTS]
        options = {"cwd": Path(__file__).parents[1], "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, **options) as program:
            try:
                while program.stdout.readline().strip() != "open":
                    assert program.poll() is None
                time.sleep(0.1)
                names = []
                for code in CODES.values():
                    words = ["xdotool", "mousemove", "160", "100", "key", str(code)]
                    subprocess.run(words, check=True)
                    names.append(program.stdout.readline().strip())
            finally:
                program.kill()
        assert names == expected
