"""Sound, step by step: 16 kHz, 50 ms to a step, as int16.

Reads audio files of any kind through PyAV, piece by piece, and mixes the tracks of a game. Knows
nothing of what is said, of devices, or of sessions.

Shape letters: K tracks, A samples, S = 800 samples of one step.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from midas_world.data.video import fault_of, import_av
from midas_world.types import MidasWorldError

SAMPLE_RATE_HZ = 16_000
STEPS_PER_SECOND = 20
SAMPLES_PER_STEP = SAMPLE_RATE_HZ // STEPS_PER_SECOND
TRACKS = ("own voice", "other voice", "effects")

_FULL = 32767.0
# The other speaker stands further away.
_GAINS = np.array((0.9, 0.55, 0.5))


class SoundError(MidasWorldError, ValueError):
    """Sound cannot be read, played or taken in; the message says why."""


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Return float samples of any shape, about [-1, 1], as int16."""
    return np.round(np.clip(samples, -1.0, 1.0) * _FULL).astype(np.int16)


def mix(tracks: np.ndarray) -> np.ndarray:
    """Return the tracks of a game, (K, A) int16, as one: (A,) int16."""
    return to_int16(_GAINS @ (tracks / _FULL))


class Resampler:
    """Turns audio that comes in pieces into 16 kHz mono."""

    def __init__(self, rate_hz: int) -> None:
        self._av = import_av()
        self._rate_hz = rate_hz
        self._inner = self._av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Return the next (A,) int16 samples, after some more mono int16 came in."""
        frame = self._av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = self._rate_hz
        return _joined(self._inner.resample(frame))


def read_sound(path: Path) -> Iterator[np.ndarray]:
    """Yield an audio file as 16 kHz mono, in pieces of (A,) int16, however long it is.

    Raises:
        SoundError: There is no such file, it holds no sound, or it cannot be decoded, now or
            further on.
    """
    av = import_av()
    if not path.is_file():
        raise SoundError(f"there is no audio file at {path}")
    num_samples = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise SoundError(f"{path} holds no sound")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
            for frame in container.decode(audio=0):
                piece = _joined(resampler.resample(frame))
                num_samples += piece.size
                yield piece
            yield _joined(resampler.resample(None))
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, SoundError):
            raise
        place = f" after {num_samples / SAMPLE_RATE_HZ:.1f} s" if num_samples else ""
        raise SoundError(f"{path} cannot be read as sound{place}: {fault_of(error)}") from error


def write_opus(path: Path, samples: np.ndarray, *, bits_per_second: int) -> None:
    """Write (A,) int16 at 16 kHz as Opus in Ogg; it is read back sample by sample in place."""
    av = import_av()
    options = {"b": str(bits_per_second), "application": "audio"}
    with av.open(str(path), "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE_HZ, options=options)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _joined(frames: list) -> np.ndarray:
    parts = [frame.to_ndarray()[0] for frame in frames]
    return np.concatenate(parts) if parts else np.zeros(0, np.int16)
