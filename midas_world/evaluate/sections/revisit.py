"""The section on coming back: is a place still what it was, after a walk away from it?

Shapes: T steps, H W pixels, J things.
"""

from typing import Any

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.metrics import mean_of
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import play_world, without_things
from midas_world.evaluate.sections.thing import held_scores
from midas_world.evaluate.study import REVISIT_SEED, NotApplicableError, Study
from midas_world.psnr import psnr
from midas_world.types import StepConditions

_AWAY_AND_BACK = ("walk_right", "walk_left")
_WALK_PX = 100.0
_MAX_STEPS = 200
_SAME_PLACE_PX = 2.0
_TRIES = 4
_NUM_STRIPS = 2


class ThereAndBack:
    """A policy that walks until the camera is so far away, and back to where it began."""

    def __init__(self, study: Study, *, still: int) -> None:
        self._study, self._still = study, still
        self._away, self._back = (study.action(name) for name in _AWAY_AND_BACK)

    def reset(self, rng: np.random.Generator) -> None:  # noqa: ARG002
        """Begin an episode."""
        self._poses: list[Any] = []
        self._turned = self.is_back = False

    def act(self, observation: Any, info: dict[str, Any]) -> int:  # noqa: ARG002
        """Return the next action; nothing once it is back."""
        self._poses.append(StepConditions(pose=info.get("pose")))
        if len(self._poses) <= self._still or self.is_back:
            return 0
        place = float(self._study.camera_places(self._poses)[-1])
        self._turned = self._turned or abs(place) >= _WALK_PX
        self.is_back = self._turned and abs(place) < _SAME_PLACE_PX
        if self.is_back:
            return 0
        return self._back if self._turned else self._away


def revisit_section(study: Study) -> Section:
    """Measure the picture of a place after a walk away and back, against the teacher's."""
    config, context = study.config, study.context_frames
    env = study.make_endless_world(_MAX_STEPS)
    teacher, walk = study.make_teacher(), ThereAndBack(study, still=context - 1)
    options = dict(config.teacher_options)
    rows: list[list[float]] = []
    things: list[float] = []
    pictures: list[str] = []
    progress = tqdm(total=config.num_revisits, desc="revisit", mininterval=5.0)
    for seed in range(REVISIT_SEED, REVISIT_SEED + _TRIES * config.num_revisits):
        if len(rows) == config.num_revisits:
            break
        episode = study.play_teacher(
            teacher, seed, num_steps=context + _MAX_STEPS, options=options, policy=walk
        )
        places = study.camera_places(episode.conditions)[context - 1 :]
        far = int(np.abs(places).argmax())
        near = np.flatnonzero((np.abs(places) < _SAME_PLACE_PX) & (np.arange(len(places)) > far))
        if abs(places[far]) < _WALK_PX or not len(near):
            continue
        back = int(near[0])
        start = episode.start_state(context)
        actions = episode.actions[context - 1 : context - 1 + back]
        made = [m.frame for m in play_world(env, start, actions, seed=seed)]
        real = episode.frames[context:]
        marks = [1, far, back]
        rows.append([float(psnr(real[m - 1][None], made[m - 1][None])[0]) for m in marks])
        if episode.things is not None:
            now = context - 1 + back
            plain = without_things(teacher, episode, num_steps=now, options=options)
            scores = held_scores(made[back - 1], episode, plain, context - 1, now)
            things += [score.correlation for score in scores]
        progress.update()
        if len(pictures) < _NUM_STRIPS:
            strip = [[x[m - 1] for m in marks] for x in (real, made)]
            pictures.append(study.save_strip(f"revisit-{seed}.png", strip))
    progress.close()
    if not rows:
        raise NotApplicableError("the teacher never came back to where it began")
    first, far_away, back_again = (mean_of(column) for column in zip(*rows, strict=True))
    return Section(
        title="Revisit",
        method=(
            f"{len(rows)} walks of {_WALK_PX:g} px away from a start frame and back, by the "
            "same actions in world and teacher: PSNR against the teacher's frame at the first "
            "step, at the farthest place, and at the first step that is back within "
            f"{_SAME_PLACE_PX:g} px of the start. Things: correlation, as in the section on "
            "things, of those that were in view at the start and are so again. Strips: teacher "
            "above, world below, at these three steps."
        ),
        values={
            "psnr": back_again,
            "psnr_first": first,
            "psnr_far": far_away,
            "things_correlation": mean_of(things),
            "num_things": len(things),
            "num_runs": len(rows),
        },
        tables=(
            Table(
                columns=("first step, dB", "far away, dB", "back, dB", "things", "of"),
                rows=((first, far_away, back_again, mean_of(things), len(things)),),
            ),
        ),
        pictures=pictures,
    )
