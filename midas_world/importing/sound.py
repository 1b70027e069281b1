"""The sound of a film, as worlds hear it: the project's own features of each step of 50 ms."""

from pathlib import Path

import numpy as np

from envs.stage.speech import NUM_MELS, features_from_audio
from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, SoundError, read_sound
from midas_world.data.video import import_av
from midas_world.importing.recording import RecordingError

AUDIO_SIZE = 2 * NUM_MELS
"""Of both voices, as in play: the one that is seen, and another's, which is silent here."""

_FULL = 32767.0


class StepSound:
    """A film's sound, read along with its pictures."""

    def __init__(self, path: Path, begin_s: float) -> None:
        with import_av().open(str(path)) as container:
            stream = container.streams.audio[0]
            start = float((stream.start_time or 0) * stream.time_base)
        self._path = path
        self._pieces = read_sound(path)
        self._buffer = np.zeros(0, np.int16)
        self._first = round((start - begin_s) * SAMPLE_RATE_HZ)  # place of the buffer's first

    def features(self, time_s: float) -> np.ndarray:
        """Return the (40,) features of the step that begins at a time; silence where there is none.

        Raises:
            RecordingError: The sound cannot be decoded.
        """
        place = round(time_s * SAMPLE_RATE_HZ)
        end = place + SAMPLES_PER_STEP
        while self._first + len(self._buffer) < end:
            try:
                piece = next(self._pieces, None)
            except SoundError as error:
                raise RecordingError(str(error)) from error
            if piece is None:
                break
            kept = self._buffer[max(0, place - self._first) :]
            self._first = max(self._first, min(place, self._first + len(self._buffer)))
            self._buffer = np.concatenate((kept, piece))
        samples = np.zeros(SAMPLES_PER_STEP, np.int16)
        first = place - self._first
        part = self._buffer[max(0, first) : max(0, first + SAMPLES_PER_STEP)]
        samples[max(0, -first) : max(0, -first) + len(part)] = part
        made = np.zeros(AUDIO_SIZE, np.float32)
        made[:NUM_MELS] = features_from_audio(samples / _FULL, SAMPLE_RATE_HZ)[0]
        return made
