"""How long a frame takes: whole, and part by part.

Whole steps are a rollout's, with their frames, on any backend. Parts are the three that torch and
ONNX Runtime have in common: the backbone with conditions and painting, the head with outcomes, and
the decoder. Other backends run other networks than the torch modules in them, and are not parted.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import torch

from engine.on_torch.engine import TorchEngine
from engine.rollout import Rollout
from engine.spec import Engine
from midas_world.world import StartState

WARM_UP_STEPS = 5

Times = list[float]
"""Milliseconds, one number per step."""


def time_steps(engine: Engine, start: StartState, *, batch_size: int, num_steps: int) -> Times:
    """Return how long each step of B games from one start state took, with their frames."""
    rollout = Rollout(engine, batch_size)
    rollout.reset([start] * batch_size, seeds=range(batch_size))
    conditions, times = [start.conditions[-1]] * batch_size, []
    for _ in range(WARM_UP_STEPS + num_steps):
        began = time.perf_counter()
        rollout.step(conditions)
        rollout.frames()  # an array on the CPU: nothing is left under way
        times.append(1e3 * (time.perf_counter() - began))
    return times[WARM_UP_STEPS:]


def time_parts(
    engine: Engine, start: StartState, *, batch_size: int, num_steps: int
) -> dict[str, Times]:
    """Return how long each part of each of so many steps took; {}: no parts.

    A GPU is waited for at both ends of a part, so that the whole is slower than undisturbed.
    """
    places = _places(engine)
    if not places:
        return {}
    device = torch.device(engine.spec.device)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1e3 * time.perf_counter()

    def clocked(work: Callable[..., Any], own: Times) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            began = now()
            made = work(*given)
            own.append(now() - began)
            return made

        return run

    times: dict[str, Times] = {part: [] for part in places}
    with ExitStack() as stack:
        for part, (owner, name) in places.items():
            work = clocked(getattr(owner, name), times[part])
            stack.enter_context(patch.object(owner, name, work))
        time_steps(engine, start, batch_size=batch_size, num_steps=num_steps)
    return {part: own[-num_steps:] for part, own in times.items()}


def _places(engine: Engine) -> dict[str, tuple[object, str]]:
    """Return whose method each part is."""
    if type(engine) is TorchEngine:
        names = {"backbone": "_guide", "head": "_make", "decoder": "_pixels"}
        return {part: (engine, name) for part, name in names.items()}
    sessions = getattr(engine, "_sessions", {})
    return {part: (session, "run") for part, session in sessions.items()}
