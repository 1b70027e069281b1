"""``midas-world bench``: measure a world's speed here, and where the time goes."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from engine.bench.report import MARKDOWN_NAME, to_markdown
from engine.bench.run import BenchConfig, bench
from engine.bench.subject import preset_subject, world_subject
from engine.make import BACKENDS
from midas_world.arguments import count, natural

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status: 0 fine, 1 a backend could not be measured.

    Raises:
        CheckpointError: There is no such world.
        ValueError: There is no such preset, or an argument is outside its limits.
        BackendUnavailableError: There is no such device.
    """
    arguments = _parser().parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    config = BenchConfig(
        backends=tuple(dict.fromkeys(arguments.backend)),
        batch_sizes=tuple(sorted(set(arguments.batches))),
        num_steps=arguments.steps,
        device=arguments.device,
        num_denoise_steps=arguments.num_denoise_steps,
        quality_steps=arguments.quality,
    )
    if arguments.preset is None:
        subject = world_subject(arguments.world)
    else:
        subject = preset_subject(arguments.preset)
    output = arguments.output or Path("runs/bench") / subject.name
    report = bench(subject, config, output)
    print(to_markdown(report))
    _log.info("the report is in %s", output / MARKDOWN_NAME)
    return int(any(result["status"] == "unavailable" for result in report["results"]))


def _parser() -> argparse.ArgumentParser:
    defaults = BenchConfig()
    parser = argparse.ArgumentParser(
        prog="midas-world bench",
        description="Measure how fast a world runs here, part by part and as a whole, and, if "
        "asked, how close its frames are to float32's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--world", default="stage", help="a shipped world's name, or a folder")
    what.add_argument(
        "--preset",
        help="a preset's name or a YAML file instead; with random weights, unless a shipped world "
        "has its name and sizes",
    )
    names = ", ".join(BACKENDS)
    add(
        "--backend",
        nargs="+",
        choices=BACKENDS,
        default=defaults.backends,
        metavar="NAME",
        help=f"of {names}",
    )
    add(
        "--batches",
        type=count,
        nargs="+",
        default=defaults.batch_sizes,
        metavar="B",
        help="games at once",
    )
    add(
        "--steps",
        type=count,
        default=defaults.num_steps,
        metavar="N",
        help="timed steps for each number of games",
    )
    add(
        "--quality",
        type=natural,
        default=0,
        metavar="N",
        help="also hold frames against those of float32 torch: the decoder's, and those of "
        "rollouts of N steps, 50 say",
    )
    add(
        "--soak",
        metavar="STEPS",
        help="only play so many steps in the window, and tell how memory grew; see "
        "midas-world bench --soak 1 --help",
    )
    add("--num-denoise-steps", type=count, metavar="K", help="instead of the world's own")
    add("--device", help="cpu or cuda; by itself, the GPU where there is one")
    add("--threads", type=count, metavar="N", help="instead of PyTorch's own number")
    add("--output", type=Path, metavar="FOLDER", help="instead of runs/bench/NAME")
    return parser
