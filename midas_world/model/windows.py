"""Windows of the picture that a network of their own paints: a character, its portrait, its lives.

What a character looks like follows from its pose, the words and the voice alone, as scenery
follows from the camera. So it is painted into the remembered scenery, in a small window that
follows its keypoints or stays at one place, by a small U-Net (Ronneberger et al. 2015, arXiv
1505.04597) whose blocks are modulated by all that has no place.

Shapes: B batch, c latent channels, h w fine grid, r s rows and columns of the window, S = r s,
I channels of maps, V size of the vector.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import WindowConfig
from midas_world.model.layers import Down, FilmBlock, Up, mlp

_VECTOR_WIDTH = 160


class Window(nn.Module):
    """One window.

    Args:
        config: Its size and place.
        latent_channels: c.
        map_channels: I; 0 where it follows nothing.
        vector_size: V.
        grid: (h, w).
        downsampling: Pixels of a fine latent.
    """

    at: Tensor
    rows: Tensor
    columns: Tensor
    grid_rows: Tensor
    grid_columns: Tensor

    def __init__(
        self,
        config: WindowConfig,
        *,
        latent_channels: int,
        map_channels: int,
        vector_size: int,
        grid: tuple[int, int],
        downsampling: int,
    ) -> None:
        super().__init__()
        self.config, self.grid, self.step = config, grid, downsampling
        first, second = config.widths
        self.vector = mlp(vector_size, _VECTOR_WIDTH, _VECTOR_WIDTH)
        self.input = nn.Conv2d(latent_channels + map_channels, first, 1)
        self.places = nn.Parameter(0.1 * torch.randn(1, first, *config.size))
        self.encoder = nn.ModuleList([FilmBlock(first, _VECTOR_WIDTH) for _ in range(2)])
        self.down = Down(first, second)
        self.middle = nn.ModuleList([FilmBlock(second, _VECTOR_WIDTH) for _ in range(2)])
        self.up = Up(second, first)
        self.decoder = nn.ModuleList([FilmBlock(first, _VECTOR_WIDTH) for _ in range(2)])
        self.output = nn.Conv2d(first, latent_channels, 1)
        self.register_buffer("at", torch.tensor(config.at or (0, 0)), persistent=False)
        for name, count in (("rows", config.size[0]), ("columns", config.size[1])):
            self.register_buffer(name, torch.arange(count), persistent=False)
        for name, count in (("grid_rows", grid[0]), ("grid_columns", grid[1])):
            self.register_buffer(name, torch.arange(count), persistent=False)

    def corner(self, middle: Tensor) -> Tensor:
        """Return the window's first row and column, (B, 2) int64.

        Args:
            middle: (B, 2) of what it follows, x and y as shares of the picture.
        """
        if self.config.at is not None:
            return self.at.expand(len(middle), 2)
        places = []
        for axis, (cells, size) in enumerate(zip(self.grid, self.config.size, strict=True)):
            start = torch.floor(middle[:, 1 - axis] * cells - size / 2 + 0.5)
            places.append(start.clamp(0, cells - size).long())
        return torch.stack(places, dim=1)

    def forward(
        self,
        painted: Tensor,
        vector: Tensor,
        middle: Tensor,
        maps: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Return the latents (B, c, h, w) float32 with what belongs into the window.

        Args:
            painted: (B, c, h, w) what lies behind.
            vector: (B, V).
            middle: (B, 2) as in `corner`.
            maps: Of points (B, 2, S) px, (B, S, I).
        """
        corner = self.corner(middle)
        behind = self.cut(painted, corner)
        modulation = functional.relu(self.vector(vector))
        x = behind
        if self.config.at is None:
            made = maps(self.points(corner)).transpose(1, 2).unflatten(2, self.config.size)
            x = torch.cat((behind, made.to(behind.dtype)), dim=1)
        x = self.input(x.contiguous(memory_format=torch.channels_last))
        x = x + self.places.to(x.dtype)
        for block in self.encoder:
            x = block(x, modulation)
        inner = self.down(x)
        for block in self.middle:
            inner = block(inner, modulation)
        x = x + self.up(inner)
        for block in self.decoder:
            x = block(x, modulation)
        made = behind.float() + self.output(functional.relu(x)).float()
        return self.paste(painted, made, corner)

    def points(self, corner: Tensor) -> Tensor:
        """Return the middles of the window's places, (B, 2, S) x and y in px."""
        y = (corner[:, :1] + self.rows)[:, :, None].expand(-1, *self.config.size)
        x = (corner[:, 1:] + self.columns)[:, None].expand(-1, *self.config.size)
        return (torch.stack((x, y), dim=1).flatten(2) + 0.5) * self.step - 0.5

    def cut(self, grid: Tensor, corner: Tensor) -> Tensor:
        """Return the window of (B, channels, h, w), (B, channels, r, s)."""
        index = corner[:, :1, None] + self.rows[:, None]  # (B, r, 1)
        index = index * self.grid[1] + corner[:, 1:, None] + self.columns  # (B, r, s)
        flat = index.flatten(1)[:, None].expand(-1, grid.shape[1], -1)
        return grid.flatten(2).gather(2, flat).unflatten(2, self.config.size)

    def paste(self, grid: Tensor, window: Tensor, corner: Tensor) -> Tensor:
        """Return (B, c, h, w) with the window (B, c, r, s) in its place."""
        rows, columns = self.config.size
        row = self.grid_rows - corner[:, :1]  # (B, h)
        column = self.grid_columns - corner[:, 1:]  # (B, w)
        index = row.clamp(0, rows - 1)[:, :, None] * columns + column.clamp(0, columns - 1)[:, None]
        flat = index.flatten(1)[:, None].expand(-1, grid.shape[1], -1)
        spread = window.flatten(2).gather(2, flat).unflatten(2, self.grid)
        is_row, is_column = (row >= 0) & (row < rows), (column >= 0) & (column < columns)
        return torch.where((is_row[:, :, None] & is_column[:, None])[:, None], spread, grid)
