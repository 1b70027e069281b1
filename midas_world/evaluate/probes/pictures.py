"""Two more probes: one that sees things in a frame, one that reads a number off a part of it.

Shapes: B frames, H W pixels, J things, h w cells of 8 px.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.evaluate.probes.training import ProbeConfig, answers, fit, halve
from midas_world.train.loop import seeded_weights

CELL_PX = 8
CLEAR_PX = 28.0
"""Nearer than this to the character, along x, it may hide a thing or take it."""

_POSITIVE_WEIGHT = 10.0
_THRESHOLD = 0.5
_EDGE_PX = 6.0  # how far inside the picture a middle must be to be told


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A thing that a probe sees, of whatever class: its middle in px of the frame."""

    x: float
    y: float


ThingProbe = Callable[[np.ndarray], list[list[Seen]]]
NumberProbe = Callable[[np.ndarray], np.ndarray]


def thing_network(width: int) -> nn.Sequential:
    """Return a network from pictures at half resolution, (B, 3, H / 2, W / 2), to heat maps.

    They tell where things have their middle, as logits (B, 1, h, w).
    """
    layers = nn.Sequential(
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
        nn.Conv2d(width, 1, 1),
    )
    nn.init.constant_(layers[-1].bias, -4.0)  # pyright: ignore[reportArgumentType]
    return layers


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
    """Return what sees the things in each frame, uint8 (B, H, W, 3).

    It learns from `halve` of frames, and from `thing_targets` of theirs, (B, h, w).
    """
    with seeded_weights(config.seed):
        network = thing_network(config.width)

    def loss_of(heat: Tensor, rows: np.ndarray) -> Tensor:
        truth, weight = torch.from_numpy(targets[rows]), torch.from_numpy(weights[rows])
        loss = functional.binary_cross_entropy_with_logits(
            heat[:, 0], truth, weight, reduction="sum"
        )
        return loss / len(rows)

    fit(network, halves, loss_of, config, desc="thing probe")
    return lambda frames: [_peaks(heat) for heat in answers(network, halve(frames))[:, 0].sigmoid()]


def number_network(width: int) -> nn.Sequential:
    """Return a network from views (B, 3, h, w) to a number each, (B, 1)."""
    return nn.Sequential(
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


def train_number_probe(views: np.ndarray, numbers: np.ndarray, config: ProbeConfig) -> NumberProbe:
    """Return what reads the number in each view, such as how far a mouth is open.

    It takes uint8 (B, h, w, 3), gives (B,) float64, and learns from views and their numbers (B,).
    """
    with seeded_weights(config.seed):
        network = number_network(config.width)
    truth = torch.from_numpy(numbers.astype(np.float32))
    fit(
        network,
        views,
        lambda told, rows: functional.mse_loss(told[:, 0], truth[rows]),
        config,
        desc="number probe",
    )
    return lambda views: answers(network, views)[:, 0].double().numpy()


def cut(frames: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return a region (4,) - centre x, y, half width, half height in px - of (B, H, W, 3)."""
    x, y, half_width, half_height = (float(value) for value in region)
    rows = slice(max(0, round(y - half_height)), round(y + half_height))
    return frames[:, rows, max(0, round(x - half_width)) : round(x + half_width)]
