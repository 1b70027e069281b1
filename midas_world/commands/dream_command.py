"""``midas-world dream``: a world of any Gymnasium environment, by one command.

Reads the command line and says at the end how to play; the work is dream.py's.
"""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from midas_world.arguments import count, positive
from midas_world.commands.overrides import parse
from midas_world.machine import num_cores
from midas_world.teachers.options import add_teacher_options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status.

    Raises:
        ValueError: The env cannot be a teacher, or an argument cannot be used.
    """
    arguments, overrides = parse(_parser(), argv or [], has_pairs=True)
    # torch takes seconds to load: --help does not wait for it.
    from midas_world.commands.dream import dream
    from midas_world.commands.dream_work import DreamRequest
    from midas_world.teachers.project import name_of

    name = name_of(arguments.env_id)
    request = DreamRequest(
        env_id=arguments.env_id,
        options=arguments,
        preset=arguments.preset,
        overrides=tuple(overrides),
        output=arguments.output or Path("worlds") / name,
        work=arguments.work or Path("runs") / name,
        minutes=arguments.minutes,
        train_steps=arguments.steps_budget,
        num_workers=arguments.workers,
        codec=arguments.codec,
        evaluation=arguments.evaluate,
    )
    world = dream(request)
    needs_trust = bool(arguments.conditioner)  # of a module that only you can vouch for
    print(
        f"\nThe world is in {world}; its model card says how good it is.\n\n"
        f"    python play.py --world {world}{' --trust' * needs_trust}\n"
        f'    gymnasium.make("midas/World-v0", world="{world}"{", trust=True" * needs_trust})'
        "  # after: import midas_world\n\n"
        f"Better: run the same command with more --minutes into another --work and --output."
    )
    if arguments.play:
        words = ["--world", str(world), *["--trust"] * needs_trust]
        return importlib.import_module("play").main(words)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="midas-world dream",
        description="Make a world of a Gymnasium environment: collect, train, pack, evaluate. "
        "Run the same command again to go on where it was stopped.",
        epilog="Overrides of the preset's values may stand anywhere: world.backbone.num_layers=4",
    )
    parser.add_argument(
        "env_id", metavar="ENV_ID", help="CarRacing-v3, or module:id for a package of its own"
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--minutes", type=positive, help="time for everything; default: 120 on a CPU, 60 on a GPU"
    )
    budget.add_argument(
        "--steps-budget", type=count, metavar="N", help="train steps of each stage instead"
    )
    parser.add_argument("--output", type=Path, help="world folder; default: worlds/NAME")
    parser.add_argument("--work", type=Path, help="episodes and runs; default: runs/NAME")
    parser.add_argument("--preset", default="dream", help="a preset's name or a YAML file")
    parser.add_argument("--workers", type=count, default=num_cores())
    parser.add_argument("--codec", choices=("h264", "raw"), default="h264")
    parser.add_argument(
        "--evaluate",
        choices=("full", "quick", "none"),
        default="full",
        help="how much is measured at the end",
    )
    parser.add_argument("--play", action="store_true", help="open the window at the end")
    add_teacher_options(parser)
    return parser
