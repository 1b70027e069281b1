"""Entry codes: what lies along the world, decided by chance and held as discrete codes.

The mean of "maybe a coin" is nothing, so a network that predicts means never draws a new coin. A
discrete code is therefore drawn once for each newly uncovered strip of the world, predicted by the
backbone as a language model predicts tokens. As long as it is in view it is told as a map fixed to
its place in the world, so that its thing is painted whole at every step; and from the codes, the
pose and the tally alone a small network tells what becomes of each: a coin that is touched is gone,
and pays.

Shapes: B batch, J codes told at once, h w fine grid, N tokens per frame, D backbone width,
K classes, P pose size.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from midas_world.config import ConditionsConfig, EntriesConfig
from midas_world.model.layers import mlp
from midas_world.model.motion import snap

_FATE_WIDTH = 128
_CODE_WIDTH, _NUM_WAVES = 64, 6
FATE_SIZE = 32


class EntryMaps(nn.Module):
    """Codes to maps: each class has learned pictures, put at its place along x.

    There is one for each pixel that a place may lie off its latent, and for each phase of the
    clock, so that nothing is interpolated.

    Args:
        config: Sizes.
        grid: (h, w).
        downsampling: Pixels of a fine latent.
    """

    across: Tensor

    def __init__(self, config: EntriesConfig, *, grid: tuple[int, int], downsampling: int) -> None:
        super().__init__()
        self.config, self.grid, self.step = config, grid, downsampling
        self.num_channels = config.channels if config.num_classes else 0
        if not config.num_classes:
            return
        numbers = config.num_classes * config.phases * downsampling
        self.table = nn.Parameter(
            0.3 * torch.randn(numbers, self.num_channels * grid[0] * config.columns)
        )
        across = torch.arange(grid[1])[None] - (
            torch.arange(config.columns)[:, None] - config.columns // 2
        )
        self.register_buffer("across", across, persistent=False)  # (columns, w)

    def forward(self, entries: Tensor, clock: Tensor) -> Tensor:
        """Return (B, channels, h, w).

        Args:
            entries: (B, J, 2): class or -1, and px from the middle.
            clock: (B,) share of its period.
        """
        if not self.num_channels:
            return entries.new_zeros(len(entries), 0, *self.grid)
        kind, place = entries.unbind(dim=-1)
        pixel = snap(place).long() + self.grid[1] * self.step // 2
        column = torch.div(pixel, self.step, rounding_mode="floor")
        phases = self.config.phases
        phase = torch.floor(clock * phases + 0.001).long() % phases
        number = kind.long().clamp_min(0) * phases + phase[:, None]
        number = number * self.step + pixel - column * self.step
        pictures = self.table[number].unflatten(2, (self.num_channels * self.grid[0], -1))
        is_there = (self.across == column[..., None, None]) & (kind >= 0)[..., None, None]
        made = torch.einsum("bjrc,bjcw->brw", pictures, is_there.to(pictures.dtype))
        return made.unflatten(1, (self.num_channels, self.grid[0]))


class Fate(NamedTuple):
    """What becomes of the codes in a step, and what that brings.

    Attributes:
        gone: (B, J) logits that the code's thing is no more.
        told: (B, FATE_SIZE) for the outcomes.
    """

    gone: Tensor
    told: Tensor


class Fates(nn.Module):
    """What becomes of codes, from where they lie, the pose and the tally.

    Args:
        config: Sizes.
        conditions: Layout of the pose.
        half_width: Of the picture, px.
    """

    def __init__(
        self, config: EntriesConfig, conditions: ConditionsConfig, *, half_width: float
    ) -> None:
        super().__init__()
        self.num_classes, self.half_width = config.num_classes, half_width
        if not config.num_classes:
            return
        size = config.num_classes + 3 + conditions.pose_size + 3
        self.code = mlp(size, _FATE_WIDTH, _FATE_WIDTH)
        self.trunk = mlp(_FATE_WIDTH, _FATE_WIDTH, 1 + FATE_SIZE)

    def forward(self, entries: Tensor, pose: Tensor, tally: Tensor) -> Fate:
        """Return what becomes of codes.

        Args:
            entries: (B, J, 2): class or -1, and px from the middle.
            pose: (B, P), 0 where it is absent.
            tally: (B, 3), as `tally_of` gives it.
        """
        if not self.num_classes:
            empty = entries.new_zeros(len(entries), FATE_SIZE)
            return Fate(gone=entries[..., 0], told=empty)
        kind, place = entries.unbind(dim=-1)
        classes = torch.arange(self.num_classes, device=entries.device)
        is_it = (kind[..., None] == classes).to(entries.dtype)
        near = (place / 16.0).clamp(-4.0, 4.0)
        whole = torch.cat((pose, tally), dim=1)[:, None]
        where = torch.stack((place / self.half_width, near, near.abs()), dim=2)
        own = torch.cat((is_it, where, whole.expand(-1, entries.shape[1], -1)), dim=2)
        out = self.trunk(torch.relu(self.code(own))).float()
        is_there = kind >= 0
        gone = torch.where(is_there, out[..., 0], -20.0)
        told = torch.relu(out[..., 1:]) * is_there[..., None]
        return Fate(gone=gone, told=told.sum(dim=1))


def kept(entries: Tensor, gone: Tensor) -> Tensor:
    """Return codes (B, J, 2) without those that are likelier gone, by logits (B, J)."""
    kind = torch.where(gone > 0, -1.0, entries[..., 0])
    return torch.stack((kind, entries[..., 1]), dim=-1)


class EntryPrior(nn.Module):
    """What enters next at the left and at the right edge, from hidden states and codes.

    Each code says its class and how far it lies from the edge, told finely (Fourier features,
    Tancik et al. 2020, arXiv 2006.10739); what they say is summed (Deep Sets, Zaheer et al. 2017,
    arXiv 1703.06114). Without them, things that never lie close together would.

    Args:
        config: Sizes.
        width: D.
        token_grid: Rows and columns of the backbone's tokens.
        half_width: Of the picture, px.
    """

    sides: Tensor
    waves: Tensor

    def __init__(
        self, config: EntriesConfig, *, width: int, token_grid: tuple[int, int], half_width: float
    ) -> None:
        super().__init__()
        self.token_grid, self.num_classes = token_grid, config.num_classes
        self.edge = half_width + config.outside
        size = config.num_classes + 2 * _NUM_WAVES + 1
        self.code = mlp(size, _CODE_WIDTH, _CODE_WIDTH)
        self.trunk = mlp(2 * width + _CODE_WIDTH, width, config.num_classes + 1)
        self.side = nn.Parameter(0.02 * torch.randn(2, 2 * width))
        self.register_buffer("sides", torch.tensor((-1.0, 1.0))[:, None], persistent=False)
        periods = config.strip * 2.0 ** torch.arange(1, _NUM_WAVES + 1)
        self.register_buffer("waves", 2.0 * math.pi / periods, persistent=False)

    def forward(self, hidden: Tensor, entries: Tensor) -> Tensor:
        """Return logits (..., 2, K + 1), left before right; the last is nothing.

        Args:
            hidden: (..., N, D).
            entries: (..., J, 2) the frame's codes: class or -1, and px from the middle.
        """
        grid = hidden.unflatten(-2, self.token_grid)
        edges = torch.stack((grid[..., 0, :], grid[..., -1, :]), dim=-2).mean(dim=-3)
        whole = hidden.mean(dim=-2)[..., None, :].expand_as(edges)
        seen = torch.cat((edges, whole), dim=-1) + self.side
        return self.trunk(torch.cat((seen, self._told(entries)), dim=-1))

    def _told(self, entries: Tensor) -> Tensor:
        """Return what codes say to the left and to the right edge, (..., 2, width)."""
        kind, place = entries[..., None, :, :].unbind(dim=-1)  # (..., 1, J)
        classes = torch.arange(self.num_classes, device=entries.device)
        way = (self.edge - self.sides * place)[..., None]  # (..., 2, J, 1)
        is_it = (kind[..., None] == classes).to(way.dtype)
        is_it = is_it.expand(*way.shape[:-1], self.num_classes)
        angle = way * self.waves
        told = torch.cat((is_it, angle.sin(), angle.cos(), way / self.edge), dim=-1)
        said = torch.relu(self.code(told.to(self.side.dtype)))
        return (said * (kind >= 0)[..., None]).sum(dim=-2)
