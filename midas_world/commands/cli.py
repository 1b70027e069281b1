"""The console command ``midas-world``: one verb per task, each thin over the room that does it."""

import argparse
import difflib
import importlib
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from midas_world import __version__
from midas_world.edge import DEBUG, DEBUG_HELP, run_command
from midas_world.packages import check_packages
from midas_world.terminal import leave

VERBS = {
    "play": ("play", "play a world"),
    "collect": ("midas_world.commands.collect_command", "record episodes of the teacher"),
    "capture": ("midas_world.commands.capture_command", "record your own game, to import it"),
    "import": (
        "midas_world.commands.import_command",
        "episodes of recordings, of any game or film",
    ),
    "train": ("midas_world.commands.train_command", "train autoencoder, dynamics, decoder"),
    "pack": ("midas_world.commands.pack_command", "make a world folder of a trained run"),
    "eval": ("midas_world.evaluate.command", "measure a world against its teacher"),
    "dream": ("midas_world.commands.dream_command", "a world of any Gymnasium env, by one command"),
    "bench": ("engine.bench.command", "measure a world's speed"),
    "build": ("engine.build", "what faster backends start from"),
    "export": ("midas_world.sessions.export.command", "a recorded session as film or dataset"),
    "shards": ("midas_world.train.shards_command", "episodes in large files, for training"),
}
"""Of each verb the module whose `main` takes the words after it, and a line of help."""

# The window is no business of the engines' room.
_WITH_OPTIONS = {("bench", "--soak"): "midas_world.commands.soak"}


def run() -> NoReturn:
    """Run the verb of the command line and end the process; what a terminal calls."""
    leave(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 fine, 1 something failed; see edge.py."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv == ["--version"]:
        print(f"midas-world {__version__}")
        return 0
    return run_command(" ".join(["midas-world", *argv[:1]]), _run, argv)


def _run(argv: list[str]) -> int:
    check_packages("envs", "engine")
    verb = argv[0] if argv else ""
    if verb not in VERBS:
        _explain(verb, argv)
    module, _ = VERBS[verb]
    for (of, option), other in _WITH_OPTIONS.items():
        if verb == of and any(word.startswith(option) for word in argv):
            module = other
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    return importlib.import_module(module).main(argv[1:])


def _explain(verb: str, argv: Sequence[str]) -> NoReturn:
    """Print the help, or what is wrong with a command line that begins with no verb; exit."""
    if verb and not verb.startswith("-"):
        nearest = difflib.get_close_matches(verb, VERBS, n=1, cutoff=0.0)
        print(f"no verb {verb!r}; did you mean {nearest[0]!r}?", file=sys.stderr)
    parser = argparse.ArgumentParser(
        prog="midas-world", description=__doc__, epilog=f"{DEBUG}, with any verb: {DEBUG_HELP}"
    )
    verbs = parser.add_subparsers(required=True, metavar="{" + ",".join(VERBS) + "}")
    for name, (_, words) in VERBS.items():
        verbs.add_parser(name, help=f"{words}; see midas-world {name} --help")
    parser.parse_args(argv)
    parser.error("begin with a verb")


if __name__ == "__main__":
    run()
