"""What the loudspeaker plays: in time with the picture, as loud as was asked for."""

import time

import numpy as np
import pygame
import pytest

from envs.play.game.opening import open_teacher
from envs.play.voice.speaker import Speaker
from envs.play.voice.voices import FileVoice, LiveVoices
from midas_world.data.sound import SAMPLES_PER_STEP, mix, to_int16
from tests.fakes import CountingEnv
from tests.test_sound import tone
from tests.voices import Ear, sound_of
from tests.windows import in_window, playable, playing, press, press_until, run_until, start


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
def opened():
    """Yield an open speaker and the device that it plays on."""
    speaker = Speaker()
    speaker._clock = lambda: 0.0
    speaker.open(20.0)
    speaker._channel = Mixer(speaker._rate_hz)
    yield speaker, speaker._channel
    speaker.close()


@pytest.mark.parametrize("device", [0.995, 1.0, 1.005, 1.04], ids="device-x-{}".format)
@pytest.mark.parametrize("late", [0.0, 0.2, 1.0], ids="late-{}".format)
def test_sound_stays_within_a_step_of_the_picture_for_a_minute(opened, device, late):
    speaker, mixer = opened
    mixer.rate_hz *= device
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
    assert len(mixer.onsets) > 0.98 * len(times)


def test_steps_that_are_all_late_draw_their_sound_out_instead_of_leaving_gaps(opened):
    speaker, mixer = opened
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


def test_what_is_played_is_the_mix_at_the_volume_that_was_asked_for(opened, monkeypatch):
    speaker, mixer = opened
    played = []
    note = lambda samples, *_, **__: played.append(samples.copy())  # noqa: E731
    monkeypatch.setattr(speaker, "_to_sound", note)
    monkeypatch.setattr(mixer, "play", lambda _: None)
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
    assert "nothing is heard" in speaker.problem
    speaker.play(np.ones((3, 800), np.int16))
    with in_window(lambda: playable(CountingEnv()), fps=200, speaker=speaker) as (window, session):
        start(window, session)
        run_until(window, session, lambda: session.view.num_steps > 3)
        assert "nothing is heard" in window.overlays.message


def test_a_session_plays_each_step_once_with_its_picture(hello):
    ear, voices = Ear(), LiveVoices(FileVoice(hello))
    with in_window(open_teacher, fps=200, voices=voices, speaker=ear) as (window, session):
        start(window, session)
        run_until(window, session, lambda: session.view.num_steps >= 30)
    assert len(ear.heard) == session.view.num_steps
    own = np.stack([sound[0] for sound in ear.heard[:30] if sound is not None])
    np.testing.assert_array_equal(own, sound_of(hello).reshape(-1, SAMPLES_PER_STEP)[:30])


def test_keys_change_how_loud_it_is():
    with playing(CountingEnv()) as (window, session):
        press_until(window, session, pygame.K_MINUS, lambda: session.speaker.words == "volume 90 %")
        press_until(window, session, pygame.K_m, lambda: session.speaker.words == "sound off")
        press(pygame.K_EQUALS)
        run_until(window, session, lambda: session.speaker.words == "volume 100 %")


def test_what_a_device_gets_is_what_was_said_step_by_step(tmp_path, monkeypatch):
    """A loopback: SDL's device that is a file."""
    path = tmp_path / "heard.raw"
    monkeypatch.setenv("SDL_AUDIODRIVER", "disk")
    monkeypatch.setenv("SDL_DISKAUDIOFILE", str(path))
    monkeypatch.setenv("SDL_DISKAUDIODELAY", "10")
    speaker = Speaker()
    speaker.open(20.0)
    assert not speaker.problem
    rate, num_steps = speaker._rate_hz, 24
    spoken = np.zeros((num_steps, 3, SAMPLES_PER_STEP), np.int16)
    spoken[::4, 0] = to_int16(tone(400.0, 0.05))
    end = time.perf_counter() + 20.0
    for number, sound in enumerate(spoken):
        speaker._clock = lambda now=0.05 * number: now  # steps are on time
        while speaker._channel.get_queue() is not None:
            assert time.perf_counter() < end
            time.sleep(0.002)
        speaker.play(sound)
    while speaker._channel.get_busy():
        time.sleep(0.01)
    speaker.close()
    heard = np.fromfile(path, np.int16).astype(float)
    loud = np.flatnonzero(np.abs(heard) > 3000) / rate
    onsets = loud[np.diff(loud, prepend=-1.0) > 0.1]
    assert len(onsets) == num_steps // 4
    # In the device's own time, a step is 50 ms; what this test itself is late by leaves a gap.
    assert np.median(np.diff(onsets)) == pytest.approx(0.2, abs=0.02)
    first = heard[round(onsets[0] * rate) :][: rate // 25]
    spectrum = np.abs(np.fft.rfft(first * np.hanning(first.size)))
    assert spectrum.argmax() * rate / first.size == pytest.approx(400.0, abs=30.0)


def test_a_device_that_stands_still_holds_up_no_step(opened):
    """As one that was unplugged: nothing waits for it, and nothing piles up."""
    speaker, mixer = opened
    for number in range(100):
        speaker._clock = lambda now=0.05 * number: now
        speaker.play(None)
    assert (mixer.num_calls, len(mixer.onsets)) == (100, 1)
