"""Export a world's graphs to ONNX files, once.

The float32 files are plain ONNX of opset `OPSET`, with a dynamic batch unless asked otherwise. The
int8 ones are for ONNX Runtime alone; where a world came with outlines of them, these are filled in.
``midas-world build`` writes what an engine starts from.

Torch's newer exporter (dynamo) is used: it takes a few seconds a graph and keeps the batch open.
"""

import contextlib
import itertools
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from engine.cache_folder import write_whole
from engine.onnx_files import (
    LEAST_WEIGHTS,
    OPSET,
    STACKS,
    graph_paths,
    graphs_folder,
    has_convs,
    has_narrow_sums,
    made_of,
    outline_path,
    outlines_folder,
)
from engine.onnx_graphs import graph_names, make_graph
from midas_world.types import BackendUnavailableError
from midas_world.world import World

INSTALL = "pip install onnx onnxscript"
_STALE_S = 24 * 3600.0
# Frames that the int8 decoder's ranges are measured on.
_CALIBRATION_FRAMES = 48
# Of its frames against float32's, dB.
_LEAST_PSNR = 41.0
# Where fewer scales than usual cost no quality.
_BLOCK_SIZES = {"conditions": 128}
# A protobuf file holds 2 GiB; larger weights go to a file beside it.
_MAX_INLINE_BYTES = 1_900_000_000

_log = logging.getLogger(__name__)


def export_graphs(
    world: World,
    *,
    num_denoise_steps: int | None = None,
    precision: str = "float32",
    batch_size: int | None = None,
    names: Iterable[str] | None = None,
    folder: Path | None = None,
    is_narrow: bool | None = None,
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
        is_narrow: Whether int8 is for CPUs that add products in 16 bits; None: if this one does.

    Raises:
        ValueError: No precision or graph has this name.
        BackendUnavailableError: A package that writes ONNX is not installed.
    """
    steps = world.config.world.diffusion.num_denoise_steps
    steps = steps if num_denoise_steps is None else num_denoise_steps
    is_narrow = has_narrow_sums() if is_narrow is None else is_narrow
    graphs, config = graphs_folder(world, folder=folder), world.config.world
    sizes = {"config": config, "num_denoise_steps": steps, "batch_size": batch_size}
    plain = graph_paths(graphs, precision="float32", **sizes)
    wanted = graph_paths(graphs, precision=precision, is_narrow=is_narrow, **sizes)
    known = graph_names(config)
    names = known if names is None else tuple(names)
    unknown = set(names) - set(known)
    if unknown:
        raise ValueError(f"graphs are {', '.join(known)}; got {sorted(unknown)}")
    for name in names:
        path = wanted[name]
        if path.is_file():
            continue
        graphs.mkdir(parents=True, exist_ok=True)
        outline = outline_path(world, path)
        if _is_of(outline, world):
            from engine.onnx_outlines import fill_outline

            with _replacing(path) as temporary:
                fill_outline(outline, temporary, _weights(name, world, steps))
            continue
        if not plain[name].is_file():
            _log.info("exporting the %s graph of %s to ONNX", name, world.folder.name)
            with _replacing(plain[name]) as temporary:
                _export(name, world, temporary, steps, batch_size)
        if path != plain[name]:
            _log.info("turning the %s graph of %s to int8", name, world.folder.name)
            with _replacing(path) as temporary:
                _quantize(name, world, plain[name], temporary, is_narrow=is_narrow)
    return {name: wanted[name] for name in names}


def can_start(world: World, *, precision: str, num_denoise_steps: int, folder: Path) -> bool:
    """Return whether nothing is left to export: all of a world's graphs or outlines are there.

    Args:
        world: Whose graphs.
        precision: Of PRECISIONS.
        num_denoise_steps: Of the sampler.
        folder: Above the folder of graphs.
    """
    paths = graph_paths(
        graphs_folder(world, folder=folder),
        config=world.config.world,
        precision=precision,
        num_denoise_steps=num_denoise_steps,
    )
    missing = [path for path in paths.values() if not path.is_file()]
    return all(_is_of(outline_path(world, path), world) for path in missing)


def _is_of(outline: Path, world: World) -> bool:
    """Return whether an outline is there, and of this world and code."""
    if not outline.is_file():
        return False
    # Not above: TensorRT's files are made without ONNX Runtime.
    from engine.onnx_outlines import read_made_of

    return read_made_of(outline) == made_of(world)


def _weights(name: str, world: World, num_denoise_steps: int) -> dict[str, Tensor]:
    """Return all that a graph's large tensors follow from, by name."""
    graph = make_graph(name, world, num_denoise_steps=num_denoise_steps, batch_size=1)
    return {**dict(graph.module.named_parameters()), **dict(graph.module.named_buffers())}


def write_outlines(world: World, *, folder: Path | None = None) -> list[Path]:
    """Write the outlines of a world's int8 graphs into its folder, in place of older ones.

    For all CPUs; of its own number of denoise steps, and of one, which the uncertainty takes. A
    graph that does not follow from the weights in ways that outlines can tell is left out, and
    told.

    Args:
        world: It must not have changed since it was loaded.
        folder: Above the folder of graphs, which are exported; None is the user's cache.

    Raises:
        BackendUnavailableError: A package that writes ONNX is not installed.
    """
    from engine.onnx_outlines import outline_of

    written: dict[Path, bytes] = {}
    all_steps = sorted({1, world.config.world.diffusion.num_denoise_steps})
    for steps, is_narrow in itertools.product(all_steps, (False, True)):
        given = {"num_denoise_steps": steps, "is_narrow": is_narrow, "folder": folder}
        for name, path in export_graphs(world, precision="int8", **given).items():
            target = outline_path(world, path)
            if target in written:
                continue
            weights = _weights(name, world, steps)
            try:
                written[target] = outline_of(path, weights, made_of=made_of(world))
            except ValueError as error:
                _log.warning("%s; it is exported at its first start instead", error)
    for path, contents in written.items():
        write_whole(path, contents)
    for path in outlines_folder(world).glob("*.onnx"):
        if path not in written:
            path.unlink()
    return list(written)


def discard_graph(path: Path) -> None:
    """Remove a graph that turned out corrupt, and the float32 one that it may have come from."""
    path.with_name(path.name.replace("-narrow", "").replace("-int8", "")).unlink(missing_ok=True)
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


def _quantize(name: str, world: World, source: Path, target: Path, *, is_narrow: bool) -> None:
    """Write one int8 graph of its float32 one; see `graph_paths` for is_narrow."""
    # Not above: float32 files are written without ONNX Runtime, for TensorRT.
    from engine.onnx_runtime import BLOCK_SIZES, quantize_convs, quantize_matmuls

    if has_convs(name, world.config.world):
        config = world.config.world.autoencoder
        depths = config.decoder_depths
        quantize_convs(
            source,
            target,
            _calibration(world),
            # The finest stage, the upsampling into it and the way to pixels: their errors are
            # seen as they are, and in the shipped world they cost 6 dB of 49.
            num_precise=2 * depths[config.first_stage(depths)] + 2,
            least_psnr=_LEAST_PSNR,
            reduce_range=is_narrow,
        )
    else:
        quantize_matmuls(
            source,
            target,
            least_weight=LEAST_WEIGHTS[name],
            stacked_by_row=name in STACKS and not is_narrow,
            block_size=_BLOCK_SIZES.get(name, BLOCK_SIZES[0]),
        )


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
