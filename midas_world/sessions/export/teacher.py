"""The teacher beside a recorded session: it plays the same actions from the same place.

Coins and rocks follow from the teacher's own seed, so they may lie elsewhere than in the world; the
character, the place, the words and the camera are the same.
"""

from collections.abc import Iterator
from contextlib import closing

import numpy as np

from envs.stage import is_stage
from envs.stage.env import SCALES, StageEnv
from envs.stage.picture import FRAME_HEIGHT
from envs.stage.twin import StageTwin
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
    return _frames(session, segments, start, stop)


def _frames(
    session: RecordedSession, segments: list[Segment], start: int, stop: int
) -> Iterator[np.ndarray]:
    scale = session.header.frame_size[0] / FRAME_HEIGHT
    with closing(StageEnv(horizon=10**9, scale=scale if scale in SCALES else 1)) as env:
        twin = StageTwin(env)
        for segment in segments:
            if segment.frames.stop <= start:
                continue
            begin = segment.first.begin
            twin.put(begin["teacher_start"], seed=begin.get("seed"), prompt=begin.get("prompt"))
            # What was played before recording began, or up to where the player went back to.
            for turn in segment.first.turns_before():
                twin.play(turn)
            for number, turn in zip(segment.frames, segment.turns(), strict=True):
                if start <= number < stop:
                    yield twin.frame
                twin.play(turn)
