"""Export a world's graphs to ONNX files, kept in a cache folder and never stale.

The folder's name is a hash of all that the files follow from: weights, config, start states (which
the int8 decoder is calibrated on), opset, this code and the versions of what writes them. So a
file that is there is right, and what changes makes another folder.

The float32 files are plain ONNX of opset `OPSET`, with a dynamic batch unless asked otherwise. The
int8 ones are for ONNX Runtime alone. ``midas-world build`` writes what an engine starts from.

Torch's newer exporter (dynamo) is used: it takes a few seconds a graph and keeps the batch open.
"""

import contextlib
import hashlib
import json
import logging
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

import midas_world
from engine.cache_folder import cache_folder
from engine.onnx_graphs import GRAPHS, graph_names, make_graph
from midas_world.checkpoint import tensors_hash
from midas_world.types import BackendUnavailableError
from midas_world.world import World

OPSET = 20
PRECISIONS = ("float32", "int8")
_STALE_S = 24 * 3600.0
INSTALL = "pip install onnx onnxscript"

# Which graphs int8 changes; the others are too small to matter. Of products, with it the entries of
# the smallest weights that become so: poses and words enter the conditions by small ones, whose
# rounding would be seen in the place of a hand.
_MATMUL_GRAPHS = {"conditions": 2**19, "backbone": 2**10, "sampler": 2**10, "decoder": 2**10}
_CONV_GRAPHS = ("decoder",)
# Frames that the int8 decoder's ranges are measured on.
_CALIBRATION_FRAMES = 48
# Of its frames against float32's, dB.
_LEAST_PSNR = 41.0
# A protobuf file holds 2 GiB; larger weights go to a file beside it.
_MAX_INLINE_BYTES = 1_900_000_000

