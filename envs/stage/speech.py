"""Speech as the world hears it: log-mel features, one vector per step of 50 ms.

The shipped bank holds the features of some sentences in several languages, and beside it lies their
sound; both are made by `python -m examples.make_speech`. A `SpeechTrack` plays sentences of a
bank. Users' own audio goes through `features_from_audio`. Every step's vector depends on that
step's samples only, so live audio can be fed step by step. Drawing and the choice of who speaks
when are left to others.

S is the number of steps of a sentence, A of samples.
"""

import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import safe_open

from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, SoundError, read_sound

NUM_MELS = 20
BANK_PATH = Path(__file__).with_name("speech_bank.safetensors")
SOUND_PATH = BANK_PATH.with_suffix(".ogg")
NOTHING = (-1, 0)

_WINDOW = 400
_HOP = 100
_FFT_SIZE = 512
_LOWEST_HZ = 80.0
_HIGHEST_HZ = 7600.0
# Power of a mel band, in dB, that becomes 0 and 1. Speech at normal level stays within.
_SILENCE_DB = -60.0
_LOUD_DB = 0.0


@dataclass(frozen=True)
class SpeechBank:
    """Features of many sentences.

    Attributes:
        sentences: One (S, 20) float32 array in [0, 1] per sentence.
        languages: One language code per sentence.
        num_taught: How many of them, from the first on, voices choose from by themselves: worlds
            learn from these, and no world has heard the others.
    """

    sentences: tuple[np.ndarray, ...]
    languages: tuple[str, ...]
    num_taught: int

    def __len__(self) -> int:
        return len(self.sentences)


