"""`midas-world build`: the files that a world's backends start from, made now and not at play.

ONNX graphs where there is no GPU, TensorRT engine files where there is one or one is named.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from engine.on_onnx.export import check_packages, write_outlines
from engine.on_onnx.files import outlines_folder
from engine.on_tensorrt.build import parse_capability
from engine.prepare import jobs_of, prepare
from midas_world.arguments import count
from midas_world.user_folders import cache_folder
from midas_world.world import load_world


def main(argv: Sequence[str] | None = None) -> int:
    """Make the files of a world; return the exit status.

    Raises:
        ValueError: A compute capability cannot be read, or does not go with the backend.
        BackendUnavailableError: There is no GPU and none was named, it cannot be built for, or
            something is not installed.
        CheckpointError: There is no such world.
    """
    arguments = _parser().parse_args(argv)
    capabilities = [parse_capability(text) for text in arguments.compute_capability]
    has_gpu = torch.cuda.is_available() and not arguments.outlines
    backend = arguments.backend or ("rtx" if capabilities or has_gpu else "onnx")
    if backend == "onnx" and capabilities:
        raise ValueError("compute capabilities are TensorRT's, not onnx's")
    if backend != "onnx" and arguments.outlines:
        raise ValueError("outlines are of ONNX graphs, not of TensorRT's engine files")
    check_packages()
    world = load_world(arguments.world)
    folder = arguments.folder or cache_folder()
    steps = arguments.steps or world.config.world.head.num_denoise_steps
    given = {"num_denoise_steps": steps, "folder": folder}
    jobs = [
        job
        for capability in capabilities or [None]
        for job in jobs_of(backend, world, capability=capability, **given)
    ]
    with tqdm(total=len(jobs), unit="file", file=sys.stderr) as bar:

        def on_progress(name: str, share: float) -> None:
            bar.set_description(name, refresh=False)
            bar.update(round(share * len(jobs)) - bar.n)

        prepare(jobs, on_progress=on_progress, on_made=bar.write)
        bar.update(len(jobs) - bar.n)
    if arguments.outlines:
        written = write_outlines(world, folder=folder / "onnx")
        size = sum(path.stat().st_size for path in written) / 2**10
        print(f"{outlines_folder(world)}: {len(written)} outlines, {size:.0f} KiB")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="midas-world build",
        description="Make what a world's backends start from: ONNX graphs on a machine without a "
        "GPU, else TensorRT engine files by the plans in trt_plans/. They are kept in the "
        "user's cache folder, where the backends find them.",
    )
    parser.add_argument("--world", default="stage", help="a shipped world's name, or a folder")
    parser.add_argument(
        "--backend",
        choices=("onnx", "tensorrt", "rtx"),
        help="default: rtx for a GPU, onnx without",
    )
    parser.add_argument("--steps", type=count, help="denoise steps; default: the world's own")
    parser.add_argument("--folder", type=Path, help="default: the user's cache folder")
    parser.add_argument(
        "--outlines",
        action="store_true",
        help="also write the ONNX graphs without their weights into the world's folder: whoever "
        "gets it starts on ONNX Runtime at once",
    )
    parser.add_argument(
        "--compute-capability",
        action="append",
        default=[],
        metavar="SM",
        help="of TensorRT's files, such as sm89; may be repeated; default: the GPU at hand",
    )
    return parser
