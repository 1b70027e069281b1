"""`midas-world build`: the files that a world's backends start from, made now and not at play.

ONNX graphs where there is no GPU, TensorRT engine files where there is one or one is named.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from engine.backends import BACKENDS, Request
from engine.on_onnx.export import write_outlines
from engine.on_onnx.files import outlines_folder
from engine.on_tensorrt.build import Target, capability_here, default_folder
from engine.on_tensorrt.plan import FLAVOURS, load_plans, parse_capability, shipped_plans
from engine.on_tensorrt.runtime import flavour_version
from engine.prepare import Job, engine_jobs, graph_jobs, prepare
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
        _build_engines(arguments, flavour)
        return 0
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
    _make(graph_jobs(world, num_denoise_steps=num_denoise_steps, folder=folder))
    if outlines:
        written = write_outlines(world, folder=folder)
        size = sum(path.stat().st_size for path in written) / 2**10
        print(f"{outlines_folder(world)}: {len(written)} outlines, {size:.0f} KiB")


def _build_engines(arguments: argparse.Namespace, flavour: str) -> None:
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
        objections = {name: plan.objection(flavour, capability) for name, plan in plans.items()}
        for name, words in objections.items():
            if words:
                _log.info("%s is left out: %s", name, words)
        fit = {name: plan for name, plan in plans.items() if not objections[name]}
        jobs += engine_jobs(world, fit, target, num_denoise_steps=steps)
    if not jobs:
        raise ValueError("none of the plans can be built for this flavour and GPU")
    _make(jobs)


def _make(jobs: Sequence[Job]) -> None:
    """Make files and show how far it is."""
    with tqdm(total=len(jobs), unit="file", file=sys.stderr) as bar:

        def on_progress(name: str, share: float) -> None:
            bar.set_description(name, refresh=False)
            bar.n = round(share * len(jobs), 2)
            bar.refresh()

        prepare(jobs, on_progress=on_progress, on_made=bar.write)
        bar.n = len(jobs)


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
