"""Two more probes: one that sees things in a frame, one that reads a number off a part of it.

Shapes: B frames, H W pixels, J things, h w cells of 8 px.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.evaluate.probes.training import ProbeConfig, fit, halve, to_input
from midas_world.train.loop import seeded_weights

CELL_PX = 8
CLEAR_PX = 28.0
"""Nearer than this to the character, along x, it may hide a thing or take it."""

_BATCH = 32
_POSITIVE_WEIGHT = 10.0
_THRESHOLD = 0.5
_EDGE_PX = 6.0  # how far inside the picture a middle must be to be told


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A thing that a probe sees, of whatever class: its middle in px of the frame."""

    x: float
    y: float


class ThingNetwork(nn.Module):
    """Pictures at half resolution to a heat map of where things have their middle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width // 2, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.heat = nn.Conv2d(width, 1, 1)
        nn.init.constant_(self.heat.bias, -4.0)  # pyright: ignore[reportArgumentType]

    def forward(self, pictures: Tensor) -> Tensor:
        """Return logits, (B, 3, H / 2, W / 2) in [0, 1] -> (B, h, w)."""
        return self.heat(self.layers(pictures - 0.5))[:, 0]


class ThingProbe:
    """Sees things."""

    def __init__(self, network: ThingNetwork) -> None:
        self.network = network.eval()

    @torch.inference_mode()
    def see(self, frames: np.ndarray) -> list[list[Seen]]:
        """Return the things in each frame, uint8 (B, H, W, 3)."""
        found: list[list[Seen]] = []
        for index in range(0, len(frames), _BATCH):
            heat = self.network(to_input(halve(frames[index : index + _BATCH]))).sigmoid()
            found += [_peaks(rows) for rows in heat]
        return found


def _peaks(heat: Tensor) -> list[Seen]:
    """Return where a heat map (h, w) is above the threshold and above its neighbours."""
    around = functional.max_pool2d(heat[None], 3, stride=1, padding=1)[0]
    seen = []
    for row, column in ((heat == around) & (heat > _THRESHOLD)).nonzero().tolist():
        rows = slice(max(0, row - 1), row + 2)
        columns = slice(max(0, column - 1), column + 2)
        part = heat[rows, columns] / heat[rows, columns].sum()
        y = (part.sum(dim=1) * torch.arange(len(part)).add(rows.start + 0.5)).sum()
        x = (part.sum(dim=0) * torch.arange(part.shape[1]).add(columns.start + 0.5)).sum()
        seen.append(Seen(x=float(x) * CELL_PX, y=float(y) * CELL_PX))
    return seen


def thing_targets(things: np.ndarray, *, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return what a heat map should be and how much each cell counts, both (h, w) float32.

    Cells beside a thing's middle do not count, nor do those around a middle at the edge of the
    picture or behind the character.

    Args:
        things: (J, 6), of `TeacherEpisode.things`.
        size: (H, W).
    """
    rows, columns = size[0] // CELL_PX, size[1] // CELL_PX
    target = np.zeros((rows, columns), np.float32)
    weight = np.ones_like(target)
    for x, y in things[things[:, 0] >= 0, 1:3]:
        row, column = int(y // CELL_PX), int(x // CELL_PX)
        near = slice(max(0, row - 1), max(0, row + 2)), slice(max(0, column - 1), column + 2)
        if column < -1:
            continue
        weight[near] = 0.0
        inside = _EDGE_PX <= x < size[1] - _EDGE_PX and 0 <= row < rows
        if inside and abs(x - size[1] / 2) >= CLEAR_PX:
            target[row, column] = 1.0
            weight[row, column] = _POSITIVE_WEIGHT
    return target, weight


def train_thing_probe(
    halves: np.ndarray, targets: np.ndarray, weights: np.ndarray, config: ProbeConfig
) -> ThingProbe:
    """Return a probe that learned from frames and the things in them.

    Args:
        halves: (B, H // 2, W // 2, 3) uint8, from `halve`.
        targets: (B, h, w) from `thing_targets`.
        weights: Likewise.
        config: Of the probe.
    """
    with seeded_weights(config.seed):
        network = ThingNetwork(config.width)

    def loss_of(pictures: Tensor, rows: np.ndarray) -> Tensor:
        truth, weight = torch.from_numpy(targets[rows]), torch.from_numpy(weights[rows])
        heat = network(pictures)
        loss = functional.binary_cross_entropy_with_logits(heat, truth, weight, reduction="sum")
        return loss / len(rows)

    fit(network, halves, loss_of, config, desc="thing probe")
    return ThingProbe(network)


class NumberNetwork(nn.Module):
    """Views to one number each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(8),
            nn.Flatten(),
            nn.Linear(64 * width, 2 * width),
            nn.ReLU(),
            nn.Linear(2 * width, 1),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] -> (B,)."""
        return self.layers(pictures - 0.5)[:, 0]


class NumberProbe:
    """Sees a number: how far the mouth is open, say."""

    def __init__(self, network: NumberNetwork) -> None:
        self.network = network.eval()

    @torch.inference_mode()
    def read(self, views: np.ndarray) -> np.ndarray:
        """Return the number in each view, uint8 (B, h, w, 3) -> (B,) float64."""
        parts = [
            self.network(to_input(views[index : index + _BATCH])).double().numpy()
            for index in range(0, len(views), _BATCH)
        ]
        return np.concatenate(parts)


def train_number_probe(views: np.ndarray, numbers: np.ndarray, config: ProbeConfig) -> NumberProbe:
    """Return a probe that learned from views (B, h, w, 3) uint8 and their numbers (B,)."""
    with seeded_weights(config.seed):
        network = NumberNetwork(config.width)
    truth = torch.from_numpy(numbers.astype(np.float32))

    def loss_of(pictures: Tensor, rows: np.ndarray) -> Tensor:
        return functional.mse_loss(network(pictures), truth[rows])

    fit(network, views, loss_of, config, desc="number probe")
    return NumberProbe(network)


def cut(frames: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return a region (4,) - centre x, y, half width, half height in px - of (B, H, W, 3)."""
    x, y, half_width, half_height = (float(value) for value in region)
    rows = slice(max(0, round(y - half_height)), round(y + half_height))
    return frames[:, rows, max(0, round(x - half_width)) : round(x + half_width)]
