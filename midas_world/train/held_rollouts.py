"""How good the dynamics are while they learn: short rollouts of held-out episodes."""

from pathlib import Path

import numpy as np
import torch

from midas_world.model.autoencoder import Autoencoder
from midas_world.model.diffusion import sample_noise
from midas_world.model.world_model import WorldModel
from midas_world.psnr import psnr_of
from midas_world.train.autoencoder import decode_latents
from midas_world.train.latents import LatentStore
from midas_world.train.loop import mixed_precision, step_generator
from midas_world.train.strips import save_strip

MARKS = (1, 5, 10, 20, 40, 100)


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
    """Return PSNR at the `MARKS` of rollouts under the teacher's conditions and codes, in dB.

    Args:
        model: In evaluation mode.
        coder: Decodes.
        held: Held-out episodes.
        device: Of the model.
        num_sequences: Rollouts, each from the beginning of an episode.
        strip: PNG of some of them, teacher above model.
    """
    context = model.config.backbone.context_frames
    lengths = np.diff(held.starts)
    steps = min(max(MARKS), int(lengths.max()) - context)
    longest = np.flatnonzero(lengths >= context + steps)
    chosen = longest[np.linspace(0, len(longest) - 1, min(num_sequences, len(longest))).astype(int)]
    first = held.starts[chosen]
    cache = model.new_cache(len(first), dtype=torch.float32, device=device)
    last = model.to_tokens(held.gather(first).to(device))
    shape = (len(first), *held.latents[0].shape[1:])
    noise = torch.zeros(shape, device=device)
    generator = step_generator(0, 0)
    marks = [mark for mark in MARKS if mark <= steps]
    shown, found = {}, {}
    for step in range(context + steps - 1):
        rows = first + step + 1
        conditions = held.conditions.map(lambda t, rows=rows: t[0, torch.from_numpy(rows)][:, None])
        with mixed_precision(device, enabled=True):
            guidance, _ = model.step_guidance(last, conditions.to(device), cache)
            cache.commit()
            if step + 1 < context:
                last = model.to_tokens(held.gather(rows).to(device))
                continue
            settings = model.config.head
            if settings.temperature:
                noise = sample_noise(shape, settings, generator).to(device)
            made = model.sample(guidance, noise, num_denoise_steps=settings.num_denoise_steps)
        last = model.to_tokens(made.float())
        mark = step + 2 - context
        if mark in marks:
            shown[mark] = decode_latents(coder, made.float(), device=device)
            found[mark] = torch.from_numpy(held.frames.gather(rows))
    result = {}
    for mark in marks:
        error = (shown[mark].float() - found[mark].float()).div(127.5).square()
        result[f"psnr_{mark}"] = float(psnr_of(error.mean(dim=(1, 2, 3))).mean())
    lines = []
    for index in np.linspace(0, len(first) - 1, min(4, len(first))).astype(int):
        for pictures in (found, shown):
            lines.append([pictures[mark][index].numpy() for mark in marks])
    save_strip(lines, strip)
    return result
