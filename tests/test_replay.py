"""Recorded sessions: watching them, running them again, and playing on from any of their frames."""

import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import play
from envs.play.game import recorder
from envs.play.game.game import Game
from envs.play.game.opening import open_teacher, open_world
from envs.play.game.playable import Playable
from envs.play.replay.recorded import Tape, make_recorded, open_recorded
from envs.play.replay.resimulate import resimulate
from midas_world.sessions.log import hash_frame
from midas_world.sessions.session import load_session
from tests.replays import KICK, NUM_FRAMES, RUN_RIGHT, WALK_LEFT, record
from tests.sessions import change_header, change_record, record_env


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
    assert result.num_equal == NUM_FRAMES
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
    assert number <= result.num_equal <= number + 1


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
