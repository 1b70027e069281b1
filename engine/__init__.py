"""Engines: run a world's networks on a backend; rollouts play games on them."""

import difflib
import logging

import torch

from engine.spec import Cache, Engine, EngineSpec
from engine.torch_engine import TorchEngine
from midas_world.types import BackendUnavailableError
from midas_world.world import World

__all__ = ["BACKENDS", "Cache", "Engine", "EngineSpec", "TorchEngine", "make_engine"]

BACKENDS = ("auto", "torch", "onnx", "tensorrt")

_log = logging.getLogger(__name__)


def make_engine(
    world: World,
    backend: str = "auto",
    *,
    device: str | torch.device | None = None,
    num_denoise_steps: int | None = None,
) -> Engine:
    """Return an engine that runs a world.

    Args:
        world: What to run.
        backend: One of BACKENDS; "auto" takes the fastest that works here.
        device: "cpu" or "cuda"; None takes the GPU if there is one.
        num_denoise_steps: Head passes per frame; None takes the world's own number.

    Raises:
        ValueError: No backend has this name, or num_denoise_steps is below 1.
        BackendUnavailableError: The backend cannot run here.
    """
    if backend not in BACKENDS:
        nearest = difflib.get_close_matches(str(backend), BACKENDS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}, "
            f"did you mean {nearest!r}?"
        )
    if backend in ("onnx", "tensorrt"):
        raise BackendUnavailableError(
            f"this version has no {backend!r} backend; use backend='torch' (or 'auto')"
        )
    engine = TorchEngine(world, device=device, num_denoise_steps=num_denoise_steps)
    _log.info("%s runs on %s: %s", world.folder.name, engine.spec, engine.spec.reason)
    return engine
