"""Steps of a recording as training episodes: first counted, then written.

Shapes: T actions and T + 1 frames of an episode, H W of a frame, K keypoints, P pose size.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from midas_world.data.episodes import Episode, EpisodeMetadata
from midas_world.data.recorder import EpisodeRecorder
from midas_world.importing.naming import Namer
from midas_world.importing.recording import Source, placement
from midas_world.importing.sampling import Step, steps_of
from midas_world.teachers.words import PROMPT_BYTES, WordsConditioner

LEAST_STEPS = 8
"""Shorter stretches teach nothing, and are left out."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How a recording becomes episodes.

    Attributes:
        num_steps: T at most; longer stretches become several episodes.
        fit: How a picture of another shape gets that size; see `TeacherConfig`.
    """

    step_s: float
    num_steps: int
    size: tuple[int, int]
    fit: str = "pad"
    text: str = ""


@dataclass
class Survey:
    """What there is in a recording.

    Attributes:
        actions: How often each was done, by its place.
        problems: In words, what is left out, and how often.
    """

    num_frames: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    actions: Counter[int] = field(default_factory=Counter)
    num_rewards: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def num_episodes(self) -> int:
        """Episodes."""
        return self.lengths.total()


def survey(source: Source, namer: Namer, cut: Cut) -> Survey:
    """Return what there is, without looking at a picture."""
    found = Survey()
    steps = steps_of(source, namer, cut.step_s, pixels=False, problems=found.problems)
    for rows in _cut(steps, cut.num_steps, found.problems, keep=lambda step: step):
        found.num_frames += len(rows)
        found.lengths[len(rows) - 1] += 1
        found.actions.update(step.action for step in rows[:-1] if step.action is not None)
        found.num_rewards += sum(step.reward != 0 for step in rows[:-1])
    found.problems += source.problems
    return found


def episodes_of(
    source: Source, namer: Namer, cut: Cut, *, gives_pose: bool, problems: Counter[str]
) -> Iterator[Episode]:
    """Yield the episodes of a recording, one by one, and count what is left out."""
    steps = steps_of(source, namer, cut.step_s, pixels=True, problems=problems)
    look = _Look(namer, cut, gives_pose=gives_pose, num_points=source.num_points)
    for rows in _cut(steps, cut.num_steps, problems, keep=look):
        yield _episode(rows, label=source.label, names=namer.names, step_s=cut.step_s)
    problems += source.problems


Kept = TypeVar("Kept")


def _cut(
    steps: Iterator[Step], num_steps: int, problems: Counter[str], *, keep: Callable[[Step], Kept]
) -> Iterator[list[Kept]]:
    """Yield the rows of each episode, T + 1 of what `keep` makes of a step, as soon as it comes."""
    rows: list[Kept] = []

    def is_enough() -> bool:
        if 0 < len(rows) <= LEAST_STEPS:
            problems[f"frames of stretches below {LEAST_STEPS} steps"] += len(rows)
        return len(rows) > LEAST_STEPS

    for step in steps:
        if step.moment.begins and rows:
            if is_enough():
                yield rows
            rows = []
        is_unknown = step.action is None and not step.is_last
        problems["frames without an action"] += is_unknown
        if is_unknown and not rows:
            continue
        rows.append(keep(step))
        if step.action is None or len(rows) > num_steps:
            if is_enough():
                yield rows
            rows = []
    if is_enough():
        yield rows


@dataclass(frozen=True)
class _Seen:
    """What an episode needs of a step: its frame, and what a teacher's info would tell of it."""

    frame: np.ndarray
    info: dict[str, Any]
    step: Step


class _Look:
    """Makes frames, and what a teacher would tell of them, of steps."""

    def __init__(self, namer: Namer, cut: Cut, *, gives_pose: bool, num_points: int) -> None:
        self._cut = cut
        self._words = WordsConditioner(namer.names, gives_pose=gives_pose)
        self._unknown = np.full((num_points, 2), 0.5) * (cut.size[1], cut.size[0])
        self._points, self._before = self._unknown, 0

    def __call__(self, step: Step) -> _Seen:
        """Return a step as it is shown."""
        moment, size = step.moment, self._cut.size
        assert moment.picture is not None
        if moment.begins:
            self._points, self._before = self._unknown, 0
        text = ", ".join(filter(None, (self._cut.text, moment.text)))
        self._words.set_prompt(text.encode()[:PROMPT_BYTES].decode(errors="ignore"))
        told = self._words.step(self._before)
        info: dict[str, Any] = {"text": told.text, "pose": told.pose}
        if len(self._unknown):
            if moment.points is not None:
                self._points = _moved(moment.points, moment.size, self._cut)
            points = self._points.astype(np.float32)
            pose = (points / (size[1] / 2, size[0] / 2) - 1).astype(np.float32).ravel()
            info |= {"pose": pose, "keypoints": points}
        if moment.pose is not None:
            info["pose"] = moment.pose
        if moment.audio is not None:
            info["audio"] = moment.audio(step.time_s)
        self._before = step.action or 0
        # A film's own picture is large, and not wanted any more.
        kept = replace(step, moment=replace(moment, picture=None))
        return _Seen(moment.picture(size, self._cut.fit), info, kept)


def _moved(points: np.ndarray, size: tuple[int, int], cut: Cut) -> np.ndarray:
    """Return keypoints of a picture where they lie in a frame, (K, 2) px."""
    inner, corner = placement(size, cut.size, cut.fit)
    scale = np.array((inner[1] / size[1], inner[0] / size[0]))
    return points * scale + (corner[1], corner[0])


def _episode(
    rows: Sequence[_Seen], *, label: str, names: tuple[str, ...], step_s: float
) -> Episode:
    first, last = rows[0], rows[-1].step.moment
    recorder = EpisodeRecorder(extra_keys=["keypoints"] if "keypoints" in first.info else [])
    recorder.reset(first.frame, first.info)
    for before, row in pairwise(rows):
        is_last = row is rows[-1]
        ends = is_last and last.terminated, is_last and not last.terminated
        recorder.step(before.step.action, row.frame, before.step.reward, *ends, row.info)
    begins_s = round(first.step.time_s, 3)
    details = {"source": label, "begins_s": begins_s, "action_names": list(names)}
    return recorder.to_episode(
        EpisodeMetadata(env_id="", seed=None, policy="recorded", fps=1 / step_s, details=details)
    )
