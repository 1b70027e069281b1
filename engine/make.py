"""Making an engine that runs a world, by a backend's name or the fastest here."""

import difflib
import logging
from pathlib import Path

import torch

from engine.backends import BACKENDS as _BACKENDS
from engine.backends import Request
from engine.select import make_fastest, make_named
from engine.spec import Engine
from midas_world.plain_torch import kept_random_stream, plain_torch
from midas_world.user_folders import cache_folder
from midas_world.world import World

BACKENDS = ("auto", *_BACKENDS)
# Precisions of torch's that can be named.
TORCH_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}

_log = logging.getLogger(__name__)


@plain_torch()
def make_engine(
    world: World,
    backend: str = "auto",
    *,
    device: str | torch.device | None = None,
    num_denoise_steps: int | None = None,
    folder: Path | None = None,
) -> Engine:
    """Return an engine that runs a world.

    "auto" takes the fastest backend that is ready: installed, and with nothing left to export or
    to build. Where several are, the first start measures a few frames on each, which takes about a
    second, and later starts remember. So equal seeds give equal frames on one machine, until the
    world, the number of threads, a version or the set of backends that are ready changes; name a
    backend, and torch's precision with it ("torch:float32"), to be independent of that. Torch's
    precision is otherwise measured and remembered likewise.

    A named backend makes what it lacks first (the ONNX graphs of a world take a minute, once; so
    does `midas-world build`), and is an error if it cannot run: there is no silent fallback.

    Args:
        world: What to run.
        backend: One of BACKENDS; "torch" with or without ":bfloat16" or ":float32".
        device: "cpu" or "cuda"; None takes the GPU if there is one and the backend can use it.
        num_denoise_steps: Head passes per frame; None takes the world's own number.
        folder: Where exported graphs and measurements are kept; None is the user's cache folder.

    Raises:
        ValueError: No backend or precision has this name, or num_denoise_steps is below 1.
        BackendUnavailableError: The backend cannot run here; it says what to install.
    """
    backend, _, precision = str(backend).partition(":")
    if backend not in BACKENDS:
        nearest = difflib.get_close_matches(backend, BACKENDS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}, "
            f"did you mean {nearest!r}?"
        )
    if precision and (backend != "torch" or precision not in TORCH_DTYPES):
        raise ValueError(
            f"only torch takes a precision, which is one of {', '.join(TORCH_DTYPES)}; "
            f"got {backend}:{precision}"
        )
    has_gpu = torch.cuda.is_available() and backend != "onnx"
    request = Request(
        world=world,
        device=str(device or ("cuda" if has_gpu else "cpu")),
        num_denoise_steps=num_denoise_steps,
        folder=folder or cache_folder(),
        dtype=TORCH_DTYPES[precision] if precision else None,
    )
    with kept_random_stream():
        engine = make_fastest(request) if backend == "auto" else make_named(backend, request)
    _log.info("%s runs on %s: %s", world.folder.name, engine.spec, engine.spec.reason)
    return engine
