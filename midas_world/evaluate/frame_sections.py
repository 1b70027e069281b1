"""Sections on single frames of held-out teacher episodes: autoencoder, next frame, outcomes.

They run the networks on real contexts, without an environment.

Shapes: T steps, F frames, N tokens per frame, C latent channels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.autoencoder import normalize_frames, to_tokens
from midas_world.conditions import Conditions, stack_conditions
from midas_world.evaluate.metrics import (
    Detection,
    detection,
    jpeg_of_size,
    mean_change,
    mean_of,
    psnr,
    ssim,
)
from midas_world.evaluate.report import Cell, Section, Table
from midas_world.evaluate.rollouts import TeacherEpisode
from midas_world.evaluate.study import Study
from midas_world.train.autoencoder import reconstruct
from midas_world.train.dynamics import decode_tokens
from midas_world.train.loop import mixed_precision, step_generator
from midas_world.train.strips import save_strip

_STRIP_FRAMES = 6
_SAMPLE_BATCH = 64
_FEW_POSITIVES = 30
_THRESHOLD = 0.5


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
        reward: (T + 1 - first,) expected rewards of the steps that led to these frames.
        termination: (T + 1 - first,) probabilities that they ended the episode.
    """

    episode: TeacherEpisode
    first: int
    latents: Tensor
    reward: np.ndarray
    termination: np.ndarray


def next_frame_section(study: Study) -> Section:
    """Measure the next frame from a real context, all frames and the moving ones."""
    contexts = _real_contexts(study)
    places = [(i, t) for i, item in enumerate(contexts) for t in range(len(item.latents))]
    chosen = [places[row] for row in _spread(len(places), study.config.num_next_frames)]
    latents = torch.stack([contexts[i].latents[t] for i, t in chosen])
    grid = study.world.config.world.grid
    made = decode_tokens(study.autoencoder, latents, grid, device=study.device).numpy()
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
            f"{study.context_frames}), {_num_denoise_steps(study)} denoise steps. Moving: "
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


def outcomes_section(study: Study) -> Section:
    """Measure reward and termination as predicted from a real context."""
    contexts = _real_contexts(study)
    rewards = np.concatenate([c.episode.rewards[c.first - 1 :] for c in contexts])
    ends = np.concatenate([c.episode.terminated[c.first - 1 :] for c in contexts])
    predicted = np.concatenate([c.reward for c in contexts])
    probability = np.concatenate([c.termination for c in contexts])
    found = {
        "reward": detection(np.abs(predicted) > _THRESHOLD, np.abs(rewards) > _THRESHOLD),
        "termination": detection(probability > _THRESHOLD, ends),
    }
    values: dict[str, float] = {"num_steps": len(rewards)}
    for name, item in found.items():
        values |= {
            f"{name}_precision": item.precision,
            f"{name}_recall": item.recall,
            f"{name}_positives": item.positives,
            f"{name}_predicted": item.predicted,
        }
    values["reward_mean_error"] = mean_of(np.abs(predicted - rewards))
    return Section(
        title="Reward and termination",
        method=(
            f"{len(rewards)} steps of {len(contexts)} held-out episodes, each predicted from the "
            f"teacher's true frames; a reward or an end counts as said above {_THRESHOLD:g}. What "
            "is right must be said at the very step at which it happens."
        ),
        values=values,
        tables=(
            Table(
                columns=("", "precision", "recall", "happened", "said", "both"),
                rows=tuple(_outcome_row(name, item) for name, item in found.items()),
            ),
        ),
        notes=tuple(
            f"Few positives for {name} ({item.positives}): its precision and recall say little."
            for name, item in found.items()
            if item.positives < _FEW_POSITIVES
        ),
    )


def _outcome_row(name: str, item: Detection) -> tuple[Cell, ...]:
    shares = [None if np.isnan(share) else share for share in (item.precision, item.recall)]
    return name, *shares, item.positives, item.predicted, item.hits


def _real_contexts(study: Study) -> list[RealContext]:
    def make() -> list[RealContext]:
        first = study.context_frames
        long_enough = [e for e in study.episodes() if e.num_steps >= first]
        if not long_enough:
            raise ValueError(f"no held-out episode is longer than the context of {first} frames")
        return [
            _predict(study, episode)
            for episode in tqdm(long_enough, desc="next frame", mininterval=5.0)
        ]

    return study.once("real contexts", make)


@torch.no_grad()
def _predict(study: Study, episode: TeacherEpisode) -> RealContext:
    """Return the world's predictions of an episode's frames."""
    model, device, first = study.model, study.device, study.context_frames
    latents = _encode(study, episode.frames)
    conditions = _sequence(study, episode)
    cache = model.new_cache(1, dtype=torch.float32, device=device)
    hidden = []
    with mixed_precision(device, enabled=True):
        for step in range(episode.num_steps):
            now = conditions.frames(step + 1, step + 2)
            states = model.step_hidden(latents[step : step + 1], now, cache)
            cache.commit()
            if step + 1 >= first:
                hidden.append(states)
        states = torch.cat(hidden)
        context = latents[first - 1 : -1]
        noise = torch.randn(context.shape, generator=step_generator(episode.seed, 0)).to(device)
        steps = _num_denoise_steps(study)
        made = [
            model.sample(*part, num_denoise_steps=steps).float().cpu()
            for part in zip(
                *(tensor.split(_SAMPLE_BATCH) for tensor in (context, states, noise)), strict=True
            )
        ]
        reward_logits, termination_logits = model.outcome(states.float())
    return RealContext(
        episode=episode,
        first=first,
        latents=torch.cat(made),
        reward=model.outcome.reward(reward_logits).float().cpu().numpy(),
        termination=termination_logits.float().sigmoid().cpu().numpy(),
    )


@torch.no_grad()
def _encode(study: Study, frames: np.ndarray) -> Tensor:
    """Return latent tokens, (F, H, W, 3) uint8 -> (F, N, C) float32."""
    parts = []
    for part in torch.from_numpy(frames).split(16):
        with mixed_precision(study.device, enabled=True):
            latents = study.autoencoder.encode(normalize_frames(part.to(study.device)))
        parts.append(to_tokens(latents).float())
    return torch.cat(parts)


def _sequence(study: Study, episode: TeacherEpisode) -> Conditions:
    """Return the conditions of an episode's frames as one sequence, (1, T + 1, ...)."""
    rows = stack_conditions(episode.conditions, study.world.config.world.conditions)
    return Conditions(
        pose=rows.pose.transpose(0, 1),
        text=rows.text.transpose(0, 1),
        audio=rows.audio.transpose(0, 1),
        present=rows.present.transpose(0, 1),
    ).to(study.device)


def _num_denoise_steps(study: Study) -> int:
    return study.config.num_denoise_steps or study.world.config.world.diffusion.num_denoise_steps


def _spread(count: int, wanted: int) -> np.ndarray:
    """Return at most so many different indices below count, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))
