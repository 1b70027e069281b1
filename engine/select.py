"""Which backend runs a world: a named one, or the fastest that is ready here.

"auto" measures once and remembers. What it remembers is keyed by the world, the machine and all
versions, so that equal seeds give equal frames from one start to the next; a new version, another
number of threads, or graphs that were exported since then are a new question. It never makes
anyone wait: a backend whose files would have to be made first is not asked.

A backend to add is one more entry of `_BACKENDS`.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import midas_world
from engine.cache_folder import cache_folder, write_whole
from engine.spec import Engine
from engine.torch_engine import TorchEngine
from midas_world.conditions import stack_conditions
from midas_world.types import BackendUnavailableError, StepConditions
from midas_world.world import World

# Steps whose times are not counted, and those that are, of which the fastest tells: on a busy
# machine all others tell of its other work.
WARM_UP_STEPS = 2
MEASURED_STEPS = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for.

    Attributes:
        world: What to run.
        device: "cpu" or "cuda".
        num_denoise_steps: Head passes per frame; None takes the world's own number.
        folder: Where exported graphs and measurements are kept.
        reason: In words, why the backend was chosen, for the engine's spec.
    """

    world: World
    device: str
    num_denoise_steps: int | None
    folder: Path
    reason: str = "as asked"

    @property
    def denoise_steps(self) -> int:
        """Head passes per frame."""
        own = self.world.config.world.diffusion.num_denoise_steps
        return own if self.num_denoise_steps is None else self.num_denoise_steps

    @property
    def is_cpu(self) -> bool:
        """Whether the networks are to run on the CPU."""
        return self.device.startswith("cpu")


@dataclass(frozen=True)
class Backend:
    """One way to run a world.

    Attributes:
        check: Raises BackendUnavailableError if a request cannot be met here.
        is_ready: Whether it can start at once, with nothing to export or to build.
        make: Return the engine, waiting for whatever has to be made.
    """

    check: Callable[[Request], None]
    is_ready: Callable[[Request], bool]
    make: Callable[[Request], Engine]


def make_named(backend: str, request: Request) -> Engine:
    """Return the engine of a named backend.

    Raises:
        BackendUnavailableError: It cannot run here.
    """
    _BACKENDS[backend].check(request)
    return _BACKENDS[backend].make(request)


def make_fastest(request: Request) -> Engine:
    """Return the engine of the fastest backend that is ready here; its spec says why."""
    ready = [
        name
        for name, backend in _BACKENDS.items()
        if _can_run(backend, request) and backend.is_ready(request)
    ]
    if len(ready) == 1:
        reason = f"only {ready[0]} is ready here"
        return make_named(ready[0], replace(request, reason=reason))
    path = request.folder / "choices" / f"{_choice_key(request, ready)}.json"
    times = _load_times(path, ready)
    if not times:
        times = {
            name: measure_step(make_named(name, request), request.world) * 1000.0 for name in ready
        }
        # Another process may have measured meanwhile: the first word stands.
        times = _load_times(path, ready) or times
        _save_times(times, path)
    ranked = sorted(times, key=times.__getitem__)
    words = ", ".join(f"{name} {times[name]:.1f} ms" for name in ranked)
    return make_named(ranked[0], replace(request, reason=f"the fastest here: {words} a frame"))


def unbuilt_backends(world: World, *, device: str, num_denoise_steps: int | None) -> list[str]:
    """Return the backends that could run a world on a GPU, were their engine files built."""
    request = Request(
        world=world, device=device, num_denoise_steps=num_denoise_steps, folder=cache_folder()
    )
    if request.is_cpu:
        return []
    return [
        name
        for name, backend in _BACKENDS.items()
        if _can_run(backend, request) and not backend.is_ready(request)
    ]


def measure_step(engine: Engine, world: World) -> float:
    """Return the seconds that one step and decode of one game take, the fastest of a few."""
    shape = (1, *engine.spec.latent_shape)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    given = [StepConditions()]
    latents = noise
    if world.start_states:
        given = [world.start_states[0].conditions[-1]]
        latents = world.start_states[0].latents[-1:].float()
    conditions = stack_conditions(given, engine.spec.config.conditions)
    cache = engine.new_cache(1)
    times = []
    for _ in range(WARM_UP_STEPS + MEASURED_STEPS):
        began = time.perf_counter()
        engine.step(cache, latents, conditions, noise)
        engine.decode(latents)
        times.append(time.perf_counter() - began)
    return min(times[WARM_UP_STEPS:])


def _can_run(backend: Backend, request: Request) -> bool:
    try:
        backend.check(request)
    except BackendUnavailableError:
        return False
    return True


