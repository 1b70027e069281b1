"""Live voices from files, in a game and by the command."""

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest

import play
from envs.play.game.game import Game
from envs.play.game.opening import open_teacher, open_world
from envs.play.voice.voices import FileVoice, LiveVoices, num_voice_steps
from envs.stage.controller import ACTIONS
from envs.stage.speech import features_from_audio
from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, SoundError, to_int16
from midas_world.world import KeyMap
from tests.fakes import CountingEnv
from tests.test_sound import loudest_hz, tone, write_sound
from tests.voices import lag_of, sound_of
from tests.windows import playable

IDLE, WALK, TALK = (ACTIONS.index(name) for name in ("idle", "walk_right", "talk"))


# Voices from files


def test_a_file_is_said_step_by_step_and_once(hello):
    voice = FileVoice(hello)
    steps = [voice.step(talks=False) for _ in range(42)]
    assert num_voice_steps(hello) == 40
    assert steps[40] is None
    assert steps[41] is None
    said = np.concatenate([step for step in steps if step is not None])
    np.testing.assert_array_equal(said, sound_of(hello))
    assert voice.message == ""


def test_a_file_that_ends_in_rubbish_is_said_up_to_there(tmp_path, monkeypatch):
    def breaks_off(path):
        yield to_int16(tone(300.0, 0.2))
        raise SoundError(f"{path} cannot be read as sound after 0.2 s: rubbish")

    monkeypatch.setattr("envs.play.voice.voices.read_sound", breaks_off)
    voice = FileVoice(tmp_path / "half.mp3")
    assert all(voice.step(talks=False) is not None for _ in range(4))
    assert voice.step(talks=False) is None
    assert "after 0.2 s" in voice.message


def test_who_idles_talks_while_a_voice_is_heard(hello):
    game = Game(open_teacher(), seed=0, voices=LiveVoices(FileVoice(hello)))
    game.reset()
    names = [game.step(IDLE).action_name for _ in range(50)]
    game.close()
    assert names[:6] == ["idle"] * 6  # 0.3 s of silence
    assert names[6:36] == ["talk"] * 30
    assert names[-5:] == ["idle"] * 5


def test_a_player_who_walks_is_not_stopped_by_a_voice_that_moves_the_mouth(hello):
    game = Game(open_teacher(), seed=0, voices=LiveVoices(FileVoice(hello)))
    game.reset()
    views = [game.step(WALK) for _ in range(20)]
    mouth = game.playable.env.unwrapped._conditioner.mouth_open
    game.close()
    assert {view.action_name for view in views} == {"walk_right"}
    assert mouth > 0.1


def test_a_game_in_which_nobody_talks_refuses_a_voice_and_a_text(hello, monkeypatch):
    monkeypatch.setattr("envs.play.voice.voices.synthesise", lambda *_, **__: sound_of(hello))
    silent = playable(CountingEnv(), keymap=KeyMap(actions=("idle", "run"), keys={}))
    saying = LiveVoices()
    saying.say("hello")
    for voices in (saying, LiveVoices(FileVoice(hello))):
        with pytest.raises(ValueError, match="nobody speaks in it"):
            Game(silent, seed=0, voices=voices)


def test_a_world_hears_the_features_of_the_file(hello, tiny_world):
    game = Game(open_world(tiny_world), seed=0, voices=LiveVoices(FileVoice(hello)))
    game.reset()
    expected = features_from_audio(sound_of(hello) / 32768, SAMPLE_RATE_HZ)
    hands = []
    for row in expected[:20]:
        game.step(IDLE)
        told = game.info["audio"]
        hands.append(game.info["pose"][14:18].reshape(2, 2)[:, 1])
        np.testing.assert_array_equal(told[:20], row)
    game.close()
    assert np.ptp(hands, axis=0).min() > 8 / 96  # px of half a frame: both follow the voice


# The command


def test_a_talking_film_has_the_sound_of_the_file(hello, tmp_path, capsys):
    film = tmp_path / "hello.mp4"
    command = ["--headless", "--teacher", "--voice", str(hello), "--save", str(film)]
    assert play.main(command) == 0
    assert "40 steps" in capsys.readouterr().out
    lag, likeness = lag_of(sound_of(film), sound_of(hello))
    # The film's first frame is of no step.
    assert abs(lag - SAMPLES_PER_STEP) <= 8
    assert likeness > 0.99
    assert not list(tmp_path.glob(".tmp*"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no audio file"),
        (lambda path: path.write_text("words"), "cannot be read as sound"),
    ],
)
@pytest.mark.parametrize("how", [["--headless"], []])
def test_command_says_what_is_wrong_with_a_voice(make, message, how, tmp_path, capsys):
    path = tmp_path / "voice.wav"
    make(path)
    assert play.main([*how, "--teacher", "--voice", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_command_tells_of_a_silent_voice_and_plays(tmp_path, capsys):
    path = write_sound(tmp_path / "no.wav", np.zeros(3200), 16_000)
    assert play.main(["--headless", "--teacher", "--voice", str(path)]) == 0
    captured = capsys.readouterr()
    assert "is silent" in captured.err
    assert "4 steps" in captured.out


@pytest.fixture(scope="module")
def hour(tmp_path_factory) -> Path:
    """Return a file of an hour: a tone of a second, and then silence."""
    path = tmp_path_factory.mktemp("hour") / "hour.flac"
    minute = np.zeros((1, 60 * 8_000), np.int16)
    with av.open(str(path), "w") as container:
        options = {"frame_size": "48000"}  # few frames, so that it is soon written and read
        stream = container.add_stream("flac", rate=8_000, layout="mono", options=options)
        for number in range(60):
            samples = minute.copy()
            if number == 0:
                samples[0, :8_000] = to_int16(tone(300.0, 1.0, 8_000))
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8_000, number * minute.size
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_an_hour_of_sound_is_read_as_it_is_needed(hour, capsys):
    tracemalloc.start()
    voice = FileVoice(hour)
    steps = [voice.step(talks=False) for _ in range(40)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    voice.close()
    assert peak < 2**20  # an hour would be 115 MB
    assert loudest_hz(np.concatenate(steps[:20])) == pytest.approx(300.0, abs=3.0)
    assert not np.concatenate(steps[21:]).any()
    assert num_voice_steps(hour) == 72_000
    command = ["--headless", "--teacher", "--voice", str(hour), "--steps", "30"]
    assert play.main(command) == 0
    assert "30 steps" in capsys.readouterr().out