# The code that the files follow from.
_SOURCES = (
    "engine/onnx_export.py",
    "engine/onnx_graphs.py",
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

_log = logging.getLogger(__name__)


def graphs_folder(world: World, *, folder: Path | None = None) -> Path:
    """Return the folder of a world's graphs; it may not exist yet.

    Args:
        world: Whose graphs.
        folder: Above it; None is the user's cache.
    """
    root = Path(__file__).parents[1]
    tensors = world.tensors()
    tensors |= {f"start.{i}": state.latents for i, state in enumerate(world.start_states)}
    key = {
        "weights": tensors_hash(tensors),
        "config": asdict(world.config.world),
        "opset": OPSET,
        "versions": [midas_world.__version__, torch.__version__],
        "source": [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in _SOURCES],
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    return (folder or cache_folder() / "onnx") / digest


def graph_paths(
    graphs: Path,
    *,
    precision: str,
    num_denoise_steps: int,
    batch_size: int | None = None,
    names: Iterable[str] = GRAPHS,
) -> dict[str, Path]:
    """Return where each graph's file is in the folder of a world's graphs, or will be.

    Raises:
        ValueError: No precision has this name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    paths = {}
    for name in names:
        words = [name]
        if name == "sampler":
            words.append(f"k{num_denoise_steps}")
        if batch_size is not None:
            words.append(f"b{batch_size}")
        if precision == "int8" and name in _MATMUL_GRAPHS:
            words.append("int7" if name in _CONV_GRAPHS and _needs_reduced_range() else "int8")
        paths[name] = graphs / f"{'-'.join(words)}.onnx"
    return paths


def export_graphs(
    world: World,
    *,
    num_denoise_steps: int | None = None,
    precision: str = "float32",
    batch_size: int | None = None,
    names: Iterable[str] | None = None,
    folder: Path | None = None,
) -> dict[str, Path]:
    """Return the files of a world's graphs, writing those that are not there yet.

    Args:
        world: What to export.
        num_denoise_steps: Of the sampler; None takes the world's own number.
        precision: "float32", or "int8" for ONNX Runtime: eight-bit products in the backbone, the
            sampler and the decoder.
        batch_size: A fixed one, for runtimes that want static shapes; None leaves it open.
        names: Which graphs; others are neither written nor returned. None: all that the world has.
        folder: Above the folder of graphs; None is the user's cache.

    Raises:
        ValueError: No precision or graph has this name.
        BackendUnavailableError: A package that writes ONNX is not installed.
    """
    steps = world.config.world.diffusion.num_denoise_steps
    steps = steps if num_denoise_steps is None else num_denoise_steps
    graphs = graphs_folder(world, folder=folder)
    sizes = {"num_denoise_steps": steps, "batch_size": batch_size}
    plain = graph_paths(graphs, precision="float32", **sizes)
    wanted = graph_paths(graphs, precision=precision, **sizes)
    known = graph_names(world.config.world)
    names = known if names is None else tuple(names)
    unknown = set(names) - set(known)
    if unknown:
        raise ValueError(f"graphs are {', '.join(known)}; got {sorted(unknown)}")
    for name in names:
        if wanted[name].is_file():
            continue
        graphs.mkdir(parents=True, exist_ok=True)
        if not plain[name].is_file():
            _log.info("exporting the %s graph of %s to ONNX", name, world.folder.name)
            with _replacing(plain[name]) as temporary:
                _export(name, world, temporary, steps, batch_size)
        if wanted[name] != plain[name]:
            _log.info("turning the %s graph of %s to int8", name, world.folder.name)
            with _replacing(wanted[name]) as temporary:
                _quantize(name, world, plain[name], temporary)
    return {name: wanted[name] for name in names}


def discard_graph(path: Path) -> None:
    """Remove a graph that turned out corrupt, and the float32 one that it may have come from."""
    for precision in ("-int8", "-int7"):
        path.with_name(path.name.replace(precision, "")).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _export(
    name: str, world: World, path: Path, num_denoise_steps: int, batch_size: int | None
) -> None:
    """Write one checked float32 graph."""
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ModuleNotFoundError as error:
        raise BackendUnavailableError(f"exporting to ONNX needs {error.name}: {INSTALL}") from error
    # An example batch of 1 would be taken for a constant.
    graph = make_graph(name, world, num_denoise_steps=num_denoise_steps, batch_size=batch_size or 2)
    batch = torch.export.Dim("batch", min=1)
    shapes = tuple(
        {graph.batch_axes[key]: batch} if key in graph.batch_axes else None for key in graph.inputs
    )
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph.module,
            tuple(graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=None if batch_size else shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    num_bytes = sum(p.numel() * p.element_size() for p in graph.module.parameters())
    program.save(path, external_data=num_bytes > _MAX_INLINE_BYTES)
    onnx.checker.check_model(path, full_check=True)


def _quantize(name: str, world: World, source: Path, target: Path) -> None:
    """Write one int8 graph of its float32 one."""
    # Not above: float32 files are written without ONNX Runtime, for TensorRT.
    from engine.onnx_runtime import quantize_convs, quantize_matmuls

    config = world.config.world.autoencoder
    if name in _CONV_GRAPHS and not config.transform_rows:
        depths = config.decoder_depths
        quantize_convs(
            source,
            target,
            _calibration(world),
            # The finest stage, the upsampling into it and the way to pixels: their errors are
            # seen as they are, and in the shipped world they cost 6 dB of 49.
            num_precise=2 * depths[config.first_stage(depths)] + 2,
            least_psnr=_LEAST_PSNR,
            reduce_range=_needs_reduced_range(),
        )
    else:
        quantize_matmuls(source, target, least_weight=_MATMUL_GRAPHS[name])


def _calibration(world: World) -> list[dict[str, torch.Tensor]]:
    """Return inputs of the decoder to measure ranges on: frames of start states, or noise."""
    latents = [latents for state in world.start_states for latents in state.latents]
    if not latents:
        shape = (
            _CALIBRATION_FRAMES,
            world.config.world.tokens_per_frame,
            world.config.world.autoencoder.latent_channels,
        )
        latents = list(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    stride = max(1, len(latents) // _CALIBRATION_FRAMES)
    return [{"latents": item[None].float()} for item in latents[::stride]]


def _needs_reduced_range() -> bool:
    """Return whether products of eight-bit numbers may overflow here: x86 without VNNI.

    Its 16-bit sums saturate, so weights must keep to seven bits there.
    """
    return platform.machine().lower() in ("x86_64", "amd64") and not torch.cpu._is_vnni_supported()


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file of the same name, and move it and what lies beside it at the end."""
    for left in path.parent.glob(".tmp-*"):  # by a process that was killed
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as temporary:
        yield Path(temporary) / path.name
        written = sorted(Path(temporary).iterdir(), key=lambda file: file.name == path.name)
        for file in written:  # the graph itself comes last
            shutil.move(file, path.parent / file.name)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what the exporter says about itself, hundreds of lines."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
