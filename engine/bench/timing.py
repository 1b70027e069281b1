"""How long a frame takes: whole, part by part, and after many steps.

Whole steps are those of a rollout and its frames, on any backend. Parts are the torch engine's,
whose methods are clocked as `step` and `decode` call them, or ONNX Runtime's, whose graphs are.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from engine.on_torch.engine import TorchEngine
from engine.rollout import Rollout
from engine.spec import Engine
from midas_world.types import StepConditions
from midas_world.world import StartState

if TYPE_CHECKING:  # ONNX Runtime may not be there
    from engine.on_onnx.engine import OnnxEngine
    from engine.on_onnx.runtime import GraphRunner

WARM_UP_STEPS = 5

Times = list[float]
"""Milliseconds, one number per step."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median and 99th percentile of times, in milliseconds."""

    median_ms: float
    p99_ms: float


def spread_of(times: Sequence[float]) -> Spread:
    """Return median and 99th percentile."""
    median, p99 = np.percentile(times, (50, 99))
    return Spread(median_ms=float(median), p99_ms=float(p99))


class TimedGame:
    """B games from one start state, each step with the same conditions."""

    def __init__(self, engine: Engine, start: StartState, *, batch_size: int) -> None:
        self._rollout = Rollout(engine, batch_size)
        self._rollout.reset([start] * batch_size, seeds=range(batch_size))
        self._conditions: list[StepConditions] = [start.conditions[-1]] * batch_size

    def time_steps(self, num_steps: int) -> Times:
        """Play and return how long each step and its frames took."""
        times = []
        for _ in range(num_steps):
            began = time.perf_counter()
            self._rollout.step(self._conditions)
            self._rollout.frames()  # an array on the CPU: nothing is left under way
            times.append(1e3 * (time.perf_counter() - began))
        return times


class Stopwatch:
    """Time between marks: a CPU's by the clock, a GPU's by events, which do not make it wait."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._is_cuda = device.type == "cuda"
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []

    def __call__(self, part: str) -> None:
        """Say that a part ends now; the first mark of a step only begins it."""
        if self._is_cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append((part, event))
        else:
            self._marks.append((part, time.perf_counter()))

    def take(self) -> dict[str, float]:
        """Return the milliseconds of each part since the first mark, and forget all marks."""
        if self._is_cuda:
            torch.cuda.synchronize(self._device)
        times: dict[str, float] = {}
        for (_, before), (part, after) in zip(self._marks, self._marks[1:], strict=False):
            if isinstance(before, torch.cuda.Event):
                assert isinstance(after, torch.cuda.Event)
                milliseconds = before.elapsed_time(after)
            else:
                assert not isinstance(after, torch.cuda.Event)
                milliseconds = 1e3 * (after - before)
            times[part] = times.get(part, 0.0) + milliseconds
        self._marks.clear()
        return times


def time_parts(
    engine: TorchEngine, start: StartState, *, batch_size: int, num_steps: int
) -> dict[str, Times]:
    """Return how long each part of each step took, by part in the order of a step."""
    conditions = engine.spec.stack([start.conditions[-1]] * batch_size)
    latents = start.latents[-1].float().expand(batch_size, -1, -1).contiguous()
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    cache = engine.new_cache(batch_size)
    mark = Stopwatch(engine._device)
    times: dict[str, Times] = {}
    with _marked(engine, mark):
        for number in range(WARM_UP_STEPS + num_steps):
            mark("")
            latents = engine.step(cache, latents, conditions, noise).latents
            mark("copies")
            engine.decode(latents)
            mark("copies")
            for part, milliseconds in mark.take().items():
                if number >= WARM_UP_STEPS:
                    times.setdefault(part, []).append(milliseconds)
    return times


@contextmanager
def _marked(engine: TorchEngine, mark: Callable[[str], None]) -> Iterator[None]:
    """Let an engine's methods mark where parts end, and do without graphs, inside a `with`."""
    # Whose method, and the parts that end where it begins and where it ends.
    places: list[tuple[object, str, str, str]] = [
        (engine, "_guide", "copies", "guidance"),
        (engine._model.backbone, "step", "conditions", "backbone"),
        (engine, "_make", "copies", "outcome"),
        (engine, "_sampler", "copies", "head"),
        (engine, "_pixels", "copies", "decoder"),
    ]

    def marking(work: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
        def marked(*given: Any) -> Any:
            mark(before)
            made = work(*given)
            mark(after)
            return made

        return marked

    graphs, engine._graphs = engine._graphs, None
    own = [vars(owner).get(name) for owner, name, *_ in places]
    try:
        for owner, name, before, after in places:
            setattr(owner, name, marking(getattr(owner, name), before, after))
        yield
    finally:
        engine._graphs = graphs
        for (owner, name, *_), value in zip(places, own, strict=True):
            if value is None:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


class _Clocked:
    """A session that tells how long it ran."""

    def __init__(self, session: "GraphRunner", times: Times) -> None:
        self._session, self._times = session, times

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Run the session; see `GraphRunner.run`."""
        began = time.perf_counter()
        self._session.run(inputs, outputs)
        self._times.append(1e3 * (time.perf_counter() - began))


def time_graphs(
    engine: "OnnxEngine", start: StartState, *, batch_size: int, num_steps: int
) -> dict[str, Times]:
    """Return how long each graph took in each of so many whole steps, by part."""
    sessions = engine._sessions
    times: dict[str, Times] = {name: [] for name in sessions}
    pairs = zip(sessions.items(), times.values(), strict=True)
    clocked = {name: _Clocked(session, own) for (name, session), own in pairs}
    engine._sessions = cast("dict[str, GraphRunner]", clocked)
    try:
        TimedGame(engine, start, batch_size=batch_size).time_steps(WARM_UP_STEPS + num_steps)
    finally:
        engine._sessions = sessions
    return {part: own[-num_steps:] for part, own in times.items()}
