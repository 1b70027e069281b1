"""Limits of a config's numbers: far beyond what anybody trains, far below what no machine holds."""

from collections.abc import Iterator
from typing import Any

MOST_WIDTH = 65_536  # channels, features, heads
MOST_DEPTH = 128  # layers, blocks
MOST_STAGES = 8
MOST_PIXELS = 2**22  # of a frame
MOST_TOKENS = 4096  # of a frame
MOST_CONTEXT_TOKENS = 2**17
MOST_BUCKETS = 2**24
MOST_TRAVEL = 2**20  # px, steps


def check_range(config: Any, *names: str, least: int = 1, most: int = MOST_WIDTH) -> None:
    """Check that a config's whole numbers, alone or in tuples, lie within limits.

    Raises:
        ValueError: One does not; the message names the field.
    """
    for name in names:
        for number in _numbers(getattr(config, name)):
            if not least <= number <= most:
                raise ValueError(f"{name} must be {least} to {most}, got {number}")


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, tuple | list):
        for item in value:
            yield from _numbers(item)
    else:
        yield value
