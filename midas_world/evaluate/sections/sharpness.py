"""The section on sharpness: does the picture stay as crisp over thousands of steps as it began?

Frames of long runs are measured as they come and not kept.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.metrics import mean_of, sharpness
from midas_world.evaluate.plots import save_curves
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import Endless, follow, play_world, start_after, teacher_moments
from midas_world.evaluate.study import LONG_SEED, Study
from midas_world.tables import Cell

_EARLY_STEP = 20
_WINDOW = 20  # frames that are averaged at both ends of a long run


def sharpness_section(study: Study) -> Section:
    """Measure whether the picture stays as sharp over thousands of steps as it was at first."""
    steps = study.config.long_steps
    window = min(_WINDOW, steps // 4)
    early_end = min(_EARLY_STEP + window // 2, steps // 2)
    marks = [mark for mark in (20, 200, 500, 1000, 2000) if mark < steps] + [steps]
    parts = slice(early_end - window, early_end), slice(steps - window, steps)
    energies: list[tuple[np.ndarray, np.ndarray]] = []
    table: list[tuple[Cell, ...]] = []
    pictures = ["sharpness.png"]
    for seed in range(LONG_SEED, LONG_SEED + study.config.num_long_runs):
        (own, shown), (real, real_shown) = _long_run(study, seed, marks)
        energies.append((own, real))
        levels = [mean_of(own[part]) / mean_of(real[part]) for part in parts]
        table.append((seed, *levels, mean_of(own[parts[1]]) / mean_of(own[parts[0]])))
        pictures.append(study.save_strip(f"long-run-{seed}.png", [real_shown, shown]))
    means = [mean_of(np.array(column)) for column in list(zip(*table, strict=True))[1:]]
    table.append(("mean", *means))
    values = dict(zip(("level_early", "level_late", "ratio"), means, strict=True))
    world, teacher = np.mean(energies, axis=0)
    save_curves(
        study.output / "sharpness.png",
        {"world": _smooth(world, window), "teacher (baseline)": _smooth(teacher, window)},
        title=f"Gradient energy, mean of {len(energies)} runs and {window} steps",
        y_label="gradient energy",
    )
    return Section(
        title="Sharpness",
        method=(
            f"{len(energies)} rollouts of {steps} steps under held-out policies. Gradient energy "
            f"of luma, mean of {window} frames, around step {early_end - window // 2} and at the "
            "end: the world's over the teacher's under the same actions (lost games go on where "
            "they are, with all lives); and the world's own at the end over that at first, which "
            "also tells what it has come by. "
            f"Strips, teacher above, world below, at steps {', '.join(map(str, marks))}."
        ),
        values=values | {"num_runs": len(energies), "num_steps": steps},
        tables=(
            Table(
                columns=("seed", "world / teacher, early", "world / teacher, late", "late / early"),
                rows=table,
            ),
        ),
        pictures=pictures,
    )


def _long_run(
    study: Study, seed: int, marks: list[int]
) -> tuple[tuple[np.ndarray, list[np.ndarray]], ...]:
    """Return what `_follow` finds in the world and in the teacher, under the same actions."""
    steps = study.config.long_steps
    env, options = study.make_endless_world(steps), study.config.teacher_options
    teacher = Endless(study.make_teacher(), options)
    played = teacher_moments(teacher, study.policy(seed, teacher), seed=seed, options=options)
    start = list(islice(played, study.context_frames))
    actions: list[Any] = []

    def teacher_frames() -> Iterator[np.ndarray]:
        for moment in islice(played, steps):
            actions.append(moment.action)
            yield moment.frame

    real = _follow(teacher_frames(), marks, desc="teacher")
    moments = play_world(env, start_after(start), actions, seed=seed)
    return _follow((moment.frame for moment in moments), marks, desc="long run"), real


def _follow(
    frames: Iterator[np.ndarray], marks: list[int], *, desc: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the sharpness of each frame, and the frames at some steps."""
    shown = tqdm(frames, desc=desc, mininterval=5.0)
    return follow(shown, marks, lambda frame: float(sharpness(frame[None])[0]))


def _smooth(curve: np.ndarray, window: int) -> np.ndarray:
    """Return running means, each at the middle of its window; NaN at the ends."""
    smooth = np.full(len(curve), np.nan)
    means = np.convolve(curve, np.full(window, 1 / window), mode="valid")
    smooth[window // 2 :][: len(means)] = means
    return smooth
