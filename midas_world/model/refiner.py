"""The refiner: the character drawn once more, over the decoded picture.

Latents blur what is thin and fast, and a character is all limbs. The picture itself is where the
pose says exactly what lies where; so, as in pose-guided generation in two stages (Ma et al. 2017,
arXiv 1705.09368), a small U-Net is shown a window of the coarse picture with skeleton maps of its
points, and draws the difference. Nothing of it enters the next frame: what it draws cannot drift,
and games that are played in latents do without.

Shapes: B batch, H W pixels of a frame, h w of the window, K keypoints, L limbs, P pose size,
A audio size, G width of what the conditions tell.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import ConditionsConfig, RefinerConfig
from midas_world.model.autoencoder import normalize_frames, quantize_frames
from midas_world.model.conditions import AUDIO, POSE, TEXT, Conditions
from midas_world.model.layers import mlp
from midas_world.model.skeleton_maps import MAPS_PER_LIMB, limb_frames, limb_maps

# Of four pixels, which are one at half the resolution.
_COLORS = 12


class ModulatedBlock(nn.Module):
    """x + conv(silu(conv(x / rms) scaled and shifted)); it begins as the identity."""

    def __init__(self, width: int, context_width: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(context_width, 2 * width)
        nn.init.kaiming_normal_(self.conv_1.weight)
        for layer in (self.conv_2, self.modulation):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, width, h, w) and (B, G) -> the same shape as x."""
        scale, shift = self.modulation(context)[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        return x + self.conv_2(functional.silu(self.conv_1(_normed(x)) * (1.0 + scale) + shift))


class Refiner(nn.Module):
    """Draw the character of a pose over a decoded frame.

    Args:
        config: Sizes.
        conditions: Of the world; its limbs are those of the maps.
        frame_size: (H, W).

    Raises:
        ValueError: The conditions name no limbs, or the window is larger than the frame.
    """

    first: Tensor
    last: Tensor
    points: Tensor
    rim: Tensor
    rows: Tensor
    columns: Tensor
    half_frame: Tensor
    largest_corner: Tensor

    def __init__(
        self, config: RefinerConfig, conditions: ConditionsConfig, *, frame_size: tuple[int, int]
    ) -> None:
        super().__init__()
        config.check_fits(conditions.limbs, frame_size=frame_size)
        self.config, self.conditions = config, conditions
        limbs, (height, width) = conditions.limbs, config.window
        widths, depths, context_width = config.widths, config.depths, config.context_width
        num_known = conditions.word_width + conditions.pose_size + max(1, conditions.audio_size)
        self.words = nn.EmbeddingBag(
            conditions.text_buckets, conditions.word_width, mode="mean", padding_idx=0
        )
        self.num_known = num_known
        self.context = mlp(num_known, context_width, context_width)
        self.input = nn.Conv2d(_COLORS + MAPS_PER_LIMB * len(limbs), widths[0], 1)
        self.downs = nn.ModuleList([nn.Conv2d(4 * a, b, 1) for a, b in pairwise(widths)])
        self.ups = nn.ModuleList([nn.Conv2d(b, 4 * a, 1) for a, b in pairwise(widths)])

        def stage(size: int, depth: int) -> nn.ModuleList:
            return nn.ModuleList([ModulatedBlock(size, context_width) for _ in range(depth)])

        sizes = list(zip(widths, depths, strict=True))
        self.encoder = nn.ModuleList([stage(*pair) for pair in sizes])
        self.decoder = nn.ModuleList([stage(*pair) for pair in sizes[:-1]])
        self.output = nn.Conv2d(widths[0], _COLORS, 3, padding=1)
        for layer in (self.input, *self.downs, *self.ups):
            assert isinstance(layer, nn.Conv2d)
            nn.init.kaiming_normal_(layer.weight)  # torch's own default learns several times slower
        nn.init.zeros_(self.output.weight)
        assert self.output.bias is not None
        nn.init.zeros_(self.output.bias)
        # Buffers: tensors made of numbers would stop a GPU, and be refused by CUDA graphs.
        first, last = torch.tensor(limbs, dtype=torch.int64).unbind(dim=1)
        rows, columns = torch.arange(height), torch.arange(width)
        y, x = torch.meshgrid(rows[::2] + 1.0, columns[::2] + 1.0, indexing="ij")
        to_rim = torch.minimum(
            torch.minimum(rows, height - 1 - rows)[:, None],
            torch.minimum(columns, width - 1 - columns),
        )
        for name, tensor in {
            "first": first,
            "last": last,
            "points": torch.stack((x, y)).flatten(1),
            "rim": ((to_rim + 0.5) / config.fade).clamp(0.0, 1.0),
            "rows": rows,
            "columns": columns,
            "half_frame": torch.tensor((frame_size[1] / 2, frame_size[0] / 2)),
            "largest_corner": torch.tensor((frame_size[1] - width, frame_size[0] - height)),
        }.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, frames: Tensor, conditions: Conditions) -> Tensor:
        """Return frames with the character drawn anew; without a pose they stay as they are.

        Args:
            frames: (B, H, W, 3) uint8, as decoded.
            conditions: (B, 1, ...) of these frames.
        """
        keypoints = self.keypoints(conditions)
        corners = self.corners(keypoints)
        where = self.places(corners)
        windows = frames[where]
        made = self.redraw(
            normalize_frames(windows), keypoints - corners[:, None], self.known(conditions)
        )
        is_given = conditions.present[:, 0, POSE, None, None, None]
        return frames.index_put(where, torch.where(is_given, quantize_frames(made), windows))

    def keypoints(self, conditions: Conditions) -> Tensor:
        """Return where keypoints lie in the frame, (B, 1, ...) -> (B, K, 2) px, x before y."""
        count = self.conditions.num_keypoints
        pose = conditions.pose[:, 0, : 2 * count].float()
        return (pose.unflatten(-1, (count, 2)) + 1.0) * self.half_frame

    def corners(self, keypoints: Tensor) -> Tensor:
        """Return the windows' upper left corners, (B, K, 2) px -> (B, 2) int64, x before y."""
        height, width = self.config.window
        middle = (keypoints.amin(dim=1) + keypoints.amax(dim=1)) / 2
        x = middle[:, 0] - width / 2
        y = middle[:, 1] - self.config.lift - height / 2
        corners = torch.stack((x, y), dim=-1).round().long().clamp_min(0)
        return torch.minimum(corners, self.largest_corner)

    def places(self, corners: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return indices of the windows' pixels in (B, H, W): shapes (B, 1, 1), (B, h, 1), ..."""
        batch = torch.arange(corners.shape[0], device=corners.device)[:, None, None]
        rows = (corners[:, 1, None] + self.rows)[:, :, None]
        columns = (corners[:, 0, None] + self.columns)[:, None]
        return batch, rows, columns

    def known(self, conditions: Conditions) -> Tensor:
        """Return words, pose and sound of each frame, 0 where absent: (B, 1, ...) -> (B, G')."""
        present = conditions.present[:, 0]
        words = self.words(conditions.text[:, 0] * present[:, TEXT, None])
        pose = conditions.pose[:, 0] * present[:, POSE, None]
        audio = conditions.audio[:, 0] * present[:, AUDIO, None]
        if not self.conditions.audio_size:
            audio = audio.new_zeros(len(audio), 1)
        return torch.cat((words, pose, audio), dim=-1)

    def redraw(self, windows: Tensor, keypoints: Tensor, known: Tensor) -> Tensor:
        """Return windows with the character drawn anew, (B, 3, h, w) float32, about [-1, 1].

        Args:
            windows: (B, 3, h, w) in [-1, 1].
            keypoints: (B, K, 2) px from the windows' corners.
            known: (B, G') of `known`.
        """
        context = functional.silu(self.context(known))
        x, skipped = self._first(windows, keypoints), []
        for index, blocks in enumerate(self.encoder):
            if index:
                skipped.append(x)
                x = _halved(x, self.downs[index - 1])
            x = _through(blocks, x, context)
        for index in reversed(range(len(self.ups))):
            x = functional.pixel_shuffle(self.ups[index](x), 2) + skipped[index]
            x = _through(self.decoder[index], x, context)
        return windows + functional.pixel_shuffle(self.output(_normed(x)).float(), 2) * self.rim

    def nearness(self, conditions: Conditions) -> Tensor:
        """Return how near each pixel of the windows is to the nearest limb, (B, 1, h, w), 0 to 1.

        It is computed at half the resolution.
        """
        keypoints = self.keypoints(conditions)
        keypoints = keypoints - self.corners(keypoints)[:, None]
        near = limb_maps(keypoints, self.points, **self._limbs()).amax(dim=-1, keepdim=True)
        return functional.interpolate(self._as_picture(near), scale_factor=2.0, mode="bilinear")

    def _first(self, windows: Tensor, keypoints: Tensor) -> Tensor:
        """Return the first layer's (B, width, h / 2, w / 2) of the windows and of skeleton maps.

        It is one convolution over both, but the maps, which are many, need not become a picture.
        """
        weight = self.input.weight.flatten(1)
        maps = limb_frames(keypoints, self.points, **self._limbs()).to(weight.dtype)
        of_maps = self._as_picture(functional.linear(maps, weight[:, _COLORS:]))
        kernel = weight[:, :_COLORS].unflatten(1, (3, 2, 2))
        return of_maps + functional.conv2d(
            windows.to(weight.dtype), kernel, self.input.bias, stride=2
        )

    def _limbs(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last, "reach": self.config.reach}

    def _as_picture(self, maps: Tensor) -> Tensor:
        """Return maps of points, (B, S, ...) -> (B, ..., h / 2, w / 2)."""
        height, width = self.config.window
        return maps.transpose(1, 2).unflatten(-1, (height // 2, width // 2))


def _halved(x: Tensor, layer: nn.Module) -> Tensor:
    """Return a layer of the picture's squares of four pixels, (B, C, h, w) -> (B, C', h/2, w/2).

    A layer after `pixel_unshuffle`, without moving the pixels.
    """
    assert isinstance(layer, nn.Conv2d)
    kernel = layer.weight.flatten(1).unflatten(1, (-1, 2, 2))
    return functional.conv2d(x, kernel, layer.bias, stride=2)


def _normed(x: Tensor) -> Tensor:
    """Divide each picture (B, C, h, w) by its root mean square; it keeps large steps stable."""
    mean = x.float().square().mean(dim=(1, 2, 3), keepdim=True)
    return x * (mean + 1e-5).rsqrt().to(x.dtype)


def _through(blocks: nn.Module, x: Tensor, context: Tensor) -> Tensor:
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        x = block(x, context)
    return x
