"""Plays the sound of a game, step by step, through pygame's mixer.

Sound is pulled along by the steps: each brings its own 50 ms, which is heard as soon as what came
before it has been. So sound is at most a step behind the picture, however long the game runs and
however late steps are; what a late step leaves silent is made up for by none.

Shape letters: K tracks, S = 800 samples of one step.
"""

import time
from collections import deque

import numpy as np
import pygame

from midas_world.data.sound import SAMPLES_PER_STEP, mix

# The mixer goes on to the next piece between two of its buffers only: a step is made of whole ones.
_BUFFER = 256
_BUFFERS_PER_STEP = 4
_LOWEST_RATE_HZ = 16_000
# What is to be left of a step's sound when the next one comes: so late may it be without a gap.
_CUSHION = 2 * _BUFFER
_SLOWEST = 2  # times the length of a step, to which late steps draw out their sound
_NUM_INTERVALS = 9
_VOLUME_STEP = 0.1


class Speaker:
    """Where a game's sound goes; silent where there is no device.

    Attributes:
        volume: From 0 to 1.
        problem: Why nothing is heard, in words; empty if all is well.
    """

    def __init__(self, *, volume: float = 1.0, is_muted: bool = False) -> None:
        self.problem = ""
        self.volume, self._is_muted = volume, is_muted
        self._clock = time.perf_counter
        self._channel: pygame.mixer.Channel | None = None
        self._step_s = 0.0
        self._intervals: deque[float] = deque(maxlen=_NUM_INTERVALS)
        self._last_at: float | None = None
        self._last_sample = 0.0
        self._ends_at = 0.0

    def open(self, fps: float) -> None:
        """Open the device for steps at a rate, or say in `problem` why that cannot be."""
        self.close()
        self._step_s = 1.0 / fps
        self._last_at = None
        self._intervals.clear()
        step = _BUFFER * _BUFFERS_PER_STEP
        num_steps = max(1, -(-_LOWEST_RATE_HZ // round(step * fps)))
        self._rate_hz = round(step * num_steps * fps)
        try:
            pygame.mixer.init(self._rate_hz, -16, 1, _BUFFER, allowedchanges=0)
            self._channel = pygame.mixer.Channel(0)
        except pygame.error as error:
            self.problem = f"nothing is heard: {error}"

    @property
    def words(self) -> str:
        """How loud it is, in words."""
        return "sound off" if self._is_muted else f"volume {round(100 * self.volume)} %"

    def toggle_mute(self) -> None:
        """Fall silent, or be heard again."""
        self._is_muted = not self._is_muted

    def change_volume(self, *, louder: bool) -> None:
        """Be a tenth louder or quieter, and be heard."""
        change = _VOLUME_STEP if louder else -_VOLUME_STEP
        self.volume = round(min(1.0, max(0.0, self.volume + change)), 1)
        self._is_muted = False

    def play(self, sound: np.ndarray | None) -> None:
        """Let the (K, S) int16 sound of a step be heard as soon as can be; None is silence."""
        if self._channel is None:
            return
        now = self._clock()
        self._pace(now)
        samples = np.zeros(SAMPLES_PER_STEP) if sound is None else mix(sound).astype(np.float64)
        if self._is_muted:
            samples[:] = 0.0
        samples *= self.volume
        if not self._channel.get_busy():
            self._last_sample = 0.0
            self._ends_at = now + _CUSHION / self._rate_hz
            self._channel.play(self._to_sound(samples, now, cushion=_CUSHION))
            return
        if self._channel.get_queue() is not None:  # which the next one takes the place of
            self._ends_at = now + self._step_s
        self._channel.queue(self._to_sound(samples, now))

    def close(self) -> None:
        """Let go of the device; may be called twice."""
        if self._channel is not None:
            self._channel = None
            pygame.mixer.quit()

    def _pace(self, now: float) -> None:
        """Follow how long steps take; a pause is none."""
        if self._last_at is not None and now - self._last_at < 2.0 * _SLOWEST * self._step_s:
            self._intervals.append(now - self._last_at)
        self._last_at = now

    def _to_sound(self, samples: np.ndarray, now: float, *, cushion: int = 0) -> pygame.mixer.Sound:
        """Return samples at the mixer's rate, to be heard until shortly after the next step comes.

        That is as long as a step, unless steps are late all the time or it has piled up.
        """
        usual = round(self._step_s * self._rate_hz / _BUFFER)
        left_s = max(0.0, self._ends_at - now)
        # The median: single late steps leave a gap, and put off no later sound.
        interval_s = float(np.median(self._intervals)) if self._intervals else self._step_s
        missing_s = _CUSHION / self._rate_hz + interval_s - left_s - self._step_s
        # Less than a buffer counts for nothing: steps are never quite even.
        longer = int(missing_s * self._rate_hz / _BUFFER)
        size = _BUFFER * min(max(usual + longer, usual - usual // 4), _SLOWEST * usual)
        self._ends_at = now + left_s + size / self._rate_hz
        places = np.arange(1, size + 1) * (SAMPLES_PER_STEP / size)
        # From the last sample of the piece before, so that pieces join without a click.
        drawn = np.interp(places, np.arange(SAMPLES_PER_STEP + 1), [self._last_sample, *samples])
        self._last_sample = float(samples[-1])
        return pygame.mixer.Sound(buffer=np.pad(drawn, (cushion, 0)).astype(np.int16).tobytes())
