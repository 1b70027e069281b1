"""The sound of a session: FLAC of three tracks that grows step by step beside the film.

Each frame of the film has one FLAC frame of 50 ms, handed out as one piece of bytes, so that
whoever appends whole pieces to a file has sound up to where it was cut off. Lossless, so that what
the world heard follows from it. Silence costs 20 bytes a step, a voice about 700.

Shape letters: N frames of the film, K = 3 tracks, S = 800 samples of one step.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np

from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, TRACKS, SoundError
from midas_world.data.video import import_av

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

    def add(self, sound: np.ndarray) -> bytes:
        """Encode the (K, S) int16 sound of the next step; return the file's next bytes."""
        packed = np.ascontiguousarray(sound.T).reshape(1, -1)
        frame = self._av.AudioFrame.from_ndarray(packed, format="s16", layout=_LAYOUT)
        frame.sample_rate, frame.pts = SAMPLE_RATE_HZ, self._num_steps * SAMPLES_PER_STEP
        begin = b"" if self._num_steps else _STREAM_INFO + bytes(self._codec.extradata)
        self._num_steps += 1
        return begin + b"".join(bytes(packet) for packet in self._codec.encode(frame))


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
            raise SoundError(f"{path} cannot be read: {error}") from error

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
