"""Which backend runs a world: a named one, or the fastest that is ready here.

"auto" measures once and remembers. What it remembers is keyed by the world, the machine and all
versions, so that equal seeds give equal frames from one start to the next; a new version, another
number of threads, or graphs that were exported since then are a new question. A backend whose files
would have to be made first is not asked. Torch's precision is chosen in the same way, unless it is
named too.
"""

import functools
import hashlib
import importlib.metadata
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import midas_world
from engine.backends import BACKENDS, Backend, Request, device_name
from engine.on_onnx.files import made_of
from engine.spec import Engine
from midas_world.files import write_first
from midas_world.types import BackendUnavailableError, StepConditions
from midas_world.user_folders import or_not_kept
from midas_world.world import World

# Turns of each engine after one to warm up, and the steps of a turn. The fastest step tells: on a
# busy machine all others tell of its other work.
TURNS = 4
STEPS_OF_TURN = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Candidate:
    """A backend in one of its precisions."""

    backend: str
    dtype: torch.dtype | None

    def __str__(self) -> str:
        if self.dtype is None:
            return self.backend
        return f"{self.backend} {str(self.dtype).removeprefix('torch.')}"

    def make(self, request: Request, reason: str) -> Engine:
        asked = replace(request, dtype=self.dtype, reason=reason)
        return BACKENDS[self.backend].make(asked)


def make_named(backend: str, request: Request) -> Engine:
    """Return the engine of a named backend, in the precision that is fastest here.

    Raises:
        BackendUnavailableError: It cannot run here.
    """
    BACKENDS[backend].check(request)
    return _fastest(_candidates([backend], request), request, only="as asked")


def make_fastest(request: Request) -> Engine:
    """Return the engine of the fastest backend that is ready here; its spec says why.

    One that fails although it was ready is told, and torch runs instead.

    Raises:
        BackendUnavailableError: There is no such device.
    """
    can_run = [name for name, backend in BACKENDS.items() if _can_run(backend, request)]
    missing = unbuilt_backends(request)
    ready = [name for name in can_run if name not in missing]
    if missing:
        _log.info("%s could run, too, after `midas-world build`", " and ".join(missing))
    if not ready:
        BACKENDS["torch"].check(request)  # raises: it says what is missing
    candidates = _candidates(ready, request)
    try:
        return _fastest(candidates, request, only=f"only {' and '.join(ready)} is ready here")
    except BackendUnavailableError as error:
        if ready == ["torch"]:
            raise
        _log.warning("%s", error)
        return make_named("torch", request)


def unbuilt_backends(request: Request) -> list[str]:
    """Return the backends that could meet a request, were their files made first."""
    return [
        name
        for name, backend in BACKENDS.items()
        if _can_run(backend, request) and not backend.is_ready(request)
    ]


def measure_in_turns(
    candidates: Mapping[str, Callable[[], Engine]], world: World
) -> dict[str, float]:
    """Return the seconds that one step and the picture of one game take, the fastest of a few.

    All engines are there at once and take turns, so that a busy moment does not strike one alone.
    """
    plays = {name: _stepping(make(), world) for name, make in candidates.items()}
    times: dict[str, list[float]] = {name: [] for name in plays}
    for turn in range(TURNS + 1):
        for name, play in plays.items():
            for _ in range(STEPS_OF_TURN):
                began = time.perf_counter()
                play()
                if turn:  # the first one warms up
                    times[name].append(time.perf_counter() - began)
    return {name: min(values) for name, values in times.items()}


def measure_one_by_one(
    candidates: Mapping[str, Callable[[], Engine]], world: World
) -> dict[str, float]:
    """Return the same with one engine at a time: on a GPU, where memory is dear."""
    return {name: measure_in_turns({name: make}, world)[name] for name, make in candidates.items()}


def _stepping(engine: Engine, world: World) -> Callable[[], None]:
    """Return what makes one frame, over and over."""
    shape = (1, *engine.spec.latent_shape)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    given = [StepConditions()]
    latents = noise
    if world.start_states:
        given = [world.start_states[0].conditions[-1]]
        latents = world.start_states[0].latents[-1:].float()
    conditions = engine.spec.stack(given)
    cache = engine.new_cache(1)

    def play() -> None:
        engine.step(cache, latents, conditions, noise)
        engine.decode(latents)

    return play


def _candidates(backends: Sequence[str], request: Request) -> list[_Candidate]:
    return [
        _Candidate(name, dtype)
        for name in backends
        for dtype in ([request.dtype] if request.dtype else BACKENDS[name].dtypes(request))
    ]


def _fastest(candidates: Sequence[_Candidate], request: Request, *, only: str) -> Engine:
    """Return the fastest candidate's engine; a single one, with words of its own, unmeasured."""
    if len(candidates) == 1:
        return candidates[0].make(request, only)
    named = {str(candidate): candidate for candidate in candidates}
    path = request.folder / "choices" / f"{_choice_key(request, list(named))}.json"
    times = _load_times(path, list(named))
    if not times:
        makers = {
            name: functools.partial(candidate.make, request, "to be measured")
            for name, candidate in named.items()
        }
        measure = measure_in_turns if request.is_cpu else measure_one_by_one
        measured = measure(makers, request.world)
        times = {name: seconds * 1e3 for name, seconds in measured.items()}
        with or_not_kept():
            write_first(path, json.dumps({"milliseconds": times}, indent=2).encode())
        # Another process may have measured meanwhile: the first word stands, for all of them.
        times = _load_times(path, list(named)) or times
    ranked = sorted(times, key=times.__getitem__)
    words = ", ".join(f"{name} {times[name]:.1f} ms" for name in ranked)
    return named[ranked[0]].make(request, f"the fastest here: {words} a frame")


def _can_run(backend: Backend, request: Request) -> bool:
    try:
        backend.check(request)
    except BackendUnavailableError:
        return False
    return True


def _choice_key(request: Request, ready: Sequence[str]) -> str:
    """Return a hash of all that a measurement is true for."""
    key = {
        "world": made_of(request.world),
        "device": device_name(request),
        "num_threads": torch.get_num_threads(),
        "num_denoise_steps": request.denoise_steps,
        "ready": list(ready),
        "versions": {
            "midas-world": midas_world.__version__,
            **{
                name: _version(name)
                for name in ("torch", "onnxruntime", "tensorrt", "tensorrt-rtx")
            },
        },
    }
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _load_times(path: Path, ready: Sequence[str]) -> dict[str, float]:
    """Return the remembered milliseconds, or nothing if there are none that can be read."""
    try:
        times = json.loads(path.read_text(encoding="utf-8"))["milliseconds"]
        found = {name: float(times[name]) for name in ready}
        if not all(0 < value < math.inf for value in found.values()):
            raise ValueError(f"{found} are no times")
        return found
    except OSError:  # usually: there is none yet
        return {}
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        _log.warning("%s cannot be read; measuring again", path)
        with or_not_kept():
            path.unlink(missing_ok=True)
        return {}
