"""Rollouts in latents, beside episodes: what dynamics and decoder are judged by.

Shapes: B episodes, c latent channels, h w fine grid.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.model.autoencoder import Autoencoder
from midas_world.model.diffusion import sample_noise
from midas_world.model.head import DiffusionHead
from midas_world.model.world_model import WorldModel
from midas_world.psnr import psnr_of
from midas_world.train.autoencoder import decode_latents
from midas_world.train.latents import LatentStore
from midas_world.train.loop import mixed_precision, step_generator
from midas_world.train.strips import save_strip

logger = logging.getLogger(__name__)

MARKS = (1, 5, 10, 20, 40, 100)
_LEAST_ALIVE = 0.05


def rollout_starts(store: LatentStore, context: int, steps: int) -> tuple[np.ndarray, int]:
    """Return the first rows of the episodes that are long enough, and how many steps that is.

    Args:
        store: Episodes.
        context: Their first frames, that are given.
        steps: That are wished after these; fewer if no episode has so many.
    """
    lengths = np.diff(store.starts)
    steps = min(steps, int(lengths.max()) - context)
    return store.starts[:-1][lengths >= context + steps], steps


@torch.no_grad()
def roll_out(
    model: WorldModel, store: LatentStore, first: np.ndarray, steps: int, *, device: torch.device
) -> Iterator[tuple[int, np.ndarray, Tensor]]:
    """Go on from episodes' first frames, under the teacher's conditions and codes.

    Args:
        model: In evaluation mode.
        store: Has the episodes.
        first: (B,) their first rows.
        steps: As `rollout_starts` gives them.
        device: Of the model.

    Yields:
        The step, from 1 on; the rows of the teacher's frames; latents (B, c, h, w).
    """
    context, settings = model.config.backbone.context_frames, model.config.head
    cache = model.new_cache(len(first), dtype=torch.float32, device=device)
    last = model.to_tokens(store.gather(first).to(device))
    shape = (len(first), *store.latents[0].shape[1:])
    noise = torch.zeros(shape, device=device)
    generator = step_generator(0, 0)
    for step in range(2 - context, steps + 1):
        rows = first + context - 1 + step
        conditions = store.conditions.map(
            lambda t, rows=rows: t[0, torch.from_numpy(rows)][:, None]
        )
        with mixed_precision(device, enabled=True):
            guidance, *_ = model.step_guidance(last, conditions.to(device), cache)
            cache.commit()
            if step < 1:
                last = model.to_tokens(store.gather(rows).to(device))
                continue
            if settings.temperature:
                noise = sample_noise(shape, settings, generator).to(device)
            made = model.sample(guidance, noise, num_denoise_steps=settings.num_denoise_steps)
        made = made.float()
        last = model.to_tokens(made)
        yield step, rows, made


@contextmanager
def watched(head: DiffusionHead) -> Iterator[Tensor]:
    """Note which of a head's coarsest features, (width,) bool, are ever above zero.

    Where the ReLU behind them gives zeros alone, no gradient passes: rates that are too high leave
    a head in which all of them are dead, and the losses tell nothing of it.
    """
    alive = torch.zeros(head.config.widths[-1], dtype=torch.bool)

    def look(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        alive.logical_or_((given[0] > 0).amax(dim=(0, 2, 3)).cpu())

    # A head of one level goes on at once.
    layer = head.up[-1] if len(head.up) else head.output
    hook = layer.register_forward_pre_hook(look)
    try:
        yield alive
    finally:
        hook.remove()


@torch.no_grad()
def evaluate_dynamics(
    model: WorldModel,
    coder: Autoencoder,
    held: LatentStore,
    *,
    device: torch.device,
    num_sequences: int,
    strip: Path,
) -> dict[str, float]:
    """Return PSNR at the `MARKS` of rollouts, in dB, and "alive", as `watched` has it.

    Args:
        model: In evaluation mode.
        coder: Decodes.
        held: Held-out episodes.
        device: Of the model.
        num_sequences: Rollouts.
        strip: PNG of some of them, teacher above model.
    """
    first, steps = rollout_starts(held, model.config.backbone.context_frames, max(MARKS))
    chosen = np.linspace(0, len(first) - 1, min(num_sequences, len(first))).astype(int)
    shown, found = {}, {}
    with watched(model.head) as alive:
        for step, rows, made in roll_out(model, held, first[chosen], steps, device=device):
            if step in MARKS:
                shown[step] = decode_latents(coder, made, device=device)
                found[step] = torch.from_numpy(held.frames.gather(rows))
    result = {"alive": float(alive.float().mean())}
    if result["alive"] < _LEAST_ALIVE:
        logger.warning(
            "%.0f %% of the head's coarsest features are ever above zero: it learns nothing there "
            "any more, and hears no backbone; train anew at lower rates (train_dynamics.optimizer)",
            100 * result["alive"],
        )
    for mark in shown:
        error = (shown[mark].float() - found[mark].float()).div(127.5).square()
        result[f"psnr_{mark}"] = float(psnr_of(error.mean(dim=(1, 2, 3))).mean())
    lines = []
    for index in np.linspace(0, len(chosen) - 1, min(4, len(chosen))).astype(int):
        for pictures in (found, shown):
            lines.append([pictures[mark][index].numpy() for mark in pictures])
    save_strip(lines, strip)
    return result
