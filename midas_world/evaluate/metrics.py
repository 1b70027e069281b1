"""Measures of frames and predictions: sharpness, precision and recall, and lags.

Frames are uint8 (B, H, W, 3), one number per frame comes back. Knows no world and no teacher.

Shapes: B frames, H W pixels, K keypoints, T steps.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from midas_world.psnr import check_pairs
from midas_world.train.picture_loss import LUMA

_MAX_LAG = 5
_CONSTANT = 1e-9


def luma(frames: np.ndarray) -> Tensor:
    """Return the BT.601 luma of frames, uint8 (B, H, W, 3) -> float64 (B, 1, H, W), 0 to 255."""
    return torch.from_numpy(frames.astype(np.float64) @ np.array(LUMA))[:, None]


def sharpness(frames: np.ndarray) -> np.ndarray:
    """Return the gradient energy of each frame, (B,): mean squared step of luma, in [0, 1]^2."""
    y = luma(frames) / 255.0
    energy = y.diff(dim=-1).square().mean(dim=(1, 2, 3)) + y.diff(dim=-2).square().mean(
        dim=(1, 2, 3)
    )
    return energy.numpy()


def mean_change(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference of each pair of frames in levels of 255, (B,)."""
    check_pairs(frames, others)
    pairs = zip(frames, others, strict=True)
    return np.array([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs])


def keypoint_error(keypoints: np.ndarray, others: np.ndarray, *, height: int) -> np.ndarray:
    """Return the mean distance of keypoints (B, K, 2) px as a share of the frame's height, (B,)."""
    distance = np.linalg.norm(keypoints.astype(np.float64) - others, axis=-1)
    return distance.mean(axis=-1) / height


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
    _check_scores(scores, truth)
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(truth[order])
    # The last place of each run of equal scores.
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    return hits[ends] / (ends + 1), hits[ends] / truth.sum()


def _check_scores(scores: np.ndarray, truth: np.ndarray) -> None:
    if scores.shape != truth.shape or scores.ndim != 1 or truth.dtype != bool:
        raise ValueError(
            f"scores and bool truth must pair up as (B,), got {scores.shape} {scores.dtype} "
            f"and {truth.shape} {truth.dtype}"
        )


def mean_of(values: Sequence[float] | np.ndarray) -> float:
    """Return the mean of the numbers that are there; NaN if there is none."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else math.nan


def mean_by_step(rows: Sequence[np.ndarray], length: int) -> np.ndarray:
    """Return the mean over rows of different lengths at each step, (length,); NaN where none is."""
    padded = np.full((len(rows), length), np.nan)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row[:length]
    return np.array([mean_of(column) for column in padded.T])


def at_marks(marks: Sequence[int], **curves: np.ndarray) -> dict[str, float]:
    """Return what curves are at some steps, counted from 1, as NAME_STEP."""
    pairs = [(name, mark) for name in curves for mark in marks]
    return {f"{name}_{mark}": float(curves[name][mark - 1]) for name, mark in pairs}


def follows(shown: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """Return correlation and slope (least squares of shown on real), both (T,); NaN if constant."""
    x, y = real - real.mean(), shown - shown.mean()
    if len(x) < 3 or x.std() < _CONSTANT:
        return math.nan, math.nan
    slope = float((x * y).sum() / (x * x).sum())
    if y.std() < _CONSTANT:
        return 0.0, slope
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum())), slope


def centred(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return sequences one after another, each about its own mean: (T,) each -> (sum of T,)."""
    return np.concatenate([part - part.mean() for part in parts])


def best_lag(shown: list[np.ndarray], real: list[np.ndarray]) -> int:
    """Return by how many steps shown sequences are late: where the correlation is largest."""

    def correlation(lag: int) -> float:
        pairs = [
            (s[max(0, lag) : len(s) + min(0, lag)], r[max(0, -lag) : len(r) - max(0, lag)])
            for s, r in zip(shown, real, strict=True)
        ]
        late, early = (np.concatenate(part) for part in zip(*pairs, strict=True))
        found = follows(late, early)[0]
        return -math.inf if math.isnan(found) else found

    return max(range(-_MAX_LAG, _MAX_LAG + 1), key=lambda lag: (correlation(lag), -abs(lag)))
