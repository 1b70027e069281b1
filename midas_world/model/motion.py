"""What moves: how what is in the picture stays in it while the camera, or a thing, moves.

A whole-pixel shift of the picture is, in latents, nearly one 3x3 convolution; it is fitted to the
autoencoder in closed form from some frames (ridge regression). Learning to move things by
convolution alone did not work: they were gone after five steps. Where the camera is declared,
copies travel with it at the declared parallaxes, and the head chooses between them by gates at
every place.

Elsewhere the head says for every place how far it moves, by gates over all shifts along x and then
along y (dynamic neural advection, Finn et al. 2016, arXiv 1605.07157). It is the decoded picture
that moves so, and is encoded again: turned and zoomed by parts of a pixel at every step, latents
moved by convolutions came apart after ten.

Shapes: B batch, c latent channels, h w fine grid, H W pixels, P copies, R reach in px, K operators.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import AutoencoderConfig, MotionConfig
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.layers import without_autocast

_RIDGE = 1e-4


def snap(place: Tensor) -> Tensor:
    """Return places in px as the teacher rounds them, up from a half.

    A share of a loop in float32 is off by up to 1e-4 px; that must not decide.
    """
    return torch.floor(place + 0.501)


class Motion(nn.Module):
    """Copies that move as the camera does.

    Args:
        config: Which copies.
        channels: c.
        downsampling: Pixels of a fine latent.
        loop: Pixels after which the camera's place begins anew.

    Attributes:
        shifts: (dx, dy) px of the picture's window, one for each operator.
    """

    operators: Tensor
    biases: Tensor
    shares: Tensor

    def __init__(
        self, config: MotionConfig, *, channels: int, downsampling: int, loop: int
    ) -> None:
        super().__init__()
        reach = range(-config.reach, config.reach + 1) if config.parallax else ()
        self.shifts, self.downsampling = [(dx, 0) for dx in reach], downsampling
        operators = torch.zeros(len(self.shifts), 9, channels, channels)
        operators[:, 4] = torch.eye(channels)  # until they are fitted, everything stays
        self.register_buffer("operators", operators.flatten(1, 2))
        self.register_buffer("biases", torch.zeros(len(self.shifts), channels))
        self.config, self.loop = config, loop
        # A buffer: a tensor made of numbers would stop a GPU.
        self.register_buffer("shares", torch.tensor(config.parallax), persistent=False)

    @torch.no_grad()
    def fit(self, encode: Callable[[Tensor], Tensor], frames: Tensor) -> None:
        """Change the operators to those of an autoencoder.

        Args:
            encode: Frames (B, 3, H, W) to standardised latents (B, c, h, w) float32.
            frames: (B, 3, H, W), some dozens of different ones.
        """
        step, channels = self.downsampling, self.operators.shape[-1]
        # Windows keep so far from the frame's sides that each shift stays inside.
        across, down = (
            step * -(-max((abs(shift[axis]) for shift in self.shifts), default=0) // step)
            for axis in (0, 1)
        )
        height, width = frames.shape[2] - 2 * down, frames.shape[3] - 2 * across
        grid = height // step, width // step
        # At its rim an autoencoder sees the picture's end, if there is room to do without.
        rim = max(0, min(2, (min(grid) - 1) // 2))
        inner = slice(rim, grid[0] - rim), slice(rim, grid[1] - rim)

        def window(dx: int, dy: int) -> Tensor:
            top, left = down + dy, across + dx
            return encode(frames[:, :, top : top + height, left : left + width].contiguous())

        patches = _patches(window(0, 0)).unflatten(1, grid)[:, *inner].double()
        rows = patches.reshape(-1, 9 * channels)
        rows = torch.cat((rows, rows.new_ones(len(rows), 1)), dim=1)
        gram = rows.T @ rows
        gram.diagonal().add_(_RIDGE * len(rows))
        for index, (dx, dy) in enumerate(self.shifts):
            target = window(dx, dy)[:, :, *inner].permute(0, 2, 3, 1)
            target = target.reshape(-1, channels).double()
            solved = torch.linalg.solve(gram, rows.T @ target).float()
            self.operators[index], self.biases[index] = solved[:-1], solved[-1]

    def travel(self, camera: Tensor, last_camera: Tensor) -> Tensor:
        """Return whole px of travel at each parallax, (B,) twice -> (B, parallaxes) float32.

        Places are px within the loop.
        """
        half = self.loop / 2
        way = (camera - last_camera + half) % self.loop - half
        now = camera[:, None] * self.shares
        return snap(now) - snap(now - way[:, None] * self.shares)

    def forward(self, latents: Tensor, travel: Tensor) -> Tensor:
        """Return the copies, (B, P, c, h, w), of (B, c, h, w) and travel (B, parallaxes)."""
        batch, channels, height, width = latents.shape
        if not self.shifts:  # as in the head
            return latents.new_zeros(batch, 0, channels, height, width)
        reach = self.config.reach
        index = travel.clamp(-reach, reach).long() + reach
        # In full precision: what is moved again at every step keeps each rounding.
        with without_autocast(latents.device):
            patches = _patches(latents.float())
            # All copies in one product: (B, h * w, 9 c) by (B, 9 c, P c).
            operators = self.operators[index].transpose(1, 2).flatten(2)
            moved = patches @ operators + self.biases[index].flatten(1)[:, None]
        moved = moved.transpose(1, 2).unflatten(1, (index.shape[1], channels))
        return moved.unflatten(3, (height, width))


class Flow(nn.Module):
    """Every place moves as far as its gates say: by the mean of the shifts, along x and along y.

    Args:
        reach: R, each way.
        config: Of the autoencoder.

    Attributes:
        coder: A copy of the autoencoder, so that whoever has the model has it; it does not learn.
        count: 2 R + 1 gates along each axis, of shifts from -R to R px.
    """

    shifts: Tensor

    def __init__(self, reach: int, config: AutoencoderConfig) -> None:
        super().__init__()
        self.reach, self.count = reach, 2 * reach + 1
        self.coder = Autoencoder(config).requires_grad_(requires_grad=False)
        shifts = torch.arange(-reach, reach + 1.0)[:, None, None]
        self.register_buffer("shifts", shifts, persistent=False)

    def forward(self, latents: Tensor, gates: Tensor) -> Tensor:
        """Return moved latents, (B, c, h, w) float32.

        Args:
            latents: (B, c, h, w).
            gates: (B, 2 (2 R + 1), h, w) logits of the shifts.
        """
        dtype = next(self.coder.parameters()).dtype
        with torch.no_grad():
            given = latents.to(dtype).contiguous(memory_format=torch.channels_last)
            picture = self.coder.decode(given).float().clamp(-1.0, 1.0)
        ways = [
            (logits.float().softmax(dim=1) * self.shifts).sum(dim=1, keepdim=True)
            for logits in gates.split(self.count, dim=1)
        ]
        moved = _moved(picture, torch.cat(ways, dim=1))
        moved = moved.to(dtype).contiguous(memory_format=torch.channels_last)
        return self.coder.encode(moved).float()


def _moved(picture: Tensor, ways: Tensor) -> Tensor:
    """Return a picture (B, 3, H, W) each pixel of which is taken from ways (B, 2, h, w) px away.

    By cubic convolution: mean neighbours instead, and after ten moves by half a pixel a third of
    the gradients of Doom's walls was left.
    """
    height, width = picture.shape[2:]
    ways = functional.interpolate(ways, (height, width), mode="bilinear")
    with without_autocast(picture.device):
        x = torch.arange(width, device=picture.device) + 0.5 + ways[:, 0]
        y = torch.arange(height, device=picture.device)[:, None] + 0.5 + ways[:, 1]
        places = torch.stack((x / width, y / height), dim=-1) * 2.0 - 1.0
        return functional.grid_sample(
            picture, places, mode="bicubic", padding_mode="border", align_corners=False
        ).clamp(-1.0, 1.0)


def _patches(latents: Tensor) -> Tensor:
    """Return the 3x3 neighbourhood of every place, (B, c, h, w) -> (B, h * w, 9 c)."""
    height, width = latents.shape[2:]
    padded = functional.pad(latents, (1, 1, 1, 1), mode="replicate")
    parts = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.cat(parts, dim=1).flatten(2).transpose(1, 2)
