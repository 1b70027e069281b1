"""Flow matching: noise levels, noise, and the integration from noise to data.

Prediction of data ("x-prediction"), which Dreamer 4 measured as decisive for few denoise steps
(arXiv 2509.24527). x = (1 - sigma) * x0 + sigma * noise, so sigma = 1 is noise, 0 is data. What is
noised is the change from the last frame's latents, in units of its standard deviation; networks are
not its business (head.py).

Shapes: B batch, c latent channels, h w fine grid.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from midas_world.config import HeadConfig


def sample_noise(
    shape: Sequence[int],
    config: HeadConfig,
    generator: torch.Generator,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Return the noise that frames are made from: standard normal times the temperature.

    Args:
        shape: (..., c, h, w).
        config: Whose temperature it is.
        generator: On the CPU.
        out: Is filled and returned, if given.
    """
    return torch.randn(tuple(shape), generator=generator, out=out).mul_(config.temperature)


def sample_sigma(
    count: int, config: HeadConfig, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Return noise levels for training, (count,): the sigmoid of a normal (Esser et al. 2024)."""
    normal = torch.randn(count, generator=generator)
    return torch.sigmoid(config.sigma_mean + config.sigma_std * normal).to(device)


def sigma_schedule(num_denoise_steps: int, *, shift: float = 1.0) -> Tensor:
    """Return the num_denoise_steps + 1 noise levels from 1 to 0, float32.

    Args:
        num_denoise_steps: Model evaluations; at least 1.
        shift: Larger than 1 spends more steps at high noise (Esser et al. 2024, eq. 23).

    Raises:
        ValueError: num_denoise_steps is below 1 or shift is not positive.
    """
    if num_denoise_steps < 1:
        raise ValueError(f"num_denoise_steps must be at least 1, got {num_denoise_steps}")
    if shift <= 0:
        raise ValueError(f"shift must be positive, got {shift}")
    sigma = torch.linspace(1.0, 0.0, num_denoise_steps + 1, dtype=torch.float64)
    return (shift * sigma / (1.0 + (shift - 1.0) * sigma)).float()


def euler_sample(
    predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, sigmas: Tensor
) -> Tensor:
    """Integrate dx/dsigma = (x - x0(x, sigma)) / sigma from noise to data.

    Args:
        predict: Predicted data from x (B, ...) and sigma (B,).
        noise: (B, ...) standard normal, or zeros.
        sigmas: Falling from 1 to 0, on the CPU.
    """
    x = noise
    for sigma, next_sigma in pairwise(sigmas.tolist()):
        data = predict(x, x.new_full((x.shape[0],), sigma, dtype=torch.float32))
        # Where no noise is left, what is predicted is what comes out.
        x = data + (next_sigma / sigma) * (x - data) if next_sigma else data
    return x
