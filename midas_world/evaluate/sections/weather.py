"""The section on weather: does it rain and snow?

Shapes: T steps, H W pixels.
"""

import math
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.metrics import luma
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import Script, play_world, teacher_moments, to_episode
from midas_world.evaluate.study import WEATHER_SEED, NotApplicableError, Study
from midas_world.tables import Cell

_FALLING = ("rain", "snow")  # of the teacher's scene option "weather"
_CONTROL = "clear"
_SETTLE = 5  # steps that do not count
_STRIP_STEPS = (5, 6, 20, 39)


def changes(frames: np.ndarray, *, clear_of: np.ndarray | None = None) -> np.ndarray:
    """Return what changes from each frame to the next, luma in levels of 255, (T - 1, H, W).

    Args:
        frames: (T, H, W, 3) uint8.
        clear_of: Keypoints (..., 2) px; the columns about them count as unchanged.
    """
    change = np.diff(luma(frames)[:, 0].numpy(), axis=0)
    if clear_of is not None:
        x = clear_of.reshape(-1, 2)[:, 0]
        change[:, :, max(0, int(x.min()) - 14) : int(x.max()) + 15] = 0.0
    return change


def weather_section(study: Study) -> Section:
    """Measure how much falls while nothing is done, against the teacher.

    Raises:
        NotApplicableError: The teacher has no such weather.
    """
    config, context = study.config, study.context_frames
    env = study.make_endless_world(config.weather_steps)
    teacher = study.make_teacher()
    seeds = range(WEATHER_SEED, WEATHER_SEED + config.num_weather_runs)
    table: list[tuple[Cell, ...]] = []
    values: dict[str, Any] = {"num_runs": len(seeds)}
    pictures = []
    for weather in (*_FALLING, _CONTROL):
        sums = np.zeros(3)
        for seed in tqdm(seeds, desc=weather, mininterval=5.0):
            options = dict(config.teacher_options) | {"scene": {"weather": weather}}
            played = teacher_moments(teacher, Script([0]), seed=seed, options=options)
            moments = list(islice(played, context + config.weather_steps))
            if dict(moments[0].info.get("scene", {})).get("weather") != weather:
                raise NotApplicableError(f"the teacher has no weather {weather!r}")
            episode = to_episode(moments)
            start, actions = episode.start_state(context), episode.actions[context - 1 :]
            made = np.stack([m.frame for m in play_world(env, start, actions, seed=seed)])
            real = episode.frames[context:]
            keypoints = episode.keypoints
            real_change, change = (
                changes(frames[_SETTLE:], clear_of=keypoints) for frames in (real, made)
            )
            pairs = (change, change), (real_change, real_change), (change, real_change)
            sums += [float((a * b).sum()) for a, b in pairs]
            if seed == seeds[0]:
                rows = [t for t in _STRIP_STEPS if t < len(real)]
                strip = [list(x[rows]) for x in (real, made)]
                pictures.append(study.save_strip(f"weather-{weather}.png", strip))
        own, other, both = (float(value) for value in sums)
        row = (own / other if other else math.nan, both / math.sqrt(own * other + 1e-9))
        values |= {f"{weather}_energy": row[0], f"{weather}_correlation": row[1]}
        table.append((weather, *row))
    return Section(
        title="Weather",
        method=(
            f"{len(seeds)} games of {config.weather_steps} steps in each weather in which nothing "
            f"is done, from {context} frames of the teacher. Energy: squared change of luma from "
            f"frame to frame, away from the character, from step {_SETTLE + 1} on, over the "
            "teacher's; correlation of that change with the teacher's at the same step and place. "
            f"In {_CONTROL!r} little falls: there it tells what moves that should not. Strips: "
            "teacher above, world below."
        ),
        values=values,
        tables=(
            Table(columns=("weather", "energy, world / teacher", "correlation"), rows=tuple(table)),
        ),
        pictures=pictures,
    )
