"""The section on standing still: does the scene stay when nothing is done?

Rollouts that move are judged by the teacher's frames; a scene that melts while one only looks at it
is what a player sees first.

Shapes: T steps, H W pixels.
"""

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.plots import save_curves
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import (
    Endless,
    EnvFrame,
    Script,
    follow,
    play_world,
    teacher_moments,
    to_episode,
)
from midas_world.evaluate.study import STILL_SEED, Study
from midas_world.psnr import psnr
from midas_world.train.strips import save_strip

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
        own = _teacher_frames(study, teacher, seed, steps)
        context = list(islice(own, study.context_frames))
        first = context[-1].frame
        start = to_episode(context, name="", seed=seed).start_state(study.context_frames)
        made = play_world(env, start, [0] * steps, seed=seed)
        like_first = partial(_likeness, first)
        curve, frames = follow((moment.frame for moment in made), marks, like_first)
        own_curve, own_frames = follow((moment.frame for moment in own), marks, like_first)
        curves["world"].append(curve)
        curves["teacher"].append(own_curve)
        if len(pictures) < _NUM_STRIPS:
            pictures.append(f"still-{seed}.png")
            save_strip([[first, *own_frames], [first, *frames]], study.output / pictures[-1])
    means = {name: np.mean(rows, axis=0) for name, rows in curves.items()}
    worst = np.min(curves["world"], axis=0)
    save_curves(
        study.output / "stillness.png",
        {"world": means["world"], "teacher (baseline)": means["teacher"]},
        title=f"Held {action!r}, against the last real frame, mean of {len(seeds)} games",
        y_label="PSNR, dB",
    )
    values: dict[str, Any] = {"num_runs": len(seeds), "num_steps": steps, "action": action}
    for mark in marks:
        values[f"psnr_{mark}"] = float(means["world"][mark - 1])
        values[f"teacher_psnr_{mark}"] = float(means["teacher"][mark - 1])
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
                rows=tuple(table),
            ),
        ),
        pictures=("stillness.png", *pictures),
    )


def _teacher_frames(study: Study, teacher: Endless, seed: int, steps: int) -> Iterator[EnvFrame]:
    """Yield the teacher's frames of the context and of so many steps after it."""
    moments = teacher_moments(teacher, Script([0]), seed=seed, options=study.config.teacher_options)
    return islice(moments, study.context_frames + steps)


def _likeness(first: np.ndarray, frame: np.ndarray) -> float:
    """Return a frame's PSNR against the first, in dB."""
    return float(psnr(first[None], frame[None])[0])
