"""The section on gestures: do hands follow the voice, and does who listens nod and look?

Shapes: T steps, K keypoints or other numbers, H W pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.metrics import best_lag, follows
from midas_world.evaluate.probes.pictures import cut
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import EnvFrame, Script
from midas_world.evaluate.study import NotApplicableError, Study
from midas_world.evaluate.voices import LiveTeacher, Moved, Said, Speaker, new_sentences
from midas_world.tables import Cell

_LISTENS = 28  # steps after a sentence, in which a nod plays out and the eyes turn back
_PROBE_WAITS = 20  # steps until somebody speaks, while the probe learns
_STRIP_FRAMES = 8

Reader = Callable[[np.ndarray, Sequence[EnvFrame]], np.ndarray]
"""Reads numbers (T, K) off frames (T, H, W, 3); the teacher's moments say where to look."""


@dataclass(frozen=True, kw_only=True)
class _Follower:
    """What is to follow a voice.

    Attributes:
        first: Steps in which it is not there yet.
        num_moving: How many of the numbers count: those that vary most in the teacher.
        truth: Returns the numbers (K,) of a moment of the teacher.
        is_shown: Whether they are to be seen in a moment of the teacher.
    """

    name: str
    first: int
    num_moving: int
    truth: Callable[[EnvFrame], np.ndarray]
    make_reader: Callable[[Study], Reader]
    is_shown: Callable[[EnvFrame], bool] = lambda _: True

    def moved(self, said: Said, views: Sequence[np.ndarray], read: Reader) -> Moved:
        """Return the numbers in the frames of teacher, world and world in silence."""
        moments = said.moments[-len(said.silent) :]
        steps = [s for s in range(self.first, len(moments)) if self.is_shown(moments[s])]
        moments = [moments[step] for step in steps]
        truth = np.stack([self.truth(moment) for moment in moments])
        quiet = np.zeros_like(truth)
        if said.quiet:
            quiet = np.stack([self.truth(said.quiet[step]) for step in steps])
        own, world, silent = (read(view[steps], moments) for view in views)
        return Moved(teacher=truth, probe=own, world=world, silent=silent, quiet=quiet)


def _heights(moment: EnvFrame) -> np.ndarray:
    return moment.info["keypoints"][:, 1]


def _gaze(moment: EnvFrame) -> np.ndarray:
    return np.array([moment.info["gaze"]])


def _shows_eyes(moment: EnvFrame) -> bool:
    return moment.info["eyes"][2] > 0


def _height_reader(study: Study) -> Reader:
    """Return what reads how high the keypoints are, px."""
    probe = study.probe
    return lambda frames, _: probe(frames)[..., 1]


def _gaze_reader(study: Study) -> Reader:
    """Return what reads how far the eyes are turned, 0 to 1."""
    env = study.make_teacher()
    features = env.get_wrapper_attr("new_sentences")[0][1][: study.config.sentence_steps]
    listens = LiveTeacher(env, "other", features, first=_PROBE_WAITS)
    probe = study.number_probe("gaze", lambda info: info["eyes"], listens, Script([0]))

    def read(frames: np.ndarray, moments: Sequence[EnvFrame]) -> np.ndarray:
        pairs = zip(frames, moments, strict=True)
        return probe(np.stack([cut(f[None], m.info["eyes"])[0] for f, m in pairs]))[:, None]

    return read


_GESTURES = _Follower(
    name="gestures", first=6, num_moving=2, truth=_heights, make_reader=_height_reader
)
_NODS = _Follower(name="nods", first=6, num_moving=1, truth=_heights, make_reader=_height_reader)
_LOOKS = _Follower(
    name="looks",
    first=0,
    num_moving=1,
    truth=_gaze,
    make_reader=_gaze_reader,
    is_shown=_shows_eyes,
)
_FOLLOWERS: dict[Speaker, tuple[_Follower, ...]] = {"own": (_GESTURES,), "other": (_NODS, _LOOKS)}


