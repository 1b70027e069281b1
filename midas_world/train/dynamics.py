"""Stage two: train the world model on the latents of episodes.

Frames are encoded once by the finished (or frozen) encoder and cached under its hash; a train step
then gathers sequences of latents with their conditions, rewards and ends.

Shapes: B batch, F frames, N tokens per frame, C latent channels.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.autoencoder import Autoencoder
from midas_world.checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_part,
    load_weights,
    save_tensors,
)
from midas_world.conditions import Conditions
from midas_world.config import ProjectConfig, save_config
from midas_world.diffusion import sample_noise
from midas_world.klt import CellTransform
from midas_world.train.autoencoder import decode_tokens, load_autoencoder, psnr_of
from midas_world.train.limb_error import LimbError, make_limb_error
from midas_world.train.loop import (
    STATE_NAME,
    Trainer,
    mixed_precision,
    seeded_weights,
    start_processes,
    step_generator,
)
from midas_world.train.renderer import train_renderer
from midas_world.train.sources import open_sequence_source
from midas_world.train.strips import save_strip
from midas_world.train_config import DynamicsTrainConfig
from midas_world.world_model import WorldModel

logger = logging.getLogger(__name__)

# A rollout of an untrained model may run away: beyond this (real latents of the shipped world reach
# 20) it is not gone on with.
MOST_LATENT = 60.0


class DynamicsLoss(nn.Module):
    """The world model together with its weighted loss, as the training loop wants it.

    Args:
        model: Trained.
        config: Weights of the losses.
        limb_error: What the error on limbs is measured by, where it counts.

    Attributes:
        own_rows: (batch,) row of the data at which each of the model's own rollouts stands, or -1.
            Buffers, so that a run that was killed goes on with the same rollouts.
        own_latents: (batch, N, C) of those frames.
    """

    own_rows: Tensor
    own_latents: Tensor

    def __init__(
        self, model: WorldModel, config: DynamicsTrainConfig, limb_error: LimbError | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.limb_error = limb_error
        world, size = model.config, config.optimizer.batch_size
        shape = (size, world.tokens_per_frame, world.autoencoder.latent_channels)
        self.register_buffer("own_rows", torch.full((size,), -1))
        self.register_buffer("own_latents", torch.zeros(shape))

    def forward(
        self,
        *,
        latents: Tensor,
        conditions: Conditions,
        rows: Tensor,
        num_own: int,
        generator: torch.Generator,
        **batch: Any,
    ) -> dict[str, Tensor]:
        """Return the losses of a batch of `LatentStore.gather`.

        Args:
            latents: (B, F + 1, N, C).
            conditions: Of frames 1 to F.
            rows: (B,) row of the data of each sequence's first frame.
            num_own: The first so many sequences see the model's own rollout.
            generator: Of every random choice, on the CPU.
            batch: What else `WorldModel.losses` wants.
        """
        settings = self.model.config.conditions
        conditions = conditions.drop(settings.drop_rate, settings.word_drop_rate, generator)
        own = None
        if num_own:
            own = self.model.own_context(
                latents[:num_own, 0], conditions.rows(0, num_own), generator
            )
            last = own[:, -1]
            is_sane = last.abs().amax(dim=(1, 2)) < MOST_LATENT
            stands = rows[:num_own] + own.shape[1] - 1
            self.own_rows[:num_own] = torch.where(is_sane, stands, -1)
            self.own_latents[:num_own] = last
        losses = self.model.losses(
            latents,
            conditions,
            generator=generator,
            own_context=own,
            limb_error=self.limb_error,
            **batch,
        )
        loss = (
            losses["head"]
            + self.config.reward_weight * losses["reward"]
            + self.config.termination_weight * losses["termination"]
        )
        if "limbs" in losses:
            loss = loss + self.config.limb_weight * losses["limbs"]
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
        data: Folder with ``train`` and ``validation`` folders of episodes or of shards, unless
            the config's ``data.folder`` names another.
        folder: Receives state, logs, strips and the checkpoint; an unfinished run there resumes.
        autoencoder: Checkpoint folder of the first stage.
        device: Default: CUDA if there is one, else the CPU.
        init_from: Checkpoint or world folder whose weights a new run starts from.
        stop_at: Stop at this train step, as if the session had ended.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    coder = load_autoencoder(autoencoder, config).to(device)
    with start_processes(device).first_goes_first():
        source = open_sequence_source(config, data, coder, device=device)
    settings = config.train_dynamics
    with seeded_weights(config.seed):
        model = WorldModel(config.world)
    if init_from is not None:
        load_weights(model, load_part(init_from, "model"), source=str(init_from))
    else:
        model.change_std.copy_(head_units(source.change_std(), coder))
        if model.conditions.renderer is not None and not (folder / STATE_NAME).is_file():
            train_renderer(
                config,
                data,
                folder / "renderer",
                model.conditions,
                model.change_std,
                coder=coder,
                device=device,
            )
    model.conditions.freeze_renderer()
    model.fit_transport(coder)
    limb_error = None
    if settings.limb_weight:
        limb_error = make_limb_error(model.conditions, coder, model.change_std)
    module = DynamicsLoss(model, settings, limb_error)
    trainer = Trainer(
        module,
        settings.optimizer,
        folder,
        seed=config.seed,
        device=device,
        sharding=settings.sharding,
    )
    trainer.resume()
    if not trainer.processes.is_first:
        module.own_rows.fill_(-1)  # the state's are the first process's
    if trainer.processes.is_first:
        save_config(config, folder / CONFIG_NAME)
    source.start(trainer.processes, trainer.train_step)

    def make_batch(generator: torch.Generator, train_step: int) -> Mapping[str, Any]:
        rate = settings.self_context_rate if train_step >= settings.self_context_after else 0.0
        num_own = round(rate * settings.optimizer.batch_size)
        batch = source.batch(
            generator,
            num_own=num_own,
            own_rows=module.own_rows.cpu(),
            own_latents=module.own_latents.cpu(),
        )
        placed = {name: value.to(device) for name, value in batch.items()}
        return {**placed, "num_own": num_own, "generator": generator}

    def evaluate() -> Mapping[str, float]:
        context = config.world.backbone.context_frames
        batch, real = source.held()
        made = dream(model, batch, context=context, device=device, seed=config.seed)
        shown = decode_tokens(coder, made.flatten(0, 1), config.world.grid, device=device)
        shown = shown.unflatten(0, made.shape[:2])
        error = (shown.float() - real.float()).div(127.5).square().mean(dim=(2, 3, 4))
        by_step = psnr_of(error).mean(dim=0)
        marks = [step for step in (1, 5, 10, 20, 40) if step <= made.shape[1]]
        lines = []
        for index in np.linspace(0, len(made) - 1, min(4, len(made))).astype(int):
            lines += [
                [picture[index, mark - 1].numpy() for mark in marks] for picture in (real, shown)
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


def head_units(change_std: Tensor, coder: Autoencoder) -> Tensor:
    """Return the units in which the head predicts changes of standardised latents, (C,).

    Of a transform, equal numbers in these units are equal changes of the picture, and their mean
    square is 1; else each channel has its own standard deviation.
    """
    if not isinstance(coder.decoder, CellTransform):
        return change_std
    worth = (coder.decoder.worth() * coder.latent_std).to(change_std)
    return (change_std * worth).square().mean().sqrt() / worth


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
            noise = sample_noise(last.shape, model.config.diffusion, generator).to(device)
            steps = model.config.diffusion.num_denoise_steps
            last = model.sample(last, hidden, noise, num_denoise_steps=steps).float()
            made.append(last)
    return torch.stack(made, dim=1)
