"""Sections on play: horizon, pose and speed of the world as an environment.

Shapes: T steps of a rollout, H W pixels, K keypoints.
"""

import time
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from midas_world.evaluate.metrics import at_marks, keypoint_error, mean_by_step, mean_of
from midas_world.evaluate.plots import save_curves
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import FollowedEpisode
from midas_world.evaluate.study import NotApplicableError, Study
from midas_world.machine import cpu_name, load_average, num_cores
from midas_world.psnr import psnr
from midas_world.tables import Cell

_MARKS = (1, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
_BASELINES = (
    "the last real frame, held (baseline)",
    "the teacher's frame before (baseline)",
    "another episode of the teacher (baseline)",
)
_NUM_STRIPS = 4
_WARMUP_STEPS = 20


def horizon_section(study: Study) -> Section:
    """Measure how rollouts stay with the teacher under the same actions."""
    rollouts, steps = study.rollouts, study.config.rollout_steps
    marks = [mark for mark in _MARKS if mark <= steps]
    rows = {name: [] for name in ("world", *_BASELINES)}
    for number, rollout in enumerate(tqdm(rollouts, desc="horizon", mininterval=5.0)):
        real = rollout.real
        held = np.broadcast_to(rollout.teacher.frames[rollout.first - 1], real.shape)
        previous = rollout.teacher.frames[rollout.first - 1 : -1]
        other = rollouts[number - 1].real if len(rollouts) > 1 else real[:0]
        for name, shown in zip(rows, (rollout.frames, held, previous, other), strict=True):
            both = min(len(real), len(shown))
            rows[name].append(psnr(real[:both], shown[:both]))
    curves = {name: mean_by_step(item, steps) for name, item in rows.items()}
    counts = [sum(len(rollout.frames) >= mark for rollout in rollouts) for mark in marks]
    table = [
        (mark, *(float(curve[mark - 1]) for curve in curves.values()), number)
        for mark, number in zip(marks, counts, strict=True)
    ]
    save_curves(
        study.output / "horizon.png",
        curves,
        title=f"Rollouts against the teacher, mean of {len(rollouts)}",
        y_label="PSNR, dB",
    )
    pictures = [_save_rollout_strip(study, rollout, marks) for rollout in rollouts[:_NUM_STRIPS]]
    played = sum(len(rollout.frames) for rollout in rollouts)
    chosen = f"fresh seeds, policies {', '.join(study.policies)} in turn, no scene changes"
    if not study.has_teacher:
        chosen = "held-out recordings, which stand for the teacher, under all that was recorded"
    values = {"num_rollouts": len(rollouts), "num_steps": played}
    names = ("psnr", "hold_psnr", "previous_psnr", "other_psnr")
    values |= at_marks(marks, **dict(zip(names, curves.values(), strict=True)))
    values["psnr_mean"] = mean_of(curves["world"])
    return Section(
        title="Horizon",
        method=(
            f"{len(rollouts)} rollouts of up to {steps} steps from the teacher's first "
            f"{study.context_frames} frames ({chosen}), with the teacher's actions, against its "
            "frames at the same step. Things that lie where chance puts them - coins, rocks - are "
            "left out of both. Another episode of the teacher, at the same step, tells what a "
            "frame is worth that is right but for chance. Strips: teacher above, world below."
        ),
        values=values,
        tables=(
            Table(
                columns=("step", *(f"{name}, PSNR dB" for name in curves), "rollouts"), rows=table
            ),
        ),
        notes=("A teacher's episode may end before the last step: the number of rollouts falls.",),
        pictures=("horizon.png", *pictures),
    )


def _save_rollout_strip(study: Study, rollout: FollowedEpisode, marks: list[int]) -> str:
    name = f"rollout-{rollout.teacher.seed}-{rollout.teacher.policy}.png"
    shown = [mark - 1 for mark in marks if mark <= len(rollout.frames)]
    return study.save_strip(name, [list(x[shown]) for x in (rollout.real, rollout.frames)])


def pose_section(study: Study) -> Section:
    """Measure where the character is drawn, by a probe, against where the teacher has it."""
    steps, height = study.config.rollout_steps, study.world.config.world.height
    probe, rollouts = study.probe, study.rollouts
    rows: dict[str, list[np.ndarray]] = {"world": [], "probe": [], "still": []}
    for rollout in tqdm(rollouts, desc="pose", mininterval=5.0):
        known = rollout.teacher.keypoints
        if known is None:
            raise NotApplicableError('the teacher gives no info["keypoints"]')
        truth = known[rollout.first :]
        still = np.broadcast_to(known[rollout.first - 1], truth.shape)
        for name, made in (
            ("world", probe(rollout.frames)),
            ("probe", probe(rollout.real)),
            ("still", still),
        ):
            rows[name].append(100.0 * keypoint_error(made, truth, height=height))
    curves = {name: mean_by_step(item, steps) for name, item in rows.items()}
    means = {name: mean_of(np.concatenate(item)) for name, item in rows.items()}
    marks = [0, *(mark for mark in _MARKS if mark <= steps)]
    table: list[tuple[Cell, ...]] = [
        (f"{low + 1} to {high}", *(mean_of(curve[low:high]) for curve in curves.values()))
        for low, high in pairwise(marks)
    ]
    table.append(("all", *means.values()))
    save_curves(
        study.output / "pose.png",
        {
            "world, by the probe": curves["world"],
            "teacher, by the probe (baseline)": curves["probe"],
            "standing still (baseline)": curves["still"],
        },
        title=f"Keypoints against the teacher's, mean of {len(rollouts)} rollouts",
        y_label="mean error, % of frame height",
    )
    config = study.config.probe
    return Section(
        title="Pose error",
        method=(
            f"A keypoint probe trained on {config.num_frames} teacher frames of other seeds reads "
            "the world's frames of the rollouts above; mean distance to the keypoints that the "
            "teacher drew at the same step, in per cent of the frame's height. The probe's own "
            "error on the teacher's frames of these rollouts stands beside it: what the world "
            "shows cannot be told more finely than that."
        ),
        values={
            "error_percent": means["world"],
            "probe_error_percent": means["probe"],
            "still_error_percent": means["still"],
            "error_percent_last": mean_of(curves["world"][-max(1, steps // 10) :]),
            "num_rollouts": len(rollouts),
        },
        tables=(
            Table(
                columns=("steps", "world %", "probe's own error %", "standing still %"), rows=table
            ),
        ),
        notes=(
            "Where a stumble or a hidden limb differs from the teacher's, that counts as error.",
        ),
        pictures=("pose.png",),
    )


def speed_section(study: Study) -> Section:
    """Measure how long a step of the world takes here."""
    env = study.make_world_env()
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(_WARMUP_STEPS):
        _timed_step(env)
    load = load_average()
    times = np.array([1e3 * _timed_step(env) for _ in range(study.config.num_speed_steps)])
    median, p95, p99 = (float(np.percentile(times, q)) for q in (50, 95, 99))
    engine = str(getattr(env.get_wrapper_attr("engine"), "spec", "unknown"))
    cores = num_cores()
    values: dict[str, Any] = {
        "median_ms": median,
        "p95_ms": p95,
        "p99_ms": p99,
        "p99_per_median": p99 / median,
        "steps_per_s": 1e3 / median,
        "num_steps": len(times),
        "num_cores": cores,
        "num_threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "engine": engine,
        "load_average": load,
    }
    if torch.cuda.is_available():
        values["gpu"] = torch.cuda.get_device_name()
    table = (
        ("env.step, median ms", median),
        ("env.step, p95 ms", p95),
        ("env.step, p99 ms", p99),
        ("p99 / median", p99 / median),
        ("steps per second", 1e3 / median),
    )
    return Section(
        title="Speed",
        method=(
            f"{len(times)} steps of one game with random actions after {_WARMUP_STEPS} to warm "
            f"up. {engine}; {values.get('gpu', values['cpu'])}, {cores} cores, "
            f"{values['num_threads']} threads; load average when it began {load:.1f}."
        ),
        values=values,
        tables=(Table(columns=("", "measured"), rows=table),),
        notes=("Other work on the machine makes all of this worse: see the load average.",)
        if load > 0.5 + values["num_threads"]
        else (),
    )


def _timed_step(env: gymnasium.Env) -> float:
    """Step with a random action and return the seconds taken; resets apart, where it ended."""
    action = env.action_space.sample()
    started = time.perf_counter()
    _, _, terminated, truncated, _ = env.step(action)
    seconds = time.perf_counter() - started
    if terminated or truncated:
        env.reset()
    return seconds
