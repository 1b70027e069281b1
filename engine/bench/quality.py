"""How close an engine's frames are to those of plain float32 torch.

What is compared are frames as they are shown, uint8, by their PSNR in dB, of a few games that begin
from start states spread evenly over the world's:

- decoder: both engines decode the latents of each start state's last frame.
- rollout: both engines play each start state on alone, from the same context, with the same
  conditions and the same noise, and decode the frame of every step. The loop is closed: each feeds
  on the latents that it made itself, so that rounding adds up as it does in play.

Conditions are those of the start state, played back and forth (`conditions_of`): engines know no
teacher, and drawn ones would lead a trained world where its latents grow without end. Episodes'
ends are not heeded. The reference has the same number of denoise steps, so it is the backend's
arithmetic alone that differs; how close the world itself is to its teacher is what
``midas-world eval`` tells.

Shapes: B games, H W pixels.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """How close frames are to the reference's.

    Attributes:
        psnr_db: Mean over the frames that differ at all, for the PSNR of equal ones is infinite;
            None if none differs.
        num_frames: Compared.
        num_equal: Of those, equal in every pixel.
    """

    psnr_db: float | None
    num_frames: int
    num_equal: int


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How close an engine is to its reference.

    Attributes:
        reference: In words, what it was held to.
        num_steps: Of each rollout.
        num_games: Played, from a start state each.
        decoder: Frames of the same latents, one per game.
        rollout: Frames of all steps of all games.
        last_step: Frames of the last step of each game.
    """

    reference: str
    num_steps: int
    num_games: int
    decoder: Closeness
    rollout: Closeness
    last_step: Closeness


def quality_result(engine: Engine, world: World, *, num_steps: int) -> dict[str, Any]:
    """Return the report's entry of an engine's quality: numbers, or the reason why there are none.

    Args:
        engine: Whose frames are looked at.
        world: That it runs; the reference is made of it.
        num_steps: Of each rollout.

    Raises:
        ValueError: num_steps is below 1, or the world has no start state.
    """
    spec = engine.spec
    try:
        reference = TorchEngine(
            world,
            device=spec.device,
            dtype=torch.float32,
            num_denoise_steps=spec.num_denoise_steps,
            reason="what others are held to",
        )
        quality = measure_quality(engine, reference, world.start_states, num_steps=num_steps)
    except torch.OutOfMemoryError:
        return {"reason": "the GPU's memory does not hold float32 torch beside the engine"}
    return {"reason": "", **asdict(quality)}


def measure_quality(
    engine: Engine, reference: Engine, start_states: Sequence[StartState], *, num_steps: int
) -> Quality:
    """Return how close an engine's frames are to a reference's; see the top of this file.

    Args:
        engine: Whose frames are looked at.
        reference: That they are held to.
        start_states: Of the world; up to MAX_GAMES of them are played.
        num_steps: Of each rollout.

    Raises:
        ValueError: num_steps is below 1, or there is no start state.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    if not start_states:
        raise ValueError("quality needs a start state to play from, and the world has none")
    games = spread_games(len(start_states))
    decoder: list[float | None] = []
    rollout: list[list[float | None]] = []
    for game in games:
        _log.info("quality: %d steps from start state %d", num_steps, game)
        start = start_states[game]
        latents = start.latents[-1:].float()
        with _whole_float32():
            expected = reference.decode(latents)
        decoder.append(_psnr_db(engine.decode(latents), expected))
        rollout.append(_play_both(engine, reference, start, game=game, num_steps=num_steps))
    return Quality(
        reference=str(reference.spec),
        num_steps=num_steps,
        num_games=len(games),
        decoder=_closeness(decoder),
        rollout=_closeness([value for values in rollout for value in values]),
        last_step=_closeness([values[-1] for values in rollout]),
    )


def spread_games(num_start_states: int) -> list[int]:
    """Return which start states are played: all, or MAX_GAMES spread evenly from the first on."""
    count = min(num_start_states, MAX_GAMES)
    return [place * num_start_states // count for place in range(count)]


def conditions_of(start: StartState, num_steps: int) -> list[StepConditions]:
    """Return the conditions of a game's steps: its start state's, to the first and back again."""
    given = start.conditions
    turn = [*given[-2::-1], *given[1:]] or [*given]
    return list(islice(cycle(turn), num_steps))


def _play_both(
    engine: Engine, reference: Engine, start: StartState, *, game: int, num_steps: int
) -> list[float | None]:
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
        values.append(_psnr_db(tested.frames(), expected))
    return values


def _psnr_db(frames: np.ndarray, expected: np.ndarray) -> float | None:
    """Return the PSNR of one frame, uint8 (1, H, W, 3); None if it is equal."""
    value = float(psnr(frames, expected)[0])
    return None if np.array_equal(frames, expected) else value


def _closeness(values: Sequence[float | None]) -> Closeness:
    differing = [value for value in values if value is not None]
    return Closeness(
        psnr_db=float(np.mean(differing)) if differing else None,
        num_frames=len(values),
        num_equal=len(values) - len(differing),
    )


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
