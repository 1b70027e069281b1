"""Gamepads as SDL itself reports them: a virtual pad of SDL's, no invented events."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pygame
import pytest

from envs.play.game.inputs import Inputs
from envs.play.game.settings import SettingsFile
from envs.play.window.menu import Entry, Menu
from envs.play.window.pads import Pads
from envs.stage.env import ACTION_KEYS
from tests.fakes import CountingEnv
from tests.windows import playing, run_until

GAME_CONTROLLER, WHEEL = 1, 2
NUM_AXES, NUM_BUTTONS = 6, 15


class VirtualPad:
    """A pad that SDL takes for one that was plugged in."""

    def __init__(self, sdl: ctypes.CDLL, kind: int) -> None:
        self._sdl = sdl
        self._index = sdl.SDL_JoystickAttachVirtual(kind, NUM_AXES, NUM_BUTTONS, 0)
        assert self._index >= 0
        self._handle = ctypes.c_void_p(sdl.SDL_JoystickOpen(self._index))

    def button(self, number: int, *, is_down: bool) -> None:
        assert self._sdl.SDL_JoystickSetVirtualButton(self._handle, number, int(is_down)) == 0

    def axis(self, number: int, value: float) -> None:
        level = ctypes.c_int16(round(32767 * value))
        assert self._sdl.SDL_JoystickSetVirtualAxis(self._handle, number, level) == 0

    def pull_out(self) -> None:
        self._sdl.SDL_JoystickClose(self._handle)
        self._sdl.SDL_JoystickDetachVirtual(self._index)


@pytest.fixture
def sdl() -> ctypes.CDLL:
    """Return the SDL that pygame itself runs on."""
    root = Path(pygame.__file__).parent
    names = ("../pygame_ce.libs/libSDL2-2*", "../pygame_ce.libs/SDL2.dll", "SDL2.dll")
    found = [path for name in names for path in sorted(root.glob(name))]
    found += sorted(root.glob(".dylibs/libSDL2-2*"))
    if not found:
        pytest.skip("this pygame does not bring its own SDL, which the virtual pad needs")
    library = ctypes.CDLL(str(found[0]))
    library.SDL_JoystickOpen.restype = ctypes.c_void_p
    return library


@pytest.fixture
def inputs(monkeypatch: pytest.MonkeyPatch) -> Inputs:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    return Inputs(ACTION_KEYS)


@pytest.fixture
def pads(inputs: Inputs) -> Iterator[Pads]:
    pygame.display.init()
    pygame.display.set_mode((64, 64))
    pads = Pads(inputs)
    pads.open()
    yield pads
    pads.close()
    pads.close()
    pygame.display.quit()


def handled(pads: Pads) -> list[tuple[str, bool]]:
    """Hand the pads all that happened; return what they said to commands."""
    events = [event for event in pygame.event.get() if not pads.is_told_twice(event)]
    return [word for event in events if (word := pads.handle(event))]


def held(inputs: Inputs) -> set[str]:
    return set(inputs.take().keys)


def test_a_controller_plays_by_names_and_not_twice_until_it_is_pulled_out(sdl, pads, inputs):
    pad = VirtualPad(sdl, GAME_CONTROLLER)
    handled(pads)
    # In the order of SDL's controllers: 6 is start and 4 is back, 7 and 8 click the sticks.
    for number, words in ((6, ["escape"]), (4, ["p"]), (7, ["b"]), (8, ["0"])):
        for is_down in (True, False):
            pad.button(number, is_down=is_down)
            assert handled(pads) == [(word, is_down) for word in words]
    for axis, word in ((4, "backspace"), (5, "t")):  # the triggers
        for value, told in ((0.9, [(word, True)]), (1.0, []), (-1.0, [(word, False)])):
            pad.axis(axis, value)
            assert handled(pads) == told
    assert held(inputs) == set()
    pad.button(14, is_down=True)  # right on the directional pad
    handled(pads)
    assert held(inputs) == {"right"}
    pad.button(0, is_down=True)  # A
    handled(pads)
    assert held(inputs) == {"right", "space"}
    for number in (0, 14):
        pad.button(number, is_down=False)
    handled(pads)
    assert held(inputs) == set()
    for value, keys in ((-0.5, {"left"}), (-1.0, {"left", "left shift"}), (0.0, set())):
        pad.axis(0, value)
        handled(pads)
        assert held(inputs) == keys
    pad.axis(0, 1.0)
    pad.button(14, is_down=True)
    handled(pads)
    assert held(inputs) == {"left shift", "right"}
    pad.pull_out()
    handled(pads)
    assert held(inputs) == set()


def test_what_is_no_controller_plays_by_a_joysticks_numbers(sdl, pads, inputs):
    pad = VirtualPad(sdl, WHEEL)
    handled(pads)
    pad.button(7, is_down=True)
    assert handled(pads) == [("escape", True)]
    pad.button(0, is_down=True)
    handled(pads)
    assert held(inputs) == {"space"}
    pad.button(0, is_down=False)
    pad.axis(0, 0.5)
    handled(pads)
    assert held(inputs) == {"right"}
    pad.pull_out()
    handled(pads)
    assert held(inputs) == set()


def test_a_button_of_a_controller_takes_one_entry_of_a_menu_and_a_trigger_can_be_chosen(sdl):
    with playing(CountingEnv(), fps=50) as (window, session):
        pad = VirtualPad(sdl, GAME_CONTROLLER)
        run_until(window, session, lambda: window._pads._controllers)
        taken = []
        entries = [Entry("one", lambda: taken.append(1))]
        window._screens.menu = Menu("a menu", entries, back=lambda: None)
        pad.button(0, is_down=True)
        run_until(window, session, lambda: taken)
        pad.button(0, is_down=False)
        for _ in range(5):
            window.run_once(session)
        assert taken == [1]
        settings = window._screens._settings
        settings._open_keys(session, "pad", back=lambda: None)
        settings._wanted = "pad", "f8"
        pad.axis(4, 1.0)
        run_until(window, session, lambda: settings._wanted is None)
        assert settings._file.settings.pad == {"f8": "LT"}
        pad.pull_out()


def test_a_stick_moves_in_a_menu_one_entry_for_each_push(sdl):
    with playing(CountingEnv()) as (window, session):
        pad = VirtualPad(sdl, GAME_CONTROLLER)
        window._screens.open_main(session)
        menu = window._screens.menu
        pushes = (0.5, 0), (1.0, 1), (0.5, 1), (0.9, 1), (0.0, 1), (1.0, 2), (-1.0, 1)
        for value, chosen in pushes:
            pad.axis(1, value)
            run_until(window, session, lambda chosen=chosen: menu.chosen == chosen)
            for _ in range(3):
                window.run_once(session)
            assert menu.chosen == chosen, value
        pad.pull_out()


def test_pads_are_switched_off_and_on_in_the_settings(sdl, tmp_path):
    settings = SettingsFile(tmp_path / "settings.json")
    with playing(CountingEnv(), settings=settings) as (window, session):

        def turn() -> None:
            window._screens._settings.open(session, back=lambda: None)
            entries = window._screens.menu.entries
            next(e for e in entries if str(e).startswith("gamepads")).change(1)
            window._screens.close(session)

        def walk() -> None:
            pad = VirtualPad(sdl, GAME_CONTROLLER)
            run_until(window, session, lambda: window._pads._controllers)
            pad.axis(0, -0.5)
            run_until(window, session, lambda: session.view.action_name == "walk_left")

        walk()
        turn()  # SDL lets go of its pads; the virtual one is gone with them
        run_until(window, session, lambda: session.view.action_name == "idle")
        VirtualPad(sdl, GAME_CONTROLLER)
        for _ in range(20):
            window.run_once(session)
        assert not window._pads._controllers
        turn()
        walk()
