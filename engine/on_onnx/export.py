"""Export a world's graphs to ONNX files, once.

The float32 files are plain ONNX of opset `OPSET` with a dynamic batch; of the int8 ones see
runtime.py. Where a world came with outlines of them, these are filled in.
``midas-world build`` writes what an engine starts from.
"""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.on_onnx.files import (
    OPSET,
    float32_path,
    graph_paths,
    graphs_folder,
    has_narrow_sums,
    is_intact,
    kept_in,
    made_of,
    outline_path,
    outlines_folder,
    seal,
)
from engine.on_onnx.graphs import make_graph
from engine.on_torch.networks import Sampler
from midas_world.config import WorldConfig
from midas_world.files import whole, write_whole
from midas_world.model.autoencoder import Upsample
from midas_world.model.conditions import Conditions, stack_conditions
from midas_world.model.diffusion import sample_noise
from midas_world.types import BackendUnavailableError, StepConditions
from midas_world.world import StartState, World

INSTALL = "pip install onnx onnxscript"
# Start states that int8 is calibrated on, their last frames, and the steps that go on from them.
_CALIBRATION = 16, 3, 3
# A protobuf file holds 2 GiB; larger weights go to a file beside it.
_MAX_INLINE_BYTES = 1_900_000_000

_log = logging.getLogger(__name__)


def export_graphs(
    world: World,
    *,
    num_denoise_steps: int | None = None,
    names: Iterable[str] | None = None,
    folder: Path | None = None,
    is_narrow: bool | None = None,
) -> dict[str, Path]:
    """Return the files of a world's graphs, writing those that are not there yet.

    Args:
        world: What to export.
        num_denoise_steps: Of the head; None takes the world's own number.
        names: Which graphs; others are neither written nor returned. None: all.
        folder: Above the folder of graphs; None is the user's cache.
        is_narrow: Whether int8 is for CPUs that add products in 16 bits; None: if this one does.

    Raises:
        BackendUnavailableError: A package that writes ONNX is not installed, or the folder cannot
            be written.
    """
    steps = world.config.world.head.num_denoise_steps
    steps = steps if num_denoise_steps is None else num_denoise_steps
    is_narrow = has_narrow_sums() if is_narrow is None else is_narrow
    graphs = graphs_folder(world, folder=folder)
    paths = graph_paths(graphs, num_denoise_steps=steps, is_narrow=is_narrow)
    wanted = paths if names is None else {name: paths[name] for name in names}
    with kept_in(graphs):
        for name, path in wanted.items():
            if not is_intact(path) and not _fill(name, world, path, steps):
                _make(name, world, path, steps, is_narrow=is_narrow)
    return wanted


def _fill(name: str, world: World, path: Path, num_denoise_steps: int) -> bool:
    """Make a graph of its outline; return False if there is none that is of use."""
    outline = outline_path(world, path)
    if not _is_of(outline, world):
        return False
    from engine.on_onnx.outlines import OutlineError, fill_outline

    try:
        with whole(path) as place:
            fill_outline(outline, place, _weights(name, world, num_denoise_steps))
            seal(place)
    except OutlineError as error:
        _set_aside(outline, str(error))
        return False
    return True


def _make(name: str, world: World, path: Path, steps: int, *, is_narrow: bool) -> None:
    """Export a graph, if it is not there, and turn it to int8 if it is to be."""
    plain = float32_path(path)
    if not is_intact(plain):
        _log.info("exporting the %s graph of %s to ONNX", name, world.folder.name)
        with whole(plain) as place:
            _export(name, world, place, steps)
            seal(place)
    if path != plain:
        # Not above: whoever plays on torch alone may be without ONNX Runtime.
        from engine.on_onnx.runtime import quantize

        _log.info("turning the %s graph of %s to int8", name, world.folder.name)
        with whole(path) as place:
            quantize(
                plain,
                place,
                calibration(world, steps),
                precise=_precise_parts(world),
                is_narrow=is_narrow,
            )
            seal(place)


def can_start(world: World, *, num_denoise_steps: int, folder: Path) -> bool:
    """Return whether nothing is left to export: all of a world's graphs or outlines are there."""
    graphs = graphs_folder(world, folder=folder)
    paths = graph_paths(graphs, num_denoise_steps=num_denoise_steps)
    missing = [path for path in paths.values() if not is_intact(path)]
    return all(_is_of(outline_path(world, path), world) for path in missing)


def _precise_parts(world: World) -> list[str]:
    """Return parts of the names of the decoder's weights that stay float32 in int8.

    What latents and pixels come in and go out by, and what is added to the finest features as it
    is, which costs a third of its time and is worth 12 dB.
    """
    layers = list(world.autoencoder.decoder.layers)
    ups = [place for place, layer in enumerate(layers) if isinstance(layer, Upsample)]
    finest = range(ups[-1] + 1 if ups else 0, len(layers))
    ends = ("input", "output", "conv_in", "conv_out")
    return [
        *(f"decoder.{end}." for end in ends),
        *(f"decoder.layers.{place}.conv." for place in ups),
        *(f"decoder.layers.{place}.conv_2." for place in finest),
    ]


# Of this process, whose owner has been told.
_damaged_outlines: set[Path] = set()


def _set_aside(outline: Path, words: str) -> None:
    """Take an outline for absent from now on, and say so once."""
    if outline not in _damaged_outlines:
        _damaged_outlines.add(outline)
        _log.warning("%s; the graph is exported instead", words)


def _is_of(outline: Path, world: World) -> bool:
    """Return whether an outline is there and whole, and of this world and code."""
    if not outline.is_file() or outline in _damaged_outlines:
        return False
    from engine.on_onnx.outlines import OutlineError, read_made_of

    try:
        return read_made_of(outline) == made_of(world)
    except OutlineError as error:
        _set_aside(outline, str(error))
        return False


