"""The refiner's graph: `midas_world.refiner` in operators that ONNX Runtime is quick at on a CPU.

It draws what that module draws, up to rounding. A third of the module's time there were its
convolutions; of what stood between them, this form needs less:

- Whoever runs the graph cuts out the windows and pastes them.
- What all blocks take from the conditions is one product. The division by the root mean square,
  which commutes with a convolution, is in its scales, and the convolution's bias in its shifts.
- Maps have their points last. Rings, hats over the distance, are sums of ramps: with weights that
  are recombined so, the product needs ramps alone.
- Squares of four pixels are parted and joined as bytes, and an upsampling is a transposed
  convolution: moving numbers one by one costs more than the product.

Shapes: B batch, h w of the window, S = h w / 4 points at half its resolution, K keypoints, L limbs,
R rings, D width, G' width of what is known besides.
"""

from collections.abc import Iterator
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.layers import linear_of
from midas_world.refiner import ModulatedBlock, Refiner
from midas_world.skeleton_maps import NUM_RINGS

# Of four pixels, as their bytes lie: by row, column and colour. The refiner's lie by colour first.
_COLORS = 12
# The refiner's pixels are from -1 to 1, those of windows from 0 to twice this.
_HALF_RANGE = 127.5


class RefinerGraph(nn.Module):
    """Windows of decoded frames to windows with the character drawn anew.

    What `Refiner.redraw` does, from bytes to bytes.

    Args:
        refiner: Whose weights it draws by; not changed.
    """

    rim: Tensor
    output_bias: Tensor

    @torch.no_grad()
    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        self.context = refiner.context
        self.height, self.width = (size // 2 for size in refiner.config.window)
        self.first = FirstLayer(refiner)
        encoder = [_blocks(stage) for stage in refiner.encoder]
        # Here and in `ups` in the order in which they run.
        decoder = [_blocks(stage) for stage in reversed(refiner.decoder)]
        self.encoder, self.decoder = (
            nn.ModuleList([nn.ModuleList([Block(block) for block in stage]) for stage in stages])
            for stages in (encoder, decoder)
        )
        self.downs = nn.ModuleList([_down(layer) for layer in refiner.downs])
        self.ups = nn.ModuleList(
            [
                Upsampling(layer, (self.height >> place, self.width >> place))
                for place, layer in reversed([*enumerate(refiner.ups, start=1)])
            ]
        )
        blocks = [*chain(*encoder, *decoder)]
        self.widths = [block.conv_1.out_channels for block in blocks for _ in ("scale", "shift")]
        weights, biases = zip(*map(_modulation, blocks), strict=True)
        self.modulations = linear_of(torch.cat(weights), torch.cat(biases))
        assert refiner.output.bias is not None
        self.output = _conv_of(_by_place(refiner.output.weight), padding=1)
        self.register_buffer("output_bias", _by_place(refiner.output.bias)[:, None, None])
        rim = refiner.rim.view(self.height, 2, self.width, 2).permute(1, 3, 0, 2).flatten(0, 1)
        self.register_buffer("rim", _HALF_RANGE * rim.repeat_interleave(3, dim=0))

    def forward(self, windows: Tensor, keypoints: Tensor, known: Tensor) -> Tensor:
        """Return windows (B, h, w, 3) uint8.

        Args:
            windows: (B, h, w, 3) uint8.
            keypoints: (B, K, 2) px from the windows' corners.
            known: (B, G') of `Refiner.known`.
        """
        context = functional.silu(self.context(known))
        modulations = self.modulations(context)[..., None, None].split(self.widths, dim=1)
        scales_and_shifts = iter(modulations)
        size = self.height, self.width
        pixels = self._parted(windows)
        x, skipped = self.first(pixels, keypoints).unflatten(-1, size), []
        for index, blocks in enumerate(self.encoder):
            if index:
                skipped.append(x)
                x = self.downs[index - 1](x)
            x = _through(blocks, x, scales_and_shifts)
        for up, skip, blocks in zip(self.ups, reversed(skipped), self.decoder, strict=True):
            x = _through(blocks, up(x) + skip, scales_and_shifts)
        made = self.output(x) / _root_mean_square(x) + self.output_bias
        return self._joined(pixels.unflatten(-1, size) + made * self.rim)

    def _parted(self, windows: Tensor) -> Tensor:
        """Return the squares of four pixels as channels, (B, h, w, 3) uint8 -> (B, 12, S)."""
        rows = windows.unflatten(1, (self.height, 2)).flatten(3).transpose(1, 2)
        squares = rows.flatten(2).unflatten(2, (-1, _COLORS // 2)).transpose(2, 3)
        return squares.float().flatten(1, 2)

    def _joined(self, pixels: Tensor) -> Tensor:
        """Return squares as pixels, (B, 12, h / 2, w / 2) -> (B, h, w, 3) uint8."""
        quantized = pixels.round().clamp(0.0, 2.0 * _HALF_RANGE).to(torch.uint8)
        squares = quantized.flatten(2).unflatten(1, (2, -1)).transpose(2, 3)
        rows = squares.unflatten(2, (self.height, self.width)).flatten(3).transpose(1, 2)
        return rows.flatten(1, 2).unflatten(2, (-1, 3))


class FirstLayer(nn.Module):
    """The refiner's first layer, with the skeleton maps that it is given.

    The unit of length is a ring's width.
    """

    ends: Tensor
    points: Tensor
    levels: Tensor
    of_ramps: Tensor
    of_rest: Tensor
    bias: Tensor

    def __init__(self, refiner: Refiner) -> None:
        super().__init__()
        unit = refiner.config.reach / NUM_RINGS
        self.least_squared = 1e-6 / unit**2
        points = refiner.points / unit
        first, last = (
            functional.one_hot(places, refiner.conditions.num_keypoints) / unit
            for places in (refiner.first, refiner.last)
        )
        weight = refiner.input.weight.flatten(1)
        of_colors = _by_place(weight[:, :_COLORS], dim=1) / _HALF_RANGE
        of_maps = weight[:, _COLORS:].unflatten(1, (NUM_RINGS + 4, -1))  # (D, R + 4, L)
        of_near, of_along, of_x, of_y = of_maps[:, NUM_RINGS:].unbind(1)
        # Nearness is the first ramp, by the number of rings; see `limb_frames`.
        of_ramps = _of_ramps(of_maps[:, :NUM_RINGS])
        of_ramps[:, 0] += (of_near - of_along) / NUM_RINGS
        levels = torch.arange(float(NUM_RINGS))[:, None, None]
        rest = (2.0 * of_along / NUM_RINGS, of_x / NUM_RINGS**2, of_y / NUM_RINGS**2, of_colors)
        assert refiner.input.bias is not None
        # The larger of nearness and a level is a ramp and the level, by one operator less.
        bias = refiner.input.bias - (of_ramps * levels[:, 0]).sum(dim=(1, 2))
        for name, tensor in {
            "ends": torch.cat((first, last - first)),
            "points": torch.cat((points, -torch.ones_like(points[:1]))),
            "levels": levels,
            "of_ramps": of_ramps.flatten(1),
            "of_rest": torch.cat(rest, dim=1),
            # Pixels of 0 are -1 to the refiner.
            "bias": (bias - _HALF_RANGE * of_colors.sum(dim=1))[:, None],
        }.items():
            self.register_buffer(name, tensor)

    def forward(self, pixels: Tensor, keypoints: Tensor) -> Tensor:
        """Return (B, D, S) of pixels (B, 12, S) from 0 to 255 and keypoints (B, K, 2) px."""
        start, bone = (self.ends @ keypoints).chunk(2, dim=1)  # (B, L, 2)
        squared = (bone * bone).sum(dim=-1, keepdim=True).clamp_min(self.least_squared)
        slope = bone / squared
        line = torch.cat((slope, (slope * start).sum(dim=-1, keepdim=True)), dim=-1)
        share = (line @ self.points).clamp(0.0, 1.0)  # (B, L, S)
        x = self.points[0] - (start[..., :1] + share * bone[..., :1])
        y = self.points[1] - (start[..., 1:] + share * bone[..., 1:])
        near = functional.relu(NUM_RINGS - (x * x + y * y).sqrt())
        ramps = torch.maximum(near[:, None], self.levels)  # (B, R, L, S)
        rest = torch.cat((near * share, near * x, near * y, pixels), dim=1)
        return self.of_ramps @ ramps.flatten(1, 2) + (self.of_rest @ rest + self.bias)


class Block(nn.Module):
    """A `ModulatedBlock` whose modulations are given."""

    def __init__(self, plain: ModulatedBlock) -> None:
        super().__init__()
        self.conv_1 = _conv_of(plain.conv_1.weight, padding=1)
        self.conv_2 = plain.conv_2

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """(B, D, h, w), and twice (B, D, 1, 1) -> the same shape as x."""
        scale = scale / _root_mean_square(x)
        return x + self.conv_2(functional.silu(self.conv_1(x) * scale + shift))


class Upsampling(nn.Module):
    """One of the refiner's `ups` with the `pixel_shuffle` after it.

    Args:
        plain: A 1 x 1 convolution to four times as many channels.
        size: Height and width of what it is given.
    """

    bias: Tensor

    def __init__(self, plain: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        assert isinstance(plain, nn.Conv2d)
        assert plain.bias is not None
        kernel = plain.weight.flatten(1).unflatten(0, (-1, 2, 2)).permute(3, 0, 1, 2)
        self.weight = nn.Parameter(kernel.contiguous(), requires_grad=False)
        # It differs within a square, which no convolution's own can.
        self.register_buffer("bias", plain.bias.view(-1, 2, 2).repeat(1, *size))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D', 2 h, 2 w)."""
        return functional.conv_transpose2d(x, self.weight, stride=2) + self.bias


def _of_ramps(of_rings: Tensor) -> Tensor:
    """Return weights of ramps which do as those of rings do, (D, R, L) -> (D, R, L).

    Ring i is a hat with its tip where nearness, by the number of rings R, is R - i; ramp j is what
    that is beyond j. Their sum's slope changes at tips alone.
    """
    tips = functional.pad(of_rings.flip(1), (0, 0, 1, 0))  # what all rings give at 0, 1, ..., R
    slopes = tips.diff(dim=1)
    return torch.cat((slopes[:, :1], slopes.diff(dim=1)), dim=1)


def _root_mean_square(x: Tensor) -> Tensor:
    """Return that of each picture, (B, ...) -> (B, 1, ...), as the refiner divides by it."""
    # A product with itself, because as a power it is several times slower.
    return ((x * x).mean(dim=(1, 2, 3), keepdim=True) + 1e-5).sqrt()


def _modulation(block: ModulatedBlock) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a block's scale and shift, which take 1 and conv_1's bias in."""
    of_scale, of_shift = block.modulation.weight.chunk(2)
    scale, shift = block.modulation.bias.chunk(2)
    bias = block.conv_1.bias
    assert bias is not None
    weight = torch.cat((of_scale, of_shift + bias[:, None] * of_scale))
    return weight, torch.cat((1.0 + scale, shift + bias * (1.0 + scale)))


def _by_place(weights: Tensor, *, dim: int = 0) -> Tensor:
    """Return what belongs to four pixels' colours as bytes lie, not as `pixel_shuffle` has it."""
    return weights.unflatten(dim, (3, 4)).transpose(dim, dim + 1).flatten(dim, dim + 1)


def _down(layer: nn.Module) -> nn.Conv2d:
    """Return one of the refiner's `downs` as a convolution over the picture's squares."""
    assert isinstance(layer, nn.Conv2d)
    weight = layer.weight.flatten(1).unflatten(1, (-1, 2, 2))
    return _conv_of(weight, layer.bias, stride=2)


def _conv_of(
    weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> nn.Conv2d:
    out_channels, in_channels, size, _ = weight.shape
    conv = nn.Conv2d(
        in_channels,
        out_channels,
        size,
        stride=stride,
        padding=padding,
        bias=bias is not None,
        device="meta",
    )
    conv.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv


def _blocks(stage: nn.Module) -> list[ModulatedBlock]:
    return [cast("ModulatedBlock", block) for block in stage.children()]


def _through(blocks: nn.Module, x: Tensor, scales_and_shifts: Iterator[Tensor]) -> Tensor:
    for block in blocks.children():
        x = block(x, next(scales_and_shifts), next(scales_and_shifts))
    return x
