"""The last measurements of something, and what most of them do not exceed."""

from collections.abc import Sequence

import numpy as np


class Samples:
    """The last measurements of something, up to a fixed number, and their percentiles."""

    def __init__(self, capacity: int = 512) -> None:
        self._values = np.zeros(capacity)
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, len(self._values))

    def add(self, value: float) -> None:
        """Keep a measurement, in place of the oldest if there is no room."""
        self._values[self._count % len(self._values)] = value
        self._count += 1

    def percentile(self, percent: float) -> float:
        """Return the smallest value that `percent` of the values do not exceed; NaN of none."""
        if not len(self):
            return float("nan")
        ordered = np.sort(self._values[: len(self)])
        rank = int(np.ceil(percent / 100 * len(ordered)))
        return float(ordered[max(rank, 1) - 1])

    def mean(self) -> float:
        """Return the mean; NaN of none."""
        return float(self._values[: len(self)].mean()) if len(self) else float("nan")


def milliseconds(samples: Samples, percents: Sequence[float]) -> str:
    """Return percentiles of seconds as words, such as "12 / 15 / 20 ms"."""
    if not len(samples):
        return "-"
    return " / ".join(f"{1000 * samples.percentile(p):.0f}" for p in percents) + " ms"
