"""Where the files of a world's ONNX graphs are, and what they follow from.

The folder's name is a hash of all that the files follow from: weights, config, start states (which
the int8 decoder is calibrated on), opset, our code and the version of torch, which exports them. So
a file that is there is right, and what changes makes another folder. Outlines lie in the world's
own folder and say themselves what they were made of, which is the same but for torch: what one
version of it exported, others need not export again.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

import midas_world
from engine.cache_folder import cache_folder
from engine.onnx_graphs import graph_names
from midas_world.checkpoint import tensors_hash
from midas_world.config import WorldConfig
from midas_world.world import World
from midas_world.world_model import WorldModel

OPSET = 20
PRECISIONS = ("float32", "int8")
_OUTLINES_NAME = "outlines"

# Which graphs int8 changes; the others are too small to matter. Of products, with it the entries of
# the smallest weights that become so: poses and words enter the conditions by small ones, whose
# rounding would be seen in the place of a hand.
LEAST_WEIGHTS = {"conditions": 2**19, "backbone": 2**10, "sampler": 2**10, "decoder": 2**10}
# Stacks of layers, whose inputs can do with coarser scales.
STACKS = ("backbone", "sampler")

# The code that the files follow from.
_SOURCES = (
    "engine/onnx_export.py",
    "engine/onnx_files.py",
    "engine/onnx_graphs.py",
    "engine/onnx_layers.py",
    "engine/onnx_outlines.py",
    "engine/onnx_refiner.py",
    "engine/onnx_runtime.py",
    "midas_world/autoencoder.py",
    "midas_world/backbone.py",
    "midas_world/conditions.py",
    "midas_world/dc_blocks.py",
    "midas_world/diffusion.py",
    "midas_world/klt.py",
    "midas_world/layers.py",
    "midas_world/pose_guider.py",
    "midas_world/refiner.py",
    "midas_world/renderer.py",
    "midas_world/skeleton_maps.py",
    "midas_world/transport.py",
    "midas_world/world_model.py",
)

# Hashes of worlds whose tensors lie where they lay and were not changed since.
_hashes: WeakKeyDictionary[WorldModel, tuple[object, str, dict[str, Tensor]]] = WeakKeyDictionary()


def graphs_folder(world: World, *, folder: Path | None = None) -> Path:
    """Return the folder of a world's graphs; it may not exist yet.

    Args:
        world: Whose graphs.
        folder: Above it; None is the user's cache.
    """
    key = {"made_of": made_of(world), "torch": torch.__version__}
    return (folder or cache_folder() / "onnx") / _digest(key)


def made_of(world: World) -> str:
    """Return a hash of all of ours that a world's graphs follow from."""
    root = Path(__file__).parents[1]
    # As text: line ends are another matter on Windows.
    sources = [(root / name).read_text(encoding="utf-8") for name in _SOURCES]
    return _digest(
        {
            "weights": _weights_hash(world),
            "config": asdict(world.config.world),
            "opset": OPSET,
            "version": midas_world.__version__,
            "source": [hashlib.sha256(text.encode()).hexdigest() for text in sources],
        }
    )


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
    graphs: Path,
    *,
    config: WorldConfig,
    precision: str,
    num_denoise_steps: int,
    batch_size: int | None = None,
    is_narrow: bool | None = None,
) -> dict[str, Path]:
    """Return where each graph's file is in the folder of a world's graphs, or will be.

    Args:
        graphs: The folder.
        config: Of the world.
        precision: Of PRECISIONS.
        num_denoise_steps: Of the sampler.
        batch_size: A fixed one; None if it is open.
        is_narrow: Whether int8 is for CPUs with narrow sums; None: if this one is such.

    Raises:
        ValueError: No precision has this name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    is_narrow = has_narrow_sums() if is_narrow is None else is_narrow
    paths = {}
    for name in graph_names(config):
        words = [name]
        if name == "sampler":
            words.append(f"k{num_denoise_steps}")
        if batch_size is not None:
            words.append(f"b{batch_size}")
        if precision == "int8" and name in LEAST_WEIGHTS:
            words.append("int8")
            if is_narrow and (name in STACKS or has_convs(name, config)):
                words.append("narrow")
        paths[name] = graphs / f"{'-'.join(words)}.onnx"
    return paths


def outlines_folder(world: World) -> Path:
    """Return where a world's outlines are, if it came with some."""
    return world.folder / _OUTLINES_NAME


def outline_path(world: World, graph: Path) -> Path:
    """Return where the outline of a graph's file is, if the world came with one."""
    return outlines_folder(world) / graph.name


def has_convs(name: str, config: WorldConfig) -> bool:
    """Return whether a graph is one whose convolutions become int8."""
    return name == "decoder" and not config.autoencoder.transform_rows


def has_narrow_sums() -> bool:
    """Return whether this CPU adds eight-bit products in 16 bits, which saturate: x86, no VNNI."""
    return platform.machine().lower() in ("x86_64", "amd64") and not torch.cpu._is_vnni_supported()
