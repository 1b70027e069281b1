"""The scenery memory: what words, camera and clock alone say of the picture.

Where a teacher declares its camera, scenery is a function of the camera's place: layers of a
picture that scroll at their parallaxes, and rain or snow that also goes by the clock. Each layer
remembers several sceneries as tables of feature maps; the words say which one, or what mixture. A
lookup is a gather, a mixture and a linear interpolation between columns. A small network paints
what was found as latents. The head may take any place of the next frame from them: what would
otherwise blur a little at each step of a long rollout is found again.

Shapes: B batch, E width of words, S slots, V size of the phases, c latent channels, h w fine grid,
I channels of all layers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import LayerConfig, SceneryConfig
from midas_world.model.layers import FilmBlock, mlp
from midas_world.model.motion import snap

_VECTOR_WIDTH = 128
_SLOT_WIDTH = 64
_DEPTH = 2


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
        self.slots = mlp(word_width, _SLOT_WIDTH, config.slots)
        self.register_buffer("across", torch.arange(grid[1] + 1), persistent=False)

    def forward(self, words: Tensor, camera: Tensor, clock: Tensor) -> Tensor:
        """Return (B, channels, h, w) of words (B, E), camera (B,) px and clock (B,) in [0, 1)."""
        left = snap(camera * self.config.parallax) - self.grid[1] * self.step / 2
        column = torch.floor(left / self.step)
        share = ((left - column * self.step) / self.step)[:, None, None]
        columns = (column.long()[:, None] + self.across) % self.num_columns
        phase = torch.floor(clock * self.config.phases + 0.001).long() % self.config.phases
        rows = self.table[:, phase[:, None], columns]  # (S, B, w + 1, h * channels)
        mixture = self.slots(words).softmax(dim=1).to(rows.dtype)
        mixed = torch.einsum("bs,sbcr->bcr", mixture, rows)
        made = torch.lerp(mixed[:, :-1], mixed[:, 1:], share.to(mixed.dtype))
        return made.unflatten(2, (self.grid[0], self.config.channels)).permute(0, 3, 2, 1)


class Scenery(nn.Module):
    """All layers, and the network that paints them.

    Args:
        config: Layers and width; the width is positive.
        word_width: E.
        phase_size: V.
        latent_channels: c.
        grid: (h, w).
        downsampling: Pixels of a fine latent.
    """

    def __init__(
        self,
        config: SceneryConfig,
        *,
        word_width: int,
        phase_size: int,
        latent_channels: int,
        grid: tuple[int, int],
        downsampling: int,
    ) -> None:
        super().__init__()
        width = config.width
        self.layers = nn.ModuleList(
            [
                SceneryLayer(layer, word_width=word_width, grid=grid, downsampling=downsampling)
                for layer in config.layers.values()
            ]
        )
        channels = sum(layer.channels for layer in config.layers.values())
        self.vector = mlp(word_width + phase_size, _VECTOR_WIDTH, _VECTOR_WIDTH)
        self.input = nn.Conv2d(channels, width, 1) if channels else None
        self.modulation = nn.Linear(_VECTOR_WIDTH, 2 * width)
        self.places = nn.Parameter(0.1 * torch.randn(1, width, *grid))
        self.blocks = nn.ModuleList([FilmBlock(width, _VECTOR_WIDTH) for _ in range(_DEPTH)])
        self.output = nn.Conv2d(width, latent_channels, 1)

    def forward(self, words: Tensor, camera: Tensor, clock: Tensor, phases: Tensor) -> Tensor:
        """Return latents (B, c, h, w).

        Args:
            words: (B, E).
            camera: (B,) px within its loop.
            clock: (B,) share of its period.
            phases: (B, V) of camera and clock, as `Cues` has them.
        """
        vector = functional.relu(self.vector(torch.cat((words, phases.to(words.dtype)), dim=1)))
        scale, shift = self.modulation(vector)[..., None, None].chunk(2, dim=1)
        x = self.places.to(scale.dtype)
        if self.input is not None:
            maps = torch.cat([layer(words, camera, clock) for layer in self.layers], dim=1)
            x = x + self.input(maps.contiguous(memory_format=torch.channels_last))
        x = x * (1.0 + scale) + shift
        for block in self.blocks:
            x = block(x, vector)
        return self.output(functional.relu(x)).float()
