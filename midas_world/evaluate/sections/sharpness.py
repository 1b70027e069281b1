"""The section on sharpness: does the picture stay as crisp over thousands of steps as it began?

Frames of long runs are measured as they come and not kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.metrics import mean_of, sharpness
from midas_world.evaluate.plots import save_curves
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import (
    Bookends,
    Endless,
    Moment,
    check_held_out,
    play_world,
    teacher_moments,
    to_episode,
)
from midas_world.evaluate.study import LONG_SEED, Study
from midas_world.tables import Cell
from midas_world.teachers.collect import load_policy
from midas_world.train.strips import save_strip

_EARLY_STEP = 20
_LEAD_IN = 10


@dataclass(frozen=True, kw_only=True)
class LongRun:
    """Sharpness of each step of a long run, of the world and of the teacher, and some frames."""

    world: np.ndarray
    teacher: np.ndarray
    frames: list[np.ndarray]
    teacher_frames: list[np.ndarray]


def sharpness_section(study: Study) -> Section:
    """Measure whether the picture stays as sharp over thousands of steps as it was at first."""
    steps = study.config.long_steps
    window = min(study.config.sharpness_window, steps // 4)
    early_end = min(_EARLY_STEP + window // 2, steps // 2)
    marks = [mark for mark in (20, 200, 500, 1000, 2000) if mark < steps] + [steps]
    runs = [
        _long_run(study, LONG_SEED + index, early_end=early_end, marks=marks)
        for index in range(study.config.num_long_runs)
    ]
    early, late = slice(early_end - window, early_end), slice(steps - window, steps)
    table: list[tuple[Cell, ...]] = []
    for index, run in enumerate(runs):
        seed = LONG_SEED + index
        ratio, own = (mean_of(x[late]) / mean_of(x[early]) for x in (run.world, run.teacher))
        level, late_level = (mean_of(run.world[x]) / mean_of(run.teacher[x]) for x in (early, late))
        table.append((seed, ratio, own, level, late_level))
        save_strip([run.teacher_frames, run.frames], study.output / f"long-run-{seed}.png")
    names = ("ratio", "teacher_ratio", "level_early", "level_late")
    columns = zip(*(row[1:] for row in table), strict=True)
    values: dict[str, Any] = {
        name: mean_of(np.array(column, float)) for name, column in zip(names, columns, strict=True)
    }
    values |= {"num_runs": len(runs), "num_steps": steps}
    table.append(("mean", *(values[name] for name in names)))
    save_curves(
        study.output / "sharpness.png",
        {
            "world": _smooth(np.mean([run.world for run in runs], axis=0), window),
            "teacher (baseline)": _smooth(np.mean([run.teacher for run in runs], axis=0), window),
        },
        title=f"Gradient energy, mean of {len(runs)} runs and {window} steps",
        y_label="gradient energy",
    )
    return Section(
        title="Sharpness",
        method=(
            f"{len(runs)} rollouts of {steps} steps under held-out policies. Gradient energy of "
            f"luma, mean of {window} frames, at the end over that around step "
            f"{early_end - window // 2}; the actions of the two stretches are the same. World / "
            "teacher: the world's over the teacher's at either end. What the picture shows differs "
            "all the same, so the teacher's own ratio under the same actions stands beside it (a "
            "teacher's episode that ends goes on with another in the same scene). "
            f"Strips, teacher above, world below, at steps {', '.join(map(str, marks))}."
        ),
        values=values,
        tables=(
            Table(
                columns=(
                    *("seed", "ratio", "teacher's ratio", "world / teacher, early"),
                    "world / teacher, late",
                ),
                rows=tuple(table),
            ),
        ),
        notes=(
            "A ratio of 1 is no praise for a picture that was blurred or noisy from the start: "
            "world / teacher tells, early and late.",
        ),
        pictures=(
            "sharpness.png",
            *(f"long-run-{LONG_SEED + index}.png" for index in range(len(runs))),
        ),
    )


def _long_run(study: Study, seed: int, *, early_end: int, marks: list[int]) -> LongRun:
    """Play the teacher for long, then the world with the same actions."""
    steps, context = study.config.long_steps, study.context_frames
    env = study.make_endless_world(steps)
    data, options = study.world.config.data, study.config.teacher_options
    check_held_out([seed], data)
    total = context - 1 + steps
    # The window's actions and a few before them come again: a jump begins before it is seen.
    length = min(study.config.sharpness_window + _LEAD_IN, early_end)
    teacher = Endless(study.make_teacher(), options)
    name = study.policies[seed % len(study.policies)]
    policy = Bookends(
        load_policy(data.policy_factory, name, teacher.action_space),
        first=context - 1 + early_end - length,
        length=length,
        num_steps=total,
    )
    start: list[Moment] = []
    actions: list[Any] = []

    def teacher_frames() -> Iterator[np.ndarray]:
        moments = teacher_moments(teacher, policy, seed=seed, options=options)
        for number, moment in zip(range(total + 1), moments, strict=False):
            if number < context:
                start.append(moment)
            else:
                actions.append(moment.action)
                yield moment.frame

    teacher_energy, teacher_shown = _follow(teacher_frames(), marks, desc="teacher")
    state = to_episode(start, name="", seed=seed).start_state(context)
    moments = play_world(env, state, actions, seed=seed)
    world_energy, shown = _follow((moment.frame for moment in moments), marks, desc="long run")
    return LongRun(
        world=world_energy,
        teacher=teacher_energy,
        frames=shown,
        teacher_frames=teacher_shown,
    )


def _follow(
    frames: Iterator[np.ndarray], marks: list[int], *, desc: str
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the sharpness of each frame, and the frames at some steps, counted from 1."""
    values, shown = [], []
    for step, frame in enumerate(tqdm(frames, desc=desc, mininterval=5.0), start=1):
        values.append(float(sharpness(frame[None])[0]))
        if step in marks:
            shown.append(frame)
    return np.array(values), shown


def _smooth(curve: np.ndarray, window: int) -> np.ndarray:
    """Return running means, each at the middle of its window; NaN at the ends."""
    smooth = np.full(len(curve), np.nan)
    means = np.convolve(curve, np.full(window, 1 / window), mode="valid")
    smooth[window // 2 :][: len(means)] = means
    return smooth
