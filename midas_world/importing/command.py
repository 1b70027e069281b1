"""``midas-world import``: recordings become episodes to train on, other projects' weights a world.

`midas-world import SOURCE --to FOLDER` takes recordings; a first word that `WEIGHTS` knows stands
for weights, whose options are its own module's.
"""

import importlib
from collections.abc import Sequence

WEIGHTS: dict[str, str] = {}
"""Kinds of weights, such as "qwen2": the module whose `main(argv)` takes the words after it."""


def main(argv: Sequence[str]) -> int:
    """Run the command and return the exit status.

    Raises:
        ValueError: What is to be imported cannot be read, or an option does not fit it.
    """
    if argv and argv[0] in WEIGHTS:
        return importlib.import_module(WEIGHTS[argv[0]]).main(argv[1:])
    raise ValueError("recordings cannot be imported yet")
