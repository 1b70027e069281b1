"""Engine files: built from plans, kept in a cache folder, never stale, foreign or corrupt.

A file is one line of magic, one line of JSON (what it was built from, what is in it, and the hash
of what follows) and TensorRT's contents. What it was built from is compared with what would be
built now before anything is loaded; what differs is said, and the file is built again. Files come
into being by a rename, so that a build that was stopped leaves none.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine.on_onnx.files import graphs_folder
from engine.on_tensorrt.graphs import plan_graph
from engine.on_tensorrt.plan import TrtPlan
from engine.on_tensorrt.runtime import build_engine, flavour_version
from midas_world.files import write_whole
from midas_world.types import BackendUnavailableError, MidasWorldError
from midas_world.user_folders import cache_folder, or_not_kept
from midas_world.world import World

MAGIC = b"midas-world engine file 1\n"

Progress = Callable[[str, int, int], None]

_log = logging.getLogger(__name__)


class EngineFileError(MidasWorldError):
    """An engine file is not what would be built now; the message says how it differs."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where and with what engine files are to run.

    Attributes:
        flavour: One of FLAVOURS.
        capability: Of the GPU, such as 89.
        folder: Engine files and timing caches are kept below it.
    """

    flavour: str
    capability: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """What is in an engine file.

    Attributes:
        path: Where it lies.
        contents: What TensorRT loads.
        key: All that it was built from.
        tensors: Inputs and outputs by name: kind, dtype, shape.
        is_new: Whether it was built just now.
    """

    path: Path
    contents: bytes
    key: dict[str, Any]
    tensors: dict[str, dict[str, Any]]
    is_new: bool = False


def default_folder() -> Path:
    """Return the folder below the user's cache where engine files are kept."""
    return cache_folder() / "tensorrt"


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


def engine_path(world: World, name: str, target: Target) -> Path:
    """Return where the engine file of a world and a plan is, or will be."""
    words = f"{name}-{target.flavour}-sm{target.capability}.engine"
    return target.folder / graphs_folder(world, folder=target.folder).name / words


def engine_key(world: World, plan: TrtPlan, target: Target, *, num_denoise_steps: int) -> dict:
    """Return all that an engine file follows from."""
    key: dict[str, Any] = {
        # Its name is a hash of weights, config, start states and the version of the graphs.
        "world": graphs_folder(world, folder=target.folder).name,
        "plan": asdict(plan),
        "flavour": target.flavour,
        "version": flavour_version(target.flavour),
        "compute capability": target.capability,
    }
    if plan.graph == "head":
        key["denoise steps"] = num_denoise_steps
    if target.flavour == "tensorrt":  # its kernels were timed on one card
        is_here = torch.cuda.is_available()
        key["GPU"] = torch.cuda.get_device_name() if is_here else None
    return json.loads(json.dumps(key))


def read_engine(path: Path, key: dict[str, Any]) -> EngineFile:
    """Return an engine file that was built from what the key says.

    Raises:
        FileNotFoundError: There is none.
        EngineFileError: It is corrupt, or was built from something else.
    """
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        raise EngineFileError(f"{path.name} is corrupt or foreign: it does not begin as ours do")
    line, _, contents = data[len(MAGIC) :].partition(b"\n")
    try:
        head = json.loads(line)
        built_from, tensors, digest = head["key"], head["tensors"], head["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise EngineFileError(f"{path.name} is corrupt: its head cannot be read") from error
    if hashlib.sha256(contents).hexdigest() != digest:
        raise EngineFileError(f"{path.name} is corrupt: {len(contents)} bytes of another hash")
    for name in {**key, **built_from}:
        was, now = built_from.get(name), key.get(name)
        if was != now:
            raise EngineFileError(f"{path.name} is stale: its {name} is {was}, now {now}")
    return EngineFile(path=path, contents=contents, key=key, tensors=tensors)


def is_built(world: World, plans: dict[str, TrtPlan], target: Target, *, steps: int) -> bool:
    """Return whether all plans' engine files are there and right."""
    try:
        for name, plan in plans.items():
            key = engine_key(world, plan, target, num_denoise_steps=steps)
            read_engine(engine_path(world, name, target), key)
    except (FileNotFoundError, EngineFileError):
        return False
    return True


def provide_engine(
    world: World,
    name: str,
    plan: TrtPlan,
    target: Target,
    *,
    num_denoise_steps: int,
    on_progress: Progress | None = None,
) -> EngineFile:
    """Return a plan's engine file, building it if it is not there or not right.

    Raises:
        ValueError: The plan cannot be built for this flavour or GPU.
        BackendUnavailableError: The flavour, or a package that writes ONNX, is not installed; or
            TensorRT is to build for another GPU than the one at hand.
        EngineBuildError: TensorRT cannot build it.
    """
    if words := plan.objection(target.flavour, target.capability):
        raise ValueError(f"plan {name!r} cannot be built: {words}")
    key = engine_key(world, plan, target, num_denoise_steps=num_denoise_steps)
    path = engine_path(world, name, target)
    try:
        return read_engine(path, key)
    except FileNotFoundError:
        _log.info("building %s; it is kept", path.name)
    except EngineFileError as error:
        _log.warning("%s; building it again", error)
    if target.flavour == "tensorrt" and capability_here() != target.capability:
        raise BackendUnavailableError(
            f"tensorrt builds for the GPU at hand alone, sm{capability_here()}, not "
            f"sm{target.capability}; tensorrt-rtx builds for any"
        )
    graph = plan_graph(world, plan, num_denoise_steps=num_denoise_steps)
    timing = target.folder / f"timing-{key['version']}-sm{target.capability}.cache"
    built = build_engine(
        graph,
        plan,
        flavour=target.flavour,
        capability=target.capability,
        timing_cache=timing.read_bytes() if timing.is_file() else b"",
        on_progress=on_progress,
    )
    if built.timing_cache:
        with or_not_kept():
            write_whole(timing, built.timing_cache)
    digest = hashlib.sha256(built.contents).hexdigest()
    head = {"key": key, "tensors": built.tensors, "sha256": digest}
    with or_not_kept():
        write_whole(path, MAGIC + json.dumps(head).encode() + b"\n" + built.contents)
    return EngineFile(
        path=path, contents=built.contents, key=key, tensors=built.tensors, is_new=True
    )
