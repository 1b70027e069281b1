"""Where the files of a world's ONNX graphs are, and what they follow from.

The folder's name is a hash of all that the files follow from: weights, config, start states (which
int8 is calibrated on), the version of ONNX Runtime, which quantises, and GRAPHS_VERSION, which is
raised whenever a change of our code changes graphs. A checksum beside a file says whether it is as
it was written. So a file that is there is right. Outlines lie
in the world's own folder and say themselves what they were made of.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import logging
import platform
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from midas_world.checkpoint import tensors_hash
from midas_world.model.world_model import WorldModel
from midas_world.types import BackendUnavailableError
from midas_world.user_folders import cache_folder
from midas_world.world import World

# Raise it when a graph of the same world becomes another one: tests/test_onnx.py tells.
GRAPHS_VERSION = 7
OPSET = 20
_log = logging.getLogger(__name__)
_OUTLINES_NAME = "outlines"

# Hashes of worlds whose tensors lie where they lay and were not changed since.
_hashes: WeakKeyDictionary[WorldModel, tuple[object, str, dict[str, Tensor]]] = WeakKeyDictionary()


def graphs_folder(world: World, *, folder: Path | None = None) -> Path:
    """Return the folder of a world's graphs; it may not exist yet."""
    try:
        runtime = importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:  # whoever plays on torch asks, too
        runtime = ""
    key = {"made_of": made_of(world), "runtime": runtime}
    return (folder or cache_folder() / "onnx") / _digest(key)


def made_of(world: World) -> str:
    """Return a hash of all of ours that a world's graphs follow from."""
    return _digest(
        {
            "version": GRAPHS_VERSION,
            "weights": _weights_hash(world),
            "config": _declared(world.config.world),
        }
    )


def _declared(config: Any) -> Any:
    """Return a config as a dict without what is as by default.

    So graphs stay of use when configs get a new field that changes nothing for them.
    """
    if isinstance(config, Mapping):
        return {name: _declared(value) for name, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_declared(value) for value in config]
    if not is_dataclass(config):
        return config
    found = {field: getattr(config, field.name) for field in fields(config)}
    return {
        field.name: _declared(value)
        for field, value in found.items()
        if value != (field.default if field.default_factory is MISSING else field.default_factory())
    }


def _weights_hash(world: World) -> str:
    tensors = world.tensors()
    tensors |= {f"start.{i}": state.latents for i, state in enumerate(world.start_states)}
    # A start asks several times, and a hash takes a third of a second.
    state = [(name, item.data_ptr(), item._version) for name, item in sorted(tensors.items())]
    kept, digest, _ = _hashes.get(world.model, (None, "", None))
    if kept != state:
        digest = tensors_hash(tensors)
        # Held, so that nothing else comes to lie where they lie.
        _hashes[world.model] = state, digest, tensors
    return digest


def _digest(key: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def graph_paths(
    graphs: Path, *, num_denoise_steps: int, is_narrow: bool | None = None
) -> dict[str, Path]:
    """Return where each graph's file is in the folder of a world's graphs, or will be.

    The decoder's convolutions are eight-bit. The backbone's would gain a fifteenth of a step, and
    the head's a third, but what the head makes feeds the next step: Stage's frames came to 33 dB of
    float32's within 50 steps, however few of its layers were eight-bit.
    """
    is_narrow = has_narrow_sums() if is_narrow is None else is_narrow
    return {
        "backbone": graphs / "backbone.onnx",
        "head": graphs / f"head-k{num_denoise_steps}.onnx",
        "decoder": graphs / f"decoder-int8{'-narrow' if is_narrow else ''}.onnx",
    }


def float32_path(path: Path) -> Path:
    """Return where the float32 graph is that a graph of `graph_paths` is made of, or itself."""
    return path.with_name("decoder.onnx") if path.name.startswith("decoder") else path


def seal(graph: Path) -> None:
    """Write a graph's checksum beside it, and so that it is whole."""
    _checksum_path(graph).write_text(_checksum(graph), encoding="utf-8")


def is_intact(graph: Path) -> bool:
    """Return whether a graph is there and as it was when it was sealed; else a warning says so."""
    if not graph.is_file():
        return False
    try:
        is_same = _checksum_path(graph).read_text(encoding="utf-8") == _checksum(graph)
    except (FileNotFoundError, UnicodeDecodeError):
        is_same = False
    if not is_same:
        _log.warning("%s is damaged; it is made again", graph)
    return is_same


@contextlib.contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Say what to do where files cannot be written.

    Raises:
        BackendUnavailableError: They cannot.
    """
    try:
        yield
    except OSError as error:
        raise BackendUnavailableError(
            f"nothing can be kept in {folder} ({error.strerror or error}): MIDAS_WORLD_CACHE "
            "names another cache folder"
        ) from error


def _checksum_path(graph: Path) -> Path:
    return graph.with_name(f"{graph.name}.sha256")


def _checksum(graph: Path) -> str:
    """Return a hash of a graph and of the weights that may lie beside it."""
    digests = []
    for path in (graph, graph.with_name(f"{graph.name}.data")):
        if path.is_file():
            with path.open("rb") as stream:
                digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return "\n".join(digests)


def outlines_folder(world: World) -> Path:
    """Return where a world's outlines are, if it came with some."""
    return world.folder / _OUTLINES_NAME


def outline_path(world: World, graph: Path) -> Path:
    """Return where the outline of a graph's file is, if the world came with one."""
    return outlines_folder(world) / graph.name


def has_narrow_sums() -> bool:
    """Return whether this CPU adds eight-bit products in 16 bits, which saturate: x86, no VNNI."""
    return platform.machine().lower() in ("x86_64", "amd64") and not torch.cpu._is_vnni_supported()