def gestures_section(study: Study) -> Section:
    """Measure hands that follow the character's voice, nods and looks that follow another's.

    Raises:
        NotApplicableError: The teacher has no new sentences, or gives no keypoints or gaze.
    """
    table: list[tuple[Cell, ...]] = []
    values: dict[str, float] = {}
    pictures = []
    for speaker, followers in _FOLLOWERS.items():
        steps = study.config.sentence_steps + (_LISTENS if speaker == "other" else 0)
        said = new_sentences(study, speaker, num_steps=steps)
        if not said:
            raise NotApplicableError("the teacher has no new sentences")
        readers = [follower.make_reader(study) for follower in followers]
        env = study.make_endless_world(steps, action="conditions")
        moved: list[list[Moved]] = [[] for _ in followers]
        for number, item in enumerate(tqdm(said, desc=speaker, mininterval=5.0)):
            views = item.frames(env)
            if not number:
                rows = np.linspace(followers[0].first, steps - 1, _STRIP_FRAMES).astype(int)
                name = f"{followers[0].name}-strip.png"
                pictures.append(study.save_strip(name, [list(view[rows]) for view in views]))
            for found, follower, read in zip(moved, followers, readers, strict=True):
                found.append(follower.moved(item, views, read))
        for found, follower in zip(moved, followers, strict=True):
            row = summarise(found, follower.num_moving)
            table.append((follower.name, len(found), *row))
            names = ("correlation", "slope", "lag", "control", "probe_correlation", "probe_slope")
            values |= {f"{follower.name}_{key}": n for key, n in zip(names, row, strict=True)}
    return Section(
        title="Gestures and listening",
        method=(
            f"{study.config.num_new_sentences} sentences that no world has heard, "
            f"{study.config.sentence_steps} steps of each, said by the character, and then by the "
            "other speaker while it does nothing. A probe that learned from the teacher's frames "
            "reads how high those keypoints are that move most up and down in the teacher: two "
            "while it talks, the hands; one while it listens, the head. Another one reads off the "
            "eyes of the portrait, while the teacher shows it, how far they are turned to the "
            "speaker: by two pixels. Against the teacher's own: correlation, slope, and the lag in "
            "steps at which the correlation is largest; the probes' own on the teacher's frames "
            "stand beside them. Control: the world when it is told what it is told in silence, its "
            "pose too, for sound moves the pose, less what the teacher does then, against what "
            "the voice adds in the teacher. So this says whether the world shows the pose; "
            "that the pose follows the sound, both have from the same code. Strips: teacher, "
            "world, world in silence."
        ),
        values=values,
        tables=(
            Table(
                columns=(
                    *("what", "sentences", "correlation", "slope", "lag", "control"),
                    *("probe's correlation", "probe's slope"),
                ),
                rows=table,
            ),
        ),
        pictures=pictures,
    )


def summarise(moved: list[Moved], num_moving: int) -> tuple[float, ...]:
    """Return correlation, slope, lag, control, and the probe's own correlation and slope.

    The control is of what a voice adds to the teacher's silence: a body breathes without one.
    """
    travel = np.concatenate([item.teacher for item in moved]).std(axis=0)
    moving = np.argsort(travel)[-num_moving:]

    def parts(*names: str) -> list[np.ndarray]:
        """Return a sequence for each sentence and keypoint, about its mean; less a second one."""
        found = [getattr(item, names[0])[:, moving] for item in moved]
        for name in names[1:]:
            less = (getattr(item, name)[:, moving] for item in moved)
            found = [one - other for one, other in zip(found, less, strict=True)]
        middle = np.concatenate(found).mean(axis=0)
        return [column for item in found for column in (item - middle).T]

    real = np.concatenate(parts("teacher"))
    correlation, slope = follows(np.concatenate(parts("world")), real)
    own, own_slope = follows(np.concatenate(parts("probe")), real)
    moves = np.concatenate(parts("teacher", "quiet"))
    control, _ = follows(np.concatenate(parts("silent", "quiet")), moves)
    lag = best_lag(parts("world"), parts("teacher"))
    return correlation, slope, lag, control, own, own_slope
