"""Layers that more than one part of the model uses.

Shapes: B batch, N tokens, D width. Knows nothing of frames, latents or conditions.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which float32 stays float32; on "meta" there is none to turn off."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last dimension (Zhang and Sennrich 2019)."""

    def __init__(self, width: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D), computed in float32 and returned in the input's dtype."""
        return functional.rms_norm(x.float(), (x.shape[-1],), self.weight.float(), self.eps).to(
            x.dtype
        )


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), without biases (Shazeer 2020), as Qwen2 names it."""

    def __init__(self, width: int, mlp_width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, mlp_width, bias=False)
        self.up_proj = nn.Linear(width, mlp_width, bias=False)
        self.down_proj = nn.Linear(mlp_width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class FilmBlock(nn.Module):
    """x + conv(relu(conv(relu(x)) * (1 + scale) + shift)), scale and shift of the vector."""

    def __init__(self, width: int, vector_width: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(vector_width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():
            self.conv_2.weight.mul_(0.2)
            self.conv_2.bias.zero_()  # pyright: ignore[reportOptionalMemberAccess]

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Return (B, width, h, w) of the same and (B, vector_width)."""
        scale, shift = self.modulation(vector)[..., None, None].chunk(2, dim=1)
        inner = self.conv_1(functional.relu(x)) * (1.0 + scale) + shift
        return x + self.conv_2(functional.relu(inner))


class Down(nn.Module):
    """Halve the resolution: space to channels, then a 1x1 convolution."""

    def __init__(self, width: int, next_width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(4 * width, next_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, next_width, h / 2, w / 2)."""
        return self.mix(functional.pixel_unshuffle(x, 2))


class Up(nn.Module):
    """Double the resolution: a 1x1 convolution, then channels to space."""

    def __init__(self, width: int, next_width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, 4 * next_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> (B, next_width, 2h, 2w)."""
        return functional.pixel_shuffle(self.mix(functional.relu(x)), 2)


def mlp(input_size: int, hidden_size: int, output_size: int) -> nn.Sequential:
    """Return Linear, SiLU, Linear."""
    return nn.Sequential(
        nn.Linear(input_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, output_size)
    )


def rope_tables(
    positions: Tensor, head_dim: int, *, theta: float = 10_000.0
) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of the rotary angles, each (..., head_dim), float32.

    Su et al. 2021, arXiv 2104.09864, in the half-split layout of Qwen2: the angle of pair i is
    position * theta^(-2i / head_dim), for entries i and i + head_dim / 2.
    """
    half = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions.to(torch.float32)[..., None] * theta**-half
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate (..., N, head_dim) by tables of (N, head_dim)."""
    first, second = x.chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    return (x * cosine + rotated * sine).to(x.dtype)


def sinusoidal_embedding(values: Tensor, width: int, *, max_period: float = 1000.0) -> Tensor:
    """Return sines and cosines of 1000 * values, (B,) -> (B, width), float32."""
    half = width // 2
    exponents = torch.arange(half, device=values.device, dtype=torch.float32) / half
    angles = 1000.0 * values.float()[:, None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)
