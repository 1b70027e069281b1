"""Sections on single frames of held-out teacher episodes: autoencoder and next frame.

They run the networks on real contexts, without an environment.

Shapes: F frames, H W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.evaluate.forced import forced_steps
from midas_world.evaluate.metrics import mean_change, mean_of
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import TeacherEpisode
from midas_world.evaluate.study import Study
from midas_world.psnr import psnr
from midas_world.tables import Cell
from midas_world.train.autoencoder import decode_latents, reconstruct

_STRIP_FRAMES = 6
_MOVING = 4.0  # mean absolute change, in levels of 255, above which a frame counts as moving


def autoencoder_section(study: Study) -> Section:
    """Measure encoding and decoding of held-out frames."""
    every = np.concatenate([episode.frames for episode in study.episodes])
    rows = _spread(len(every), study.config.num_autoencoder_frames)
    frames = every[rows]
    made = reconstruct(study.autoencoder, torch.from_numpy(frames), device=study.device).numpy()
    world = study.world.config.world
    ratio = psnr(frames, made)
    values = {
        "num_frames": len(frames),
        "latent_bytes": world.tokens_per_frame * world.token_channels * 2,
        "psnr": mean_of(ratio),
        "psnr_p10": float(np.percentile(ratio, 10)),
    }
    chosen = _spread(len(frames), _STRIP_FRAMES)
    strip = study.save_strip("autoencoder.png", [list(x[chosen]) for x in (frames, made)])
    return Section(
        title="Autoencoder",
        method=(
            f"{len(frames)} frames spread over {len(study.episodes)} held-out teacher episodes, "
            "encoded and decoded. PSNR over RGB. Strip: teacher, autoencoder."
        ),
        values=values,
        tables=(
            Table(
                columns=("PSNR dB", "PSNR dB, 10th percentile", "bytes per frame in float16"),
                rows=((values["psnr"], values["psnr_p10"], values["latent_bytes"]),),
            ),
        ),
        pictures=(strip,),
    )


def next_frame_section(study: Study) -> Section:
    """Measure the next frame from a real context, all frames and the moving ones."""
    episodes = study.episodes
    made, places = _made_frames(study, episodes, study.config.num_next_frames)
    real = np.stack([episodes[i].frames[t] for i, t in places])
    last = np.stack([episodes[i].frames[t - 1] for i, t in places])
    ceiling = reconstruct(study.autoencoder, torch.from_numpy(real), device=study.device).numpy()
    moving = mean_change(real, last) > _MOVING
    values: dict[str, float] = {"num_frames": len(real), "num_moving": int(moving.sum())}
    values["moving_threshold"] = _MOVING
    table: list[tuple[Cell, ...]] = []
    for name, prefix, shown in (
        ("world", "", made),
        ("repeat the last frame (baseline)", "repeat_", last),
        ("autoencoder of the true frame (ceiling)", "ceiling_", ceiling),
    ):
        ratio = psnr(real, shown)
        own = {f"{prefix}psnr": mean_of(ratio), f"{prefix}psnr_moving": mean_of(ratio[moving])}
        values |= own
        table.append((name, *own.values()))
    chosen = _spread(len(real), _STRIP_FRAMES)
    strip = study.save_strip("next_frame.png", [list(x[chosen]) for x in (real, made)])
    return Section(
        title="Next frame",
        method=(
            f"{len(real)} frames of {len(episodes)} held-out episodes, each predicted from the "
            f"teacher's true frames and conditions before it (at least {study.context_frames}), "
            f"{study.model.config.head.num_denoise_steps} denoise steps; no codes of what enters "
            f"are told. Moving: {int(moving.sum())} frames whose mean absolute change from the "
            f"last one exceeds {_MOVING:g} of 255. Strip: teacher, world."
        ),
        values=values,
        tables=(Table(columns=("", "PSNR dB", "PSNR dB, moving"), rows=tuple(table)),),
        pictures=(strip,),
    )


def _made_frames(
    study: Study, episodes: Sequence[TeacherEpisode], wanted: int
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return frames that the world makes from real contexts, and whose: (episode, frame)."""
    first = study.context_frames
    latent = [study.to_latent(episode) for episode in episodes]
    every = [(i, t) for i, e in enumerate(latent) for t in range(first, e.num_steps + 1)]
    chosen = {every[row] for row in _spread(len(every), wanted)}
    made: dict[tuple[int, int], Tensor] = {}
    steps = forced_steps(study.model, latent, first=first)
    for step in tqdm(steps, desc="next frame", mininterval=5.0):
        for tokens, index in zip(step.made.cpu(), step.episodes, strict=True):
            if (index, step.number) in chosen:
                made[index, step.number] = tokens
    places = sorted(made)
    grid = study.model.to_grid(torch.stack([made[place] for place in places]))
    return decode_latents(study.autoencoder, grid, device=study.device).numpy(), places


def _spread(count: int, wanted: int) -> np.ndarray:
    """Return at most so many different indices below count, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(int))
