"""What commands share: numbers that say what must be and what came, and the word of trust."""

import argparse
import math


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add --trust, for commands that open what others may have made."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="import modules that the opened file names: their code runs, so trust its maker",
    )


def natural(text: str) -> int:
    """Return a whole number that is at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 0, got {text!r}")
    return int(text)


def count(text: str) -> int:
    """Return a whole number that is at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, got {text!r}")
    return int(text)


def percentage(text: str) -> float:
    """Return the share from 0 to 1 that a percentage means."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 100, got {text!r}")
    return value / 100


def positive(text: str) -> float:
    """Return a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text!r}")
    return value
