"""The options of the command line that say how an env becomes a teacher.

What is made of them is project.py's business: help texts must not wait for its imports.
"""

import argparse
from pathlib import Path

from midas_world.arguments import count

WANTED_FPS = 20.0
FITS = ("pad", "crop", "stretch")


def add_teacher_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how an env becomes a teacher."""
    group = parser.add_argument_group("the env")
    group.add_argument(
        "--env-kwargs",
        nargs="+",
        default=[],
        metavar="K=V",
        help="what gymnasium.make is given, such as continuous=false",
    )
    group.add_argument(
        "--keymap", type=Path, help="YAML of action names, values and keys; see docs/own-worlds.md"
    )
    group.add_argument("--size", type=frame_size, metavar="HxW", help="of the frames")
    group.add_argument(
        "--fit",
        choices=FITS,
        default="pad",
        help="how a frame of another shape gets that size: black bars (default), cut, or distorted",
    )
    group.add_argument(
        "--frames",
        choices=("auto", "render", "observation"),
        default="auto",
        help="where pixels come from; default: render() where the env can",
    )
    group.add_argument(
        "--repeat",
        type=count,
        metavar="N",
        help=f"env steps for one of the world; default: as many as make {WANTED_FPS:g} a second",
    )
    group.add_argument(
        "--conditions",
        choices=("auto", "action", "info"),
        default="auto",
        help="what steers beside words: the action, or the env's own info['pose'] and ['audio']; "
        "default: the latter where they are given and something gives them at play",
    )
    group.add_argument(
        "--conditioner",
        default="",
        metavar="MODULE:FUNCTION",
        help="makes what gives a world info['pose'] and info['audio'] at play",
    )
    group.add_argument(
        "--policy",
        nargs="+",
        default=[],
        metavar="NAME[=WEIGHT]",
        help='"random", "sticky", MODULE:FUNCTION that returns a policy of yours, or, to collect, '
        '"human": you play in the window',
    )
    group.add_argument("--episodes", type=count, metavar="N", help="training episodes")
    group.add_argument("--steps", type=count, metavar="N", help="steps of each at most")


def given_options(arguments: argparse.Namespace) -> list[str]:
    """Return which of these options have other values than their defaults."""
    parser = argparse.ArgumentParser()
    add_teacher_options(parser)
    defaults = vars(parser.parse_args([]))
    return [
        f"--{name.replace('_', '-')}"
        for name, default in defaults.items()
        if getattr(arguments, name) != default
    ]


def frame_size(text: str) -> tuple[int, int]:
    """Return the height and width that words such as "96x128" mean."""
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"must be HEIGHTxWIDTH, such as 96x128, got {text!r}")
    return int(height), int(width)
