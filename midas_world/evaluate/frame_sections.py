"""Sections on single frames of held-out teacher episodes: autoencoder and next frame.

They run the networks on real contexts, without an environment.

Shapes: T steps, F frames, N tokens per frame, C latent channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.conditions import stack_conditions
from midas_world.diffusion import sample_noise
from midas_world.evaluate.forced import forced_steps
from midas_world.evaluate.metrics import (
    jpeg_of_size,
    mean_change,
    mean_of,
    psnr,
    ssim,
)
from midas_world.evaluate.report import Cell, Section, Table
from midas_world.evaluate.rollouts import TeacherEpisode
from midas_world.evaluate.study import Study
from midas_world.train.autoencoder import decode_tokens, reconstruct
from midas_world.train.loop import mixed_precision, step_generator
from midas_world.train.strips import save_strip
from midas_world.types import StepConditions

_STRIP_FRAMES = 6
_REFINE_BATCH = 16


def autoencoder_section(study: Study) -> Section:
    """Measure encoding and decoding of held-out frames, and JPEG at the same size."""
    every = np.concatenate([episode.frames for episode in study.episodes()])
    rows = _spread(len(every), study.config.num_autoencoder_frames)
    frames = every[rows]
    made = reconstruct(study.autoencoder, torch.from_numpy(frames), device=study.device).numpy()
    world = study.world.config.world
    num_bytes = world.tokens_per_frame * world.autoencoder.latent_channels * 2
    files = [jpeg_of_size(frame, num_bytes) for frame in tqdm(frames, desc="jpeg", mininterval=5.0)]
    jpegs, sizes = np.stack([frame for frame, _ in files]), [size for _, size in files]
    values: dict[str, float] = {"num_frames": len(frames), "latent_bytes": num_bytes}
    values["jpeg_bytes"] = mean_of(sizes)
    table: list[tuple[Cell, ...]] = []
    for name, prefix, shown in (("autoencoder", "", made), ("JPEG", "jpeg_", jpegs)):
        ratio, similarity = psnr(frames, shown), ssim(frames, shown)
        own = {
            f"{prefix}psnr": mean_of(ratio),
            f"{prefix}psnr_p10": float(np.percentile(ratio, 10)),
            f"{prefix}ssim": mean_of(similarity),
        }
        values |= own
        size = num_bytes if shown is made else values["jpeg_bytes"]
        table.append((name, *own.values(), round(size)))
    chosen = _spread(len(frames), _STRIP_FRAMES)
    save_strip([list(x[chosen]) for x in (frames, made, jpegs)], study.output / "autoencoder.png")
    return Section(
        title="Autoencoder",
        method=(
            f"{len(frames)} frames spread over {len(study.episodes())} held-out teacher episodes, "
            "encoded and decoded. Beside it JPEG (4:2:0, optimised, headers included), each frame "
            "at the quality whose file is nearest to the latents' size in float16. PSNR over RGB, "
            "SSIM on luma (11 x 11 Gaussian window). Strip: teacher, autoencoder, JPEG."
        ),
        values=values,
        tables=(
            Table(
                columns=("", "PSNR dB", "PSNR dB, 10th percentile", "SSIM", "bytes per frame"),
                rows=tuple(table),
                digits=3,
            ),
        ),
        pictures=("autoencoder.png",),
    )


@dataclass(frozen=True, kw_only=True)
class RealContext:
    """What the world predicts for each frame of a held-out episode from the real ones before it.

    Only frames with a full context count: number ``first`` to T.

    Attributes:
        episode: The teacher's.
        first: First frame that is predicted.
        latents: (T + 1 - first, N, C) predicted latents.
    """

    episode: TeacherEpisode
    first: int
    latents: Tensor


def next_frame_section(study: Study) -> Section:
    """Measure the next frame from a real context, all frames and the moving ones."""
    contexts = _real_contexts(study)
    places = [(i, t) for i, item in enumerate(contexts) for t in range(len(item.latents))]
    chosen = [places[row] for row in _spread(len(places), study.config.num_next_frames)]
    latents = torch.stack([contexts[i].latents[t] for i, t in chosen])
    grid = study.world.config.world.grid
    decoded = decode_tokens(study.autoencoder, latents, grid, device=study.device)
    conditions = [contexts[i].episode.conditions[contexts[i].first + t] for i, t in chosen]
    made = _refined(study, decoded, conditions).numpy()
    frames = [(contexts[i].episode.frames, contexts[i].first + t) for i, t in chosen]
    real = np.stack([every[t] for every, t in frames])
    last = np.stack([every[t - 1] for every, t in frames])
    ceiling = reconstruct(study.autoencoder, torch.from_numpy(real), device=study.device).numpy()
    moving = mean_change(real, last) > study.config.moving_threshold
    values: dict[str, float] = {"num_frames": len(real), "num_moving": int(moving.sum())}
    values["moving_threshold"] = study.config.moving_threshold
    table: list[tuple[Cell, ...]] = []
    for name, prefix, shown in (
        ("world", "", made),
        ("repeat the last frame (baseline)", "repeat_", last),
        ("autoencoder of the true frame (ceiling)", "ceiling_", ceiling),
    ):
        ratio, similarity = psnr(real, shown), ssim(real, shown)
        own = {
            f"{prefix}psnr": mean_of(ratio),
            f"{prefix}ssim": mean_of(similarity),
            f"{prefix}psnr_moving": mean_of(ratio[moving]),
            f"{prefix}ssim_moving": mean_of(similarity[moving]),
        }
        values |= own
        table.append((name, *own.values()))
    strip = _spread(len(real), _STRIP_FRAMES)
    save_strip([list(x[strip]) for x in (real, made)], study.output / "next_frame.png")
    threshold = study.config.moving_threshold
    return Section(
        title="Next frame",
        method=(
            f"{len(real)} frames of {len(contexts)} held-out episodes, each predicted from the "
            f"teacher's true frames and conditions before it (at least "
            f"{study.context_frames}), {study.num_denoise_steps} denoise steps. Moving: "
            f"{int(moving.sum())} frames whose mean absolute change from the last one exceeds "
            f"{threshold:g} of 255. Strip: teacher, world."
        ),
        values=values,
        tables=(
            Table(
                columns=("", "PSNR dB", "SSIM", "PSNR dB, moving", "SSIM, moving"),
                rows=tuple(table),
                digits=3,
            ),
        ),
        pictures=("next_frame.png",),
    )


@torch.no_grad()
def _refined(study: Study, decoded: Tensor, conditions: Sequence[StepConditions]) -> Tensor:
    """Return decoded frames as the world shows them, (F, H, W, 3) uint8."""
    if study.refiner is None:
        return decoded
    made = []
    for start in range(0, len(decoded), _REFINE_BATCH):
        part = slice(start, start + _REFINE_BATCH)
        given = stack_conditions(conditions[part], study.world.config.world.conditions)
        frames = decoded[part].to(study.device)
        made.append(study.refiner(frames, given.to(study.device)).cpu())
    return torch.cat(made)


def _real_contexts(study: Study) -> list[RealContext]:
    """Return the world's predictions of the held-out episodes' frames."""
    model, device, first = study.model, study.device, study.context_frames
    episodes = study.episodes()
    latent = [study.to_latent(episode) for episode in episodes]
    generators = [step_generator(episode.seed, 0) for episode in episodes]
    made: list[list[Tensor]] = [[] for _ in episodes]
    for step in tqdm(forced_steps(model, latent, first=first), desc="next frame", mininterval=5.0):
        noise = torch.stack(
            [
                sample_noise(step.context.shape[1:], model.config.diffusion, generators[i])
                for i in step.episodes
            ]
        )
        with torch.no_grad(), mixed_precision(device, enabled=True):
            frames = model.sample(
                step.context,
                step.hidden,
                noise.to(device),
                num_denoise_steps=study.num_denoise_steps,
            )
        for index, frame in zip(step.episodes, frames.float().cpu(), strict=True):
            made[index].append(frame)
    contexts = [
        RealContext(episode=episode, first=first, latents=torch.stack(rows))
        for episode, rows in zip(episodes, made, strict=True)
        if rows
    ]
    if not contexts:
        raise ValueError(f"no held-out episode is longer than the context of {first} frames")
    return contexts


def _spread(count: int, wanted: int) -> np.ndarray:
    """Return at most so many different indices below count, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))
