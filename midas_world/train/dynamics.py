"""Stage two: train the world model on the latents of episodes.

Frames are encoded once by the finished (or frozen) encoder and cached under its hash. The motion
operators are fitted to the autoencoder in closed form, and words and scenery memory learn what
they look like (scenery.py). Then a pool of sequences (pool.py) is walked through: single steps
first, then with parts of the context lost, so that the model learns to fill them, then longer and
longer rollouts of its own frames.

Shapes: B batch, F frames that the backbone sees, N tokens of C channels, c latent channels, h w
fine grid, K classes of things, S crop size in px.
"""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.checkpoint import CONFIG_NAME, WEIGHTS_NAME, load_part, load_weights, save_tensors
from midas_world.config import DynamicsTrainConfig, ProjectConfig, save_config
from midas_world.model.autoencoder import Autoencoder, normalize_frames
from midas_world.model.conditions import Conditions, with_hits
from midas_world.model.diffusion import sample_noise, sample_sigma
from midas_world.model.entries import kept
from midas_world.model.head import Guidance
from midas_world.model.world_model import Before, WorldModel
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.calibration import calibrate_prior
from midas_world.train.latent_rollouts import evaluate_dynamics
from midas_world.train.latents import LatentStore, open_latents
from midas_world.train.loop import (
    STATE_NAME,
    Trainer,
    seeded_weights,
    step_generator,
)
from midas_world.train.pool import Pool
from midas_world.train.processes import alone, start_processes
from midas_world.train.scenery import Lesson, fate_loss, fit_scenery
from midas_world.train.sources import episodes_folder
from midas_world.train.windows import fit_windows

logger = logging.getLogger(__name__)

FIT_FRAMES = 96
_SENSITIVITY_FRAMES = 12


