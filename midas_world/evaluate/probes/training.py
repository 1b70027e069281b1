"""How a probe learns: what all of them have in common.

A probe is a small network that reads something off a frame. It learns from the teacher's frames,
where that is known, and then reads the world's, where it is not. It is an instrument: it sees
pixels only, never actions or conditions, and its own error on teacher frames is always reported
beside what it measures.

Shapes: B frames, H W pixels.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

_WARMUP_STEPS = 50
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """A probe's size and training.

    Attributes:
        episode_steps: Steps of each teacher episode that gives them.
        keep_every: Only every so manieth frame is kept, for variety.
        first_seed: Of the teacher's episodes; not those that anything is measured on.
    """

    num_frames: int = 6000
    episode_steps: int = 120
    keep_every: int = 3
    first_seed: int = 20_000
    width: int = 40
    train_steps: int = 2400
    batch_size: int = 24
    learning_rate: float = 3e-3
    seed: int = 0


def halve(frames: np.ndarray) -> np.ndarray:
    """Halve the resolution by averaging, uint8 (B, H, W, 3) -> (B, H // 2, W // 2, 3)."""
    height, width = frames.shape[1] // 2, frames.shape[2] // 2
    even = frames[:, : 2 * height, : 2 * width].astype(np.uint16)
    total = even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)


def to_input(frames: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255.0


def fit(
    network: nn.Module,
    frames: np.ndarray,
    loss_of: Callable[[Tensor, np.ndarray], Tensor],
    config: ProbeConfig,
    *,
    desc: str,
) -> None:
    """Train a network on disturbed frames (B, H, W, 3) by AdamW with warm-up and cosine decay.

    The loss is of its answers to some frames, given their rows.
    """
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(config.seed)
    for step in tqdm(range(config.train_steps), desc=desc, mininterval=5.0):
        rows = torch.randint(len(frames), (config.batch_size,), generator=generator).numpy()
        loss = loss_of(network(disturb(to_input(frames[rows]), generator) - 0.5), rows)
        warm = min(1.0, (step + 1) / _WARMUP_STEPS)
        cosine = 0.5 + 0.5 * math.cos(math.pi * step / config.train_steps)
        optimizer.param_groups[0]["lr"] = config.learning_rate * warm * (0.02 + 0.98 * cosine)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()


@torch.inference_mode()
def answers(network: nn.Module, frames: np.ndarray) -> Tensor:
    """Return what a trained network says of frames, uint8 (B, H, W, 3)."""
    network.eval()
    parts = [frames[index : index + _BATCH] for index in range(0, len(frames), _BATCH)]
    return torch.cat([network(to_input(part) - 0.5) for part in parts])


def disturb(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Return frames with other colours, some noise and, half of them, a blur.

    A world's frames differ from the teacher's in these ways, which say nothing about the pose.
    """
    count = len(frames)
    gain = 1.0 + 0.15 * (torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1)
    shift = 0.05 * (torch.rand(count, 3, 1, 1, generator=generator) * 2 - 1)
    blurred = functional.avg_pool2d(frames, 3, stride=1, padding=1, count_include_pad=False)
    share = torch.rand(count, 1, 1, 1, generator=generator)
    share = share * (torch.rand(count, 1, 1, 1, generator=generator) < 0.5)
    noise = 0.02 * torch.randn(frames.shape, generator=generator)
    return torch.lerp(frames, blurred, share) * gain + shift + noise
