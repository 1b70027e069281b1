"""Engine files: built from plans, kept in a cache folder, never stale or corrupt.

The folder's name is a hash of the world and the graphs' version, a file's that of all else that it
follows from, and a checksum lies beside it: what is there is right, as with ONNX graphs.
"""

import hashlib
import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from engine.on_onnx.files import is_intact, kept_in, made_of, seal
from engine.on_tensorrt.graphs import plan_graph
from engine.on_tensorrt.plan import load_plan
from engine.on_tensorrt.runtime import build_engine, load_tensorrt
from midas_world.files import whole
from midas_world.types import BackendUnavailableError
from midas_world.world import World

# TensorRT for RTX builds for these, GPU or not; data-centre cards such as sm90 need TensorRT.
RTX_CAPABILITIES = (75, 80, 86, 89, 120, 121)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where and with what engine files are to run.

    Attributes:
        backend: "tensorrt" or "rtx".
        capability: Of the GPU, such as 89.
        folder: Engine files are kept below it.
    """

    backend: str
    capability: int
    folder: Path

    def check(self) -> None:
        """Check that files can be built for it.

        Raises:
            BackendUnavailableError: TensorRT for RTX does not know the GPU.
        """
        if self.backend == "rtx" and self.capability not in RTX_CAPABILITIES:
            known = ", ".join(f"sm{item}" for item in RTX_CAPABILITIES)
            raise BackendUnavailableError(
                f"backend 'rtx' knows {known}, not sm{self.capability}; use 'tensorrt'"
            )


def capability_here() -> int:
    """Return the compute capability of the GPU at hand.

    Raises:
        BackendUnavailableError: There is none.
    """
    if not torch.cuda.is_available():
        raise BackendUnavailableError(
            "there is no NVIDIA GPU here: name the compute capability to build for, such as sm89"
        )
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def parse_capability(text: str) -> int:
    """Return 89 of "sm89" or "8.9".

    Raises:
        ValueError: The text is no compute capability.
    """
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", text.strip().lower())
    if match is None:
        raise ValueError(f"a compute capability is written such as sm89 or 8.9, got {text!r}")
    return 10 * int(match[1]) + int(match[2])


def engine_path(world: World, graph: str, target: Target, *, num_denoise_steps: int) -> Path:
    """Return where the engine file of a graph is, or will be."""
    key = {
        "plan": asdict(load_plan(graph)),
        "version": load_tensorrt(target.backend).__version__,
        "denoise steps": num_denoise_steps,
    }
    if target.backend == "tensorrt" and torch.cuda.is_available():
        key["GPU"] = torch.cuda.get_device_name()  # its kernels are timed on one card
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    name = f"{graph}-{target.backend}-sm{target.capability}-{digest}.engine"
    return target.folder / made_of(world) / name


def provide_engine(world: World, graph: str, target: Target, *, num_denoise_steps: int) -> Path:
    """Return the engine file of a graph, building it if it is not there or not whole.

    Raises:
        BackendUnavailableError: A package is not installed, this GPU is none that can be built
            for, TensorRT cannot build the graph, or the folder cannot be written.
    """
    target.check()
    path = engine_path(world, graph, target, num_denoise_steps=num_denoise_steps)
    if is_intact(path):
        return path
    if target.backend == "tensorrt" and capability_here() != target.capability:
        raise BackendUnavailableError(
            f"tensorrt builds for the GPU at hand alone, sm{capability_here()}, not "
            f"sm{target.capability}; rtx builds for any"
        )
    _log.info("building %s; it is kept", path.name)
    plan = load_plan(graph)
    contents = build_engine(
        plan_graph(world, graph, plan.precision, num_denoise_steps=num_denoise_steps),
        plan,
        backend=target.backend,
        capability=target.capability,
    )
    with kept_in(path.parent), whole(path) as place:
        place.write_bytes(contents)
        seal(place)
    return path
