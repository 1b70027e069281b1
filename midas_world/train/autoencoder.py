"""Stage one: train the autoencoder on single frames.

The loss is L1 + squared error + L1 of the picture's gradients, weighted up near the character,
with noise on the latents so that the decoder forgives what the dynamics will get wrong. From
``freeze_encoder_after`` on, only the decoder learns. Where the autoencoder is a linear transform
there are no train steps: it is found from a sample of the frames.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from midas_world.autoencoder import Autoencoder, normalize_frames, quantize_frames, to_grid
from midas_world.checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_part,
    load_weights,
    save_tensors,
)
from midas_world.config import ProjectConfig, save_config
from midas_world.klt import CellTransform
from midas_world.train.data import character_weight
from midas_world.train.loop import Trainer, mixed_precision, seeded_weights, start_processes
from midas_world.train.picture_loss import PictureLoss
from midas_world.train.sources import FrameSource, open_frame_source
from midas_world.train.strips import save_strip
from midas_world.train_config import AutoencoderTrainConfig

logger = logging.getLogger(__name__)

# That a transform is found from; as float32, one row of cells of them at a time is in memory.
TRANSFORM_FRAMES = 8192


class AutoencoderLoss(nn.Module):
    """The autoencoder together with its loss, as the training loop wants it."""

    def __init__(self, autoencoder: Autoencoder, config: AutoencoderTrainConfig) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.config = config
        self.encoder_is_frozen = False

    def forward(self, frames: Tensor, keypoints: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Return losses; frames (B, H, W, 3) uint8, keypoints (B, K, 2), noise (B, C, h, w)."""
        target = normalize_frames(frames).contiguous()
        with torch.set_grad_enabled(not self.encoder_is_frozen):
            latents = self.autoencoder.encode_raw(
                target.contiguous(memory_format=torch.channels_last)
            )
        noisy = latents + self.autoencoder.config.latent_noise * noise.to(latents.dtype)
        # Rows last: on a CPU twice as fast as channels last, with three channels.
        error = self.autoencoder.decode_raw(noisy).float().contiguous() - target
        weight = character_weight(keypoints, *target.shape[-2:])
        weight = 1.0 + self.config.character_weight * weight
        config = self.config
        loss, absolute = PictureLoss.apply(
            error, weight, config.squared_weight, config.gradient_weight
        )
        mse = error.detach().square().mean(dim=(1, 2, 3))
        return {"loss": loss, "absolute": absolute, "psnr": psnr_of(mse).mean()}


def psnr_of(mse: Tensor) -> Tensor:
    """Return PSNR in dB from the mean squared error of pictures in [-1, 1]."""
    return 10.0 * torch.log10(4.0 / mse.clamp_min(1e-10))


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
        if config.world.autoencoder.transform_rows and processes.is_first:
            _find_transform(config, source, folder, device=device)
    if config.world.autoencoder.transform_rows:
        return folder
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
    shape = (config.world.autoencoder.latent_channels, *config.world.grid)
    validation = source.held(settings.num_validation)
    source.start(trainer.processes, trainer.train_step)

    def make_batch(generator: torch.Generator, _: int) -> Mapping[str, Any]:
        size = settings.optimizer.batch_size
        frames, keypoints = source.batch(size, generator)
        return {
            "frames": frames.to(device),
            "keypoints": keypoints.to(device),
            "noise": torch.randn(size, *shape, generator=generator).to(device),
        }

    def before_step(train_step: int) -> None:
        after = settings.freeze_encoder_after
        if 0 <= after <= train_step and not module.encoder_is_frozen:
            # Frozen from the start, it is another run's, with that run's statistics.
            _freeze_encoder(trainer, module, source, is_first_time=train_step == after > 0)

    def evaluate() -> Mapping[str, float]:
        decoded = reconstruct(autoencoder, validation, device=device, bf16=settings.optimizer.bf16)
        error = (decoded.float() - validation.float()) / 127.5
        save_strip(
            [list(validation[:6].numpy()), list(decoded[:6].numpy())],
            folder / "strips" / f"autoencoder-{trainer.train_step:07d}.png",
        )
        _save_checkpoint(
            autoencoder, source, folder, device=device, frozen=module.encoder_is_frozen
        )
        return {"psnr": float(psnr_of(error.square().mean(dim=(1, 2, 3))).mean())}

    trainer.run(
        make_batch,
        save_every=settings.save_every,
        evaluate_every=settings.evaluate_every,
        evaluate=evaluate,
        before_step=before_step,
        stop_at=stop_at,
    )
    return folder


def _find_transform(
    config: ProjectConfig, source: FrameSource, folder: Path, *, device: torch.device
) -> None:
    """Write the checkpoint of an autoencoder that is a transform, unless it is there."""
    if (folder / WEIGHTS_NAME).is_file():
        logger.info("the transform in %s was found before", folder)
        return
    autoencoder = Autoencoder(config.world.autoencoder)
    assert isinstance(autoencoder.decoder, CellTransform)
    frames = source.sample(TRANSFORM_FRAMES)
    logger.info("finding the transform of %d frames", len(frames))
    with seeded_weights(config.seed):
        autoencoder.decoder.fit(frames.permute(0, 3, 1, 2), device=device)
    autoencoder.to(device)
    _measure_statistics(autoencoder, source, device=device)
    save_tensors(autoencoder.state_dict(), folder / WEIGHTS_NAME)
    save_config(config, folder / CONFIG_NAME)
    held = source.held(config.train_autoencoder.num_validation)
    decoded = reconstruct(autoencoder, held, device=device)
    strip = [list(held[:6].numpy()), list(decoded[:6].numpy())]
    save_strip(strip, folder / "strips" / "autoencoder-0000000.png")
    error = (decoded.float() - held.float()) / 127.5
    psnr = float(psnr_of(error.square().mean(dim=(1, 2, 3))).mean())
    logger.info("the transform keeps %.2f dB of held-out frames", psnr)


def _freeze_encoder(
    trainer: Trainer, module: AutoencoderLoss, source: FrameSource, *, is_first_time: bool
) -> None:
    """Stop the encoder's learning; the first time, at its averaged weights and with statistics."""
    autoencoder = module.autoencoder
    assert autoencoder.encoder is not None
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


def load_autoencoder(folder: Path, config: ProjectConfig) -> Autoencoder:
    """Return the autoencoder of a checkpoint folder, in float32 and evaluation mode."""
    autoencoder = Autoencoder(config.world.autoencoder)
    load_weights(autoencoder, load_part(folder, "autoencoder"), source=str(folder))
    autoencoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return autoencoder.eval()
