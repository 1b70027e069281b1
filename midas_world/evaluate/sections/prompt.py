"""The section on prompts: how soon do a player's words change the scene?

Shapes: T steps.
"""

from itertools import islice
from typing import Any

import gymnasium
import numpy as np
from tqdm import tqdm

from midas_world.evaluate.metrics import at_marks
from midas_world.evaluate.plots import save_curves
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import Endless, play_world, start_after, teacher_moments
from midas_world.evaluate.study import PROMPT_SEED, NotApplicableError, Study
from midas_world.psnr import psnr

_MARKS = (1, 2, 5, 10, 20, 40)
_NUM_STRIPS = 4
# The words are another episode's, whose seed is so much higher.
_WORDS_APART = 500
# A scene has changed once the picture is as near as this to where it stays, in dB.
_SETTLED_DB = 1.0
_TAIL_STEPS = 10


def prompt_section(study: Study) -> Section:
    """Measure how the picture goes over to another scene that words ask for in mid-play.

    Raises:
        NotApplicableError: The teacher takes no words, or has none.
    """
    steps = study.config.prompt_steps
    marks = [mark for mark in _MARKS if mark < steps] + [steps]
    teacher = Endless(study.make_teacher(), study.bare_options)
    if not teacher.has_wrapper_attr("set_prompt"):
        raise NotApplicableError("the teacher has no set_prompt(words)")
    env, others = study.make_endless_world(steps), study.make_teacher()
    seeds = range(PROMPT_SEED, PROMPT_SEED + study.config.num_prompt_runs)
    curves: dict[str, list[np.ndarray]] = {"world": [], "hold the last real frame (baseline)": []}
    pictures = []
    for seed in tqdm(seeds, desc="prompts", mininterval=5.0):
        words = _words(others, seed + _WORDS_APART)
        policy = study.policy(seed, teacher)
        own = teacher_moments(teacher, policy, seed=seed, options=study.bare_options)
        context = list(islice(own, study.context_frames))
        teacher.get_wrapper_attr("set_prompt")(words)
        later = list(islice(own, steps))
        actions = [moment.action for moment in later]
        start = start_after(context)
        moments = play_world(env, start, actions, seed=seed, prompt=words, things=False)
        made = [moment.frame for moment in moments]
        real = np.stack([moment.frame for moment in later])
        held = np.broadcast_to(context[-1].frame, real.shape)
        for curve, shown in zip(curves.values(), (np.stack(made), held), strict=True):
            curve.append(psnr(real, shown))
        if len(pictures) < _NUM_STRIPS:
            rows = [[context[-1].frame, *(frames[mark - 1] for mark in marks)]
                    for frames in (real, made)]  # fmt: skip
            pictures.append(study.save_strip(f"prompt-{seed}.png", rows))
    means = {name: np.mean(rows, axis=0) for name, rows in curves.items()}
    settled = settled_step(means["world"])
    save_curves(
        study.output / "prompts.png",
        means,
        title=f"After words for another scene, against the teacher, mean of {len(seeds)} games",
        y_label="PSNR, dB",
    )
    values: dict[str, Any] = {"num_runs": len(seeds), "settled_step": settled}
    world, hold = means.values()
    values |= at_marks(marks, psnr=world, held_psnr=hold)
    return Section(
        title="Prompts",
        method=(
            f"{len(seeds)} games begun from {study.context_frames} frames of the teacher "
            f"(policies {', '.join(study.policies)} in turn), in which the world and the teacher "
            "are then given the words of another episode as a prompt, without things, which lie by "
            "chance. Each frame against the teacher's, which changes at once. Strips: teacher "
            "above, world below; the last real frame, then steps "
            f"{', '.join(map(str, marks))}."
        ),
        values=values,
        tables=(
            Table(
                columns=("step", "PSNR dB", "PSNR dB, hold the last real frame"),
                rows=tuple((m, float(world[m - 1]), float(hold[m - 1])) for m in marks),
            ),
        ),
        notes=(
            f"From step {settled} on, the mean is within {_SETTLED_DB:g} dB of that of the last "
            f"{_TAIL_STEPS} steps.",
        ),
        pictures=("prompts.png", *pictures),
    )


def settled_step(curve: np.ndarray) -> int:
    """Return the step, from 1, from which on a curve is never much below where it ends."""
    below = np.flatnonzero(curve < curve[-_TAIL_STEPS:].mean() - _SETTLED_DB)
    return int(below[-1]) + 2 if len(below) else 1


def _words(env: gymnasium.Env, seed: int) -> str:
    """Return the text that another episode of the teacher begins with.

    Raises:
        NotApplicableError: It has none.
    """
    text = env.reset(seed=seed)[1].get("text")
    if not text:
        raise NotApplicableError('the teacher gives no info["text"]')
    return str(text)
