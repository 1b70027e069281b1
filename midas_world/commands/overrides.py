"""A preset on the command line: words that override its values, and the folders it stands for."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

DEFAULT_PRESET = "stage"
OF_EPISODES = "default: the preset's own folder if it has episodes, else data/PRESET"

_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*=")
_DOTTED = re.compile(r"[a-z_]+(\.[a-z_0-9]+)+=")


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a preset, and say in the help what overrides it."""
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="a preset's name or a YAML file")
    parser.epilog = "Overrides of the preset's values stand after it: world.backbone.num_layers=4"


def parse(
    parser: argparse.ArgumentParser, argv: Sequence[str], *, has_pairs: bool = False
) -> tuple[argparse.Namespace, list[str]]:
    """Return the options of a command line, and the overrides that stand anywhere among them.

    Args:
        parser: Of the options.
        argv: The words.
        has_pairs: Whether only words with a dot override, for others may have a "=", too: paths,
            and where these are given, an env's keyword arguments and weights of policies.
    """
    has_pairs = has_pairs or not {"--env-kwargs", "--policy"}.isdisjoint(argv)
    overrides = [word for word in argv if (_DOTTED if has_pairs else _OVERRIDE).match(word)]
    return parser.parse_args([word for word in argv if word not in overrides]), overrides


def folder_of(given: Path | None, root: str, preset: str) -> Path:
    """Return a folder that was given, or in a root that of the preset's name."""
    return given or Path(root) / Path(preset).stem


def episodes_of(given: Path | None, preset: str) -> Path:
    """Return the folder of a preset's episodes: the given one, or its own, or that of its name."""
    own = Path(preset).parent
    if given is None and Path(preset).is_file() and (own / "train").is_dir():
        return own
    return folder_of(given, "data", preset)
