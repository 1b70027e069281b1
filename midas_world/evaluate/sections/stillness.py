"""The section on standing still: does the scene stay when nothing is done?

Rollouts that move are judged by the teacher's frames; a scene that melts while one only looks at it
is what a player sees first.

Shapes: T steps, H W pixels.
"""

from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.metrics import at_marks
from midas_world.evaluate.plots import save_curves
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import (
    Endless,
    Script,
    follow,
    play_world,
    start_after,
    teacher_moments,
)
from midas_world.evaluate.study import STILL_SEED, Study
from midas_world.psnr import psnr

_MARKS = (20, 50, 100, 200, 400)
_NUM_STRIPS = 4


def stillness_section(study: Study) -> Section:
    """Measure how far the picture goes from itself while the world's first action is held."""
    steps, action = study.config.still_steps, study.world.keymap.actions[0]
    marks = [mark for mark in _MARKS if mark < steps] + [steps]
    env = study.make_endless_world(steps)
    teacher = Endless(study.make_teacher(), study.config.teacher_options)
    curves: dict[str, list[np.ndarray]] = {"world": [], "teacher": []}
    pictures = []
    seeds = range(STILL_SEED, STILL_SEED + study.config.num_still_runs)
    for seed in tqdm(seeds, desc="stillness", mininterval=5.0):
        options = study.config.teacher_options
        own = teacher_moments(teacher, Script([0]), seed=seed, options=options)
        context = list(islice(own, study.context_frames))
        first = context[-1].frame
        made = play_world(env, start_after(context), [0] * steps, seed=seed)
        like_first = partial(_likeness, first)
        curve, frames = follow((moment.frame for moment in made), marks, like_first)
        real = (moment.frame for moment in islice(own, steps))
        own_curve, own_frames = follow(real, marks, like_first)
        curves["world"].append(curve)
        curves["teacher"].append(own_curve)
        if len(pictures) < _NUM_STRIPS:
            rows = [[first, *own_frames], [first, *frames]]
            pictures.append(study.save_strip(f"still-{seed}.png", rows))
    means = {name: np.mean(rows, axis=0) for name, rows in curves.items()}
    worst = np.min(curves["world"], axis=0)
    save_curves(
        study.output / "stillness.png",
        {"world": means["world"], "teacher (baseline)": means["teacher"]},
        title=f"Held {action!r}, against the last real frame, mean of {len(seeds)} games",
        y_label="PSNR, dB",
    )
    values: dict[str, Any] = {"num_runs": len(seeds), "num_steps": steps, "action": action}
    values |= at_marks(marks, psnr=means["world"], teacher_psnr=means["teacher"])
    table = [(mark, *(float(c[mark - 1]) for c in (*means.values(), worst))) for mark in marks]
    return Section(
        title="Standing still",
        method=(
            f"{len(seeds)} games of {steps} steps in which {action!r} is held, begun from "
            f"{study.context_frames} frames of the teacher with the same action held. Each frame "
            "against the last real one; the teacher's own beside it, for its scene is not frozen "
            "either (breath, clouds, water). Strips: teacher above, world below; the last real "
            f"frame, then steps {', '.join(map(str, marks))}."
        ),
        values=values,
        tables=(
            Table(
                columns=("step", "world, PSNR dB", "teacher, PSNR dB", "worst game, PSNR dB"),
                rows=table,
            ),
        ),
        pictures=("stillness.png", *pictures),
    )


def _likeness(first: np.ndarray, frame: np.ndarray) -> float:
    """Return a frame's PSNR against the first, in dB."""
    return float(psnr(first[None], frame[None])[0])
