"""Stage one: train the autoencoder on single frames.

The loss is L1 + squared error + L1 of the picture's gradients, weighted up near the character,
with noise on the latents so that the decoder forgives what the dynamics will get wrong. From
``freeze_encoder_after`` on, only the decoder learns. Frames may be learned in crops, more of them
where something small matters.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.checkpoint import CONFIG_NAME, WEIGHTS_NAME, load_part, load_weights, save_tensors
from midas_world.config import AutoencoderTrainConfig, ProjectConfig, save_config
from midas_world.model.autoencoder import Autoencoder, normalize_frames, quantize_frames
from midas_world.psnr import psnr, psnr_of
from midas_world.train.data import character_weight, crop_corners
from midas_world.train.loop import Trainer, mixed_precision, seeded_weights
from midas_world.train.picture_loss import PictureLoss
from midas_world.train.processes import alone, start_processes
from midas_world.train.sources import FrameSource, open_frame_source
from midas_world.train.strips import save_strip

logger = logging.getLogger(__name__)


class AutoencoderLoss(nn.Module):
    """The autoencoder together with its loss, as the training loop wants it."""

    def __init__(self, autoencoder: Autoencoder, config: AutoencoderTrainConfig) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.config = config
        self.encoder_is_frozen = False

    def forward(
        self, frames: Tensor, weight: Tensor, noise: Tensor, level: Tensor
    ) -> dict[str, Tensor]:
        """Return losses.

        Args:
            frames: (B, H, W, 3) uint8, whole or cropped.
            weight: (B, 1, H, W) of each pixel.
            noise: (B, C, h, w) standard normal.
            level: (B,) how much of it is added, in standard deviations of each channel.
        """
        target = normalize_frames(frames).contiguous()
        with torch.set_grad_enabled(not self.encoder_is_frozen):
            latents = self.autoencoder.encode_raw(
                target.contiguous(memory_format=torch.channels_last)
            )
        # In units of their own spread: large latents would otherwise drown the noise.
        spread = latents.detach().float().std(dim=(0, 2, 3), keepdim=True)
        noisy = latents + (level[:, None, None, None] * spread * noise).to(latents.dtype)
        # Rows last: on a CPU twice as fast as channels last, with three channels.
        error = self.autoencoder.decode_raw(noisy).float().contiguous() - target
        loss, absolute = PictureLoss.apply(
            error, weight, self.config.squared_weight, self.config.gradient_weight
        )
        mse = error.detach().square().mean(dim=(1, 2, 3))
        return {"loss": loss, "absolute": absolute, "psnr": psnr_of(mse).mean()}


def gradient_energy(frames: Tensor) -> Tensor:
    """Return the mean squared difference of neighbouring pixels, frames (B, H, W, 3)."""
    values = frames.float()
    return values.diff(dim=1).square().mean() + values.diff(dim=2).square().mean()


@alone
def train_autoencoder(
    config: ProjectConfig,
    data: Path,
    folder: Path,
    *,
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
        device: Default: CUDA if there is one, else the CPU.
        init_from: Checkpoint or world folder whose weights a new run starts from.
        stop_at: Stop at this train step, as if the session had ended.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    processes = start_processes(device)
    with processes.first_goes_first():
        source = open_frame_source(config, data)
    with seeded_weights(config.seed):
        autoencoder = Autoencoder(config.world.autoencoder)
    if init_from is not None:
        load_weights(autoencoder, load_part(init_from, "autoencoder"), source=str(init_from))
    autoencoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    settings = config.train_autoencoder
    module = AutoencoderLoss(autoencoder, settings)
    trainer = Trainer(
        module,
        settings.optimizer,
        folder,
        seed=config.seed,
        device=device,
        find_unused=settings.freeze_encoder_after >= 0,
    )
    trainer.resume()
    if trainer.processes.is_first:
        save_config(config, folder / CONFIG_NAME)
    validation = source.held(settings.num_validation)
    source.start(trainer.processes, trainer.train_step)
    channels, step = config.world.autoencoder.latent_channels, config.world.autoencoder.downsampling

    def make_batch(generator: torch.Generator, _: int) -> Mapping[str, Any]:
        size = settings.optimizer.batch_size
        frames, keypoints, things = source.batch(size, generator)
        weight = torch.ones(size, 1, *frames.shape[1:3])
        if settings.character_weight:
            limbs = config.world.conditions.limbs
            nearness = character_weight(keypoints, *frames.shape[1:3], limbs=limbs)
            weight += settings.character_weight * nearness
        if settings.crop_size:
            corners = crop_corners(
                keypoints.numpy(),
                things.numpy(),
                frame_size=(config.world.height, config.world.width),
                crop_size=settings.crop_size,
                character_rate=settings.character_rate,
                thing_rate=settings.thing_rate,
                rng=np.random.default_rng(torch.randint(2**31, (4,), generator=generator).numpy()),
            )
            side = settings.crop_size
            frames = torch.stack(
                [frames[i, y : y + side, x : x + side] for i, (y, x) in enumerate(corners)]
            )
            weight = torch.stack(
                [weight[i, :, y : y + side, x : x + side] for i, (y, x) in enumerate(corners)]
            )
        height, width = frames.shape[1:3]
        noise = torch.randn(size, channels, height // step, width // step, generator=generator)
        level = config.world.autoencoder.latent_noise * torch.rand(size, generator=generator)
        batch = {"frames": frames, "weight": weight, "noise": noise, "level": level}
        return {name: tensor.to(device) for name, tensor in batch.items()}

    def before_step(train_step: int) -> None:
        after = settings.freeze_encoder_after
        if 0 <= after <= train_step and not module.encoder_is_frozen:
            # Frozen from the start, it is another run's, with that run's statistics.
            _freeze_encoder(trainer, module, source, is_first_time=train_step == after > 0)

    def evaluate() -> Mapping[str, float]:
        decoded = reconstruct(autoencoder, validation, device=device, bf16=settings.optimizer.bf16)
        save_strip(
            [list(validation[:6].numpy()), list(decoded[:6].numpy())],
            folder / "strips" / f"autoencoder-{trainer.train_step:07d}.png",
        )
        _save_checkpoint(
            autoencoder, source, folder, device=device, frozen=module.encoder_is_frozen
        )
        energy = gradient_energy(decoded) / gradient_energy(validation)
        return {
            "psnr": float(psnr(decoded.numpy(), validation.numpy()).mean()),
            "gradient_energy": float(energy),
        }

    trainer.run(
        make_batch,
        save_every=settings.save_every,
        evaluate_every=settings.evaluate_every,
        evaluate=evaluate,
        before_step=before_step,
        stop_at=stop_at,
    )
    return folder


def _freeze_encoder(
    trainer: Trainer, module: AutoencoderLoss, source: FrameSource, *, is_first_time: bool
) -> None:
    """Stop the encoder's learning; the first time, at its averaged weights and with statistics."""
    autoencoder = module.autoencoder
    if is_first_time:
        with torch.no_grad():
            for name, tensor in module.state_dict().items():
                if name.startswith("autoencoder.encoder."):
                    tensor.copy_(trainer.average[name])
        _measure_statistics(autoencoder, source, device=trainer.device)
        for name in ("autoencoder.latent_mean", "autoencoder.latent_std"):
            trainer.average[name].copy_(module.state_dict()[name])
        logger.info("the encoder is frozen from here on")
    autoencoder.encoder.requires_grad_(requires_grad=False)
    module.encoder_is_frozen = True


