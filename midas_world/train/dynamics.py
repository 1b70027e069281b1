"""Stage two: train the world model on the latents of episodes.

Frames are encoded once by the finished (or frozen) encoder and cached under its hash; a train step
then gathers sequences of latents with their conditions, rewards and ends.

Shapes: B batch, F frames, N tokens per frame, C latent channels.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from midas_world.autoencoder import (
    Autoencoder,
    normalize_frames,
    quantize_frames,
    to_grid,
    to_tokens,
)
from midas_world.checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_tensors,
    load_weights,
    save_tensors,
    tensors_hash,
)
from midas_world.conditions import Conditions, hash_text
from midas_world.config import ConditionsConfig, DynamicsTrainConfig, ProjectConfig, save_config
from midas_world.episodes import load_episode
from midas_world.train.autoencoder import load_autoencoder, psnr_of
from midas_world.train.data import FrameStore, folder_hash, open_frames
from midas_world.train.loop import (
    Trainer,
    mixed_precision,
    seeded_weights,
    start_processes,
    step_generator,
)
from midas_world.train.strips import save_strip
from midas_world.world_model import WorldModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LatentStore:
    """The latents and columns of all episodes of a folder, one after another.

    Row t of an episode holds its frame t with that frame's conditions, and the reward and end of
    the step that led to it (0 and False for the first frame).

    Attributes:
        latents: (F, N, C) float16.
        conditions: Of every frame, as one sequence (1, F, ...).
        reward: (F,) float32.
        terminated: (F,) bool.
        starts: First row of each episode, and F at the end.
    """

    latents: Tensor
    conditions: Conditions
    reward: Tensor
    terminated: Tensor
    starts: np.ndarray

    def sequence_starts(self, length: int) -> np.ndarray:
        """Return every row from which ``length`` frames of one episode follow.

        Raises:
            ValueError: No episode is that long.
        """
        pieces = [
            np.arange(first, last - length + 1)
            for first, last in zip(self.starts[:-1], self.starts[1:], strict=True)
        ]
        rows = np.concatenate(pieces)
        if not len(rows):
            raise ValueError(f"no episode has {length} frames")
        return rows

    def gather(self, first_rows: Tensor, length: int) -> dict[str, Any]:
        """Return sequences of ``length`` frames as keyword arguments of `WorldModel.losses`."""
        rows = first_rows[:, None] + torch.arange(length)
        later = rows[:, 1:]
        conditions = Conditions(
            pose=self.conditions.pose[0, later],
            text=self.conditions.text[0, later],
            audio=self.conditions.audio[0, later],
            present=self.conditions.present[0, later],
        )
        return {
            "latents": self.latents[rows].float(),
            "conditions": conditions,
            "reward": self.reward[later],
            "terminated": self.terminated[later],
        }


def open_latents(
    folder: Path, autoencoder: Autoencoder, config: ConditionsConfig, *, device: torch.device
) -> LatentStore:
    """Encode every episode of a folder, or reopen what this very encoder made of them before."""
    frames = open_frames(folder)
    # The decoder may go on learning: it has no say in the latents.
    encoding = {
        name: tensor
        for name, tensor in autoencoder.state_dict().items()
        if not name.startswith("decoder.")
    }
    name = f"latents-{tensors_hash(encoding)}-{folder_hash(frames.episodes)}.safetensors"
    path = folder / ".cache" / name
    if not path.is_file():
        save_tensors({"latents": _encode(frames, autoencoder, device=device)}, path)
    latents = load_tensors(path)["latents"]
    conditions, reward, terminated = _columns(frames, config)
    return LatentStore(latents, conditions, reward, terminated, frames.starts)


@torch.no_grad()
def _encode(frames: FrameStore, autoencoder: Autoencoder, *, device: torch.device) -> Tensor:
    """Return the standardised latent tokens of all frames, (F, N, C) float16."""
    parts = []
    size = 64 if device.type == "cuda" else 16
    for start in tqdm(range(0, frames.num_frames, size), desc="encode", mininterval=5.0):
        batch = torch.from_numpy(np.ascontiguousarray(frames.frames[start : start + size]))
        with mixed_precision(device, enabled=True):
            latents = autoencoder.encode(normalize_frames(batch.to(device)))
        parts.append(to_tokens(latents).to(torch.float16).cpu())
    return torch.cat(parts)


def _columns(frames: FrameStore, config: ConditionsConfig) -> tuple[Conditions, Tensor, Tensor]:
    """Return conditions, rewards and ends of all frames, from the episodes' columns."""
    count = frames.num_frames
    pose = np.zeros((count, config.pose_size), np.float32)
    text = np.zeros((count, config.text_length), np.int64)
    audio = np.zeros((count, config.audio_size), np.float32)
    present = np.zeros((count, 3), bool)
    reward, terminated = np.zeros(count, np.float32), np.zeros(count, bool)
    for path, first, last in zip(
        frames.episodes, frames.starts[:-1], frames.starts[1:], strict=True
    ):
        episode = load_episode(path, frames=False)
        rows = slice(first, last)
        if episode.pose is not None:
            pose[rows], present[rows, 0] = episode.pose, True
        if episode.text is not None:
            hashed = {words: hash_text(words, config) for words in set(episode.text)}
            text[rows] = [hashed[words] for words in episode.text]
            present[rows, 1] = True
        if episode.audio is not None:
            audio[rows], present[rows, 2] = episode.audio, True
        reward[first + 1 : last] = episode.rewards
        terminated[first + 1 : last] = episode.terminated
    conditions = Conditions(
        pose=torch.from_numpy(pose)[None],
        text=torch.from_numpy(text)[None],
        audio=torch.from_numpy(audio)[None],
        present=torch.from_numpy(present)[None],
    )
    return conditions, torch.from_numpy(reward), torch.from_numpy(terminated)


