"""Recorded sessions: watching them, running them again, and playing on from any of their frames."""

import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pygame
import pytest

import play
from envs.play.game import recorder
from envs.play.game.game import Game
from envs.play.game.game_thread import GameThread
from envs.play.game.opening import open_teacher, open_world
from envs.play.game.playable import Playable
from envs.play.game.rewind import Rewind
from envs.play.replay.recorded import Tape, make_recorded, open_recorded
from envs.play.replay.resimulate import resimulate
from envs.play.window.window import Window
from envs.stage.controller import ACTIONS
from midas_world.sessions.log import hash_frame
from midas_world.sessions.session import load_session
from tests.sessions import change_header, change_record, record_env
from tests.windows import in_window, press, press_until, release, run_until, start

KICK, RUN_RIGHT, WALK_LEFT = (ACTIONS.index(n) for n in ("kick", "run_right", "walk_left"))

# Frame: 0 reset; 1-4 run; words; 5-8 kick; back to 6 (frame 9); 10-13 walk; reset (14); 15-17 kick.
NUM_FRAMES = 18


def record(folder: Path, played: Playable) -> list[np.ndarray]:
    """Record a session with words, a way back and a second episode; return its frames."""
    game, rewind = Game(played, seed=4, prompt="a beach"), Rewind(100)
    frames: list[np.ndarray] = []

    def see(view, **values) -> None:
        frames.append(view.frame)
        rewind.add(game, view, **values)

    game.recorder.start(folder, fps=20, on_error=pytest.fail)
    see(game.reset(), is_jump=True)
    for _ in range(4):
        see(game.step(RUN_RIGHT))
    game.set_prompt("rain at night")
    for _ in range(4):
        see(game.step(KICK))
    rewind.back()
    rewind.back()
    frames.append(rewind.resume(game).frame)
    for _ in range(4):
        see(game.step(WALK_LEFT))
    see(game.reset_to_next_start(), is_jump=True)
    for _ in range(3):
        see(game.step(KICK))
    game.recorder.stop(wait=True)
    return frames


