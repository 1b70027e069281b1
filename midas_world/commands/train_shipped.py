"""Train a world like the shipped one end to end, with its preset: one resumable command.

    python -m midas_world.commands.train_shipped

collects the teacher's episodes, trains the autoencoder and then the dynamics, packs the world
folder, evaluates it and writes the outlines of its ONNX graphs. Each part goes on where an earlier,
interrupted call left it. Where PyAV is missing (a GPU machine without a network, say), frames are
stored without loss instead.
"""

import argparse
import importlib.util
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from midas_world.commands.cli import main as run_verb
from midas_world.edge import run_command
from midas_world.machine import num_cores


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts one after another and return the exit status of the first that fails, or 0."""
    return run_command("train_shipped", _run, sys.argv[1:] if argv is None else argv)


def _run(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="stage")
    parser.add_argument("--data", type=Path, help="default: data/PRESET")
    parser.add_argument("--output", type=Path, help="default: runs/PRESET")
    parser.add_argument("--world", type=Path, help="world folder; default: OUTPUT/world")
    parser.add_argument("--workers", type=int, default=num_cores())
    arguments, overrides = parser.parse_known_args(argv)
    data = str(arguments.data or Path("data") / arguments.preset)
    output = str(arguments.output or Path("runs") / arguments.preset)
    world = str(arguments.world or Path(output) / "world")
    codec = "h264" if importlib.util.find_spec("av") else "raw"
    preset = ["--preset", arguments.preset, *overrides]
    collect = ["collect", "--data", data, "--codec", codec, "--workers", str(arguments.workers)]
    parts = [
        [*collect, *preset],
        ["train", "all", "--data", data, "--output", output, *preset],
        ["pack", "--output", output, "--world", world, *preset],
        ["eval", "--world", world, "--output", str(Path(output) / "evaluation")],
        ["build", "--world", world, "--outlines"],
    ]
    for part in parts:
        logging.getLogger(__name__).info("midas-world %s", " ".join(part))
        status = run_verb(part)
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
