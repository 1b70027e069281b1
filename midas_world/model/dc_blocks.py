"""The blocks of the published deep-compression autoencoders, beside our own in autoencoder.py.

After DC-AE (Chen et al. 2024, arXiv 2410.10733) and EfficientViT (Cai et al. 2022, arXiv
2205.14756): plain residual blocks in the fine stages, linear attention with a gated convolution in
the coarse ones. Published weights load by the tables in foreign_weights.py; so the channel order
inside attention is the published one. Knows nothing of stages or of changes of resolution.

Shapes: B batch, h w grid.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.model.layers import without_autocast


class ChannelRMSNorm(nn.Module):
    """Divide by the root mean square over channels, then scale and shift each channel."""

    def __init__(self, width: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same, computed in float32 and returned in the input's dtype."""
        values = x.float()
        normed = values * (values.square().mean(dim=1, keepdim=True) + self.eps).rsqrt()
        return (normed * self.weight[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def norm_of(kind: str, width: int) -> nn.Module:
    """Return a new "rms_norm" or "batch_norm" over the channels of (B, width, h, w)."""
    return nn.BatchNorm2d(width) if kind == "batch_norm" else ChannelRMSNorm(width)


def activation_of(kind: str) -> nn.Module:
    """Return a new "relu" or "silu"."""
    return nn.ReLU() if kind == "relu" else nn.SiLU()


class ResBlock(nn.Module):
    """x + norm(conv(activation(conv(x)))), the last convolution without bias."""

    def __init__(self, width: int, *, norm: str, activation: str) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.activation = activation_of(activation)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = norm_of(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape."""
        return x + self.norm(self.conv_2(self.activation(self.conv_1(x))))


class ScaleProjection(nn.Module):
    """Queries, keys and values gathered from a neighbourhood, each head by itself."""

    def __init__(self, channels: int, *, head_dim: int, kernel_size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=False
        )
        self.mix = nn.Conv2d(channels, channels, 1, groups=channels // head_dim, bias=False)

    def forward(self, qkv: Tensor) -> Tensor:
        """(B, channels, h, w) -> the same shape."""
        return self.mix(self.depthwise(qkv))


class LinearAttention(nn.Module):
    """Attention with relu(q) . relu(k) in place of softmax, so its cost is linear in h * w.

    The output at a place is sum_k v_k (k . q) / sum_k (k . q); sums over all places of v k^T are
    formed first. Each run of 3 * head_dim channels of the projection is one head's q, k and v.
    """

    def __init__(self, width: int, *, norm: str, head_dim: int, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.head_dim = head_dim
        inner = width // head_dim * head_dim
        self.qkv = nn.Conv2d(width, 3 * inner, 1, bias=False)
        self.scales = nn.ModuleList(
            [ScaleProjection(3 * inner, head_dim=head_dim, kernel_size=size) for size in scales]
        )
        self.out = nn.Conv2d(inner * (1 + len(scales)), width, 1, bias=False)
        self.norm = norm_of(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape, without the residual."""
        qkv = self.qkv(x)
        qkv = torch.cat((qkv, *(scale(qkv) for scale in self.scales)), dim=1)
        # Sums over all places overflow half precision, so autocast stays out of here.
        with without_autocast(x.device):
            heads = qkv.float().flatten(2).unflatten(1, (-1, 3 * self.head_dim))
            q, k, v = heads.chunk(3, dim=2)  # each (B, heads, head_dim, h * w)
            q, k = functional.relu(q), functional.relu(k)
            weight = k.sum(dim=-1)[:, :, None] @ q  # (B, heads, 1, h * w)
            attended = (v @ k.transpose(-1, -2)) @ q / (weight + 1e-15)
        attended = attended.to(qkv.dtype).flatten(1, 2).unflatten(-1, x.shape[-2:])
        return self.norm(self.out(attended))


class GatedConv(nn.Module):
    """GLUMBConv: widen fourfold, mix neighbours, gate by the other half, narrow, norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 8 * width
        self.expand = nn.Conv2d(width, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden // 2, width, 1, bias=False)
        self.norm = ChannelRMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape, without the residual."""
        hidden, gate = self.depthwise(functional.silu(self.expand(x))).chunk(2, dim=1)
        return self.norm(self.project(hidden * functional.silu(gate)))


class EfficientViTBlock(nn.Module):
    """Linear attention and a gated convolution, each with a residual."""

    def __init__(self, width: int, *, norm: str, head_dim: int, scales: tuple[int, ...]) -> None:
        super().__init__()
        self.attention = LinearAttention(width, norm=norm, head_dim=head_dim, scales=scales)
        self.feed_forward = GatedConv(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape."""
        x = x + self.attention(x)
        return x + self.feed_forward(x)
