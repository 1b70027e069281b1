"""For tests of voices: a file to say, an ear, and how like and how late sounds are."""

from pathlib import Path

import numpy as np

from envs.play.voice.speaker import Speaker
from envs.stage.speech import load_speech_sound
from midas_world.data.sound import SAMPLE_RATE_HZ, read_sound
from tests.test_sound import write_sound


def write_hello(folder: Path) -> Path:
    """Write a file of 2 s: a sentence of the bank after 0.3 s of silence, at 44.1 kHz."""
    sentence = load_speech_sound()[0] / 32768
    samples = np.concatenate((np.zeros(4800), sentence))[: 2 * SAMPLE_RATE_HZ]
    samples = np.pad(samples, (0, 2 * SAMPLE_RATE_HZ - samples.size))
    places = np.arange(2 * 44_100) * (SAMPLE_RATE_HZ / 44_100)
    louder = np.interp(places, np.arange(samples.size), samples)
    return write_sound(folder / "hello.wav", louder, 44_100)


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


class Ear(Speaker):
    """A speaker that notes what it is given."""

    def __init__(self):
        super().__init__()
        self.heard: list[np.ndarray | None] = []

    def open(self, fps: float) -> None:
        self.fps = fps

    def play(self, sound) -> None:
        self.heard.append(sound)
