"""The scenery memory: what words, camera, clock and codes alone say of the picture.

Where a teacher declares its camera, scenery is a function of the camera's place: layers of a
picture that scroll at their parallaxes, and rain or snow that also goes by the clock. Each layer
remembers several sceneries as tables of feature maps, finer than the latents; the words say which
one, or what mixture. A lookup is a gather, a mixture and a linear interpolation between columns. A
small network paints what was found, and the things that codes tell, as latents. The head may take
any place of the next frame from them: what would otherwise blur a little at each step of a long
rollout is found again.

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
        self.config, self.cell = config, config.resolution
        self.fineness = downsampling // config.resolution
        self.size = (grid[0] * self.fineness, grid[1] * self.fineness)
        self.num_columns = config.loop // config.resolution
        # A row for each phase and column, which checkpoints compress by itself.
        shape = config.phases * self.num_columns, config.slots * self.size[0] * config.channels
        self.table = nn.Parameter(0.3 / self.fineness * torch.randn(shape))
        self.slots = mlp(word_width, _SLOT_WIDTH, config.slots)
        self.register_buffer("across", torch.arange(self.size[1] + 1), persistent=False)

    @property
    def num_channels(self) -> int:
        """Of its maps on the fine grid."""
        return self.config.channels * self.fineness**2

    def forward(self, words: Tensor, camera: Tensor, clock: Tensor) -> Tensor:
        """Return (B, num_channels, h, w).

        Args:
            words: (B, E).
            camera: (B,) px.
            clock: (B,) in [0, 1).
        """
        left = snap(camera * self.config.parallax) - self.size[1] * self.cell / 2
        column = torch.floor(left / self.cell)
        share = ((left - column * self.cell) / self.cell)[:, None, None]
        columns = (column.long()[:, None] + self.across) % self.num_columns
        phase = torch.floor(clock * self.config.phases + 0.001).long() % self.config.phases
        wanted = self.slots(words)
        number = phase[:, None] * self.num_columns + columns
        rows = self.table.to(wanted.dtype)[number].unflatten(2, (self.config.slots, -1))
        mixture = wanted.softmax(dim=1).to(wanted.dtype)[:, None, None]
        mixed = (mixture @ rows)[:, :, 0]
        made = mixed[:, :-1]
        if self.cell > 1:
            made = torch.lerp(made, mixed[:, 1:], share.to(mixed.dtype))
        made = made.unflatten(2, (self.size[0], self.config.channels)).permute(0, 3, 2, 1)
        return functional.pixel_unshuffle(made, self.fineness)


class Scenery(nn.Module):
    """All layers, and the network that paints them.

    Args:
        config: Layers and width; the width is positive.
        word_width: E.
        phase_size: V.
        thing_channels: Of the maps of things.
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
        thing_channels: int,
        latent_channels: int,
        grid: tuple[int, int],
        downsampling: int,
    ) -> None:
        super().__init__()
        width = config.width
        layers = [
            SceneryLayer(layer, word_width=word_width, grid=grid, downsampling=downsampling)
            for layer in config.layers.values()
        ]
        self.layers = nn.ModuleList(layers)
        channels = sum(layer.num_channels for layer in layers) + thing_channels
        self.vector = mlp(word_width + phase_size, _VECTOR_WIDTH, _VECTOR_WIDTH)
        self.input = nn.Conv2d(channels, width, 1) if channels else None
        # What is fine, such as rain, finds its way past the network; the words shade it.
        self.direct = nn.Conv2d(channels, latent_channels, 3, padding=1) if channels else None
        self.shade = nn.Linear(_VECTOR_WIDTH, latent_channels)
        for part in (self.direct, self.shade):
            for parameter in part.parameters() if part else ():
                nn.init.zeros_(parameter)
        self.modulation = nn.Linear(_VECTOR_WIDTH, 2 * width)
        self.places = nn.Parameter(0.1 * torch.randn(1, width, *grid))
        self.blocks = nn.ModuleList([FilmBlock(width, _VECTOR_WIDTH) for _ in range(_DEPTH)])
        self.output = nn.Conv2d(width, latent_channels, 1)

    def forward(
        self, words: Tensor, camera: Tensor, clock: Tensor, phases: Tensor, things: Tensor
    ) -> Tensor:
        """Return latents (B, c, h, w).

        Args:
            words: (B, E).
            camera: (B,) px within its loop.
            clock: (B,) share of its period.
            phases: (B, V) of camera and clock, as `Cues` has them.
            things: (B, thing_channels, h, w) maps of what codes tell.
        """
        vector = functional.relu(self.vector(torch.cat((words, phases.to(words.dtype)), dim=1)))
        scale, shift = self.modulation(vector)[..., None, None].chunk(2, dim=1)
        x, direct = self.places.to(scale.dtype), None
        if self.input is not None and self.direct is not None:
            maps = [layer(words, camera, clock) for layer in self.layers]
            maps = torch.cat([*maps, things.to(scale.dtype)], dim=1)
            maps = maps.contiguous(memory_format=torch.channels_last)
            x = x + self.input(maps)
            direct = self.direct(maps) * (1.0 + self.shade(vector)[..., None, None])
        x = x * (1.0 + scale) + shift
        for block in self.blocks:
            x = block(x, vector)
        made = self.output(functional.relu(x)).float()
        return made if direct is None else made + direct.float()
