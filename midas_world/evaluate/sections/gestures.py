"""The section on gestures: do hands follow the voice, and does who listens nod at its pauses?

Shapes: T steps, K keypoints, H W pixels.
"""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.metrics import best_lag, follows
from midas_world.evaluate.probes.keypoints import Probe
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.study import NotApplicableError, Study
from midas_world.evaluate.voices import Said, Speaker, new_sentences
from midas_world.tables import Cell
from midas_world.train.strips import save_strip

_FIRST = 6  # steps in which the arms leave where they were
_LISTENS = 20  # steps after a sentence, in which a nod plays out
_NUM_MOVING: dict[Speaker, int] = {"own": 2, "other": 1}  # keypoints: two hands, one head
_STRIP_FRAMES = 8
_SPEAKERS: dict[str, Speaker] = {"gestures": "own", "nods": "other"}


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How high the keypoints were at each step of a sentence, (T, K) px.

    Attributes:
        teacher: As drawn by the teacher.
        probe: The probe's reading of the teacher's frames.
        world: Its reading of the world's.
        silent: Its reading of the world's when it was told what it is told in silence.
    """

    teacher: np.ndarray
    probe: np.ndarray
    world: np.ndarray
    silent: np.ndarray


def gestures_section(study: Study) -> Section:
    """Measure hands that follow the character's voice, and nods that follow another's.

    Raises:
        NotApplicableError: The teacher has no new sentences, or gives no keypoints.
    """
    table: list[tuple[Cell, ...]] = []
    values: dict[str, float] = {}
    pictures = []
    for name, speaker in _SPEAKERS.items():
        steps = study.config.sentence_steps + (_LISTENS if speaker == "other" else 0)
        said = new_sentences(study, speaker, num_steps=steps)
        if not said:
            raise NotApplicableError("the teacher has no new sentences")
        probe = study.probe()
        pictures.append(f"{name}-strip.png")
        env = study.make_endless_world(steps, action="conditions")
        moved = []
        for item in tqdm(said, desc=name, mininterval=5.0):
            views = item.frames(env)
            if not moved:
                rows = np.linspace(_FIRST, steps - 1, _STRIP_FRAMES).astype(int)
                save_strip([list(view[rows]) for view in views], study.output / pictures[-1])
            moved.append(_moved(item, views, probe))
        row = summarise(moved, _NUM_MOVING[speaker])
        table.append((name, len(moved), *row))
        names = ("correlation", "slope", "lag", "control", "probe_correlation", "probe_slope")
        values |= {f"{name}_{key}": value for key, value in zip(names, row, strict=True)}
    return Section(
        title="Gestures and listening",
        method=(
            f"{study.config.num_new_sentences} sentences that no world has heard, said by the "
            "character, and then by the other speaker while it does nothing. A probe that learned "
            "from the teacher's frames reads how high those keypoints are that move most up and "
            "down in the teacher: two while it talks, the hands; one while it listens, the head. "
            "Against where the teacher has them: correlation, slope, and the lag in steps at which "
            "the correlation is largest. Control: the world when it is told what it is told in "
            "silence, its pose too, for sound moves the pose. So this says whether the world shows "
            "the pose; that the pose follows the sound, both have from the same code. Strips: "
            "teacher, world, world in silence."
        ),
        values=values,
        tables=(
            Table(
                columns=(
                    *("what", "sentences", "correlation", "slope", "lag", "control"),
                    *("probe's correlation", "probe's slope"),
                ),
                rows=tuple(table),
            ),
        ),
        pictures=tuple(pictures),
    )


def summarise(moved: list[Moved], num_moving: int) -> tuple[float, ...]:
    """Return correlation, slope, lag, control, and the probe's own correlation and slope."""
    travel = np.concatenate([item.teacher for item in moved]).std(axis=0)
    moving = np.argsort(travel)[-num_moving:]

    def parts(name: str) -> list[np.ndarray]:
        """Return a sequence for each sentence and keypoint, about the keypoint's mean height."""
        found = [getattr(item, name)[:, moving] for item in moved]
        middle = np.concatenate(found).mean(axis=0)
        return [column for item in found for column in (item - middle).T]

    real = parts("teacher")
    correlation, slope, control, _, own, own_slope = (
        number
        for name in ("world", "silent", "probe")
        for number in follows(np.concatenate(parts(name)), np.concatenate(real))
    )
    return correlation, slope, best_lag(parts("world"), real), control, own, own_slope


def _moved(said: Said, views: tuple[np.ndarray, ...], probe: Probe) -> Moved:
    """Return how high the keypoints are in the frames of teacher, world and world in silence."""
    real = np.stack([moment.info["keypoints"] for moment in said.moments[-len(said.silent) :]])
    places = [real, *(probe.keypoints(frames) for frames in views)]
    teacher, own, world, silent = (place[_FIRST:, :, 1] for place in places)
    return Moved(teacher=teacher, probe=own, world=world, silent=silent)
