"""The teacher beside a recorded session: it plays the same actions from the same place.

Coins and rocks follow from the teacher's own seed, so they may lie elsewhere than in the world; the
character, the place, the words and the camera are the same.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np

from envs.stage import TEACHER_ID, is_stage
from midas_world.sessions.log import Record
from midas_world.sessions.session import RecordedSession, Segment


def teacher_frames(session: RecordedSession, start: int, stop: int) -> Iterator[np.ndarray]:
    """Yield what the teacher shows at the frames start to stop - 1 of a session.

    Raises:
        ValueError: There is no teacher that can be put where this session's episodes began.
    """
    teacher = session.header.teacher
    # Stage alone can be put there; a header may name anything, of which nothing is made.
    if not is_stage(teacher):
        raise ValueError(
            f"{session.folder} has no teacher to show beside it: it was not played in a learned "
            "world whose teacher can begin where the world does"
        )
    segments = session.segments(stop=stop)
    for segment in segments:
        if segment.frames.stop > start and segment.first.begin.get("teacher_start") is None:
            raise ValueError(
                f"{session.folder} does not tell where the teacher would begin: sessions that "
                "play.py records do"
            )
    return _frames(segments, start, stop)


def _frames(segments: list[Segment], start: int, stop: int) -> Iterator[np.ndarray]:
    env = gymnasium.make(f"envs:{TEACHER_ID}", disable_env_checker=True, horizon=10**9)
    try:
        for segment in segments:
            if segment.frames.stop <= start:
                continue
            twin = _Twin(env.unwrapped, segment.first)
            for number, frame in zip(segment.frames, twin.play(segment), strict=True):
                if start <= number < stop:
                    yield frame
    finally:
        env.close()


class _Twin:
    """A teacher that follows one stretch of a session."""

    def __init__(self, env: Any, first: Record) -> None:
        self._env = env
        self._seed = first.begin.get("seed")
        self._frame = self._put(first.begin["teacher_start"])
        if prompt := first.begin.get("prompt"):
            env.set_prompt(prompt)
        # What was played before recording began, or up to where the player went back to.
        prompts = [(int(after), text) for after, text in first.begin.get("prompts", ())]
        voices = {int(step): heard for step, *heard in first.begin.get("voices", ())}
        for step, action in enumerate(first.begin.get("actions", ())):
            self._take_prompts(prompts, step)
            self._step(action, voices.get(step, (None, None)))
        self._take_prompts(prompts, len(first.begin.get("actions", ())))

    def play(self, segment: Segment) -> Iterator[np.ndarray]:
        """Yield the T + 1 frames of the stretch."""
        yield self._frame
        prompts = [(after, record.text) for after, record in segment.prompts]
        for step, record in enumerate(segment.steps):
            self._take_prompts(prompts, step)
            self._step(record.action, record.heard)
            yield self._frame

    def _take_prompts(self, prompts: list[tuple[int, str | None]], step: int) -> None:
        while prompts and prompts[0][0] <= step:
            self._env.set_prompt(prompts.pop(0)[1])

    def _step(self, action: Any, heard: Sequence[np.ndarray | None]) -> None:
        if any(voice is not None for voice in heard):
            self._env.set_voices(*heard)
        self._frame, _, terminated, truncated, info = self._env.step(action)
        if terminated or truncated:
            # It lost its hearts; the world played on, so it goes on from there with new ones.
            self._frame = self._put(info["conditioner_state"])

    def _put(self, conditioner_state: Any) -> np.ndarray:
        options = {"conditioner_state": conditioner_state, "scene_changes": False}
        frame, _ = self._env.reset(seed=self._seed, options=options)
        return frame
