"""The ways to run a world: what each needs here, whether it can start at once, how it is made.

A backend to add is one more entry of `BACKENDS`.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from engine.on_onnx.export import can_start
from engine.on_onnx.files import is_intact
from engine.on_tensorrt.build import Target, capability_here
from engine.on_tensorrt.engine import make_tensorrt
from engine.on_tensorrt.runtime import MODULES
from engine.on_torch.engine import TorchEngine
from engine.on_torch.networks import native_dtypes
from engine.prepare import jobs_of
from engine.spec import Engine
from midas_world.machine import cpu_name
from midas_world.types import BackendUnavailableError
from midas_world.world import World


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for.

    Attributes:
        world: What to run.
        device: "cpu" or "cuda".
        num_denoise_steps: Head passes per frame; None takes the world's own number.
        folder: Where exported graphs and measurements are kept.
        dtype: Of torch's networks; None takes the fastest.
        reason: In words, why the backend was chosen, for the engine's spec.
    """

    world: World
    device: str
    num_denoise_steps: int | None
    folder: Path
    dtype: torch.dtype | None = None
    reason: str = "as asked"

    @property
    def denoise_steps(self) -> int:
        """Head passes per frame."""
        own = self.world.config.world.head.num_denoise_steps
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
        is_ready: Whether it can start with nothing to export or to build.
        make: Return the engine, waiting for whatever has to be made.
        dtypes: Return the precisions worth measuring; None: it has one of its own.
    """

    check: Callable[[Request], None]
    is_ready: Callable[[Request], bool]
    make: Callable[[Request], Engine]
    dtypes: Callable[[Request], Sequence[torch.dtype | None]] = lambda _: (None,)


def device_name(request: Request) -> str:
    """Return the name of the processor or GPU that a request is for."""
    if not request.is_cpu:
        return torch.cuda.get_device_name(request.device)
    return cpu_name()


def _missing(packages: Sequence[str]) -> list[str]:
    return [name for name in packages if importlib.util.find_spec(name) is None]


def _check_torch(request: Request) -> None:
    if not request.is_cpu and not torch.cuda.is_available():
        raise BackendUnavailableError(f"there is no {request.device!r} device here; use 'cpu'")


def _torch_dtypes(request: Request) -> Sequence[torch.dtype]:
    return native_dtypes(torch.device(request.device))


def _make_torch(request: Request) -> Engine:
    return TorchEngine(
        request.world,
        device=request.device,
        dtype=request.dtype,
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
            f"backend 'onnx' needs {', '.join(missing)}: pip install {' '.join(missing)}"
        )


def _onnx_is_ready(request: Request) -> bool:
    return can_start(
        request.world, num_denoise_steps=request.denoise_steps, folder=request.folder / "onnx"
    )


def _make_onnx(request: Request) -> Engine:
    from engine.on_onnx.engine import OnnxEngine  # ONNX Runtime may not be there

    return OnnxEngine(
        request.world,
        num_denoise_steps=request.num_denoise_steps,
        folder=request.folder / "onnx",
        reason=request.reason,
    )


def _check_tensorrt(backend: str, request: Request) -> None:
    missing = _missing((MODULES[backend], "onnx", "onnxscript"))
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
    Target(backend=backend, capability=capability_here(), folder=request.folder).check()


def _tensorrt_is_ready(backend: str, request: Request) -> bool:
    steps = request.denoise_steps
    jobs = jobs_of(backend, request.world, num_denoise_steps=steps, folder=request.folder)
    return all(is_intact(job.path) for job in jobs)


def _make_tensorrt(backend: str, request: Request) -> Engine:
    return make_tensorrt(
        request.world,
        backend,
        num_denoise_steps=request.denoise_steps,
        folder=request.folder / "tensorrt",
        reason=request.reason,
    )


BACKENDS = {
    "torch": Backend(_check_torch, lambda _: True, _make_torch, _torch_dtypes),
    "onnx": Backend(_check_onnx, _onnx_is_ready, _make_onnx),
    **{
        name: Backend(
            partial(_check_tensorrt, name),
            partial(_tensorrt_is_ready, name),
            partial(_make_tensorrt, name),
        )
        for name in ("tensorrt", "rtx")
    },
}