def _choice_key(request: Request, ready: Sequence[str]) -> str:
    """Return a hash of all that a measurement is true for."""
    from engine.onnx_export import graphs_folder  # its name tells the world and the code

    key = {
        "world": graphs_folder(request.world).name,
        "device": _device_name(request),
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


def _device_name(request: Request) -> str:
    if not request.is_cpu:
        return torch.cuda.get_device_name(request.device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return f"{platform.machine()} {platform.processor()}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _load_times(path: Path, ready: Sequence[str]) -> dict[str, float]:
    """Return the remembered milliseconds, or nothing if there are none that can be read."""
    try:
        times = json.loads(path.read_text(encoding="utf-8"))["milliseconds"]
        return {name: float(times[name]) for name in ready}
    except FileNotFoundError:
        return {}
    except (KeyError, TypeError, ValueError):
        _log.warning("%s cannot be read; measuring again", path)
        return {}


def _save_times(times: Mapping[str, float], path: Path) -> None:
    write_whole(path, json.dumps({"milliseconds": times}, indent=2).encode())


def _missing(packages: Sequence[str]) -> list[str]:
    return [name for name in packages if importlib.util.find_spec(name) is None]


def _check_torch(request: Request) -> None:
    if not request.is_cpu and not torch.cuda.is_available():
        raise BackendUnavailableError(f"there is no {request.device!r} device here; use 'cpu'")


def _make_torch(request: Request) -> Engine:
    return TorchEngine(
        request.world,
        device=request.device,
        num_denoise_steps=request.num_denoise_steps,
        reason=request.reason,
    )


def _check_onnx(request: Request) -> None:
    if not request.is_cpu:
        raise BackendUnavailableError(
            f"backend 'onnx' runs on the CPU, not on {request.device!r}; use device='cpu'"
        )
    missing = _missing(("onnxruntime", "onnx", "onnxscript"))
    if missing:
        raise BackendUnavailableError(
            f"backend 'onnx' needs {', '.join(missing)}: pip install \"midas-world[onnx]\""
        )


def _onnx_is_ready(request: Request) -> bool:
    from engine.onnx_engine import DEFAULT_PRECISION
    from engine.onnx_export import graph_paths, graphs_folder

    graphs = graphs_folder(request.world, folder=request.folder / "onnx")
    paths = graph_paths(
        graphs, precision=DEFAULT_PRECISION, num_denoise_steps=request.denoise_steps
    )
    return all(path.is_file() for path in paths.values())


def _make_onnx(request: Request) -> Engine:
    from engine.onnx_engine import OnnxEngine

    return OnnxEngine(
        request.world,
        num_denoise_steps=request.num_denoise_steps,
        folder=request.folder / "onnx",
        reason=request.reason,
    )


def _trt_check(backend: str) -> Callable[[Request], None]:
    """Return the check of "tensorrt" or "rtx": packages first, then the GPU."""
    module = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}[backend]

    def check(request: Request) -> None:
        missing = _missing((module, "pycuda", "onnx", "onnxscript"))
        if missing:
            raise BackendUnavailableError(
                f"backend {backend!r} needs {', '.join(missing)}: "
                f"pip install \"midas-world[{backend}]\" (or use backend='torch')"
            )
        if request.is_cpu or not torch.cuda.is_available():
            raise BackendUnavailableError(
                f"backend {backend!r} needs an NVIDIA GPU, and runs on {request.device!r} here; "
                "use backend='torch' (or 'auto')"
            )
        from engine.trt_build import capability_here
        from engine.trt_engine import BACKENDS
        from engine.trt_plan import DEFAULT_PLANS, load_plans

        for name, plan in load_plans(DEFAULT_PLANS).items():
            if words := plan.objection(BACKENDS[backend], capability_here()):
                raise BackendUnavailableError(f"backend {backend!r} cannot run {name}: {words}")

    return check


def _trt_is_ready(backend: str) -> Callable[[Request], bool]:
    def is_ready(request: Request) -> bool:
        from engine.trt_build import Target, capability_here, is_built
        from engine.trt_engine import BACKENDS
        from engine.trt_plan import DEFAULT_PLANS, load_plans

        target = Target(
            flavour=BACKENDS[backend],
            capability=capability_here(),
            folder=request.folder / "tensorrt",
        )
        plans = load_plans(DEFAULT_PLANS)
        return is_built(request.world, plans, target, steps=request.denoise_steps)

    return is_ready


def _trt_make(backend: str) -> Callable[[Request], Engine]:
    def make(request: Request) -> Engine:
        from engine.trt_engine import TensorRTEngine

        return TensorRTEngine(
            request.world,
            backend=backend,
            num_denoise_steps=request.num_denoise_steps,
            folder=request.folder / "tensorrt",
            reason=request.reason,
        )

    return make


_BACKENDS = {
    "torch": Backend(_check_torch, lambda _: True, _make_torch),
    "onnx": Backend(_check_onnx, _onnx_is_ready, _make_onnx),
    **{
        name: Backend(_trt_check(name), _trt_is_ready(name), _trt_make(name))
        for name in ("tensorrt", "rtx")
    },
}
