"""Layers as a CPU runs them fastest: the same products, weights laid out once and not at each step.

oneDNN multiplies by weights in blocks of its own layout. A plain linear layer brings them into it
at every call, which for the few tokens of a frame costs more than the product. Products that share
their input stand in one. What comes out differs from the plain layers' by rounding alone; those
stay what trains, and what every other device runs.

Shapes: B games, T tokens, D width, h w latent grid, C latent channels, P values of a cell.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.backbone import Attention
from midas_world.klt import CellTransform, join_cells
from midas_world.layers import SwiGLU, apply_rope, linear_of
from midas_world.transport import RowTransport, Transport

# Smaller weights lie in the nearest cache whatever their layout.
_LEAST_WEIGHTS = 2**14


def can_pack(dtype: torch.dtype) -> bool:
    """Return whether this torch, on this CPU, has such layers in a dtype."""
    names = "_reorder_linear_weight", "_linear_pointwise", "_is_mkldnn_bf16_supported"
    mkldnn = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not all(hasattr(mkldnn, x) for x in names):
        return False
    if dtype == torch.bfloat16:
        return mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


def pack_layers(module: nn.Module) -> None:
    """Change a module: its linear layers, SwiGLUs and attentions become packed ones."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            if child.weight.numel() >= _LEAST_WEIGHTS:
                setattr(module, name, PackedLinear([child]))
        elif type(child) is SwiGLU:
            setattr(module, name, PackedSwiGLU(child))
        elif type(child) is Attention:
            setattr(module, name, PackedAttention(child))
        elif type(child) is Transport:
            by_row = RowTransport(child)
            pack_layers(by_row)
            setattr(module, name, by_row)
        else:
            pack_layers(child)


class PackedLinear(nn.Linear):
    """One product for linear layers that share their input; the outputs lie side by side.

    Args:
        layers: Float32 or bfloat16, all with a bias or all without; not changed.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        # Without nn.Linear's own: a weight in oneDNN's layout is no parameter.
        nn.Module.__init__(self)
        weight = torch.cat([layer.weight.detach() for layer in layers])
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        assert len(biases) in (0, len(layers)), "of packed layers, some have a bias"
        self.out_features, self.in_features = weight.shape
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.register_buffer("weight", packed, persistent=False)
        self.register_buffer("bias", torch.cat(biases) if biases else None, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")


class PackedSwiGLU(SwiGLU):
    """`SwiGLU` with gate and up in one product."""

    def __init__(self, plain: SwiGLU) -> None:
        nn.Module.__init__(self)
        self.gate_and_up = PackedLinear([plain.gate_proj, plain.up_proj])
        self.down_proj = PackedLinear([plain.down_proj])

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return self.down_proj(functional.silu(gate) * up)


class PackedAttention(Attention):
    """`Attention` with queries, keys and values in one product, and one rotation."""

    def __init__(self, plain: Attention) -> None:
        nn.Module.__init__(self)
        self.config = plain.config
        self.qkv = PackedLinear([plain.q_proj, plain.k_proj, plain.v_proj])
        self.o_proj = PackedLinear([plain.o_proj])

    def project(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return rotated queries, rotated keys and values; see `Attention.project`."""
        config = self.config
        heads = self.qkv(x).unflatten(-1, (-1, config.head_dim)).transpose(1, 2)
        num_rotated = config.num_heads + config.num_kv_heads
        rotated = apply_rope(heads[:, :num_rotated], *rope)
        q, k = rotated.split((config.num_heads, config.num_kv_heads), dim=1)
        return q, k, heads[:, num_rotated:]


class PackedTransform(nn.Module):
    """The decoding half of a `CellTransform`, with scale and mean in the products.

    Args:
        plain: Not changed.
        dtype: Of the products.
    """

    def __init__(self, plain: CellTransform, dtype: torch.dtype) -> None:
        super().__init__()
        self.side = plain.side
        gain = plain.gain.view(plain.num_rows, -1, 1)
        basis = plain.basis.view(plain.num_rows, plain.channels, -1) / gain
        means = plain.mean.view(plain.num_rows, -1)
        self.rows = nn.ModuleList(
            [
                PackedLinear([linear_of(matrix.T.to(dtype), mean.to(dtype))])
                for matrix, mean in zip(basis, means, strict=True)
            ]
        )

    def forward(self, latents: Tensor) -> Tensor:
        """Put frames together: raw latents (B, C, h, w) -> (B, 3, H, W)."""
        rows = [
            layer(row.transpose(1, 2)).unflatten(-1, (3, self.side, self.side))  # (B, w, 3, ...)
            for layer, row in zip(self.rows, latents.unbind(2), strict=True)
        ]
        return join_cells(torch.stack(rows, dim=1))