class DynamicsLoss(nn.Module):
    """The world model together with its weighted loss, as the training loop wants it."""

    def __init__(self, model: WorldModel, config: DynamicsTrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config

    def forward(
        self, *, generator: torch.Generator, self_context_rate: float, **batch: Any
    ) -> dict[str, Tensor]:
        """Return the losses of a batch of `LatentStore.gather`."""
        losses = self.model.losses(
            **batch, generator=generator, self_context_rate=self_context_rate
        )
        loss = (
            losses["head"]
            + self.config.reward_weight * losses["reward"]
            + self.config.termination_weight * losses["termination"]
        )
        return {"loss": loss, **losses}


def train_dynamics(
    config: ProjectConfig,
    data: Path,
    folder: Path,
    *,
    autoencoder: Path,
    device: torch.device | None = None,
    init_from: Path | None = None,
    stop_at: int | None = None,
) -> Path:
    """Train, or go on training, and return the checkpoint folder.

    Args:
        config: The whole project config; it is saved beside the weights.
        data: Folder with ``train`` and ``validation`` folders of episodes.
        folder: Receives state, logs, strips and the checkpoint; an unfinished run there resumes.
        autoencoder: Checkpoint folder of the first stage.
        device: Default: CUDA if there is one, else the CPU.
        init_from: Checkpoint folder whose weights a new run starts from.
        stop_at: Stop at this train step, as if the session had ended.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    coder = load_autoencoder(autoencoder, config).to(device)
    with start_processes(device).first_goes_first():
        train = open_latents(data / "train", coder, config.world.conditions, device=device)
        held = open_latents(data / "validation", coder, config.world.conditions, device=device)
        held_frames = open_frames(data / "validation")
    held_frames.check_size(config.world.height, config.world.width)
    settings = config.train_dynamics
    with seeded_weights(config.seed):
        model = WorldModel(config.world)
    if init_from is not None:
        load_weights(model, load_tensors(init_from / WEIGHTS_NAME), source=str(init_from))
    else:
        model.change_std.copy_(_change_std(train))
    trainer = Trainer(
        DynamicsLoss(model, settings), settings.optimizer, folder, seed=config.seed, device=device
    )
    trainer.resume()
    if trainer.processes.is_first:
        save_config(config, folder / CONFIG_NAME)
    length = settings.sequence_frames + 1
    starts = torch.from_numpy(train.sequence_starts(length))
    # The longest held-out episodes decide: one that ended early must not shorten all measurements.
    longest = int(np.diff(held.starts).max())
    horizon = max(1, min(40, longest - config.world.backbone.context_frames - 1))
    held_starts = torch.from_numpy(
        held.sequence_starts(config.world.backbone.context_frames + horizon)
    )
    chosen = held_starts[
        torch.linspace(0, len(held_starts) - 1, settings.num_validation).round().long()
    ]

    def make_batch(generator: torch.Generator, train_step: int) -> Mapping[str, Any]:
        size = settings.optimizer.batch_size
        rows = starts[torch.randint(len(starts), (size,), generator=generator)]
        batch = train.gather(rows, length)
        is_own = train_step >= settings.self_context_after
        return {
            **{name: value.to(device) for name, value in batch.items()},
            "generator": generator,
            "self_context_rate": settings.self_context_rate if is_own else 0.0,
        }

    def evaluate() -> Mapping[str, float]:
        context = config.world.backbone.context_frames
        batch = held.gather(chosen, context + horizon)
        made = dream(model, batch, context=context, device=device, seed=config.seed)
        rows = chosen[:, None] + torch.arange(context, context + horizon)
        real = torch.from_numpy(held_frames.frames[rows.flatten().numpy()])
        shown = decode_tokens(coder, made.flatten(0, 1), config.world.grid, device=device)
        error = (shown.float() - real.float()).div(127.5).square().mean(dim=(1, 2, 3))
        by_step = psnr_of(error.unflatten(0, made.shape[:2])).mean(dim=0)
        marks = [step for step in (1, 5, 10, 20, 40) if step <= horizon]
        pictures = [shown.unflatten(0, made.shape[:2]), real.unflatten(0, made.shape[:2])]
        lines = []
        for index in np.linspace(0, len(chosen) - 1, min(4, len(chosen))).astype(int):
            lines += [
                [picture[index, mark - 1].numpy() for mark in marks] for picture in pictures[::-1]
            ]
        save_strip(lines, folder / "strips" / f"dynamics-{trainer.train_step:07d}.png")
        save_tensors(model.state_dict(), folder / WEIGHTS_NAME)
        return {f"psnr_{mark}": float(by_step[mark - 1]) for mark in marks}

    trainer.run(
        make_batch,
        save_every=settings.save_every,
        evaluate_every=settings.evaluate_every,
        evaluate=evaluate,
        stop_at=stop_at,
    )
    return folder


def _change_std(train: LatentStore) -> Tensor:
    """Return the standard deviation of latents' change from frame to frame, per channel."""
    rows = torch.from_numpy(train.sequence_starts(2))
    rows = rows[:: max(1, len(rows) // 4096)]
    change = train.latents[rows + 1].float() - train.latents[rows].float()
    return change.std(dim=(0, 1)).clamp_min(1e-2)


@torch.no_grad()
def dream(
    model: WorldModel, batch: Mapping[str, Any], *, context: int, device: torch.device, seed: int
) -> Tensor:
    """Return latent tokens rolled out after a real context, (B, steps, N, C).

    Args:
        model: In evaluation mode.
        batch: Of `LatentStore.gather`; its first ``context`` frames are the context.
        context: Frames of real context.
        device: Of the model.
        seed: Of the head's noise.
    """
    latents = batch["latents"].to(device)
    conditions = batch["conditions"].to(device)
    cache = model.new_cache(len(latents), dtype=torch.float32, device=device)
    generator = step_generator(seed, 0)
    made, last = [], latents[:, 0]
    with mixed_precision(device, enabled=True):
        for step in range(latents.shape[1] - 1):
            hidden = model.step_hidden(last, conditions.frames(step, step + 1), cache)
            cache.commit()
            if step + 1 < context:
                last = latents[:, step + 1]
                continue
            noise = torch.randn(last.shape, generator=generator).to(device)
            steps = model.config.diffusion.num_denoise_steps
            last = model.sample(last, hidden, noise, num_denoise_steps=steps).float()
            made.append(last)
    return torch.stack(made, dim=1)


@torch.no_grad()
def decode_tokens(
    autoencoder: Autoencoder, tokens: Tensor, grid: tuple[int, int], *, device: torch.device
) -> Tensor:
    """Return the frames of latent tokens (B, N, C), sixteen at a time: (B, H, W, 3) uint8."""
    parts = []
    for part in tokens.split(16):
        with mixed_precision(device, enabled=True):
            decoded = autoencoder.decode(to_grid(part.to(device), grid))
        parts.append(quantize_frames(decoded).cpu())
    return torch.cat(parts)