@lru_cache(maxsize=4)
def load_speech_bank(path: Path = BANK_PATH) -> SpeechBank:
    """Return the speech bank stored at `path`; the shipped one by default.

    Raises:
        FileNotFoundError: There is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no speech bank at {path}; `python -m examples.make_speech`")
    with safe_open(path, framework="numpy") as bank:
        features = bank.get_tensor("features").astype(np.float32)
        lengths = bank.get_tensor("lengths")
        metadata = bank.metadata()
    sentences = np.split(features, np.cumsum(lengths)[:-1])
    for sentence in sentences:
        sentence.flags.writeable = False
    languages = tuple(metadata["languages"].split(","))
    return SpeechBank(tuple(sentences), languages, int(metadata["num_taught"]))


@lru_cache(maxsize=1)
def load_speech_sound() -> tuple[np.ndarray, ...]:
    """Return the sound of each sentence of the shipped bank: (800 S,) int16, not to be changed.

    `features_from_audio` of it is the bank's features but for what Opus takes away: 0.01 in the
    mean, 0.2 at most.

    Raises:
        SoundError: The file cannot be decoded.
    """
    samples = np.concatenate(list(read_sound(SOUND_PATH)))
    lengths = [len(sentence) * SAMPLES_PER_STEP for sentence in load_speech_bank().sentences]
    sound = np.split(samples, np.cumsum(lengths)[:-1])
    for part in sound:
        part.flags.writeable = False
    return tuple(sound)


class SpeechTrack:
    """Plays sentences of a bank, one vector per step; its whole state is two integers.

    Attributes:
        bank: Where the sentences come from.
        sentence: The sentence being played; -1 is none.
        position: The step of the sentence that comes next; below 0 it waits in silence.
        said: Sentence and its step that the last `step` gave; NOTHING in silence.
    """

    def __init__(self, bank: SpeechBank) -> None:
        self.bank = bank
        self.sentence = -1
        self.position = 0
        self.said = NOTHING

    @property
    def is_speaking(self) -> bool:
        """Whether the next step is one of the sentence's."""
        return self.position >= 0 and not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to wait for or to play."""
        return self.sentence < 0 or self.position >= len(self.bank.sentences[self.sentence])

    def play(self, sentence: int, position: int = 0) -> None:
        """Set the track to `position` steps into a sentence, or that many steps before it.

        Args:
            sentence: Which one of the bank; -1 is silence.
            position: Steps into the sentence; below 0, steps of silence before it.

        Raises:
            ValueError: The bank has no such sentence.
        """
        if not -1 <= sentence < len(self.bank):
            raise ValueError(f"sentence must be -1 to {len(self.bank) - 1}, got {sentence}")
        self.sentence = sentence
        self.position = position

    def stop(self) -> None:
        """Set the track to silence."""
        self.play(-1)

    def step(self) -> np.ndarray:
        """Advance the track by one step and return its (20,) float32 vector; zeros when silent."""
        speaks = self.is_speaking
        self.said = (self.sentence, self.position) if speaks else NOTHING
        if not self.is_over:
            self.position += 1
        if not speaks:
            return np.zeros(NUM_MELS, np.float32)
        return self.bank.sentences[self.sentence][self.position - 1]

    def state(self) -> np.ndarray:
        """Return (sentence, position) as (2,) int64."""
        return np.array([self.sentence, self.position], np.int64)

    def load_state(self, state: np.ndarray) -> None:
        """Set the track to what `state()` gave."""
        self.play(int(state[0]), int(state[1]))


def loudness(vector: np.ndarray) -> float:
    """Return how loud a (20,) feature vector is, 0 (silence) to 1."""
    # Voiced speech lives in the lower bands; hiss alone opens no mouth.
    return float(vector[:12].mean())


def features_from_audio(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return log-mel features of mono audio, one row per 50 ms; silence is 0.

    Args:
        samples: (A,) float, about [-1, 1], A >= 1; the last step is filled up with silence.
        sample_rate_hz: Samples per second of `samples`; resampled to 16 kHz when it differs.

    Returns:
        (S, 20) float32 in [0, 1].

    Raises:
        ValueError: samples is not one-dimensional or empty, or the rate is not positive.
    """
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"samples must be mono audio of shape (A,), got shape {samples.shape}")
    if sample_rate_hz <= 0:
        raise ValueError(f"sample_rate_hz must be positive, got {sample_rate_hz}")
    samples = resample(samples, sample_rate_hz)
    num_steps = max(1, -(-samples.size // SAMPLES_PER_STEP))
    samples = np.pad(samples, (0, num_steps * SAMPLES_PER_STEP - samples.size))
    steps = samples.reshape(num_steps, SAMPLES_PER_STEP)
    windows = np.lib.stride_tricks.sliding_window_view(steps, _WINDOW, axis=1)[:, ::_HOP]
    spectrum = np.fft.rfft(windows * np.hanning(_WINDOW), _FFT_SIZE)  # (S, windows, bins)
    power = (np.abs(spectrum) ** 2).mean(axis=1) / _WINDOW
    decibels = 10.0 * np.log10(power @ _mel_filters().T + 1e-12)
    scaled = (decibels - _SILENCE_DB) / (_LOUD_DB - _SILENCE_DB)
    return np.clip(scaled, 0.0, 1.0).astype(np.float32)


def by_program(text: str, voice: str) -> tuple[np.ndarray, int] | None:
    """Return (A,) int16 of a text that espeak-ng says, and its rate; None where it is not here.

    Raises:
        SoundError: It cannot say it in this voice, such as "de+f2".
    """
    if (program := shutil.which("espeak-ng")) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.wav"
        command = [program, "-v", voice, "-w", str(path), "--stdin"]
        done = subprocess.run(command, check=False, capture_output=True, input=text.encode())  # noqa: S603 - fixed program
        if done.returncode or not path.is_file():
            words = done.stderr.decode(errors="replace").strip() or "it failed"
            raise SoundError(f"espeak-ng cannot say it as {voice.partition('+')[0]!r}: {words}")
        with wave.open(str(path), "rb") as audio:
            return np.frombuffer(audio.readframes(audio.getnframes()), "<i2"), audio.getframerate()


def resample(samples: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """Return (A,) float samples at 16 kHz, band-limited, by cutting or padding their spectrum."""
    if sample_rate_hz == SAMPLE_RATE_HZ:
        return samples
    size = max(1, round(samples.size * SAMPLE_RATE_HZ / sample_rate_hz))
    spectrum = np.fft.rfft(samples)
    return np.fft.irfft(spectrum[: size // 2 + 1], size) * (size / samples.size)


@lru_cache(maxsize=1)
def _mel_filters() -> np.ndarray:
    """Return triangular filters on the mel scale (O'Shaughnessy 1987), each with sum 1."""

    def to_mel(hz: float) -> float:
        return 2595.0 * np.log10(1.0 + hz / 700.0)

    mels = np.linspace(to_mel(_LOWEST_HZ), to_mel(_HIGHEST_HZ), NUM_MELS + 2)
    corners = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    bins = np.fft.rfftfreq(_FFT_SIZE, 1.0 / SAMPLE_RATE_HZ)
    left, centre, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    return filters / filters.sum(axis=1, keepdims=True)
