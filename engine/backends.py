"""The ways to run a world: what each needs here, whether it can start at once, how it is made.

A backend to add is one more entry of `BACKENDS`.
"""

import hashlib
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from engine.on_torch.engine import TorchEngine
from engine.on_torch.networks import native_dtypes
from engine.spec import Engine
from midas_world.files import write_first
from midas_world.machine import cpu_name
from midas_world.types import BackendUnavailableError, StepConditions
from midas_world.user_folders import or_not_kept
from midas_world.world import World

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for.

    Attributes:
        world: What to run.
        device: "cpu" or "cuda".
        num_denoise_steps: Head passes per frame; None takes the world's own number.
        folder: Where exported graphs and measurements are kept.
        dtype: Of torch's networks; None takes the fastest.
        remembers: Whether a later "auto" may take what was compiled for this request.
        reason: In words, why the backend was chosen, for the engine's spec.
    """

    world: World
    device: str
    num_denoise_steps: int | None
    folder: Path
    dtype: torch.dtype | None = None
    remembers: bool = True
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
        is_ready: Whether it can start with nothing to export, to build or to compile for the first
            time.
        make: Return the engine, waiting for whatever has to be made.
        dtypes: Return the precisions worth measuring; None: it has one of its own.
        is_file_based: Whether it is ready at once in every start after its files were made.
    """

    check: Callable[[Request], None]
    is_ready: Callable[[Request], bool]
    make: Callable[[Request], Engine]
    dtypes: Callable[[Request], Sequence[torch.dtype | None]] = lambda _: (None,)
    is_file_based: bool = False


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


def _make_torch(request: Request, *, compile: bool = False) -> Engine:
    return TorchEngine(
        request.world,
        device=request.device,
        dtype=request.dtype,
        num_denoise_steps=request.num_denoise_steps,
        compile=compile,
        reason=request.reason,
    )


def _compiled_is_ready(request: Request) -> bool:
    return _compiled_mark(request).is_file()


def _make_compiled(request: Request) -> Engine:
    """Return torch's engine with kernels compiled for one game, and keep that there are some.

    Other numbers of games are compiled when they are first played.
    """
    # Kernels outlive the process there, and the next start takes seconds instead of a minute.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(request.folder / "inductor"))
    engine = _make_torch(request, compile=True)
    try:
        _draw_one(engine)
    except RuntimeError as error:
        _compiled_mark(request).unlink(missing_ok=True)
        words = str(error).strip().partition("\n")[0]
        raise BackendUnavailableError(
            f"backend 'torch-compile' does not work here ({words}); use backend='torch'"
        ) from error
    if request.remembers:
        with or_not_kept():
            write_first(_compiled_mark(request), b"kernels of this world were compiled here\n")
    return engine


def _draw_one(engine: Engine) -> None:
    """Make one step of an empty game and draw its frame."""
    latents = torch.zeros(1, *engine.spec.latent_shape)
    conditions = engine.spec.stack([StepConditions()])
    made = engine.step(engine.new_cache(1), latents, conditions, latents)
    engine.decode(made.latents)


def _compiled_mark(request: Request) -> Path:
    sizes = {"world": asdict(request.world.config.world), "steps": request.denoise_steps}
    dtype = str(request.dtype or native_dtypes(torch.device(request.device))[0])
    machine = {"device": device_name(request), "dtype": dtype, "torch": torch.__version__}
    key = json.dumps({**sizes, **machine})
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return request.folder / "inductor" / f"{digest}.ready"


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
    from engine.on_onnx.engine import DEFAULT_PRECISION
    from engine.on_onnx.export import can_start

    return can_start(
        request.world,
        precision=DEFAULT_PRECISION,
        num_denoise_steps=request.denoise_steps,
        folder=request.folder / "onnx",
    )


def _make_onnx(request: Request) -> Engine:
    from engine.on_onnx.engine import OnnxEngine

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
        from engine.on_tensorrt.build import capability_here
        from engine.on_tensorrt.engine import BACKENDS
        from engine.on_tensorrt.plan import DEFAULT_PLANS, load_plans

        for name, plan in load_plans(DEFAULT_PLANS).items():
            if words := plan.objection(BACKENDS[backend], capability_here()):
                raise BackendUnavailableError(f"backend {backend!r} cannot run {name}: {words}")

    return check


def _trt_is_ready(backend: str) -> Callable[[Request], bool]:
    def is_ready(request: Request) -> bool:
        from engine.on_tensorrt.build import Target, capability_here, is_built
        from engine.on_tensorrt.engine import BACKENDS
        from engine.on_tensorrt.plan import DEFAULT_PLANS, load_plans

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
        from engine.on_tensorrt.engine import TensorRTEngine

        return TensorRTEngine(
            request.world,
            backend=backend,
            num_denoise_steps=request.num_denoise_steps,
            folder=request.folder / "tensorrt",
            reason=request.reason,
        )

    return make


BACKENDS = {
    "torch": Backend(_check_torch, lambda _: True, _make_torch, _torch_dtypes),
    "torch-compile": Backend(_check_torch, _compiled_is_ready, _make_compiled),
    "onnx": Backend(_check_onnx, _onnx_is_ready, _make_onnx, is_file_based=True),
    **{
        name: Backend(_trt_check(name), _trt_is_ready(name), _trt_make(name), is_file_based=True)
        for name in ("tensorrt", "rtx")
    },
}
