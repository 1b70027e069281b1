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

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from engine.on_torch.engine import TorchEngine
from engine.rollout import Rollout
from engine.spec import Engine
from midas_world.psnr import psnr
from midas_world.types import StepConditions
from midas_world.world import StartState, World

MAX_GAMES = 8

_log = logging.getLogger(__name__)


def quality_result(engine: Engine, world: World, *, num_steps: int) -> dict[str, Any]:
    """Return what the report says of an engine's frames in rollouts of so many steps.

    Raises:
        ValueError: The world has no start state.
    """
    spec = engine.spec
    try:
        reference = TorchEngine(
            world,
            device=spec.device,
            dtype=torch.float32,
            num_denoise_steps=spec.num_denoise_steps,
        )
        closeness = measure_quality(engine, reference, world.start_states, num_steps=num_steps)
    except torch.OutOfMemoryError:
        return {"reason": "the GPU's memory does not hold float32 torch beside the engine"}
    return {"reason": "", "reference": str(reference.spec), "num_steps": num_steps, **closeness}


def measure_quality(
    engine: Engine, reference: Engine, start_states: Sequence[StartState], *, num_steps: int
) -> dict[str, float]:
    """Return mean PSNRs in dB against a reference: `decoder`, `rollout` and its `last_step`.

    Raises:
        ValueError: There is no start state.
    """
    if not start_states:
        raise ValueError("quality needs a start state to play from, and the world has none")
    decoder, rollout = [], []
    count = min(len(start_states), MAX_GAMES)
    for game in (place * len(start_states) // count for place in range(count)):
        _log.info("quality: %d steps from start state %d", num_steps, game)
        start = start_states[game]
        latents = start.latents[-1:].float()
        with _whole_float32():
            expected = reference.decode(latents)
        decoder.append(psnr(engine.decode(latents), expected)[0])
        rollout.append(_play_both(engine, reference, start, game=game, num_steps=num_steps))
    return {
        "num_games": count,
        "decoder": float(np.mean(decoder)),
        "rollout": float(np.mean(rollout)),
        "last_step": float(np.mean(rollout, axis=0)[-1]),
    }


def conditions_of(start: StartState, num_steps: int) -> list[StepConditions]:
    """Return the conditions of a game's steps: its start state's, to the first and back again."""
    given = start.conditions
    turn = [*given[-2::-1], *given[1:]] or [*given]
    return list(islice(cycle(turn), num_steps))


def _play_both(
    engine: Engine, reference: Engine, start: StartState, *, game: int, num_steps: int
) -> list[float]:
    """Return the PSNR of each step's frame of one game, the game's number being its seed, too."""
    tested, held_to = Rollout(engine, 1), Rollout(reference, 1)
    tested.reset([start], seeds=[game])
    with _whole_float32():
        held_to.reset([start], seeds=[game])
    values = []
    # Side by side, so that no more than two frames are in memory at once.
    for step in conditions_of(start, num_steps):
        tested.step([step])
        with _whole_float32():
            held_to.step([step])
            expected = held_to.frames()
        values.append(psnr(tested.frames(), expected)[0])
    return values


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Let a GPU's convolutions keep float32 whole; by default they round it to TF32's 10 bits."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    ):
        yield
