"""What a game sounds like, step by step: the voices and the effects of each frame.

Follows the infos that an environment gives; plays and writes nothing.

Shape letters: K = 3 tracks (own voice, other voice, effects), S = 800 samples of one step.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from envs.stage.effects import EffectTrack
from envs.stage.speech import load_speech_sound
from midas_world.data.sound import SAMPLES_PER_STEP, TRACKS, to_int16

Live = tuple[np.ndarray | None, np.ndarray | None]
"""(S,) int16 of the own and of the other voice where they are live, else None."""


class Soundtrack:
    """The sound of each step of a game whose infos tell who says what; None of any other."""

    def __init__(self) -> None:
        self._effects = EffectTrack()

    def begin(self) -> None:
        """Start anew, from a frame that follows from none."""
        self._effects.begin()

    def step(
        self, info: Mapping[str, Any], reward: float, *, is_over: bool, live: Live = (None, None)
    ) -> np.ndarray | None:
        """Return the (K, S) int16 sound of the frame that a step led to."""
        if not {"spoken", "pose"} <= info.keys():
            return None
        sound = np.zeros((len(TRACKS), SAMPLES_PER_STEP), np.int16)
        for row, (sentence, position) in enumerate(info["spoken"]):
            if (samples := live[row]) is not None:
                sound[row] = samples
            elif sentence >= 0:
                start = position * SAMPLES_PER_STEP
                sound[row] = load_speech_sound()[sentence][start : start + SAMPLES_PER_STEP]
        sound[2] = to_int16(self._effects.step(info, reward, is_over=is_over))
        return sound
