"""How close an engine's frames are to those of plain float32 torch.

Compared are frames as they are shown, by their PSNR in dB (equal ones count as 106), of a few games
that begin from start states spread evenly over the world's:

- decoder: both engines decode the latents of each start state's last frame.
- rollout: both play each start state on alone, with the same conditions and noise, and decode every
  step. Each feeds on the latents that it made itself, so that rounding adds up as it does in play.

Conditions are those of the start state, played back and forth (`conditions_of`): engines know no
teacher, and drawn ones would lead a trained world where its latents grow without end. The reference
has the same number of denoise steps, so it is the backend's arithmetic alone that differs.
"""

from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import torch

from engine.rollout import Rollout
from engine.spec import Engine
from midas_world.psnr import psnr
from midas_world.types import StepConditions
from midas_world.world import StartState

MAX_GAMES = 8


def measure_quality(
    engine: Engine, reference: Engine, start_states: Sequence[StartState], *, num_steps: int
) -> dict[str, float]:
    """Return mean PSNRs in dB against a reference, of one start state or more."""
    values = []  # of each game: the decoder's, and those of its steps
    count, cudnn = min(len(start_states), MAX_GAMES), torch.backends.cudnn
    kept = {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic")}
    for game in (place * len(start_states) // count for place in range(count)):
        start = start_states[game]
        made = _frames(engine, start, num_steps, seed=game)
        # By default a GPU's convolutions round float32 to TF32's 10 bits.
        with cudnn.flags(**kept, allow_tf32=False):
            expected = _frames(reference, start, num_steps, seed=game)
        values.append(psnr(made, expected))
    decoder, *steps = np.mean(values, axis=0)
    return {
        "decoder": float(decoder),
        f"rollout, steps 1 to {num_steps}": float(np.mean(steps)),
        f"rollout, step {num_steps}": float(steps[-1]),
    }


def _frames(engine: Engine, start: StartState, num_steps: int, *, seed: int) -> np.ndarray:
    """Return the frame of a start state, and those of the steps of a game from there."""
    rollout = Rollout(engine, 1)
    rollout.reset([start], seeds=[seed])
    frames = [rollout.frames()]
    for step in conditions_of(start, num_steps):
        rollout.step([step])
        frames.append(rollout.frames())
    return np.concatenate(frames)


def conditions_of(start: StartState, num_steps: int) -> list[StepConditions]:
    """Return the conditions of a game's steps: its start state's, to the first and back again."""
    given = start.conditions
    turn = [*given[-2::-1], *given[1:]] or [*given]
    return list(islice(cycle(turn), num_steps))
