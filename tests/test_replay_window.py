"""Watching a recorded session, and taking over."""

from pathlib import Path

import pygame
import pytest

from envs.play.game.game_thread import GameThread
from envs.play.game.opening import open_world
from envs.play.replay.recorded import Tape, open_recorded
from envs.play.window.window import Window
from midas_world.sessions.session import load_session
from tests.replays import NUM_FRAMES, record
from tests.windows import in_window, press, press_until, release, run_until, start


@pytest.fixture(scope="module")
def recorded(tiny_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sessions") / "tiny"
    record(folder, open_world(str(tiny_folder)))
    return folder


@pytest.fixture(autouse=True)
def _known_worlds(tiny_folder, monkeypatch):
    """Let the tiny world be found by its name."""
    monkeypatch.setattr("midas_world.world.WORLD_PLACES", (tiny_folder.parent,))


@pytest.fixture
def tape(recorded) -> Tape:
    return Tape(load_session(recorded))


@pytest.fixture
def watching(tape):
    """Yield a window and the session that is watched in it."""
    with in_window(lambda: open_recorded(tape.session), film=tape.film()) as (window, session):
        start(window, session)
        yield window, session


def pause(window: Window, session: GameThread) -> None:
    press_until(window, session, pygame.K_p, lambda: session.films.projector.is_paused)


def test_a_film_plays_to_its_end_and_begins_again(watching):
    window, session = watching
    press(pygame.K_UP)
    press_until(window, session, pygame.K_UP, lambda: session.films.projector.speed == 4.0)
    run_until(window, session, lambda: session.films.projector.number == NUM_FRAMES - 1)
    run_until(window, session, lambda: session.films.projector.is_paused)
    press(pygame.K_SPACE)
    film = session.films.projector
    run_until(window, session, lambda: film.number < 9 and not film.is_paused)


def test_keys_step_and_jump(watching):
    window, session = watching

    def leads_to(key: int, number: int) -> None:
        press(key)
        release(key)
        run_until(window, session, lambda: session.films.projector.number == number)

    leads_to(pygame.K_END, NUM_FRAMES - 1)
    leads_to(pygame.K_COMMA, NUM_FRAMES - 2)
    assert session.films.projector.is_paused
    leads_to(pygame.K_n, NUM_FRAMES - 1)
    leads_to(pygame.K_LEFT, 0)  # the film is shorter than a second
    press_until(window, session, pygame.K_DOWN, lambda: session.films.projector.speed == 0.5)
    press(pygame.K_F1)
    press_until(window, session, pygame.K_F3, lambda: window.overlays.shows_measurements)
    assert "take over" in str(window._key_rows(session))


def test_a_held_key_goes_on_stepping(watching):
    window, session = watching
    pause(window, session)
    press(pygame.K_HOME)
    press_until(window, session, pygame.K_PERIOD, lambda: session.films.projector.number >= 4)
    release(pygame.K_PERIOD)
    run_until(window, session, lambda: window._film._held is None)


def test_the_cross_of_a_pad_scrubs_until_it_is_let_go(watching):
    window, session = watching
    session.films.control(lambda projector: projector.seek(NUM_FRAMES - 1))
    run_until(window, session, lambda: session.films.projector.number == NUM_FRAMES - 1)
    for value, is_held in (((-1, 0), True), ((0, 0), False)):
        event = pygame.Event(pygame.JOYHATMOTION, hat=0, value=value, instance_id=1)
        pygame.event.post(event)
        run_until(window, session, lambda: (window._film._held is not None) == is_held)  # noqa: B023


def test_the_bar_can_be_clicked_and_dragged(watching):
    window, session = watching
    width, height = pygame.display.get_surface().get_size()
    pause(window, session)

    def mouse(kind: int, x: float, **values) -> None:
        pygame.event.post(pygame.Event(kind, pos=(int(x), height - 20), **values))

    mouse(pygame.MOUSEBUTTONDOWN, width / 2, button=1)
    run_until(window, session, lambda: session.films.projector.number in (8, 9))
    mouse(pygame.MOUSEMOTION, width, rel=(0, 0), buttons=(1, 0, 0))
    run_until(window, session, lambda: session.films.projector.number == NUM_FRAMES - 1)
    mouse(pygame.MOUSEBUTTONUP, width, button=1)
    mouse(pygame.MOUSEMOTION, 0, rel=(0, 0), buttons=(0, 0, 0))
    press_until(window, session, pygame.K_F3, lambda: window.overlays.shows_measurements)
    assert session.films.projector.number == NUM_FRAMES - 1


def test_measurements_are_those_of_the_time(watching):
    window, session = watching
    pause(window, session)
    session.films.control(lambda projector: projector.seek(7))
    run_until(window, session, lambda: session.films.projector.number == 7)
    lines = "\n".join("  ".join(row) for row in session.films.projector.film.facts(7))
    for words in ("frame  7 of 17", "action  kick", "prompt  rain at night", "step, score  7,"):
        assert words in lines


@pytest.mark.parametrize("key", [pygame.K_t, pygame.K_RETURN], ids=["t", "enter"])
def test_taking_over_plays_on_bit_equal_from_the_frame_shown(watching, key):
    window, session = watching
    pause(window, session)
    said = []
    window._say = said.append
    session.films.control(lambda projector: projector.seek(11))
    run_until(window, session, lambda: session.films.projector.number == 11)
    press_until(window, session, key, lambda: session.status != "watching")
    run_until(window, session, lambda: session.films.projector is None)
    run_until(window, session, lambda: session.view.num_steps >= 10)
    assert "your turn" in said
    assert session.prompt == "rain at night"
    press(pygame.K_BACKSPACE)  # and all that a game can do is there
    run_until(window, session, lambda: session.status == "rewinding")
    release(pygame.K_BACKSPACE)
    run_until(window, session, lambda: session.status == "playing")


def test_what_cannot_be_taken_over_is_told_and_the_film_goes_on(tape):
    def fails():
        raise ValueError("no such world")

    with in_window(fails, film=tape.film()) as (window, session):
        said = []
        window._say = said.append
        session.start()
        run_until(window, session, lambda: session.status == "watching")
        press_until(window, session, pygame.K_t, lambda: "cannot take over: no such world" in said)
        press_until(window, session, pygame.K_SPACE, lambda: not session.films.projector.is_paused)
