"""Live voices, and the sound of a game on its way: played, recorded, replayed, exported."""

import threading
import time
from pathlib import Path

import numpy as np
import pygame
import pytest

import play
from envs.play.game.game import Game
from envs.play.game.inputs import Inputs
from envs.play.game.opening import open_teacher, open_world
from envs.play.game.session import Session
from envs.play.replay.recorded import Tape, make_recorded
from envs.play.replay.resimulate import resimulate
from envs.play.replay.session import ReplaySession
from envs.play.voice.speaker import Speaker
from envs.play.voice.voices import FileVoice, LiveVoices, num_voice_steps
from envs.stage.controller import ACTIONS
from envs.stage.speech import features_from_audio, load_speech_sound
from midas_world.data.sound import (
    SAMPLE_RATE_HZ,
    SAMPLES_PER_STEP,
    SoundError,
    mix,
    read_sound,
    to_int16,
)
from midas_world.sessions.log import hash_frame
from midas_world.sessions.session import load_session
from tests.fakes import CountingEnv
from tests.sessions import export
from tests.test_sound import tone, write_sound
from tests.windows import playable, playing, press, run_until

IDLE, WALK, TALK = (ACTIONS.index(name) for name in ("idle", "walk_right", "talk"))


@pytest.fixture(scope="module")
def hello(tmp_path_factory) -> Path:
    """Return a file of 2 s: a sentence of the bank after 0.3 s of silence, at 44.1 kHz."""
    sentence = load_speech_sound()[0] / 32768
    samples = np.concatenate((np.zeros(4800), sentence))[: 2 * SAMPLE_RATE_HZ]
    samples = np.pad(samples, (0, 2 * SAMPLE_RATE_HZ - samples.size))
    places = np.arange(2 * 44_100) * (SAMPLE_RATE_HZ / 44_100)
    louder = np.interp(places, np.arange(samples.size), samples)
    return write_sound(tmp_path_factory.mktemp("voice") / "hello.wav", louder, 44_100)


def lag_of(heard: np.ndarray, spoken: np.ndarray) -> tuple[int, float]:
    """Return by how many samples a sound is later than another, and how like they are then."""
    size = 1 << (heard.size + spoken.size).bit_length()
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(spoken, size))
    lag = int(np.fft.irfft(spectrum).argmax())
    lag -= size if lag > size // 2 else 0
    first, end = max(0, lag), min(heard.size, lag + spoken.size)
    likeness = np.corrcoef(heard[first:end], spoken[first - lag : end - lag])[0, 1]
    return lag, float(likeness)


def sound_of(path: Path) -> np.ndarray:
    return np.concatenate(list(read_sound(path))).astype(float)


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


def test_a_silent_file_is_told_at_its_end(tmp_path):
    voices = LiveVoices(FileVoice(write_sound(tmp_path / "no.wav", np.zeros(1600), 16_000)))
    assert not any(voices.step(talks=True)[2] for _ in range(3))
    assert "is silent from its beginning to its end" in voices.take_message()
    assert voices.take_message() == ""


def test_a_file_that_ends_in_rubbish_is_said_up_to_there(tmp_path, monkeypatch):
    def breaks_off(path):
        yield to_int16(tone(300.0, 0.2))
        raise SoundError(f"{path} cannot be read as sound after 0.2 s: rubbish")

    monkeypatch.setattr("envs.play.voice.voices.read_sound", breaks_off)
    voice = FileVoice(tmp_path / "half.mp3")
    assert all(voice.step(talks=False) is not None for _ in range(4))
    assert voice.step(talks=False) is None
    assert "after 0.2 s" in voice.message


