"""The keypoint probe: a small network that says where the character's keypoints are in a frame.

Of a frame it sees only the box that held every keypoint it learned from, at half resolution.

Shapes: B frames, H W pixels of a frame, h w pixels of the box, K keypoints.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.evaluate.probes.training import ProbeConfig, answers, fit, halve
from midas_world.train.loop import seeded_weights

_MARGIN = 7  # px of half resolution around the keypoints: more than a heat map's cell
_PEAK_CELLS = 2


class ResidualBlock(nn.Module):
    """x + conv(relu(norm(conv(relu(norm(x)))))), the first convolution dilated."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        groups = max(1, width // 8)
        self.layers = nn.Sequential(
            nn.GroupNorm(groups, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
            nn.GroupNorm(groups, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, h, w) -> the same shape."""
        return x + self.layers(x)


def keypoint_network(num_keypoints: int, width: int) -> nn.Sequential:
    """Return a network from pictures (B, 3, h, w) to heat maps as logits, (B, K, h / 4, w / 4)."""
    return nn.Sequential(
        nn.Conv2d(3, width // 2, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
        *(ResidualBlock(width, dilation) for dilation in (1, 2, 4, 1, 2, 1)),
        nn.ReLU(),
        nn.Conv2d(width, num_keypoints, 1),
    )


def peaks(heat: Tensor) -> Tensor:
    """Return where heat maps peak, in [-1, 1] of the picture, (B, K, rows, columns) -> (B, K, 2).

    The mean place over the cells near the highest one: a limb that could be here or there must not
    be said to be in between.
    """
    rows, columns = heat.shape[-2:]
    best = heat.flatten(2).argmax(dim=-1)
    row, column = torch.arange(rows), torch.arange(columns)
    near_row = (row - best[..., None] // columns).abs() <= _PEAK_CELLS
    near_column = (column - best[..., None] % columns).abs() <= _PEAK_CELLS
    far = ~(near_row[..., :, None] & near_column[..., None, :])
    chance = heat.masked_fill(far, -torch.inf).flatten(2).softmax(dim=-1).unflatten(-1, (rows, -1))
    x = (chance.sum(dim=-2) * _centres(columns)).sum(dim=-1)
    y = (chance.sum(dim=-1) * _centres(rows)).sum(dim=-1)
    return torch.stack((x, y), dim=-1)


def heat_loss(heat: Tensor, places: Tensor) -> Tensor:
    """Return the cross entropy of heat maps with the places in [-1, 1] that they should peak at.

    A place is shared out over the four cells around it so that their mean is the place itself.

    Args:
        heat: (B, K, rows, columns) logits.
        places: (B, K, 2).
    """
    shares = [
        (1.0 - (place[..., None] - _centres(size)).abs() * (size / 2)).clamp_min(0.0)
        for place, size in zip(places.unbind(dim=-1), reversed(heat.shape[-2:]), strict=True)
    ]
    target = (shares[1][..., :, None] * shares[0][..., None, :]).flatten(2)
    target = target / target.sum(dim=-1, keepdim=True).clamp_min(1e-6)
    return -(target * heat.flatten(2).log_softmax(dim=-1)).sum(dim=-1).mean()


def _centres(size: int) -> Tensor:
    """Return the centres of so many cells of [-1, 1]."""
    return (torch.arange(size) + 0.5) / size * 2 - 1


@dataclass(frozen=True)
class Box:
    """A part of a frame at half resolution, in its pixels: rows top to bottom - 1, and columns."""

    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def around(cls, keypoints: np.ndarray, *, size: tuple[int, int]) -> "Box":
        """Return a box that holds all keypoints, (B, K, 2) px of the frame, with a margin."""
        points = keypoints.reshape(-1, 2) / 2
        left, top = np.maximum(points.min(axis=0) - _MARGIN, 0).astype(int).tolist()
        width, height = (np.ptp(points, axis=0) + 2 * _MARGIN).astype(int) // 8 * 8 + 8
        return cls(top, left, min(size[0], top + int(height)), min(size[1], left + int(width)))

    def cut(self, halves: np.ndarray) -> np.ndarray:
        """Return the part of frames, (B, H // 2, W // 2, 3) -> (B, h, w, 3)."""
        return halves[:, self.top : self.bottom, self.left : self.right]

    def to_frame(self, places: Tensor) -> Tensor:
        """Places in [-1, 1] of the box (..., 2) -> px of the frame at full resolution."""
        return (places + 1.0) * self._size + self._corner

    def from_frame(self, keypoints: Tensor) -> Tensor:
        """Px of the frame at full resolution (..., 2) -> places in [-1, 1] of the box."""
        return (keypoints - self._corner) / self._size - 1.0

    @property
    def _size(self) -> Tensor:
        return torch.tensor((self.right - self.left, self.bottom - self.top))

    @property
    def _corner(self) -> Tensor:
        return 2.0 * torch.tensor((self.left, self.top))


def train_probe(
    halves: np.ndarray, keypoints: np.ndarray, config: ProbeConfig
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what tells where the keypoints are: uint8 (B, H, W, 3) -> (B, K, 2) float32 px.

    It learns from `halve` of frames and their keypoints, (B, K, 2) px of the whole frame.
    """
    if len(halves) != len(keypoints) or not len(halves):
        raise ValueError(f"got {len(halves)} frames and {len(keypoints)} rows of keypoints")
    box = Box.around(keypoints, size=(halves.shape[1], halves.shape[2]))
    with seeded_weights(config.seed):
        network = keypoint_network(keypoints.shape[1], config.width)
    places = box.from_frame(torch.from_numpy(keypoints.astype(np.float32)))
    fit(
        network,
        box.cut(halves),
        lambda heat, rows: heat_loss(heat, places[rows]),
        config,
        desc="probe",
    )
    return lambda frames: box.to_frame(peaks(answers(network, box.cut(halve(frames))))).numpy()
