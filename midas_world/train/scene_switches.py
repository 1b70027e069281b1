"""Training sequences in which the scene changes in mid-play, as a player's words change it.

Shapes: B batch.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def switch_scenes(
    batch: dict[str, Any], other: Mapping[str, Any], rate: float, generator: torch.Generator
) -> Tensor:
    """Let sequences go on as others from a frame on, and return which do, (B,) bool.

    As when a player's words change the scene in mid-play: all at once, with the last scene still in
    the context.

    Args:
        batch: Of `LatentStore.gather`; changed.
        other: Likewise; read only.
        rate: Share of the sequences.
        generator: On the CPU.
    """
    size, length = batch["latents"].shape[:2]
    switched = torch.rand(size, generator=generator) < rate
    cuts = torch.randint(1, length, (size,), generator=generator)
    for row in switched.nonzero()[:, 0].tolist():
        cut = int(cuts[row])
        batch["latents"][row, cut:] = other["latents"][row, cut:]
        # Frame 0 has no conditions, reward and end here.
        for name in ("reward", "terminated"):
            batch[name][row, cut - 1 :] = other[name][row, cut - 1 :]
        batch["conditions"].paste(other["conditions"], row, cut - 1)
    return switched