def _weights(name: str, world: World, num_denoise_steps: int) -> dict[str, Tensor]:
    """Return all that a graph's large tensors follow from, by name."""
    module = make_graph(name, world, num_denoise_steps=num_denoise_steps, batch_size=1).module
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def write_outlines(world: World, *, folder: Path | None = None) -> list[Path]:
    """Write the outlines of a world's int8 graphs into its folder, in place of older ones.

    For all CPUs, of its own number of denoise steps. A graph that does not follow from the weights
    in ways that outlines can tell is left out, and told.

    Args:
        world: It must not have changed since it was loaded.
        folder: Above the folder of graphs, which are exported; None is the user's cache.

    Raises:
        BackendUnavailableError: A package that writes ONNX is not installed.
    """
    from engine.on_onnx.outlines import outline_of

    written: dict[Path, bytes] = {}
    steps = world.config.world.head.num_denoise_steps
    for is_narrow in (False, True):
        made = export_graphs(world, is_narrow=is_narrow, folder=folder)
        for name, path in made.items():
            target = outline_path(world, path)
            if target in written:
                continue
            try:
                weights = _weights(name, world, steps)
                written[target] = outline_of(path, weights, made_of=made_of(world))
            except ValueError as error:
                _log.warning("%s; it is exported at its first start instead", error)
    for path, contents in written.items():
        write_whole(path, contents)
    for path in outlines_folder(world).glob("*.onnx"):
        if path not in written:
            path.unlink()
    return list(written)


def _export(name: str, world: World, path: Path, num_denoise_steps: int) -> None:
    """Write one checked float32 graph."""
    check_packages()
    import onnx

    # An example batch of 1 would be taken for a constant.
    graph = make_graph(name, world, num_denoise_steps=num_denoise_steps, batch_size=2)
    batch, axes = torch.export.Dim("batch", min=1), graph.batch_axes
    shapes = tuple({axes[key]: batch} if key in axes else None for key in graph.inputs)
    with quiet_export(), _told_by_old_torch(name), torch.no_grad():
        program = torch.export.export(
            graph.module,
            tuple(graph.inputs.values()),
            dynamic_shapes=(shapes,),
            strict=True,  # the other way takes the length of a tensor for a constant
        )
        exported = torch.onnx.export(
            program,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    num_bytes = sum(p.numel() * p.element_size() for p in graph.module.parameters())
    exported.save(path, external_data=num_bytes > _MAX_INLINE_BYTES)
    onnx.checker.check_model(path, full_check=True)


def check_packages() -> None:
    """Check that graphs can be written.

    Raises:
        BackendUnavailableError: A package that writes ONNX is not installed.
    """
    for name in ("onnx", "onnxscript"):  # the second is what torch's exporter needs
        if importlib.util.find_spec(name) is None:
            raise BackendUnavailableError(f"exporting to ONNX needs {name}: {INSTALL}")


@contextlib.contextmanager
def _told_by_old_torch(name: str) -> Iterator[None]:
    """Say what to do where torch cannot export a graph, as 2.6 cannot; 2.13 exports all."""
    try:
        yield
    except RuntimeError as error:
        words = str(error).strip().partition("\n")[0]
        raise BackendUnavailableError(
            f"torch {torch.__version__} cannot export the {name} graph to ONNX ({words}): use "
            "torch 2.13, or backend 'torch'"
        ) from error


@torch.no_grad()
def calibration(world: World, num_denoise_steps: int) -> list[dict[str, np.ndarray]]:
    """Return inputs of the decoder, each of one game: start states played on by torch.

    Where a world has none, they begin with noise.
    """
    model, config = world.model, world.config.world
    sampler = Sampler(model, num_denoise_steps)
    generator = torch.Generator().manual_seed(0)
    most, num_frames, num_steps = _CALIBRATION
    shape = 2, config.tokens_per_frame, config.token_channels
    blank = StartState(
        latents=torch.randn(shape, generator=generator), conditions=(StepConditions(),) * 2
    )
    starts = world.start_states or (blank,)
    samples: list[Tensor] = []
    for start in starts[:: -(-len(starts) // most)]:
        cache = model.new_cache(1, dtype=torch.float32, device=torch.device("cpu"))
        frames = start.latents[-num_frames:, None].float()
        steps = [*start.conditions[-len(frames) :][1:], *start.conditions[-1:] * num_steps]
        made = frames[0]
        for place, step in enumerate(steps):
            context = frames[place] if place < len(frames) else made
            if place < len(frames):
                samples.append(context)  # games show where they begin, too
            conditions = _with_entries(step, config, generator)
            guidance, *_ = model.step_guidance(context, conditions, cache)
            cache.commit()
            noise = sample_noise(context.shape, config.head, generator)
            made = model.to_tokens(sampler(guidance, model.to_grid(noise)))
            samples.append(made)
    return [{"latents": latents.contiguous().numpy()} for latents in samples]


def _with_entries(
    step: StepConditions, config: WorldConfig, generator: torch.Generator
) -> Conditions:
    """Return conditions (1, 1, ...) with entry codes that are drawn, so that all are met."""
    entries = config.entries
    given = stack_conditions([step], config.conditions, capacity=entries.capacity)
    size = given.entries.shape[:-1]
    kinds = torch.randint(-1, max(entries.num_classes, 1), size, generator=generator)
    places = config.width * (torch.rand(size, generator=generator) - 0.5)
    if not entries.num_classes:
        return given
    return replace(given, entries=torch.stack((kinds.float(), places), dim=-1))


@contextlib.contextmanager
def quiet_export() -> Iterator[None]:
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
