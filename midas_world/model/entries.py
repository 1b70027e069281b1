"""Entry codes: what comes into view, decided by chance and told to the head as maps.

The mean of "maybe a coin" is nothing, so a network that predicts means never draws a new coin. A
discrete code is therefore drawn once for each newly uncovered strip of the world; while the strip
comes into view, the code is told to the head as a map fixed to its place in the world, and then it
is dropped: the latents hold the thing. In training codes are read from what did come. The backbone
predicts them by cross-entropy, as a language model predicts tokens.

Shapes: B batch, J codes told at once, h w fine grid, N tokens per frame, D backbone width,
K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import EntriesConfig
from midas_world.model.layers import mlp


class EntryMaps(nn.Module):
    """Codes to a map: each class has a learned picture, put at its place along x.

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
        shape = (config.num_classes, self.num_channels, grid[0], config.columns)
        self.table = nn.Parameter(0.3 * torch.randn(shape))
        across = torch.arange(grid[1])[None] - (
            torch.arange(config.columns)[:, None] - config.columns // 2
        )
        self.register_buffer("across", across.float(), persistent=False)  # (columns, w)

    def forward(self, entries: Tensor) -> Tensor:
        """Return (B, channels, h, w) of entries (B, J, 2): class or -1, and px from the middle."""
        if not self.num_channels:
            return entries.new_zeros(len(entries), 0, *self.grid)
        kind, place = entries.unbind(dim=-1)
        pictures = self.table[kind.long().clamp_min(0)]  # (B, J, channels, h, columns)
        column = place / self.step + (self.grid[1] - 1) / 2
        weight = functional.relu(1.0 - (self.across - column[..., None, None]).abs())
        weight = weight * (kind >= 0)[..., None, None]
        return torch.einsum("bjdhc,bjcw->bdhw", pictures, weight.to(pictures.dtype))


class ThingReader(nn.Module):
    """Where in a frame's latents the things that codes stand for can be seen.

    So a game knows which of the things it drew are still there when they leave the view, and what
    was there when it began.

    Args:
        config: Sizes.
        latent_channels: c.
    """

    def __init__(self, config: EntriesConfig, *, latent_channels: int) -> None:
        super().__init__()
        width = 32
        self.num_classes = config.num_classes
        if not config.num_classes:
            return
        self.conv_in = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, config.num_classes, 1)
        assert self.conv_out.bias is not None
        nn.init.constant_(self.conv_out.bias, -5.0)  # most places hold nothing

    def forward(self, latents: Tensor) -> Tensor:
        """Return logits (B, K, h, w) of a thing's middle in each place, of (B, c, h, w)."""
        if not self.num_classes:
            return latents.new_zeros(len(latents), 0, *latents.shape[2:])
        x = functional.relu(self.conv_in(latents))
        return self.conv_out(functional.relu(self.conv_1(x))).float()


class EntryPrior(nn.Module):
    """What enters next at the left and at the right edge, from hidden states."""

    def __init__(self, config: EntriesConfig, *, width: int, token_grid: tuple[int, int]) -> None:
        super().__init__()
        self.token_grid = token_grid
        self.trunk = mlp(2 * width, width, config.num_classes + 1)
        self.side = nn.Parameter(0.02 * torch.randn(2, 2 * width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits (..., 2, K + 1), left before right, of (..., N, D); the last is nothing."""
        grid = hidden.unflatten(-2, self.token_grid)
        edges = torch.stack((grid[..., 0, :], grid[..., -1, :]), dim=-2).mean(dim=-3)
        whole = hidden.mean(dim=-2)[..., None, :].expand_as(edges)
        return self.trunk(torch.cat((edges, whole), dim=-1) + self.side)
