"""The sounds of Stage beside the voices: steps, landing, coin, hit, game over.

Made from sines and noise when they are first needed. When they sound follows from what a step's
info and reward tell, of the teacher and of a learned world alike.

Shape letters: A samples, S = 800 samples of one step.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from envs.stage.skeleton import ANKLE_HEIGHT, GROUND_Y, KEYPOINTS
from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP

EFFECTS = ("step", "landing", "coin", "hit", "game over")

_ANKLES = slice(2 * KEYPOINTS.index("ankle_l"), 2 * KEYPOINTS.index("ankle_r") + 2)
_VELOCITY, _HEIGHT = 31, 32  # places in the pose
_LOWEST_ANKLE = GROUND_Y - ANKLE_HEIGHT - 0.3
_WALKING = 0.1  # of full speed


class EffectTrack:
    """Gives the effects step by step, each to its end over the steps that follow."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start anew: nothing sounds."""
        self._left = np.zeros(0)
        self._feet = np.ones(2, bool)
        self._height = 0.0

    def step(self, info: Mapping[str, Any], reward: float, *, is_over: bool) -> np.ndarray:
        """Return the (800,) float samples of a step."""
        for name in self._begun(info["pose"], float(info.get("cost", 0.0)), reward, is_over):
            self._add(effect(name))
        sound = np.zeros(SAMPLES_PER_STEP)
        now = self._left[:SAMPLES_PER_STEP]
        sound[: now.size] = now
        self._left = self._left[SAMPLES_PER_STEP:]
        return sound

    def _begun(self, pose: np.ndarray, cost: float, reward: float, is_over: bool) -> list[str]:
        ankles = (pose[_ANKLES][1::2] + 1.0) * 96.0
        feet, height = ankles >= _LOWEST_ANKLE, float(pose[_HEIGHT])
        walks = height == 0.0 and abs(pose[_VELOCITY]) > _WALKING
        begun = {
            "step": walks and bool((feet & ~self._feet).any()),
            "landing": height == 0.0 < self._height,
            "coin": reward > 0.5,
            "hit": cost > 0.5 and not is_over,
            "game over": is_over and cost > 0.5,
        }
        self._feet, self._height = feet, height
        return [name for name, begins in begun.items() if begins]

    def _add(self, sound: np.ndarray) -> None:
        size = max(self._left.size, sound.size)
        self._left = np.pad(self._left, (0, size - self._left.size))
        self._left[: sound.size] += sound


@cache
def effect(name: str) -> np.ndarray:
    """Return the (A,) float samples of one of EFFECTS, within [-1, 1]."""
    rng = np.random.default_rng(EFFECTS.index(name))
    if name == "step":
        return 0.35 * _thud(rng, hz=95.0, seconds=0.07)
    if name == "landing":
        return 0.8 * _thud(rng, hz=70.0, seconds=0.16)
    if name == "coin":  # a fourth up, as bells do
        first, second = _bell(988.0, 0.09), _bell(1319.0, 0.45)
        return 0.4 * np.concatenate((first, second))
    if name == "hit":
        return 0.7 * (_slide(420.0, 110.0, 0.3) + 0.5 * _noise(rng, 0.3))
    notes = [_slide(hz, 0.94 * hz, seconds) for hz, seconds in ((392, 0.2), (311, 0.2), (196, 0.6))]
    return 0.7 * np.concatenate(notes)


def _time(seconds: float) -> np.ndarray:
    return np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def _faded(sound: np.ndarray, *, by: float) -> np.ndarray:
    """Return a sound that falls by a factor of e, `by` times over its length, and ends in zero."""
    share = np.linspace(0.0, 1.0, sound.size)
    return sound * np.exp(-by * share) * np.minimum(1.0, 10.0 * (1.0 - share))


def _noise(rng: np.random.Generator, seconds: float) -> np.ndarray:
    return _faded(rng.uniform(-1.0, 1.0, _time(seconds).size), by=6.0)


def _thud(rng: np.random.Generator, *, hz: float, seconds: float) -> np.ndarray:
    body = _faded(np.sin(2 * np.pi * hz * _time(seconds)), by=4.0)
    grit = np.convolve(_noise(rng, seconds), np.full(8, 1 / 8), mode="same")
    return 0.75 * body + 0.25 * grit


def _bell(hz: float, seconds: float) -> np.ndarray:
    time = _time(seconds)
    tone = np.sin(2 * np.pi * hz * time) + 0.3 * np.sin(2 * np.pi * 2.76 * hz * time)
    return _faded(tone / 1.3, by=4.0)


def _slide(start_hz: float, end_hz: float, seconds: float) -> np.ndarray:
    hz = np.geomspace(start_hz, end_hz, _time(seconds).size)
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
    return _faded((np.sin(phase) + np.sin(3 * phase) / 3) / 1.4, by=3.0)
