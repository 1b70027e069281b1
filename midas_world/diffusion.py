"""The diffusion head: from a frame's hidden states and noise to the next frame's latent tokens.

Flow matching with the prediction of data ("x-prediction") and the loss on data with a ramp weight,
which Dreamer 4 measured as decisive for few denoise steps (arXiv 2509.24527). What is sampled is
the *change* from the last frame's latent tokens, in units of its standard deviation; whoever calls
turns it into latents. x = (1 - sigma) * x0 + sigma * noise, so sigma = 1 is noise, 0 is data.

Shapes: B batch, N tokens, C latent channels, Z width of what the backbone hands over.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import DiffusionConfig
from midas_world.layers import mlp, sinusoidal_embedding


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v, (B, heads, N, d).

    While training on a CPU it is written out: PyTorch's fused backward pass takes a tenth of a
    whole train step for the few tokens of a frame, this one a third of that.
    """
    if q.device.type != "cpu" or not torch.is_grad_enabled():
        return functional.scaled_dot_product_attention(q, k, v)
    weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    return weights.softmax(dim=-1).to(v.dtype) @ v


class HeadBlock(nn.Module):
    """A DiT block (Peebles and Xie 2023) whose modulation comes from one shared projection.

    PixArt-alpha's "adaLN-single" (arXiv 2310.00426): scale, shift and gate of all blocks are one
    vector of sigma plus a learned table per block.
    """

    def __init__(self, width: int, num_heads: int, *, attends: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attends = attends
        if attends:
            self.qkv = nn.Linear(width, 3 * width)
            self.out = nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, 3 * width)
        self.mlp_out = nn.Linear(3 * width, width)
        self.table = nn.Parameter(torch.randn(6, width) / width**0.5)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Return (B, N, width) of x (B, N, width) and modulation (B, 6, width)."""
        return self.modulated(x, self.parts(modulation, x.dtype))

    def parts(self, modulation: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return shift, scale and gate of both halves, (B, 1, width) each, of (B, 6, width)."""
        return (modulation + self.table).to(dtype)[:, :, None].unbind(dim=1)

    def modulated(self, x: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Return what `forward` does, of its `parts`."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = parts
        size = (x.shape[-1],)
        if self.attends:
            normed = functional.layer_norm(x, size) * (1 + scale_1) + shift_1
            q, k, v = self.qkv(normed).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
            attended = attend(q, k, v)
            x = x + gate_1 * self.out(attended.transpose(1, 2).flatten(-2))
        normed = functional.layer_norm(x, size) * (1 + scale_2) + shift_2
        hidden = functional.gelu(self.mlp_in(normed), approximate="tanh")
        return x + gate_2 * self.mlp_out(hidden)


class DiffusionHead(nn.Module):
    """Predict clean data from noisy data, sigma and the backbone's hidden states.

    Where the conditions foretell changes, the prediction is gated shares of them, per channel, plus
    what the head itself adds.

    Args:
        config: Sizes.
        latent_channels: C.
        hidden_width: Of the backbone.
        tokens_per_frame: N.
        num_changes: E, the foretold changes of C channels each behind the hidden states.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        *,
        latent_channels: int,
        hidden_width: int,
        tokens_per_frame: int,
        num_changes: int = 0,
    ) -> None:
        super().__init__()
        self.config = config
        self.hidden_width = hidden_width
        width = config.width
        self.input = nn.Linear(2 * latent_channels, width)
        self.condition = nn.Linear(hidden_width + num_changes * latent_channels, width)
        self.places = nn.Parameter(0.02 * torch.randn(tokens_per_frame, width))
        self.sigma = mlp(256, width, width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.blocks = nn.ModuleList(
            [
                HeadBlock(width, config.num_heads, attends=config.kind == "dit")
                for _ in range(config.num_layers)
            ]
        )
        self.output = nn.Linear(width, latent_channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.gate = nn.Linear(width, num_changes * latent_channels) if num_changes else None
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.zeros_(self.gate.bias)

    def forward(self, x: Tensor, sigma: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Return the predicted data.

        Args:
            x: (B, N, C) noisy data.
            sigma: (B,) in [0, 1].
            hidden: (B, N, Z) of the backbone, and the foretold changes behind it.
            context: (B, N, C) the last frame's latent tokens, as the backbone saw them.
        """
        modulation = self.modulation_of(sigma)
        blocks = [partial(block, modulation=modulation) for block in self.blocks]
        condition = self.condition(hidden) + self.places
        return self.denoise(x, condition, hidden, context, blocks=blocks)

    def modulation_of(self, sigma: Tensor) -> Tensor:
        """Return what the blocks are told of sigma, (B,) -> (B, 6, width)."""
        embedded = functional.silu(self.sigma(sinusoidal_embedding(sigma, 256)))
        return self.modulation(embedded).unflatten(-1, (6, -1))

    def denoise(
        self,
        x: Tensor,
        condition: Tensor,
        hidden: Tensor,
        context: Tensor,
        *,
        blocks: Sequence[Callable[[Tensor], Tensor]],
    ) -> Tensor:
        """Return what `forward` does, from what denoise steps have in common.

        Args:
            x: (B, N, C) noisy data.
            condition: (B, N, width), ``self.condition(hidden) + self.places``.
            hidden: (B, N, Z).
            context: (B, N, C).
            blocks: The head's blocks, which have been told of sigma.
        """
        tokens = self.input(torch.cat((x, context), dim=-1)) + condition
        for block in blocks:
            tokens = block(tokens)
        tokens = functional.layer_norm(tokens, (tokens.shape[-1],))
        if self.gate is None:
            return self.output(tokens)
        shares = self.gate(tokens).sigmoid() * hidden[..., self.hidden_width :]
        return self.output(tokens) + shares.unflatten(-1, (-1, x.shape[-1])).sum(dim=-2)


class Sampler(nn.Module):
    """All denoise steps of a head, for play.

    What follows from the noise levels alone is computed once, and what follows from the hidden
    states once a frame.

    Args:
        head: On its device and in its dtypes.
        sigmas: Falling from 1 to 0, on the CPU.
    """

    parts: Tensor

    def __init__(self, head: DiffusionHead, sigmas: Tensor) -> None:
        super().__init__()
        self.head, self.sigmas = head, sigmas
        self.dtype = head.input.weight.dtype
        blocks = [cast("HeadBlock", block) for block in head.blocks]
        steps = []
        with torch.no_grad():
            for sigma in sigmas[:-1].split(1):
                modulation = head.modulation_of(sigma.to(head.places.device))
                told = [torch.stack(block.parts(modulation, self.dtype)) for block in blocks]
                steps.append(torch.stack(told))
        # (steps, blocks, 6, 1, 1, width)
        self.register_buffer("parts", torch.stack(steps), persistent=False)

    def forward(self, context: Tensor, hidden: Tensor, noise: Tensor) -> Tensor:
        """Return the change to the next frame's latent tokens, (B, N, C) float32.

        Args:
            context: (B, N, C) float32, the last frame's latent tokens.
            hidden: (B, N, Z) in the head's dtype.
            noise: (B, N, C) float32.
        """
        context, condition = context.to(self.dtype), self.head.condition(hidden) + self.head.places
        steps = iter(self.parts.unbind())

        def predict(x: Tensor, _: Tensor) -> Tensor:
            blocks = [
                partial(cast("HeadBlock", block).modulated, parts=parts.unbind())
                for block, parts in zip(self.head.blocks, next(steps).unbind(), strict=True)
            ]
            x = x.to(self.dtype)
            return self.head.denoise(x, condition, hidden, context, blocks=blocks).float()

        return euler_sample(predict, noise, self.sigmas)


def sample_noise(
    shape: Sequence[int],
    config: DiffusionConfig,
    generator: torch.Generator,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Return the noise that frames are made from: standard normal times the temperature.

    Args:
        shape: (..., N, C).
        config: Whose temperature it is.
        generator: On the CPU.
        out: Is filled and returned, if given.
    """
    return torch.randn(tuple(shape), generator=generator, out=out).mul_(config.temperature)


def sample_sigma(
    count: int, config: DiffusionConfig, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Return noise levels for training, (count,): the sigmoid of a normal (Esser et al. 2024)."""
    normal = torch.randn(count, generator=generator)
    return torch.sigmoid(config.sigma_mean + config.sigma_std * normal).to(device)


def ramp_weight(sigma: Tensor) -> Tensor:
    """Return Dreamer 4's ramp weight, 0.9 * tau + 0.1 with the paper's tau = 1 - sigma: (B,)."""
    return 0.9 * (1.0 - sigma) + 0.1


def head_loss(predicted: Tensor, data: Tensor, sigma: Tensor) -> Tensor:
    """Return the mean squared error of x-prediction with the ramp weight.

    Shapes (B, N, C), sigma (B,).
    """
    error = (predicted.float() - data.float()).square().mean(dim=(1, 2))
    return (ramp_weight(sigma) * error).mean()


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
        predict: Predicted data from x (B, N, C) and sigma (B,).
        noise: (B, N, C) standard normal.
        sigmas: Falling from 1 to 0, on the CPU.
    """
    x = noise
    for sigma, next_sigma in pairwise(sigmas.tolist()):
        data = predict(x, x.new_full((x.shape[0],), sigma, dtype=torch.float32))
        # Where no noise is left, what is predicted is what comes out.
        x = data + (next_sigma / sigma) * (x - data) if next_sigma else data
    return x
