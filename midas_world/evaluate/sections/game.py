"""The section on whole games: does a policy earn in the dream what it earns in the real game?

Shapes: none; games are counted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import EnvFrame, Script, start_after, step_env, teacher_moments
from midas_world.evaluate.study import GAME_SEED, Study
from midas_world.tables import Cell

# Held for whole games where the world has them; random play comes beside them.
ACTIONS = ("leap_right", "run_right")
_TRIES = 4
_PER = 1000.0


@dataclass
class Tally:
    """What games brought in all."""

    steps: int = 0
    coins: float = 0.0
    hits: float = 0.0
    ends: int = 0

    def add(self, moments: Sequence[EnvFrame]) -> None:
        """Change the counts by a game's moments after its start."""
        self.steps += len(moments)
        self.coins += sum(max(0.0, moment.reward) for moment in moments)
        self.hits += sum(float(moment.info.get("cost", 0.0)) for moment in moments)
        self.ends += sum(moment.terminated for moment in moments)

    def per_thousand(self, name: str) -> float:
        """Return a count per 1,000 steps."""
        return getattr(self, name) * _PER / self.steps if self.steps else math.nan


def game_section(study: Study) -> Section:
    """Measure what fixed policies earn and suffer in the world and in the teacher."""
    config, context = study.config, study.context_frames
    known = [name for name in ACTIONS if name in study.world.keymap.actions]
    teacher = study.make_teacher()
    env = study.make_world_env(horizon=config.game_steps + 1)
    tallies: dict[str, dict[str, Tally]] = {}
    for number, name in enumerate((*known, "random")):
        tallies[name] = {"teacher": Tally(), "dream": Tally()}
        progress = tqdm(total=config.num_games, desc=name, mininterval=5.0)
        left = config.num_games
        first = GAME_SEED + 100 * number
        seeds = range(first, first + _TRIES * config.num_games)
        for seed in seeds:
            actions = _actions(study, name, seed, context + config.game_steps)
            played = teacher_moments(
                teacher, Script(actions), seed=seed, options=config.teacher_options
            )
            moments = list(islice(played, context + config.game_steps))
            early = moments[1:context]
            if len(moments) <= context or any(m.reward or m.info.get("cost") for m in early):
                continue
            env.reset(seed=seed, options={"start_state": start_after(moments[:context])})
            tallies[name]["teacher"].add(moments[context:])
            tallies[name]["dream"].add(_play(env, actions[context - 1 :][: config.game_steps]))
            progress.update()
            left -= 1
            if not left:
                break
        progress.close()
    values: dict[str, Any] = {}
    table: list[tuple[Cell, ...]] = []
    for name, pair in tallies.items():
        for side, tally in pair.items():
            rates = {key: tally.per_thousand(key) for key in ("coins", "hits", "ends")}
            values |= {f"{name}_{side}_{key}": rate for key, rate in rates.items()}
            values[f"{name}_{side}_steps"] = tally.steps
            table.append(
                (name, side, *rates.values(), round(tally.coins), round(tally.hits), tally.steps)
            )
        for key in ("coins", "hits", "ends"):
            own, real = (pair[side].per_thousand(key) for side in ("dream", "teacher"))
            values[f"{name}_{key}_ratio"] = own / real if real else math.nan
    return Section(
        title="Games",
        method=(
            f"{config.num_games} games of at most {config.game_steps} steps for each policy: one "
            "action held, or drawn anew at every step. Dream and teacher begin from the same "
            f"{context} frames of the teacher, in which nothing was earned or lost, and get the "
            "same actions; what lies ahead is chance in both. Coins: the sum of positive rewards "
            "as the env pays them; hits: steps with info['cost'] above 0; ends: terminated games."
        ),
        values=values,
        tables=(
            Table(
                columns=(
                    *("policy", "game", "coins per 1,000 steps", "hits", "ends"),
                    *("coins in all", "hits in all", "steps"),
                ),
                rows=tuple(table),
                digits=1,
            ),
        ),
    )


def _actions(study: Study, name: str, seed: int, count: int) -> list[int]:
    """Return the actions of a policy."""
    if name != "random":
        return [study.action(name)] * count
    rng = np.random.default_rng((seed, 2))
    return rng.integers(len(study.world.keymap.actions), size=count).tolist()


def _play(env: Any, actions: Sequence[int]) -> list[EnvFrame]:
    """Return the moments of the world's game after its start, to its end."""
    moments: list[EnvFrame] = []
    for action in actions:
        moments.append(step_env(env, action))
        if moments[-1].terminated or moments[-1].truncated:
            break
    return moments
