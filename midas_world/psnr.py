"""How near pictures are to one another, in dB."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # the window opens before torch is loaded
    from torch import Tensor

_BATCH = 32


def psnr_of(mse: "Tensor", *, peak: float = 2.0) -> "Tensor":
    """Return PSNR in dB from the mean squared error; the peak is that of pictures in [-1, 1]."""
    return 10.0 * (peak**2 / mse.clamp_min(1e-10)).log10()


def psnr(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the PSNR over RGB of each pair of frames in dB, (B,) float64; equal ones give 106."""
    check_pairs(frames, others)
    parts = [np.zeros(0)]
    for index in range(0, len(frames), _BATCH):
        pair = [part[index : index + _BATCH].astype(np.float32) for part in (frames, others)]
        error = np.square((pair[0] - pair[1]) / 127.5).mean(axis=(1, 2, 3))
        parts.append(10.0 * np.log10(4.0 / np.maximum(error.astype(np.float64), 1e-10)))
    return np.concatenate(parts)


def check_pairs(frames: np.ndarray, others: np.ndarray) -> None:
    """Raise ValueError unless both are (B, H, W, 3) uint8 and of one shape."""
    for value in (frames, others):
        if value.ndim != 4 or value.shape[-1] != 3 or value.dtype != np.uint8:
            raise ValueError(f"frames must be (B, H, W, 3) uint8, got {value.shape} {value.dtype}")
    if frames.shape != others.shape:
        raise ValueError(f"frames must pair up, got {frames.shape} and {others.shape}")
