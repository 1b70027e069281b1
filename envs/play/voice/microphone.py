"""The player's microphone, as a live voice. Opened only if the player asks for it.

Shape letter: S = 800 samples of one step.
"""

import time
from collections import deque
from typing import Any

import numpy as np

from midas_world.data.sound import SAMPLES_PER_STEP, Resampler, SoundError
from midas_world.packages import needs

# More than this waits only if steps were late: what is older is left out, to be in time again.
_MAX_WAITING = 3 * SAMPLES_PER_STEP
_KEPT_WAITING = SAMPLES_PER_STEP + SAMPLES_PER_STEP // 2
_GONE_S = 2.0  # without any sound, not even silence


class Microphone:
    """What the default microphone hears, mono, at whatever rate it has.

    Raises:
        SoundError: sounddevice or PortAudio is not installed, or there is no microphone, or no
            permission to use it.
    """

    def __init__(self) -> None:
        self.message = ""
        try:
            with needs("a microphone", extra="voice", error=SoundError):
                import sounddevice
        except OSError as error:  # its library is not there
            raise SoundError(
                f"a microphone needs PortAudio ({error}): on Debian and Ubuntu, "
                "apt install libportaudio2"
            ) from error
        self._heard: deque[np.ndarray] = deque()
        self._left = np.zeros(0, np.int16)
        self._heard_at = time.monotonic()
        try:
            self._stream: Any = sounddevice.InputStream(
                channels=1, dtype="int16", callback=self._take
            )
            self._resampler = Resampler(round(self._stream.samplerate))
            self._stream.start()
        except (sounddevice.PortAudioError, ValueError) as error:
            raise SoundError(
                f"no microphone can be opened: {error}. Is one plugged in, and may this program "
                "use it?"
            ) from error
        self.listens = True

    def step(self, *, talks: bool) -> np.ndarray | None:
        """Return the oldest (S,) int16 that waits; silence if none does, None once it is gone."""
        if not self.listens:
            return None
        parts = [self._left]
        while self._heard:
            parts.append(self._resampler.add(self._heard.popleft()))
        waiting = np.concatenate(parts)
        if len(parts) > 1:
            self._heard_at = time.monotonic()
        elif not self._stream.active or time.monotonic() - self._heard_at > _GONE_S:
            self.message = "the microphone is gone: the character speaks by itself again"
            self.close()
            return None
        if waiting.size > _MAX_WAITING:
            waiting = waiting[-_KEPT_WAITING:]
        if waiting.size < SAMPLES_PER_STEP:
            self._left = waiting
            return np.zeros(SAMPLES_PER_STEP, np.int16)
        samples, self._left = np.split(waiting, [SAMPLES_PER_STEP])
        return samples

    def close(self) -> None:
        """Let go of the microphone; may be called twice."""
        if self.listens:
            self.listens = False
            self._stream.close()

    def _take(self, samples: np.ndarray, *_: Any) -> None:
        """Keep what came, (A, 1) int16; called by PortAudio's thread."""
        self._heard.append(samples[:, 0].copy())
