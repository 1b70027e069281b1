"""Recorded voices: kept, played again, taken over, exported."""

from functools import partial

import gymnasium as gym
import minari
import numpy as np
import pytest

from envs.play.game.film import Projector
from envs.play.game.game import Game
from envs.play.game.opening import open_teacher
from envs.play.replay.recorded import Tape, make_recorded
from envs.play.replay.resimulate import resimulate
from envs.play.voice.voices import FileVoice, LiveVoices
from envs.recording.record import RecordSession
from envs.soundtrack import Soundtrack
from envs.stage.controller import ACTIONS
from envs.stage.speech import features_from_audio, load_speech_bank
from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP
from midas_world.sessions.export.minari_dataset import export_minari
from midas_world.sessions.log import hash_frame
from midas_world.sessions.session import load_session
from tests.sessions import export
from tests.voices import Ear, lag_of, sound_of
from tests.windows import in_window, run_until

IDLE, WALK, TALK = (ACTIONS.index(name) for name in ("idle", "walk_right", "talk"))


@pytest.fixture(scope="module")
def spoken_session(hello, tmp_path_factory):
    """Return a recorded session of the teacher under a voice, with a jump back on the way."""
    folder = tmp_path_factory.mktemp("recorded") / "session"
    game = Game(open_teacher(), seed=4, voices=LiveVoices(FileVoice(hello)))
    errors: list[str] = []
    game.recorder.start(folder, on_error=errors.append)
    game.reset()
    for _ in range(20):
        view = game.step(IDLE)
    middle = game.snapshot(view)
    for _ in range(5):
        game.step(WALK)
    game.restore(middle)
    for _ in range(25):
        game.step(IDLE)
    game.close()
    assert not errors
    return load_session(folder)


def test_a_session_keeps_the_sound_of_each_frame(spoken_session, hello):
    reader = spoken_session.sound()
    own = np.stack([reader.step(number)[0] for number in range(spoken_session.num_frames)])
    said = sound_of(hello).reshape(-1, SAMPLES_PER_STEP)
    np.testing.assert_array_equal(own[1:26], said[:25])
    assert not own[26].any()  # went back
    np.testing.assert_array_equal(own[27:42], said[25:40])
    live = [record.live for record in spoken_session.frame_records()]
    assert tuple(live[1]) == ("own",)
    assert not live[26]


def test_a_session_with_voices_runs_again_equal(spoken_session):
    tape = Tape(spoken_session)
    env = make_recorded(spoken_session)
    result = resimulate(tape, env)
    env.close()
    assert result.is_equal, result
    # Another voice would make another film.
    records = [record for record in spoken_session.records if record.live]
    changed = records[12].conditions.audio
    before = changed.copy()
    changed[:20] = 1.0
    env = make_recorded(spoken_session)
    try:
        assert not resimulate(tape, env).is_equal
    finally:
        changed[:] = before
        env.close()


def test_a_session_is_taken_over_from_the_middle_of_a_sentence(spoken_session):
    tape = Tape(spoken_session)
    game = Game(open_teacher(), seed=0)
    goal, base = tape.snapshots(18)
    view = game.restore(goal, base=base)
    assert hash_frame(view.frame) == tape.marks[18].record.frame_hash
    game.close()


@pytest.mark.parametrize("options", [[], ["--hud", "--scale", "1"], ["--start", "0.5"]])
def test_an_exported_film_carries_the_sound(spoken_session, hello, tmp_path, options):
    path = tmp_path / "film.mp4"
    assert export(spoken_session, "--to", "mp4", "--output", str(path), *options) == 0
    lag, likeness = lag_of(sound_of(path)[:12_000], sound_of(hello))
    start = 10 if "--start" in options else 0
    assert abs(lag - (1 - start) * SAMPLES_PER_STEP) <= 8
    assert likeness > 0.99


def test_a_replay_plays_the_recorded_sound_at_speed_1_only(spoken_session):
    ear = Ear()
    tape = Tape(spoken_session)
    faster, slower = (
        partial(Projector.change_speed, faster=is_faster) for is_faster in (True, False)
    )
    with in_window(open_teacher, film=tape.film(), speaker=ear) as (window, session):
        for change in (faster, faster, slower, slower):
            session.films.control(change)
        session.start()
        run_until(window, session, lambda: len(ear.heard) >= 3)
        session.films.control(faster)
        run_until(window, session, lambda: session.films.projector.speed == 2.0)
        number = len(ear.heard)
        run_until(window, session, lambda: session.films.projector.number > number + 3)
    assert len(ear.heard) == number
    for frame, sound in enumerate(ear.heard, start=1):
        np.testing.assert_array_equal(sound, tape.view(frame).sound)


def test_minari_keeps_the_features_of_live_voices(spoken_session, hello, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    episodes = list(minari.load_dataset(export_minari(spoken_session, tmp_path)).iterate_episodes())
    assert [len(episode) for episode in episodes] == [25, 25]  # before and after the jump back
    said = features_from_audio(sound_of(hello) / 32768, SAMPLE_RATE_HZ)
    np.testing.assert_array_equal(episodes[0].infos["audio"][1:, :20], said[:25])
    np.testing.assert_array_equal(episodes[1].infos["audio"][1:16, :20], said[25:40])


# Recorded by the wrapper


@pytest.fixture(scope="module")
def wrapped_session(tmp_path_factory):
    """Return a session of a teacher that talks, then says live audio, and its infos."""
    folder = tmp_path_factory.mktemp("wrapped") / "session"
    env = RecordSession(gym.make("envs:midas/StageTeacher-v0"), folder)
    env.reset(seed=2)
    infos = [env.step(TALK)[4] for _ in range(20)]
    voices = load_speech_bank().sentences[-2:]
    for own, other in zip(*(voice[:10] for voice in voices), strict=True):
        env.get_wrapper_attr("set_voices")(own, other)
        infos.append(env.step(TALK)[4])
    infos += [env.step(WALK)[4] for _ in range(10)]
    env.close()
    return load_session(folder), infos


def test_a_wrapper_keeps_the_sound_that_the_infos_tell(wrapped_session):
    session, infos = wrapped_session
    sound = session.sound()
    assert sound is not None
    soundtrack = Soundtrack()
    for number, info in enumerate(infos, start=1):
        expected = soundtrack.step(info, 0.0, is_over=False)
        np.testing.assert_array_equal(sound.step(number)[:2], expected[:2])
    assert all(sound.step(number)[0].any() for number in range(1, 20))
    assert any(sound.step(number)[2].any() for number in range(31, 41))  # steps


def test_a_wrapper_keeps_live_voices_which_run_again_equal(wrapped_session, tmp_path, monkeypatch):
    session, infos = wrapped_session
    live = [tuple(record.live) for record in session.frame_records()]
    assert live == [()] * 21 + [("own", "other")] * 10 + [()] * 10
    env = make_recorded(session)
    assert resimulate(Tape(session), env).is_equal
    env.close()
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    (episode,) = minari.load_dataset(export_minari(session, tmp_path)).iterate_episodes()
    np.testing.assert_array_equal(episode.infos["audio"][1:], [info["audio"] for info in infos])
