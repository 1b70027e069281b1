"""The last measurements of something, and what most of them do not exceed."""

from collections import deque
from collections.abc import Sequence
from statistics import fmean

import numpy as np


class Samples(deque[float]):
    """The last measurements of something, up to a fixed number, and their percentiles."""

    def __init__(self, capacity: int = 512) -> None:
        super().__init__(maxlen=capacity)

    def percentile(self, percent: float) -> float:
        """Return the smallest value that `percent` of the values do not exceed; NaN of none."""
        values = [*self] or [float("nan")]
        return float(np.percentile(values, percent, method="inverted_cdf"))

    def mean(self) -> float:
        """Return the mean; NaN of none."""
        return fmean(self) if self else float("nan")


def milliseconds(samples: Samples, percents: Sequence[float]) -> str:
    """Return percentiles of seconds as words, such as "12 / 15 / 20 ms"."""
    if not samples:
        return "-"
    return " / ".join(f"{1000 * samples.percentile(p):.0f}" for p in percents) + " ms"
