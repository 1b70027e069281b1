"""The sound of a session: FLAC of three tracks that grows step by step, and AAC in films to share.

Each frame of the film has one FLAC frame of 50 ms, handed out as one piece of bytes, so that
whoever appends whole pieces to a file has sound up to where it was cut off. Lossless, so that what
the world heard follows from it. Silence costs 20 bytes a step, a voice about 700.

Shape letters: N frames of the film, K = 3 tracks, S = 800 samples of one step.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, TRACKS, SoundError, mix
from midas_world.data.video import fault_of, import_av

_FILM_HZ = 48_000  # which every player knows
_FILM_BITS = 96_000
_LAYOUT = "3.0"  # FFmpeg's name of three channels
_STREAM_INFO = b"fLaC\x80\x00\x00\x22"  # one block of metadata, the last, of 34 bytes (RFC 9639)


class SoundWriter:
    """Turns the sound of steps into pieces of a FLAC file, each of them whole at once.

    Raises:
        ImportError: PyAV is not installed.
    """

    def __init__(self) -> None:
        self._av = import_av()
        self._codec = self._av.CodecContext.create("flac", "w")
        self._codec.sample_rate, self._codec.layout = SAMPLE_RATE_HZ, _LAYOUT
        self._codec.format = "s16"
        self._codec.time_base = Fraction(1, SAMPLE_RATE_HZ)
        self._codec.options = {"frame_size": str(SAMPLES_PER_STEP), "compression_level": "5"}
        self._codec.open()
        self._num_steps = 0

    def add(self, sound: np.ndarray, number: int) -> bytes:
        """Encode the sound of a frame of the film; return the file's next bytes.

        Args:
            sound: (K, S) int16.
            number: Of the frame; those since the one before are silent.
        """
        data = b"" if self._num_steps else _STREAM_INFO + bytes(self._codec.extradata)
        for _ in range(number - self._num_steps):
            data += self._encode(np.zeros_like(sound))
        return data + self._encode(sound)

    def _encode(self, sound: np.ndarray) -> bytes:
        packed = np.ascontiguousarray(sound.T).reshape(1, -1)
        frame = self._av.AudioFrame.from_ndarray(packed, format="s16", layout=_LAYOUT)
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, self._num_steps * SAMPLES_PER_STEP
        self._num_steps += 1
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))


class SoundReader:
    """The sound of a session's frames, decoded one by one when it is asked for.

    Args:
        path: Of the file; what is not there, or was cut off, is silent.

    Raises:
        SoundError: The file is no FLAC.
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._av = import_av()
        try:
            with self._av.open(str(path), format="flac") as container:
                self._packets = [bytes(packet) for packet in container.demux(audio=0)]
                self._extradata = container.streams.audio[0].codec_context.extradata
        except (self._av.error.FFmpegError, IndexError) as error:
            raise SoundError(f"{path} cannot be read: {fault_of(error)}") from error

    def step(self, number: int) -> np.ndarray:
        """Return the (K, S) int16 sound of a frame of the film."""
        silent = np.zeros((len(TRACKS), SAMPLES_PER_STEP), np.int16)
        packet = self._packets[number] if number < len(self._packets) else b""
        if not packet:
            return silent
        codec = self._av.CodecContext.create("flac", "r")
        codec.extradata = self._extradata
        try:
            (frame,) = codec.decode(self._av.Packet(packet))
        except (self._av.error.FFmpegError, ValueError):  # the last one of a recording cut off
            return silent
        return frame.to_ndarray().reshape(-1, len(TRACKS)).T


class FilmSound:
    """AAC of the sound of frames, into an MP4; as long as the frames, whatever their rate.

    At another rate than 20 frames a second sound is slower or faster, like the picture.
    """

    def __init__(self, container: Any, *, fps: float) -> None:
        self._av = import_av()
        self._container = container
        self._stream = container.add_stream("aac", rate=_FILM_HZ, layout="mono")
        self._stream.bit_rate = _FILM_BITS
        self._rate_hz = round(fps * SAMPLES_PER_STEP)
        self._num_samples = 0

    def add(self, sound: np.ndarray | None, *, is_last: bool = False) -> None:
        """Encode the int16 (3, 800) sound of a frame, None being silence, or what was held back."""
        if is_last:
            self._container.mux(self._stream.encode(None))
            return
        samples = np.zeros(SAMPLES_PER_STEP, np.int16) if sound is None else mix(sound)
        frame = self._av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = self._rate_hz, self._num_samples
        frame.time_base = Fraction(1, self._rate_hz)
        self._num_samples += SAMPLES_PER_STEP
        self._container.mux(self._stream.encode(frame))
