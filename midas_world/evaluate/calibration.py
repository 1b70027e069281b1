"""How far to trust a yes-or-no prediction: intervals, average precision, calibration.

Pure functions of arrays, for events that are rare. Knows no world and no teacher.

Shapes: B predictions.
"""

import math
from dataclasses import dataclass

import numpy as np

NUM_BINS = 10
_Z95 = 1.959963984540054


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, NaN of nothing (Wilson 1927).

    Unlike the share plus or minus its standard error it stays within [0, 1] and is not empty at 0
    of 5. It takes the trials as independent.

    Raises:
        ValueError: hits are negative or more than count.
    """
    if not 0 <= hits <= count:
        raise ValueError(f"hits must be 0 to count, got {hits} of {count}")
    if not count:
        return math.nan, math.nan
    share, square = hits / count, _Z95**2
    middle = share + square / (2 * count)
    half = _Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    scale = 1 + square / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def f1_score(precision: float, recall: float) -> float:
    """Return the harmonic mean of precision and recall: 0 if either is 0, NaN if recall is NaN."""
    if math.isnan(recall):
        return math.nan
    if not recall:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the steps of precision over recall; NaN without a positive.

    The sum of (recall_n - recall_{n-1}) * precision_n over the distinct scores from the highest
    down; equal scores count as said together. A score that knows nothing gets the share of
    positives.

    Args:
        scores: (B,) higher where the event is likelier.
        truth: (B,) bool.
    """
    if not truth.any():
        return math.nan
    precision, recall = _precision_and_recall(scores, truth)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def recall_at_precision(scores: np.ndarray, truth: np.ndarray, *, precision: float) -> float:
    """Return the largest recall that some threshold reaches at no less than this precision.

    0 if none does; NaN without a positive. Arguments as in `average_precision`.
    """
    if not truth.any():
        return math.nan
    reached, recall = _precision_and_recall(scores, truth)
    return float(recall[reached >= precision].max(initial=0.0))


def _precision_and_recall(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both at each distinct score as threshold, from the highest down."""
    _check_pairs(scores, truth)
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(truth[order])
    # The last place of each run of equal scores.
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    return hits[ends] / (ends + 1), hits[ends] / truth.sum()


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Predictions sorted into bins of equal width from 0 to 1.

    Attributes:
        counts: Predictions in each bin.
        predicted: Mean probability in each bin; NaN where it is empty.
        hits: How often the event happened in each bin.
    """

    counts: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray

    @property
    def observed(self) -> np.ndarray:
        """Share of predictions in each bin where the event happened; NaN where it is empty."""
        return np.array(
            [hit / count if count else math.nan for hit, count in zip(*self._pairs(), strict=True)]
        )

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance of probability and share over all predictions; NaN without any.

        Guo et al. 2017 (arXiv 1706.04599), eq. 3, for the probability of the event instead of the
        likeliest class.
        """
        if not self.counts.sum():
            return math.nan
        filled = self.counts > 0
        gaps = np.abs(self.predicted - self.observed)[filled]
        return float(np.average(gaps, weights=self.counts[filled]))

    def _pairs(self) -> tuple[list[int], list[int]]:
        return self.hits.tolist(), self.counts.tolist()


def reliability(probability: np.ndarray, truth: np.ndarray, *, above: float = 0.0) -> Reliability:
    """Return the reliability of probabilities in `NUM_BINS` bins of equal width.

    Args:
        probability: (B,) in [0, 1].
        truth: (B,) bool.
        above: Only larger probabilities count, if it is positive: where events are rare, nearly all
            predictions are near 0 and right, and would hide what the others are worth.

    Raises:
        ValueError: A probability is outside [0, 1], or the shapes differ.
    """
    _check_pairs(probability, truth)
    if len(probability) and not (probability.min() >= 0 and probability.max() <= 1):
        raise ValueError(
            f"probabilities must be in [0, 1], got {probability.min():g} to {probability.max():g}"
        )
    if above > 0:
        kept = probability > above
        probability, truth = probability[kept], truth[kept]
    bins = np.minimum((probability * NUM_BINS).astype(int), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    total = np.bincount(bins, weights=probability, minlength=NUM_BINS)
    predicted = np.full(NUM_BINS, math.nan)
    np.divide(total, counts, out=predicted, where=counts > 0)
    hits = np.bincount(bins[truth], minlength=NUM_BINS)
    return Reliability(counts=counts, predicted=predicted, hits=hits)


def brier_skill(probability: np.ndarray, truth: np.ndarray) -> float:
    """Return 1 - squared error over that of always saying the share of positives.

    1 is perfect, 0 no better than knowing how rare the event is, less is worse than that; NaN if
    the event happened always or never.
    """
    _check_pairs(probability, truth)
    rate = truth.mean() if len(truth) else 0.0
    if rate in (0.0, 1.0):
        return math.nan
    return float(1.0 - np.square(probability - truth).mean() / (rate * (1.0 - rate)))


def _check_pairs(scores: np.ndarray, truth: np.ndarray) -> None:
    if scores.shape != truth.shape or scores.ndim != 1 or truth.dtype != bool:
        raise ValueError(
            f"scores and bool truth must pair up as (B,), got {scores.shape} {scores.dtype} "
            f"and {truth.shape} {truth.dtype}"
        )