def test_an_hour_of_sound_is_read_as_it_is_needed(tmp_path, monkeypatch):
    made = []

    def an_hour(_):
        for _ in range(3600 * 20 * 800 // 1024):
            made.append(1)
            yield np.full(1024, 1000, np.int16)

    monkeypatch.setattr("envs.play.voice.voices.read_sound", an_hour)
    voice = FileVoice(tmp_path / "hour.mp3")
    for _ in range(20):
        voice.step(talks=False)
    assert len(made) <= 20
    voice.close()


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
    mouth = game.playable.env.unwrapped._conditioner.mouth_open  # type: ignore[attr-defined]
    game.close()
    assert {view.action_name for view in views} == {"walk_right"}
    assert mouth > 0.1


def test_a_game_in_which_nobody_talks_refuses_a_voice(hello):
    keymap = playable(CountingEnv()).keymap
    silent = type(keymap)(actions=("idle", "run"), keys={})
    with pytest.raises(ValueError, match="nobody speaks in it"):
        Game(playable(CountingEnv(), keymap=silent), seed=0, voices=LiveVoices(FileVoice(hello)))


def test_a_world_hears_the_features_of_the_file(hello, tiny_world):
    game = Game(open_world(tiny_world), seed=0, voices=LiveVoices(FileVoice(hello)))
    game.reset()
    expected = features_from_audio(sound_of(hello) / 32768, SAMPLE_RATE_HZ)
    for row in expected[:20]:
        game.step(IDLE)
        told = game.playable.env.unwrapped._games.info(0)["audio"]  # type: ignore[attr-defined]
        np.testing.assert_array_equal(told[:20], row)
    game.close()


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


def test_volume_is_a_percentage(capsys):
    with pytest.raises(SystemExit):
        play.main(["--volume", "110"])
    assert "must be a number from 0 to 100, got '110'" in capsys.readouterr().err


# Recorded


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


def test_a_session_without_sound_has_no_file_of_it(tmp_path):
    game = Game(playable(CountingEnv()), seed=0)
    game.recorder.start(tmp_path / "session", on_error=lambda _: None)
    game.reset()
    game.step(IDLE)
    game.close()
    session = load_session(tmp_path / "session")
    assert session.sound() is None
    assert Tape(session).view(1).sound is None


# Played


class Mixer:
    """A device of its own time that plays pieces one after another, as pygame's channel does."""

    def __init__(self, rate_hz: float):
        self.rate_hz, self.now = rate_hz, 0.0
        self.ends_at, self.queued = 0.0, None
        self.onsets: list[tuple[float, int]] = []  # when a piece began, and of which call it was
        self.num_calls = 0

    def advance(self, now: float) -> None:
        while self.queued is not None and self.ends_at <= now:
            number, size = self.queued
            self.queued = None
            self.onsets.append((self.ends_at, number))
            self.ends_at += size / self.rate_hz
        self.now = now

    def get_busy(self) -> bool:
        return self.now < self.ends_at

    def get_queue(self):
        return self.queued

    def play(self, sound) -> None:
        self.onsets.append((self.now, self.num_calls))
        self.ends_at = self.now + len(sound.get_raw()) / 2 / self.rate_hz
        self.num_calls += 1

    def queue(self, sound) -> None:
        self.queued = (self.num_calls, len(sound.get_raw()) / 2)
        self.num_calls += 1


@pytest.fixture
def opened_speaker():
    speaker = Speaker(clock=lambda: 0.0)
    speaker.open(20.0)
    yield speaker
    speaker.close()


@pytest.mark.parametrize("device", [0.995, 1.0, 1.005, 1.04], ids="device-x-{}".format)
@pytest.mark.parametrize("late", [0.0, 0.2, 1.0], ids="late-{}".format)
def test_sound_stays_within_a_step_of_the_picture_for_a_minute(opened_speaker, device, late):
    speaker = opened_speaker
    mixer = Mixer(speaker._rate_hz * device)
    speaker._channel = mixer
    times = []
    speaker._clock = lambda: times[-1]
    rng = np.random.default_rng(0)
    now = 0.0
    while now < 65.0:
        times.append(now)
        mixer.advance(now)
        speaker.play(None)
        now += 0.05 + rng.uniform(0.0, 0.004) + (0.03 if rng.random() < late else 0.0)
    behind = np.array([began - times[number] for began, number in mixer.onsets])
    assert behind.min() > -1e-6
    longest = 0.054 if late < 1.0 else max(np.diff(times))  # of steps that are on time
    assert behind.max() <= longest
    assert np.median(behind[-100:]) <= 0.05
    assert speaker.num_dropped < 0.02 * len(times)


def test_steps_that_are_all_late_draw_their_sound_out_instead_of_leaving_gaps(opened_speaker):
    speaker = opened_speaker
    mixer = Mixer(speaker._rate_hz)
    speaker._channel = mixer
    times = [0.0]
    speaker._clock = lambda: times[-1]
    silent = 0.0
    for number in range(200):
        mixer.advance(times[-1])
        if number > 100:
            silent += max(0.0, times[-1] - mixer.ends_at)
        speaker.play(None)
        times.append(times[-1] + 0.075)
    assert silent < 0.02 * 100 * 0.075


@pytest.mark.parametrize("fps", [7.0, 20.0, 60.0])
def test_pieces_are_as_long_as_steps_at_the_mixers_rate(fps):
    speaker = Speaker()
    speaker.open(fps)
    try:
        rate, _, channels = pygame.mixer.get_init()
        assert channels == 1
        speaker._ends_at = 512 / rate
        sound = speaker._to_sound(np.zeros(SAMPLES_PER_STEP), 0.0)
        assert sound.get_length() == pytest.approx(1 / fps, rel=1e-3)
        assert len(sound.get_raw()) // 2 % 256 == 0
        assert 16_000 <= rate < 64_000
    finally:
        speaker.close()
    assert pygame.mixer.get_init() is None


def test_what_is_played_is_the_mix_at_the_volume_that_was_asked_for(opened_speaker, monkeypatch):
    speaker = opened_speaker
    played = []
    monkeypatch.setattr(
        speaker, "_to_sound", lambda samples, _, **__: played.append(samples.copy()) or b""
    )
    speaker._channel = type("C", (), {"get_busy": lambda s: False, "play": lambda s, x: None})()
    sound = np.stack([to_int16(tone(hz, 0.05)) for hz in (300.0, 500.0, 700.0)])
    speaker.play(sound)
    speaker.change_volume(louder=False)
    speaker.change_volume(louder=False)
    assert speaker.words == "volume 80 %"
    speaker.play(sound)
    speaker.toggle_mute()
    assert speaker.words == "sound off"
    speaker.play(sound)
    np.testing.assert_allclose(played[0], mix(sound))
    np.testing.assert_allclose(played[1], 0.8 * mix(sound))
    assert not played[2].any()


def test_without_an_audio_device_the_game_goes_on_and_says_so(monkeypatch):
    monkeypatch.setenv("SDL_AUDIODRIVER", "nowhere")
    speaker = Speaker()
    speaker.open(20.0)
    assert not speaker.is_open
    assert "nothing is heard" in speaker.problem
    speaker.play(np.ones((3, 800), np.int16))
    session = Session(lambda: playable(CountingEnv()), no_inputs(), fps=200, speaker=Speaker())
    session.start()
    wait_for(session, lambda: session.view is not None and session.view.num_steps > 3)
    assert "nothing is heard" in session.message
    session.close()
    assert session.error is None


def no_inputs() -> Inputs:
    pygame.display.init()  # which knows the names of keys
    return Inputs()


def wait_for(session, condition, timeout_s: float = 10.0) -> None:
    end = time.perf_counter() + timeout_s
    while not condition():
        assert session.error is None, session.error
        assert time.perf_counter() < end
        threading.Event().wait(0.005)


class Ear(Speaker):
    """A speaker that notes what it is given."""

    def __init__(self):
        super().__init__()
        self.heard: list[np.ndarray | None] = []

    def open(self, fps: float) -> None:
        self.fps = fps

    def play(self, sound) -> None:
        self.heard.append(sound)


def test_a_session_plays_each_step_once_with_its_picture(hello):
    ear = Ear()
    session = Session(
        open_teacher,
        no_inputs(),
        fps=200,
        voices=LiveVoices(FileVoice(hello)),
        speaker=ear,
    )
    session.start()
    wait_for(session, lambda: session.view is not None and session.view.num_steps >= 30)
    session.close()
    assert session.view is not None
    assert len(ear.heard) == session.view.num_steps
    own = np.stack([sound[0] for sound in ear.heard[:30] if sound is not None])
    np.testing.assert_array_equal(own, sound_of(hello).reshape(-1, SAMPLES_PER_STEP)[:30])


def test_a_replay_plays_the_recorded_sound_at_speed_1_only(spoken_session):
    ear = Ear()
    tape = Tape(spoken_session)
    session = ReplaySession(tape, open_teacher, no_inputs(), speaker=ear)
    for _ in range(2):
        session.change_speed(faster=True)
    for _ in range(2):
        session.change_speed(faster=False)
    session.start()
    wait_for(session, lambda: len(ear.heard) >= 3)
    session.change_speed(faster=True)
    wait_for(session, lambda: session.speed == 2.0)
    number = len(ear.heard)
    wait_for(session, lambda: session.number > number + 3)
    session.close()
    assert len(ear.heard) == number
    for frame, sound in enumerate(ear.heard, start=1):
        np.testing.assert_array_equal(sound, tape.view(frame).sound)


def test_keys_change_how_loud_it_is():
    with playing(CountingEnv()) as (window, session):
        press(pygame.K_MINUS)
        run_until(window, session, lambda: session.speaker.words == "volume 90 %")
        press(pygame.K_m)
        run_until(window, session, lambda: session.speaker.words == "sound off")
        press(pygame.K_EQUALS)
        run_until(window, session, lambda: session.speaker.words == "volume 100 %")
