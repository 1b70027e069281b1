"""The microphone, by a stand-in for sounddevice: what it hears, and everything that can fail."""

import sys
import types

import numpy as np
import pytest

import play
from envs.play.game.game import Game
from envs.play.game.opening import open_teacher
from envs.play.voice.microphone import Microphone
from envs.play.voice.voices import LiveVoices
from envs.stage.controller import ACTIONS
from midas_world.data.sound import SAMPLES_PER_STEP, SoundError, to_int16
from tests.fakes import CountingEnv
from tests.test_sound import loudest_hz, tone
from tests.windows import playing, run_until, words_shown


class FakeStream:
    def __init__(self, *, channels, dtype, callback):
        assert (channels, dtype) == (1, "int16")
        self.samplerate = 48_000.0
        self.active = False
        self.is_closed = False
        self.hear = lambda samples: callback(samples[:, None], len(samples), None, None)
        FakeStream.last = self

    def start(self):
        self.active = True

    def close(self):
        self.active, self.is_closed = False, True


@pytest.fixture
def sounddevice(monkeypatch):
    module = types.ModuleType("sounddevice")
    module.PortAudioError = type("PortAudioError", (Exception,), {})
    module.InputStream = FakeStream
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    return module


def test_what_it_hears_comes_step_by_step_at_our_rate(sounddevice):
    microphone = Microphone()
    assert microphone.listens
    assert not microphone.step(talks=False).any()  # nothing has come yet
    for piece in np.split(to_int16(tone(440.0, 0.1, 48_000)), 5):
        FakeStream.last.hear(piece)
    first = microphone.step(talks=False)
    assert first.shape == (SAMPLES_PER_STEP,)
    assert loudest_hz(first) == pytest.approx(440.0, abs=25.0)
    microphone.close()
    microphone.close()
    assert FakeStream.last.is_closed


def test_late_steps_leave_out_what_is_old(sounddevice):
    microphone = Microphone()
    FakeStream.last.hear(to_int16(tone(300.0, 1.0, 48_000)))
    FakeStream.last.hear(to_int16(tone(2000.0, 0.1, 48_000)))
    assert loudest_hz(microphone.step(talks=False)) == pytest.approx(2000.0, abs=25.0)
    microphone.close()


def test_a_microphone_that_vanishes_is_told_and_the_game_goes_on(sounddevice):
    voices = LiveVoices(Microphone())
    game = Game(open_teacher(), seed=0, voices=voices)
    game.reset()
    FakeStream.last.hear(to_int16(tone(300.0, 0.5, 48_000)))
    assert game.step(0).action_name == "talk"
    FakeStream.last.active = False
    for _ in range(12):
        view = game.step(0)
    assert voices.take_message() == "the microphone is gone: the character speaks by itself again"
    assert not voices.listens
    assert view.action_name == "idle"
    view = game.step(ACTIONS.index("talk"))
    assert view.sound[0].any()  # of the bank
    game.close()


@pytest.mark.parametrize("how", [["--headless"], []], ids=["headless", "window"])
def test_without_sounddevice_the_extra_is_named(monkeypatch, capsys, how):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert play.main([*how, "--teacher", "--microphone"]) == 2
    assert "pip install 'midas-world[voice]'" in capsys.readouterr().err


def test_without_portaudio_its_package_is_named(monkeypatch):
    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(SoundError, match=r"PortAudio library not found.*libportaudio2"):
        Microphone()


def test_without_a_device_or_permission_it_says_so(sounddevice):
    def refuse(**_):
        raise sounddevice.PortAudioError("Error querying device -1")

    sounddevice.InputStream = refuse
    with pytest.raises(SoundError, match="no microphone can be opened: Error querying device -1"):
        Microphone()


def test_the_window_shows_that_a_microphone_is_open(sounddevice, monkeypatch):
    said = words_shown(monkeypatch)
    with playing(CountingEnv()) as (window, session):
        run_until(window, session, lambda: session.view.num_steps > 3)
        assert "the microphone is open" not in said
        session.voices = LiveVoices(Microphone())
        run_until(window, session, lambda: "the microphone is open" in said)
        assert window.layout.rects["microphone"].left < 20
        session.voices.close()
