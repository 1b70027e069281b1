"""How far to trust a yes-or-no prediction: intervals, average precision, calibration, ranking.

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
    _check_pairs(scores, truth)
    if not truth.any():
        return math.nan
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(truth[order])
    # The last place of each run of equal scores.
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    precision, recall = hits[ends] / (ends + 1), hits[ends] / truth.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


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


def area_under_roc(negatives: np.ndarray, positives: np.ndarray) -> float:
    """Return the chance that a positive scores above a negative, a tie counting one half.

    0.5 is a coin's; NaN if one of the two is empty.
    """
    if not len(negatives) or not len(positives):
        return math.nan
    ranks = average_ranks(np.concatenate((negatives, positives)))[len(negatives) :]
    count = len(positives)
    wins = ranks.sum() - count * (count + 1) / 2
    return float(wins / (count * len(negatives)))


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's rank correlation; NaN for fewer than 3 pairs or a constant."""
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"x and y must pair up as (B,), got {x.shape} and {y.shape}")
    if len(x) < 3:
        return math.nan
    ranks = np.stack((average_ranks(x), average_ranks(y)))
    if not ranks.std(axis=1).all():
        return math.nan
    return float(np.corrcoef(ranks)[0, 1])


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks (B,) from 1 of values (B,); equal values share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places]


def _check_pairs(scores: np.ndarray, truth: np.ndarray) -> None:
    if scores.shape != truth.shape or scores.ndim != 1 or truth.dtype != bool:
        raise ValueError(
            f"scores and bool truth must pair up as (B,), got {scores.shape} {scores.dtype} "
            f"and {truth.shape} {truth.dtype}"
        )
