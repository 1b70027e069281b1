"""The diffusion head: a small convolutional U-Net on the fine latent grid.

Flow matching with the prediction of data ("x-prediction"), which Dreamer 4 measured as decisive
for few denoise steps (arXiv 2509.24527). What it makes is the next frame's latents: at every place
a softmax gates between the last frame's latents as they are, copies of them that moved with the
camera or as the head says (dynamic neural advection, Finn et al. 2016, arXiv 1605.07157) and the
scenery as remembered, and a free change is added. The backbone's hidden states enter at the
coarsest level; what is global enters as scale and shift of every block (FiLM, Perez et al. 2018,
arXiv 1709.07871).

Knows nothing of what its maps and its vector mean.

Shapes: B batch, c latent channels, h w fine grid, N tokens per frame in a grid of their own,
D backbone width, I channels of maps, V size of the vector, P copies.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import HeadConfig
from midas_world.model.layers import Down, FilmBlock, Up, mlp, sinusoidal_embedding
from midas_world.model.motion import Flow

_SIGMA_SIZE = 32


class Guidance(NamedTuple):
    """What a head is told of the frame it makes, apart from noise.

    Attributes:
        last: (B, c, h, w) latents of the last frame.
        copies: (B, P, c, h, w) what else the next frame may be taken from, place by place.
        maps: (B, I, h, w) everything else that has a place.
        vector: (B, V) everything that has none.
        hidden: (B, N, D) of the backbone.
    """

    last: Tensor
    copies: Tensor
    maps: Tensor
    vector: Tensor
    hidden: Tensor


class DiffusionHead(nn.Module):
    """Predict the next frame's latents from noisy ones, sigma and the guidance.

    Args:
        config: Sizes.
        latent_channels: c.
        num_copies: P.
        map_channels: I.
        vector_size: V.
        hidden_width: D.
        grid: (h, w).
        token_grid: Of the backbone's tokens.
        is_painted: Whether the last copy is painted, not moved.
        flow: What else the next frame may be taken from: the last one, moved as the head says.
    """

    def __init__(
        self,
        config: HeadConfig,
        *,
        latent_channels: int,
        num_copies: int,
        map_channels: int,
        vector_size: int,
        hidden_width: int,
        grid: tuple[int, int],
        token_grid: tuple[int, int],
        is_painted: bool = False,
        flow: Flow | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.token_grid = token_grid
        widths, width = config.widths, config.vector_width
        coarsest = grid[0] >> (len(widths) - 1)
        self.hidden_scale = coarsest // token_grid[0]
        self.vector = mlp(vector_size + _SIGMA_SIZE, width, width)
        self.input = nn.Conv2d((2 + num_copies) * latent_channels + map_channels, widths[0], 1)
        self.places = nn.Parameter(torch.zeros(1, widths[0], *grid))
        self.hidden = nn.Conv2d(hidden_width, widths[-1], 1)
        nn.init.zeros_(self.hidden.weight)
        nn.init.zeros_(self.hidden.bias)  # pyright: ignore[reportArgumentType]

        def blocks(level: int) -> nn.ModuleList:
            return nn.ModuleList(
                [FilmBlock(widths[level], width) for _ in range(config.depths[level])]
            )

        levels = range(len(widths))
        self.encoder = nn.ModuleList([blocks(level) for level in levels])
        self.down = nn.ModuleList([Down(a, b) for a, b in pairwise(widths)])
        self.up = nn.ModuleList([Up(b, a) for a, b in pairwise(widths)])
        self.decoder = nn.ModuleList([blocks(level) for level in levels[:-1]])
        self.flow = flow
        self.num_gates = 1 + num_copies + (flow is not None)
        num_shifts = 2 * flow.count if flow is not None else 0
        self.output = nn.Conv2d(widths[0], latent_channels + self.num_gates + num_shifts, 1)
        with torch.no_grad():
            self.output.weight.mul_(0.1)
            assert self.output.bias is not None
            self.output.bias.zero_()
            # At first, what is painted counts; without, what was stays.
            self.output.bias[latent_channels + (num_copies if is_painted else 0)] = 2.0
            if flow is not None:  # and nothing moves
                gates = self.output.bias[latent_channels + self.num_gates :].view(2, flow.count)
                gates[:, flow.count // 2] = 3.0

    def vector_of(self, vector: Tensor, sigma: Tensor) -> Tensor:
        """Return what blocks are modulated by, (B, vector_width), of (B, V) and sigma (B,)."""
        embedded = sinusoidal_embedding(sigma, _SIGMA_SIZE).to(vector.dtype)
        return functional.relu(self.vector(torch.cat((vector, embedded), dim=1)))

    def forward(self, noisy: Tensor, sigma: Tensor, guidance: Guidance) -> Tensor:
        """Return the predicted latents, (B, c, h, w) float32.

        Args:
            noisy: (B, c, h, w) the noisy change from the last frame's latents.
            sigma: (B,) in [0, 1].
            guidance: As above.
        """
        vector = self.vector_of(guidance.vector, sigma)
        # ONNX has no flattening of what is empty.
        copies = (guidance.copies.flatten(1, 2),) if guidance.copies.shape[1] else ()
        x = torch.cat((guidance.last, noisy, *copies, guidance.maps), dim=1)
        x = self.input(x.contiguous(memory_format=torch.channels_last))
        x = x + self.places.to(x.dtype)
        skips = []
        for level, blocks in enumerate(self.encoder):
            if level:
                skips.append(x)
                x = self.down[level - 1](x)
            if level == len(self.encoder) - 1:
                x = x + self._hidden(guidance.hidden)
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(x, vector)
        for level in reversed(range(len(self.decoder))):
            x = self.up[level](x) + skips[level]
            for block in self.decoder[level]:  # pyright: ignore[reportGeneralTypeIssues]
                x = block(x, vector)
        out = self.output(functional.relu(x)).float()
        channels = guidance.last.shape[1]
        shifts = channels + self.num_gates
        gates = out[:, channels:shifts].softmax(dim=1)[:, :, None]
        candidates = torch.cat((guidance.last[:, None], guidance.copies), dim=1).float()
        if self.flow is not None:
            flowed = self.flow(guidance.last, out[:, shifts:])
            candidates = torch.cat((candidates, flowed[:, None]), dim=1)
        return (gates * candidates).sum(dim=1) + out[:, :channels]

    def _hidden(self, hidden: Tensor) -> Tensor:
        """Return hidden states (B, N, D) on the coarsest grid, (B, width, h', w')."""
        grid = hidden.transpose(1, 2).unflatten(2, self.token_grid)
        made = self.hidden(grid)
        return functional.interpolate(made, scale_factor=float(self.hidden_scale), mode="nearest")