class DynamicsLoss(nn.Module):
    """The world model together with its weighted loss, as the training loop wants it.

    Args:
        model: Trained.
        coder: Finished; decodes crops for the loss on pixels.
        config: Weights of the losses.

    Attributes:
        channel_weight: (c,) how much the picture hangs on each latent channel, 1 on average.
    """

    channel_weight: Tensor

    def __init__(self, model: WorldModel, coder: Autoencoder, config: DynamicsTrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.register_buffer("channel_weight", torch.ones(model.config.autoencoder.latent_channels))
        self._coder = (coder,)  # not a part: it does not learn

    def forward(
        self,
        *,
        last: Tensor,
        before: Tensor,
        level: Tensor,
        lost: Tensor,
        last_camera: Tensor,
        last_audio: Tensor,
        context: Tensor,
        conditions: Conditions,
        target: Tensor,
        weight: Tensor,
        corners: Tensor,
        crops: Tensor,
        reward: Tensor,
        cost: Tensor,
        terminated: Tensor,
        gone: Tensor,
        coming: Tensor,
        is_fresh: Tensor,
        is_whole: Tensor,
        generator: torch.Generator,
        progress: float,
    ) -> dict[str, Tensor]:
        """Return the losses of a batch of `Pool.batch`, at a progress of the training in [0, 1].

        Beside them "made", the frames (B, c, h, w) that its sequences go on with.
        """
        model, config = self.model, self.config
        frames = context.shape[1]
        hidden = last.new_zeros(
            len(last), model.config.tokens_per_frame, model.config.backbone.width
        )
        states = None
        if progress >= config.backbone_after:
            # Only the last frame may be noisy or lost.
            context = torch.cat((context[:, :-1], model.to_tokens(last)[:, None]), dim=1)
            levels = functional.pad(level[:, None], (frames - 1, 0))
            seen = range(math.ceil(config.backbone_rate * len(last)))
            rows = slice(0, len(seen))
            states = model.hidden(context[rows], levels[rows], conditions.pick(seen))
            hidden = torch.cat((states[:, -1].to(hidden.dtype), hidden[len(seen) :]))
        now = conditions.frames(frames - 1, frames)
        past = Before(latents=before, camera=last_camera, audio=last_audio)
        entries = kept(now.entries[:, 0], torch.where(gone, 1.0, -1.0))
        shown = with_hits(now, cost > 0, lives=model.config.lives)
        guidance, _ = model.guide(
            last, shown, past, hidden, entries=entries, level=level, lost=lost
        )
        predicted = self._predict(guidance, target, generator)
        scale = self.channel_weight.sqrt()[:, None, None]
        error = ((predicted - target) * scale).square() * weight
        loss = error.mean()
        each = error.detach().mean(dim=(1, 2, 3))
        losses = {"latents": each.mean(), "fresh": _mean_of(each, is_fresh & is_whole)}
        losses["own"] = _mean_of(each, ~is_fresh)
        losses["lost"] = _mean_of(each, is_fresh & ~is_whole)
        if progress >= config.pixel_after and config.pixel_weight:
            losses["pixels"] = self._pixel_loss(predicted, weight, corners, crops)
            loss = loss + config.pixel_weight * losses["pixels"]
        fate = model.fate(now)
        if fate.gone.requires_grad:  # they have not learned alone
            losses["gone"] = fate_loss(fate, now, gone)
            loss = loss + config.outcome_weight * losses["gone"]
        outcome = model.outcomes(predicted.detach(), guidance, model.near(now), fate.told)
        happening = 1.0 + (config.happening_weight - 1.0) * (
            (reward != 0) | (cost != 0) | terminated
        )
        happening = happening / happening.mean()
        losses["reward"] = (model.outcome.reward_loss(outcome.reward, reward) * happening).mean()
        for name, truth in (("cost", cost), ("termination", terminated.float())):
            losses[name] = functional.binary_cross_entropy_with_logits(
                getattr(outcome, name), truth, weight=happening
            )
        brought = losses["reward"] + losses["cost"] + losses["termination"]
        loss = loss + config.outcome_weight * brought
        if states is not None and model.config.entries.num_classes:
            codes = conditions.entries[: len(states)]
            logits = model.prior(states, codes).float().flatten(0, 2)
            truth = coming[: len(states)].flatten()
            losses["entries"] = functional.cross_entropy(logits, truth)
            loss = loss + config.entry_weight * losses["entries"]
        made = self._go_on(guidance, predicted.detach(), generator)
        return {"loss": loss, "made": made, **losses}

    def _predict(self, guidance: Guidance, target: Tensor, generator: torch.Generator) -> Tensor:
        """Return predicted latents, from the noised target where there is noise at all."""
        model, settings = self.model, self.model.config.head
        batch, device = len(target), target.device
        if settings.is_regression:
            sigma = torch.ones(batch, device=device)
            return model.head(torch.zeros_like(target), sigma, guidance)
        sigma = sample_sigma(batch, settings, generator, device)
        share = sigma[:, None, None, None]
        noise = torch.randn(target.shape, generator=generator).to(device)
        change = (target - guidance.last) / model.change_std[:, None, None]
        return model.head((1 - share) * change + share * noise, sigma, guidance)

    def _go_on(self, guidance: Guidance, predicted: Tensor, generator: torch.Generator) -> Tensor:
        """Return what the sequences go on with: what was predicted, at a rate what is drawn.

        Drawn from noise alone, the next frame brings another bend than the teacher's, and a head
        that is always to come back to the teacher's from there learns that roads melt; predicted
        from the noised target alone, its errors do not grow as they do in play.
        """
        settings = self.model.config.head
        if settings.is_regression:
            return predicted
        is_drawn = torch.rand(len(predicted), generator=generator) < self.config.drawn_rate
        rows = is_drawn.nonzero()[:, 0].to(predicted.device)
        if not len(rows):
            return predicted
        noise = sample_noise((len(rows), *predicted.shape[1:]), settings, generator)
        with torch.no_grad():
            drawn = self.model.sample(
                Guidance(*(given[rows] for given in guidance)),
                noise.to(predicted.device),
                num_denoise_steps=settings.num_denoise_steps,
            )
        # Weights that autocast cast without gradient must not be met by the pass with gradient.
        torch.clear_autocast_cache()
        return predicted.index_copy(0, rows, drawn)

    def _pixel_loss(
        self, predicted: Tensor, weight: Tensor, corners: Tensor, crops: Tensor
    ) -> Tensor:
        """Return the mean error of decoded crops and of their gradients."""
        coder = self._coder[0]
        step = self.model.config.autoencoder.downsampling
        size = crops.shape[1] // step
        pieces, weights = [], []
        for latents, own, (row, column) in zip(predicted, weight, corners.tolist(), strict=True):
            place = (slice(None), slice(row, row + size), slice(column, column + size))
            pieces.append(latents[place])
            weights.append(own[place])
        latents = torch.stack(pieces).contiguous(memory_format=torch.channels_last)
        decoded = coder.decode(latents).float()
        shown = functional.interpolate(torch.stack(weights), scale_factor=float(step))
        error = (decoded - normalize_frames(crops)) * shown.clamp(max=3.0)
        slopes = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        return error.abs().mean() + 0.5 * slopes


def _mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen values; not a number where there is none."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum()


@alone
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
        data: Folder with ``train`` and ``validation`` folders of episodes, unless the config's
            ``data.folder`` names another.
        folder: Receives state, logs, strips and the checkpoint; an unfinished run there resumes.
        autoencoder: Checkpoint folder of the first stage.
        device: Default: CUDA if there is one, else the CPU.
        init_from: Checkpoint or world folder whose weights a new run starts from.
        stop_at: Stop at this train step, as if the session had ended.

    Raises:
        ValueError: The data are shards.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    coder = load_autoencoder(autoencoder, config).to(device).requires_grad_(requires_grad=False)
    data = episodes_folder(config, data)
    with start_processes(device).first_goes_first():
        store = open_latents(data / "train", coder, config.world, device=device)
        held = open_latents(data / "validation", coder, config.world, device=device)
    settings = config.train_dynamics
    with seeded_weights(config.seed):
        model = WorldModel(config.world)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    for name, parameter in model.named_parameters():
        if name.endswith(".table"):  # is read by rows
            parameter.data = parameter.data.contiguous()
    module = DynamicsLoss(model, coder, settings)
    if init_from is not None:
        load_weights(model, load_part(init_from, "model"), source=str(init_from))
    fit_to_autoencoder(module, store, coder)
    if settings.scenery is not None and model.scenery is not None:
        if init_from is None and not (folder / STATE_NAME).is_file():
            lesson = Lesson(model, coder, module.channel_weight, store, held, config, device)
            for fit, name in ((fit_scenery, "scenery"), (fit_windows, "windows")):
                fit(lesson, folder / name)
        for part in (model.scenery, model.windows, model.entries, model.fates):
            part.requires_grad_(requires_grad=False)
        model.conditions.words.requires_grad_(requires_grad=False)
        model.outcome.fates.requires_grad_(requires_grad=False)
    pool = Pool(store, config.world, settings)
    trainer = Trainer(
        module,
        settings.optimizer,
        folder,
        seed=config.seed,
        device=device,
        sharding=settings.sharding,
        find_unused=True,
        keeper=pool,
    )
    trainer.resume()
    if trainer.processes.is_first:
        save_config(config, folder / CONFIG_NAME)
    total = settings.optimizer.train_steps

    def make_batch(generator: torch.Generator, train_step: int) -> Mapping[str, Any]:
        progress = train_step / total
        batch = pool.batch(generator, progress)
        placed = {name: value.to(device) for name, value in batch.items()}
        return {**placed, "generator": generator, "progress": progress}

    def evaluate() -> Mapping[str, float]:
        save_tensors(model.state_dict(), folder / WEIGHTS_NAME)
        return evaluate_dynamics(
            model,
            coder,
            held,
            device=device,
            num_sequences=settings.num_validation,
            strip=folder / "strips" / f"dynamics-{trainer.train_step:07d}.png",
        )

    trainer.run(
        make_batch,
        save_every=settings.save_every,
        evaluate_every=settings.evaluate_every,
        evaluate=evaluate,
        after_step=lambda made: pool.advance(made["made"]),
        stop_at=stop_at,
    )
    if stop_at is None and model.config.entries.num_classes and trainer.processes.is_first:
        load_weights(model, load_part(folder, "model"), source=str(folder))  # the average
        calibrate_prior(model, store, generator=step_generator(config.seed, 0))
        save_tensors(model.state_dict(), folder / WEIGHTS_NAME)
    return folder


@torch.no_grad()
def fit_to_autoencoder(module: DynamicsLoss, store: LatentStore, coder: Autoencoder) -> None:
    """Change what follows from the autoencoder alone: what moves, units and channel weights."""
    device, model = coder.latent_mean.device, module.model
    total = store.frames.num_frames
    rows = np.linspace(1, total - 1, min(FIT_FRAMES, total - 1)).astype(int)
    if model.head.flow is not None:
        model.head.flow.coder.load_state_dict(coder.state_dict())
    if model.motion.shifts:
        frames = normalize_frames(torch.from_numpy(store.frames.gather(rows)))

        def encode(pictures: Tensor) -> Tensor:
            parts = [
                coder.encode(part.to(device).contiguous(memory_format=torch.channels_last))
                for part in pictures.split(8)
            ]
            return torch.cat(parts).float().cpu()

        model.motion.fit(encode, frames)
    latents = store.gather(rows)
    change = latents - store.gather(np.maximum(rows - 1, 0))
    model.change_std.copy_(change.std(dim=(0, 2, 3)).clamp_min(1e-2))
    some = latents[:: max(1, len(latents) // _SENSITIVITY_FRAMES)][:_SENSITIVITY_FRAMES].to(device)
    base = coder.decode(some)
    generator = torch.Generator().manual_seed(0)
    noise = 0.2 * torch.randn(some[:, 0].shape, generator=generator).to(device)
    effect = []
    for channel in range(some.shape[1]):
        shaken = some.clone()
        shaken[:, channel] += noise
        effect.append((coder.decode(shaken) - base).square().mean())
    weight = torch.stack(effect)
    weight = (weight / weight.mean()).sqrt().clamp(0.5, 2.0)
    module.channel_weight.copy_(weight / weight.mean())