@pytest.fixture(scope="module", autouse=True)
def _known_worlds(tiny_folder):
    """Let the tiny world be found by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("midas_world.world.WORLD_PLACES", (tiny_folder.parent,))
        yield


@pytest.fixture(scope="module")
def recorded(tiny_folder, tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    folder = tmp_path_factory.mktemp("sessions") / "tiny"
    return folder, record(folder, open_world(str(tiny_folder)))


@pytest.fixture
def tape(recorded) -> Tape:
    return Tape(load_session(recorded[0]))


@pytest.fixture(scope="module")
def opened(recorded) -> Playable:
    return open_recorded(load_session(recorded[0]))


# What was recorded


def test_a_tape_knows_every_frame_of_its_time(tape, recorded):
    assert len(tape) == len(recorded[1]) == NUM_FRAMES
    assert tape.beginnings == [0, 9, 14]
    assert [tape.view(n).num_steps for n in (0, 8, 9, 13, 14, 17)] == [0, 8, 6, 10, 0, 3]
    assert [tape.marks[n].prompt for n in (0, 4, 5, 9)] == ["a beach"] * 2 + ["rain at night"] * 2
    assert tape.view(3).action_name == "run_right"
    assert tape.view(9).action_name == "went back"
    for number, frame in enumerate(recorded[1]):
        assert tape.view(number).frame.shape == frame.shape
        assert tape.marks[number].record.frame_hash == hash_frame(frame)


@pytest.mark.parametrize("keeps_states", [True, False])
@pytest.mark.parametrize("number", [0, 3, 4, 7, 9, 12, 17])
def test_any_frame_can_be_gone_on_from(recorded, tape, opened, number, keeps_states):
    frames, game = recorded[1], Game(opened, seed=99)
    goal, base = tape.snapshots(number)
    view = game.restore(goal, base=base if keeps_states else None)
    np.testing.assert_array_equal(view.frame, frames[number])
    assert view.num_steps == tape.view(number).num_steps
    assert view.total_reward == tape.marks[number].total_reward
    assert game.prompt == tape.marks[number].prompt
    follows = number + 1 < NUM_FRAMES and tape.marks[number + 1].place > 0
    if follows and number != 4:  # after frame 4 words were typed
        view = game.step(int(tape.marks[number + 1].record.action))
        np.testing.assert_array_equal(view.frame, frames[number + 1])


def test_a_state_is_kept_every_ten_seconds_so_that_taking_over_is_short(
    tiny_folder, tmp_path, monkeypatch
):
    assert recorder.STATE_EVERY_S == 10.0
    monkeypatch.setattr(recorder, "STATE_EVERY_S", 1.0)
    game = Game(open_world(str(tiny_folder)), seed=2)
    game.recorder.start(tmp_path / "long", fps=20, on_error=pytest.fail)
    game.reset()
    for step in range(45):
        if step == 30:
            game.set_prompt("a beach")
        view = game.step((RUN_RIGHT, KICK, WALK_LEFT)[step // 3 % 3])
    game.close()
    tape = Tape(load_session(tmp_path / "long"))
    assert [(tape.snapshots(n)[1] or view).num_steps for n in (20, 39, 40, 45)] == [
        20, 20, 40, 40,
    ]  # fmt: skip
    assert tape.snapshots(19)[1] is None  # resets are as good as a state
    goal, base = tape.snapshots(45)
    again, played = Game(open_world(str(tiny_folder)), seed=9), []
    found = again.restore(goal, base=base, on_step=lambda *step: played.append(step))
    np.testing.assert_array_equal(found.frame, view.frame)
    assert len(played) == 5
    assert again.prompt == "a beach"
    again.close()


# Running again


def test_a_session_run_again_is_equal(tape):
    env = make_recorded(tape.session)
    counted = []
    result = resimulate(tape, env, on_frame=counted.append)
    assert result.is_equal
    assert counted == list(range(1, NUM_FRAMES + 1))
    assert str(result) == f"all {NUM_FRAMES} frames are equal"


@pytest.mark.parametrize(
    ("number", "field", "value", "words"),
    [
        (7, "frame_hash", "0" * 16, "frame 7 (step 7 of its episode) differs"),
        (3, "action", KICK, "frame 3 (step 3"),
        (11, "reward", 5.0, "step 8 of its episode gave reward"),
        (9, "frame_hash", "0" * 16, "frame 9 (step 6"),
    ],
)
def test_the_first_difference_is_named(recorded, tmp_path, number, field, value, words):
    folder = changed(recorded[0], tmp_path, number, **{field: value})
    tape = Tape(load_session(folder))
    result = resimulate(tape, make_recorded(tape.session))
    assert not result.is_equal
    assert words in str(result)


def test_what_is_other_here_is_named_beside_a_difference(recorded, tmp_path):
    folder = changed(recorded[0], tmp_path, 2, frame_hash="0" * 16)
    env = make_recorded(load_session(folder))
    result = str(resimulate(Tape(load_session(folder)), env))
    assert "weights" not in result
    assert "backend" not in result
    change_header(
        folder,
        versions__numpy="0.1",
        machine__processor="an abacus",
        world__weights_sha256="0" * 64,
        backend__dtype="float8",
    )
    result = str(resimulate(Tape(load_session(folder)), env))
    for words in (
        "version of numpy: 0.1 when recorded",
        "machine's processor: an abacus when recorded",
        "has other weights than the one that was recorded",
        "backend's dtype: float8 when recorded, ",
    ):
        assert words in result


def test_a_session_of_another_world_says_so_in_one_line(recorded, tmp_path, capsys):
    folder = shutil.copytree(recorded[0], tmp_path / "changed")
    change_header(folder, world__weights_sha256="0123abcd" * 8)
    session = load_session(folder)
    world = session.header.world["folder"]
    for call in (open_recorded, make_recorded):
        with pytest.raises(ValueError, match=r"in another world .* are \w{8}, not 0123abcd: name"):
            call(session)
    assert play.main(["--replay", str(folder), "--resimulate"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"play: the session was recorded in another world than the one at {world}"
    )
    assert said.count("\n") == 1
    # Who names a world means it.
    assert open_recorded(session, world=world).env.unwrapped.world.folder == Path(world)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_session_runs_again_in_the_precision_it_was_played_in(tiny_folder, tmp_path, dtype):
    made = gym.make("midas/Stage-v0", world=str(tiny_folder), backend=f"torch:{dtype}")
    tape = Tape(record_env(made, tmp_path / "session", (2, 4, 4), seed=1))
    again = make_recorded(tape.session)
    assert again.unwrapped.engine.spec.dtype == dtype
    assert resimulate(tape, again).is_equal
    assert open_recorded(tape.session).env.unwrapped.engine.spec.dtype == dtype


@pytest.mark.parametrize("action", ["keys", "conditions"])
def test_sessions_of_other_actions_run_again_but_are_not_for_the_keys_to_go_on(
    tiny_folder, tmp_path, action
):
    made = gym.make("midas/Stage-v0", world=str(tiny_folder), action=action, backend="torch")
    made.action_space.seed(2)
    actions = [made.action_space.sample() for _ in range(3)]
    tape = Tape(record_env(made, tmp_path / "session", actions, seed=1))
    assert resimulate(tape, make_recorded(tape.session)).is_equal
    assert tape.view(2).action_name
    with pytest.raises(ValueError, match="this session's are of another kind"):
        tape.snapshots(2)


def test_the_teacher_s_sessions_run_again_too(tmp_path):
    record(tmp_path / "stage", open_teacher())
    tape = Tape(load_session(tmp_path / "stage"))
    assert resimulate(tape, make_recorded(tape.session)).is_equal


def test_command_runs_a_session_again(recorded, tmp_path, capsys):
    assert play.main(["--replay", str(recorded[0]), "--resimulate"]) == 0
    assert f"all {NUM_FRAMES} frames are equal" in capsys.readouterr().out
    folder = changed(recorded[0], tmp_path, 5, frame_hash="0" * 16)
    assert play.main(["--replay", str(folder), "--resimulate"]) == 1
    assert "not equal: frame 5" in capsys.readouterr().out


def changed(folder: Path, tmp_path: Path, number: int, **values) -> Path:
    """Return a copy of a session in which the record of a frame says something else."""
    copy = shutil.copytree(folder, tmp_path / "changed")
    frames = [record.frame for record in load_session(folder).records]
    change_record(copy, frames.index(number), **values)
    return copy


# In the window


@pytest.fixture
def watching(tape):
    """Yield a window and the session that is watched in it."""
    with in_window(lambda: open_recorded(tape.session), film=tape.film()) as (window, session):
        start(window, session)
        yield window, session


def pause(window: Window, session: GameThread) -> None:
    press_until(window, session, pygame.K_p, lambda: session.films.projector.is_paused)


def seek(window: Window, session: GameThread, number: int) -> None:
    session.films.control(lambda projector: projector.seek(number))
    run_until(window, session, lambda: session.films.projector.number == number)


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
    seek(window, session, NUM_FRAMES - 1)
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
    seek(window, session, 7)
    lines = "\n".join("  ".join(row) for row in session.films.projector.film.facts(7))
    for words in ("frame  7 of 17", "action  kick", "prompt  rain at night", "step, score  7,"):
        assert words in lines


@pytest.mark.parametrize("key", [pygame.K_t, pygame.K_RETURN], ids=["t", "enter"])
def test_taking_over_plays_on_bit_equal_from_the_frame_shown(watching, key):
    window, session = watching
    pause(window, session)
    said = []
    window._say = said.append
    seek(window, session, 11)
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
        session.start()
        run_until(window, session, lambda: session.status == "watching")
        press_until(window, session, pygame.K_t, lambda: "no such world" in window.overlays.message)
        press_until(window, session, pygame.K_SPACE, lambda: not session.films.projector.is_paused)
