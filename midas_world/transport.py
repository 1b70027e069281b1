"""How the picture moves when the camera does, in the latents of a linear autoencoder.

What a frame holds beyond what its conditions foretell (a coin, the way the rain falls) passes by
with the camera. On cells of a transform (klt.py), a shift by some pixels is a matrix for each row
of cells: the cell's own pixels that stay, and those that come in from its neighbour.

Shapes: B batch, N latent tokens in a grid h w, C latent channels, L of them that move,
P parallaxes, K shifts, S cells to move in a row.
"""

import math
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import TransportConfig
from midas_world.klt import CellTransform
from midas_world.layers import linear_of


class Transport(nn.Module):
    """Move latents sideways by any number of pixels, up to a little beyond the largest shift.

    Between the shifts whose matrices are held, the two nearest are mixed. What comes in from
    outside of the frame is zero.

    Args:
        config: Of the shifts.
        grid: (h, w) of the latent grid.
        channels: C.

    Attributes:
        matrices: (h, 2 K L, L), of the transform by `fit`; not kept in files, for they follow from
            it. Until then zero: nothing moves, and what should have moved is lost.
    """

    matrices: Tensor
    places: Tensor
    parallax: Tensor

    def __init__(self, config: TransportConfig, *, grid: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.config = config
        self.grid = grid
        self.num_moved = min(config.channels, channels)
        sizes = [config.step * count for count in range(1, config.reach + 1)]
        # That have matrices, in pixels: to the left, then to the right.
        self.shifts = [-size for size in reversed(sizes)] + sizes
        size = 2 * len(self.shifts) * self.num_moved, self.num_moved
        self.register_buffer("matrices", torch.zeros(grid[0], *size), persistent=False)
        # Buffers: a tensor made of numbers would stop a GPU, and be refused by CUDA graphs.
        places = torch.tensor([0, *self.shifts]) / config.step
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("parallax", torch.tensor(config.parallax), persistent=False)

    @torch.no_grad()
    def fit(self, transform: CellTransform) -> None:
        """Take the matrices from a transform of the same grid."""
        rows, count = self.grid[0], self.num_moved
        basis = transform.basis.view(rows, transform.channels, 3, transform.side, transform.side)
        gain = transform.gain.view(rows, transform.channels)[:, :count]
        basis = basis[:, :count].float()
        parts = []
        for shift in self.shifts:
            size = abs(shift)
            left, right = basis[..., : transform.side - size], basis[..., size:]
            first, last = basis[..., :size], basis[..., transform.side - size :]
            # A camera that moves to the right shows at x what was at x + shift.
            own, neighbour = ((right, left), (first, last)) if shift > 0 else (
                (left, right), (last, first)
            )  # fmt: skip
            for old, new in (own, neighbour):
                matrix = old.flatten(2) @ new.flatten(2).transpose(1, 2)
                parts.append(matrix / gain[:, :, None] * gain[:, None])
        self.matrices.copy_(torch.cat(parts, dim=1))

    def travel(self, phase: Tensor, last_phase: Tensor) -> Tensor:
        """Return how far the camera went to the right, in pixels: (..., 2), (..., 2) -> (...).

        Args:
            phase: Sine and cosine of the camera's place, 2 pi a wavelength; (0, 0) where unknown.
            last_phase: Of the frame before.
        """
        (sine, cosine), (last_sine, last_cosine) = phase.unbind(-1), last_phase.unbind(-1)
        tangent = (sine * last_cosine - cosine * last_sine) / (
            1.0 + cosine * last_cosine + sine * last_sine
        ).clamp_min(1e-3)
        return 2.0 * tangent.atan() * (self.config.wavelength / (2.0 * math.pi))

    def forward(self, latents: Tensor, travel: Tensor) -> Tensor:
        """Return latents (B, P, N, C) of (B, N, C) after the camera's travel (B,), in pixels."""
        distance = travel.float()[:, None] * self.parallax / self.config.step
        shares = (1.0 - (distance[..., None] - self.places).abs()).clamp_min(0.0)  # (B, P, 1 + K)
        moved, rest = latents[..., : self.num_moved], latents[..., self.num_moved :]
        made = self.mixed(moved.unflatten(-2, self.grid), shares).flatten(2, 3)
        left = shares.sum(dim=2)[..., None, None] * rest[:, None]
        return torch.cat((made, left), dim=-1)

    def mixed(self, cells: Tensor, shares: Tensor) -> Tensor:
        """Return cells moved by shares of the shifts, (B, h, w, L) -> (B, P, h, w, L).

        Args:
            cells: (B, h, w, L).
            shares: (B, P, 1 + K); the first is of what stays.
        """
        cells = cells[:, None]  # (B, 1, h, w, L)
        edge = torch.zeros_like(cells[..., :1, :])
        from_right = torch.cat((cells[..., 1:, :], edge), dim=-2)
        from_left = torch.cat((edge, cells[..., :-1, :]), dim=-2)
        sides = [from_right if shift > 0 else from_left for shift in self.shifts]
        weights = shares[..., None, None, None].unbind(2)
        parts = chain.from_iterable(
            (share * cells, share * side) for share, side in zip(weights[1:], sides, strict=True)
        )
        given = torch.cat([*parts], dim=-1)  # (B, P, h, w, 2 K L)
        batch, parallaxes = given.shape[:2]
        rows = given.permute(2, 0, 1, 3, 4).flatten(1, 3).to(self.matrices.dtype)
        made = torch.bmm(rows, self.matrices).to(cells.dtype)
        made = made.unflatten(1, (batch, parallaxes, self.grid[1])).permute(1, 2, 0, 3, 4)
        return made + weights[0] * cells


class RowTransport(Transport):
    """`Transport` for play on a CPU: every row of cells meets its matrices once, in one product.

    What the parallaxes are shares of is formed for all of them together, and the weights of a
    linear layer can be laid out beforehand.

    Args:
        plain: That has been fitted; not changed.
    """

    def __init__(self, plain: Transport) -> None:
        nn.Module.__init__(self)
        self.config, self.grid = plain.config, plain.grid
        self.num_moved, self.shifts = plain.num_moved, plain.shifts
        self.register_buffer("places", plain.places, persistent=False)
        self.register_buffer("parallax", plain.parallax, persistent=False)
        count = self.num_moved
        # Of each row (K, 2, L, L): what stays in the cell and what goes to its neighbour.
        by_row = plain.matrices.unflatten(1, (len(self.shifts), 2, count))
        self.rows = nn.ModuleList(
            [linear_of(row.permute(1, 0, 3, 2).flatten(0, 2).contiguous()) for row in by_row]
        )

    def mixed(self, cells: Tensor, shares: Tensor) -> Tensor:
        """Return cells moved by shares of the shifts; see `Transport.mixed`."""
        layers = [cast("nn.Linear", layer) for layer in self.rows]
        pairs = zip(layers, cells.unbind(1), strict=True)
        made = torch.stack([layer(row.to(layer.weight.dtype)) for layer, row in pairs], dim=1)
        half = len(self.shifts) // 2
        # (B, h, w, 2 K, L), of the K shifts those to the left first
        parts = made.to(cells.dtype).unflatten(-1, (-1, self.num_moved))
        own, from_left, from_right = parts.split((2 * half, half, half), dim=3)
        from_left = functional.pad(from_left, (0, 0, 0, 0, 1, -1))
        from_right = functional.pad(from_right, (0, 0, 0, 0, -1, 1))
        parts = torch.cat((cells[..., None, :], own, from_left, from_right), dim=3)
        weights = torch.cat((shares, shares[..., 1:]), dim=-1)[:, None, None]  # (B, 1, 1, P, ...)
        return (weights @ parts).permute(0, 3, 1, 2, 4)
