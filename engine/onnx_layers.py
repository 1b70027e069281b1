"""Layers as the exported graphs have them: the same numbers, from fewer operators.

A runtime pays for every operator of a graph, however little it computes; at the few tokens of a
frame that is half of a step. So products that share their input stand in one, norms are written as
runtimes know them, and nothing is reshaped that need not be. The weights are the world's own, or
rows of them side by side, so that what is stored in eight bits stays exactly as it is.

Shapes: B batch, T positions of a frame, S ring rows, D width, G heads of a group: the queries that
share a key head, that key and its value.
"""

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.backbone import Attention
from midas_world.diffusion import HeadBlock
from midas_world.layers import RMSNorm, linear_of
from midas_world.pose_guider import PoseGuider

_Module = TypeVar("_Module", bound=nn.Module)


def shallow(module: _Module) -> _Module:
    """Return a copy that shares the weights, and whose submodules can be replaced."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    return other


def with_plain_norms(module: _Module) -> _Module:
    """Return a copy that shares the weights, with every `RMSNorm` in it as a `PlainRMSNorm`."""
    other = shallow(module)
    for name, child in module.named_children():
        is_norm = isinstance(child, RMSNorm)
        setattr(other, name, PlainRMSNorm(child) if is_norm else with_plain_norms(child))
    return other


class PlainRMSNorm(RMSNorm):
    """`RMSNorm` in the operators that ONNX Runtime takes for one, not in those torch exports."""

    def __init__(self, plain: RMSNorm) -> None:
        nn.Module.__init__(self)
        self.weight, self.eps = plain.weight, plain.eps

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return x / (x.square().mean(dim=-1, keepdim=True) + self.eps).sqrt() * self.weight


class GroupedAttention(nn.Module):
    """`Attention` of one frame to a ring, with one product and one rotation for each group."""

    swap: Tensor

    def __init__(self, plain: Attention) -> None:
        super().__init__()
        config = plain.config
        self.config = config
        self.num_queries = config.num_heads // config.num_kv_heads
        layers = plain.q_proj, plain.k_proj, plain.v_proj
        weight, bias = (
            torch.cat([part.detach().unflatten(0, (config.num_kv_heads, -1)) for part in parts], 1)
            for parts in ([layer.weight for layer in layers], [layer.bias for layer in layers])
        )
        self.qkv = linear_of(weight.flatten(0, 1), bias.flatten(0, 1))
        self.o_proj = plain.o_proj
        self.register_buffer("swap", torch.tensor((1, 0)), persistent=False)

    def tables(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return what halves of a group's heads are multiplied by, (G T, 2, head_dim / 2) each.

        Queries are scaled with it; values stay as they are. Arguments (T, head_dim).
        """
        cosine, sine = (table.unflatten(-1, (2, -1)) for table in (cosine, sine))
        sine = torch.cat((-sine[:, :1], sine[:, 1:]), dim=1)
        scale = self.config.head_dim**-0.5
        queries = [cosine * scale] * self.num_queries, [sine * scale] * self.num_queries
        stay = torch.ones_like(cosine), torch.zeros_like(sine)
        return (
            torch.cat([*queries[0], cosine, stay[0]]),
            torch.cat([*queries[1], sine, stay[1]]),
        )

    def forward(
        self,
        x: Tensor,
        tables: tuple[Tensor, Tensor],
        *,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the attended values (B, T, D), and the frame's rotated keys and values.

        Scores of the ring and of the frame itself are formed apart, so that the ring is not put
        together anew.

        Args:
            x: (B, T, D).
            tables: Of `tables`.
            keys: (1, B, kv_heads, S, head_dim), of a layer of the ring; the new ones are like it.
            values: The same shape.
            mask: (B, 1, 1, S), added to scores.
        """
        config, tokens = self.config, x.shape[1]
        groups = self.qkv(x).unflatten(-1, (config.num_kv_heads, -1, config.head_dim))
        halves = groups.permute(0, 2, 3, 1, 4).flatten(2, 3).unflatten(-1, (2, -1))[None]
        turned = halves * tables[0] + halves.index_select(-2, self.swap) * tables[1]
        q, k, v = turned.flatten(-2).split((self.num_queries * tokens, tokens, tokens), dim=3)
        scores = torch.cat((q @ keys.transpose(-1, -2) + mask, q @ k.transpose(-1, -2)), dim=-1)
        past, present = scores.softmax(dim=-1).split((keys.shape[-2], tokens), dim=-1)
        out = (past @ values + present @ v).squeeze(0).unflatten(2, (-1, tokens))
        return self.o_proj(out.permute(0, 3, 1, 2, 4).flatten(2)), k, v


class NearPoseGuider(PoseGuider):
    """`PoseGuider` that paints only cells near a limb, as in training: a CPU knows how many."""

    def __init__(self, plain: PoseGuider) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(shallow(plain).__dict__)

    def pictures(self, keypoints: Tensor, features: Tensor) -> Tensor:
        """Return pictures of all cells; see `PoseGuider.pictures`."""
        return self.near_pictures(keypoints, features)


class PlainHeadBlock(HeadBlock):
    """`HeadBlock` for one noise level of the whole batch, which norms can then be told of."""

    def __init__(self, plain: HeadBlock) -> None:
        nn.Module.__init__(self)
        self.num_heads, self.attends = plain.num_heads, plain.attends
        if plain.attends:
            self.qkv, self.out = plain.qkv, plain.out
        self.mlp_in, self.mlp_out, self.table = plain.mlp_in, plain.mlp_out, plain.table

    def modulated(self, x: Tensor, parts: Sequence[Tensor]) -> Tensor:
        """Return what `HeadBlock.modulated` does; the parts are (1, 1, width)."""
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = (part.flatten() for part in parts)
        if self.attends:
            normed = functional.layer_norm(x, (x.shape[-1],), 1 + scale_1, shift_1)
            x = x + gate_1 * self._attend(normed)
        normed = functional.layer_norm(x, (x.shape[-1],), 1 + scale_2, shift_2)
        hidden = functional.gelu(self.mlp_in(normed), approximate="tanh")
        return x + gate_2 * self.mlp_out(hidden)

    def _attend(self, x: Tensor) -> Tensor:
        """Return (B, N, width) of (B, N, width)."""
        heads = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = heads.split(1)  # (1, B, heads, N, head_dim)
        weights = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return self.out((weights @ v).squeeze(0).transpose(1, 2).flatten(2))
