"""The scenery memory: what each place looks like, learned as feature maps and looked up.

Where a teacher declares its camera, scenery is a function of the camera's place: layers of a
picture that scroll at their parallaxes, and rain or snow that also goes by the clock. Each layer
remembers several sceneries; the words say which one, or what mixture. A lookup is a gather, a
mixture and a linear interpolation between columns.

Shapes: B batch, E width of words, S slots, h w fine grid, I channels of all layers.
"""

import torch
from torch import Tensor, nn

from midas_world.config import LayerConfig
from midas_world.model.motion import snap


class SceneryLayer(nn.Module):
    """One layer that scrolls with the camera.

    Args:
        config: Its parallax, loop and sizes.
        word_width: E.
        grid: (h, w).
        downsampling: Pixels of a fine latent.
    """

    across: Tensor

    def __init__(
        self, config: LayerConfig, *, word_width: int, grid: tuple[int, int], downsampling: int
    ) -> None:
        super().__init__()
        self.config, self.grid, self.step = config, grid, downsampling
        self.num_columns = config.loop // downsampling
        shape = (config.slots, config.phases, self.num_columns, grid[0] * config.channels)
        self.table = nn.Parameter(0.3 * torch.randn(shape))
        self.slots = nn.Linear(word_width, config.slots)
        self.register_buffer("across", torch.arange(grid[1] + 1), persistent=False)

    def forward(self, words: Tensor, camera: Tensor, clock: Tensor) -> Tensor:
        """Return (B, channels, h, w) of words (B, E), camera (B,) px and clock (B,) in [0, 1)."""
        left = snap(camera * self.config.parallax) - self.grid[1] * self.step / 2
        column = torch.floor(left / self.step)
        share = ((left - column * self.step) / self.step)[:, None, None]
        columns = (column.long()[:, None] + self.across) % self.num_columns
        phase = torch.floor(clock * self.config.phases + 0.001).long() % self.config.phases
        rows = self.table[:, phase[:, None], columns]  # (S, B, w + 1, h * channels)
        mixed = torch.einsum("bs,sbcr->bcr", self.slots(words).to(rows.dtype), rows)
        made = torch.lerp(mixed[:, :-1], mixed[:, 1:], share.to(mixed.dtype))
        return made.unflatten(2, (self.grid[0], self.config.channels)).permute(0, 3, 2, 1)


class Scenery(nn.Module):
    """All layers side by side; none: maps of no channels."""

    def __init__(
        self,
        configs: tuple[LayerConfig, ...],
        *,
        word_width: int,
        grid: tuple[int, int],
        downsampling: int,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.layers = nn.ModuleList(
            [
                SceneryLayer(config, word_width=word_width, grid=grid, downsampling=downsampling)
                for config in configs
            ]
        )
        self.num_channels = sum(config.channels for config in configs)

    def forward(self, words: Tensor, camera: Tensor, clock: Tensor) -> Tensor:
        """Return (B, I, h, w); see `SceneryLayer`."""
        if not self.layers:
            return words.new_zeros(len(words), 0, *self.grid)
        return torch.cat([layer(words, camera, clock) for layer in self.layers], dim=1)
