"""`midas-world build`: the files that a world's backends start from, made now and not at play.

ONNX graphs where there is no GPU, TensorRT engine files where there is one or one is named.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from engine.backends import BACKENDS, Request
from engine.on_onnx.export import export_graphs, write_outlines
from engine.on_onnx.files import graph_paths, graphs_folder, is_intact, outlines_folder
from engine.on_tensorrt.build import (
    Progress,
    Target,
    capability_here,
    default_folder,
    provide_engine,
)
from engine.on_tensorrt.plan import FLAVOURS, load_plans, parse_capability, shipped_plans
from engine.on_tensorrt.runtime import flavour_version
from midas_world.arguments import count
from midas_world.user_folders import cache_folder
from midas_world.world import World, load_world

_ONNX = "onnx"
_DEFAULT_FLAVOUR = "tensorrt-rtx"

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the files of a world; return the exit status.

    Raises:
        ValueError: No plan can be built for a GPU that was named, or a name is unknown.
        BackendUnavailableError: There is no GPU and none was named, or something is not installed.
        CheckpointError: There is no such world.
    """
    arguments = _parser().parse_args(argv)
    is_for_gpu = bool(arguments.plan or arguments.compute_capability)
    if arguments.flavour == _ONNX and is_for_gpu:
        raise ValueError("plans and compute capabilities are TensorRT's, not onnx's")
    is_for_gpu = is_for_gpu or (torch.cuda.is_available() and not arguments.outlines)
    flavour = arguments.flavour or (_DEFAULT_FLAVOUR if is_for_gpu else _ONNX)
    if flavour != _ONNX:
        if arguments.outlines:
            raise ValueError("outlines are of ONNX graphs, not of TensorRT's engine files")
        return _build_engines(arguments, flavour)
    world = load_world(arguments.world)
    steps = arguments.steps or world.config.world.head.num_denoise_steps
    _build_graphs(world, steps, arguments.folder, outlines=arguments.outlines)
    return 0


def _build_graphs(
    world: World, num_denoise_steps: int, folder: Path | None, *, outlines: bool
) -> None:
    asked = Request(
        world=world, device="cpu", num_denoise_steps=num_denoise_steps, folder=cache_folder()
    )
    BACKENDS[_ONNX].check(asked)  # says what to install
    # TensorRT does without ONNX Runtime, which may not be there.
    from engine.on_onnx.engine import DEFAULT_PRECISION

    paths = graph_paths(
        graphs_folder(world, folder=folder),
        precision=DEFAULT_PRECISION,
        num_denoise_steps=num_denoise_steps,
    )
    with tqdm(paths, unit="graph", file=sys.stderr) as bar:
        for name in bar:
            bar.set_description(name)
            was_there = is_intact(paths[name])
            export_graphs(
                world,
                num_denoise_steps=num_denoise_steps,
                precision=DEFAULT_PRECISION,
                names=[name],
                folder=folder,
            )
            size = paths[name].stat().st_size / 2**20
            words = "up to date" if was_there else "built"
            bar.write(f"{paths[name]}: {words}, {size:.1f} MiB")
    if outlines:
        written = write_outlines(world, folder=folder)
        size = sum(path.stat().st_size for path in written) / 2**10
        print(f"{outlines_folder(world)}: {len(written)} outlines, {size:.0f} KiB")


def _build_engines(arguments: argparse.Namespace, flavour: str) -> int:
    given = [parse_capability(text) for text in arguments.compute_capability or ()]
    flavour_version(flavour)  # says what to install before anything slow
    capabilities = given or [capability_here()]
    plans = load_plans(arguments.plan or shipped_plans())
    world = load_world(arguments.world)
    steps = arguments.steps or world.config.world.head.num_denoise_steps
    folder = arguments.folder or default_folder()
    jobs = []
    for capability in capabilities:
        target = Target(flavour=flavour, capability=capability, folder=folder)
        for name, plan in plans.items():
            if words := plan.objection(target.flavour, capability):
                _log.info("%s is left out: %s", name, words)
            else:
                jobs.append((name, plan, target))
    if not jobs:
        raise ValueError("none of the plans can be built for this flavour and GPU")
    with tqdm(total=len(jobs), unit="plan", file=sys.stderr) as bar:
        for name, plan, target in jobs:
            bar.set_description(f"{name} sm{target.capability}")
            with _part_of(bar) as on_progress:
                made = provide_engine(
                    world, name, plan, target, num_denoise_steps=steps, on_progress=on_progress
                )
            size = len(made.contents) / 2**20
            words = "built" if made.is_new else "up to date"
            bar.write(f"{made.path}: {words}, {size:.1f} MiB, {made.num_layers} layers")
    return 0


@contextmanager
def _part_of(bar: tqdm) -> Iterator[Progress]:
    """Give what moves a bar by one in the end, and by parts of it in between."""
    start = bar.n

    def on_progress(_: str, done: int, total: int) -> None:
        bar.n = round(max(bar.n, start + done / max(total, 1)), 2)
        bar.refresh()

    yield on_progress
    bar.n = start + 1
    bar.refresh()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="midas-world build",
        description="Make what a world's backends start from: ONNX graphs on a machine without a "
        "GPU, else TensorRT engine files from the plans in trt_plans/. They are kept in the "
        "user's cache folder, where the backends find them.",
    )
    parser.add_argument("--world", default="stage", help="a shipped world's name, or a folder")
    parser.add_argument(
        "--flavour",
        choices=(_ONNX, *FLAVOURS),
        help=f"default: {_DEFAULT_FLAVOUR} for a GPU, {_ONNX} without",
    )
    parser.add_argument("--steps", type=count, help="denoise steps; default: the world's own")
    parser.add_argument("--folder", type=Path, help="default: the user's cache folder")
    parser.add_argument(
        "--outlines",
        action="store_true",
        help="also write the ONNX graphs without their weights into the world's folder: whoever "
        "gets it starts on ONNX Runtime at once",
    )
    gpu = parser.add_argument_group("TensorRT")
    gpu.add_argument(
        "--plan", action="append", metavar="NAME", help="a plan's name or file; default: all"
    )
    gpu.add_argument(
        "--compute-capability",
        action="append",
        metavar="SM",
        help="such as sm89; may be repeated; default: the GPU at hand",
    )
    return parser