@torch.no_grad()
def _measure_statistics(
    autoencoder: Autoencoder, source: FrameSource, *, device: torch.device
) -> None:
    """Set the standardisation from frames spread over the training data."""
    chosen = source.sample(512)
    parts = []
    for part in chosen.tensor_split(max(1, len(chosen) // 16)):
        with mixed_precision(device, enabled=True):
            frames = normalize_frames(part.to(device))
            parts.append(autoencoder.encode_raw(frames).float())
    autoencoder.set_statistics(torch.cat(parts))


def _save_checkpoint(
    autoencoder: Autoencoder,
    source: FrameSource,
    folder: Path,
    *,
    device: torch.device,
    frozen: bool,
) -> None:
    """Write the weights that are in the module now, with their latent statistics."""
    if not frozen:
        _measure_statistics(autoencoder, source, device=device)
    save_tensors(autoencoder.state_dict(), folder / WEIGHTS_NAME)


@torch.no_grad()
def reconstruct(
    autoencoder: Autoencoder, frames: Tensor, *, device: torch.device, bf16: bool = True
) -> Tensor:
    """Encode and decode frames (B, H, W, 3) uint8, sixteen at a time; the same shape comes back."""
    parts = []
    for part in frames.split(16):
        with mixed_precision(device, enabled=bf16):
            decoded = autoencoder.decode(autoencoder.encode(normalize_frames(part.to(device))))
        parts.append(quantize_frames(decoded).cpu())
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(autoencoder: Autoencoder, latents: Tensor, *, device: torch.device) -> Tensor:
    """Return the frames of latents (B, c, h, w), sixteen at a time: (B, H, W, 3) uint8."""
    parts = []
    for part in latents.split(16):
        with mixed_precision(device, enabled=True):
            decoded = autoencoder.decode(part.to(device))
        parts.append(quantize_frames(decoded).cpu())
    return torch.cat(parts)


def load_autoencoder(folder: Path, config: ProjectConfig) -> Autoencoder:
    """Return the autoencoder of a checkpoint folder, in float32 and evaluation mode."""
    autoencoder = Autoencoder(config.world.autoencoder)
    load_weights(autoencoder, load_part(folder, "autoencoder"), source=str(folder))
    autoencoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return autoencoder.eval()
