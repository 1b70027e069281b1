"""Stage three: the decoder learns to decode what the world itself predicts.

Latents of a rollout are means of what could be, and a decoder that has only seen encoded ones shows
that as blur. The encoder stays, so latents do, too; as in DC-AE's last phase (arXiv 2410.10733) the
decoder alone learns, here from rollouts beside the teacher's frames as well as from encoded frames.
Beside the autoencoder's loss stands that of the local gradient energy: how much happens around a
place must be right even where it is not known exactly what.

Shapes: B batch, c latent channels, h w fine grid, H W pixels.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_part,
    load_tensors,
    load_weights,
    save_tensors,
)
from midas_world.config import DecoderTrainConfig, ProjectConfig, save_config
from midas_world.model.autoencoder import Autoencoder, normalize_frames
from midas_world.model.world_model import WorldModel
from midas_world.psnr import psnr, psnr_of
from midas_world.train.autoencoder import decode_latents, gradient_energy, load_autoencoder
from midas_world.train.boxes import place_weights
from midas_world.train.latent_rollouts import roll_out, rollout_starts
from midas_world.train.latents import LatentStore, open_latents
from midas_world.train.loop import Trainer, step_generator
from midas_world.train.picture_loss import picture_losses
from midas_world.train.processes import alone
from midas_world.train.sources import episodes_folder
from midas_world.train.strips import save_strip

logger = logging.getLogger(__name__)

_BATCH = 12
_FIRST_STEPS = 4
_HELD_FRAMES = 72
_MARKS = (1, 20, 100)


class DecoderLoss(nn.Module):
    """The decoder with its loss.

    Args:
        coder: Of which only the decoder learns.
        config: Weights of the losses.
    """

    def __init__(self, coder: Autoencoder, config: DecoderTrainConfig) -> None:
        super().__init__()
        self.decoder, self.config = coder.decoder, config
        self._coder = (coder,)  # its encoder is no part

    def forward(
        self, latents: Tensor, frames: Tensor, weight: Tensor, is_own: Tensor
    ) -> dict[str, Tensor]:
        """Return losses.

        Args:
            latents: (B, c, h, w).
            frames: (B, H, W, 3) uint8.
            weight: (B, 1, h, w) of each place.
            is_own: (B,) bool: predicted, not encoded.
        """
        config = self.config
        made = self._coder[0].decode(latents.contiguous(memory_format=torch.channels_last))
        made, target = made.float().contiguous(), normalize_frames(frames).contiguous()
        picture, energy = picture_losses(
            made,
            target,
            weight,
            squared_weight=config.squared_weight,
            gradient_weight=config.gradient_weight,
        )
        reached = psnr_of((made.detach() - target).square().mean(dim=(1, 2, 3)))
        shares = {"psnr_own": is_own, "psnr_encoded": ~is_own}
        numbers = {n: (reached * s).sum() / s.sum() for n, s in shares.items()}
        return {"loss": picture + config.energy_weight * energy, "energy": energy, **numbers}


@alone
def train_decoder(
    config: ProjectConfig,
    data: Path,
    folder: Path,
    *,
    autoencoder: Path,
    dynamics: Path,
    device: torch.device | None = None,
    stop_at: int | None = None,
) -> Path:
    """Train, or go on training, and return the folder: a checkpoint of the whole autoencoder.

    Args:
        config: The whole project config; `train_decoder` has the settings.
        data: Folder with ``train`` and ``validation`` folders of episodes, unless the config's
            ``data.folder`` names another.
        folder: Receives state, logs, strips, rollouts and the checkpoint; an unfinished run there
            resumes.
        autoencoder: Checkpoint folder of the first stage.
        dynamics: Of the second.
        device: Default: CUDA if there is one, else the CPU.
        stop_at: Stop at this train step, as if the session had ended.

    Raises:
        ValueError: The config has no such stage, or the data are shards.
    """
    settings = config.train_decoder
    if settings is None:
        raise ValueError("the preset has no train_decoder: its decoder learns in stage one alone")
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    coder = load_autoencoder(autoencoder, config).to(device)
    data = episodes_folder(config, data)
    store = open_latents(data / "train", coder, config.world, device=device)
    held = open_latents(data / "validation", coder, config.world, device=device)
    folder.mkdir(parents=True, exist_ok=True)
    model = WorldModel(config.world).eval()
    load_weights(model, load_part(dynamics, "model"), source=str(dynamics))
    model.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    path = folder / "rollouts.safetensors"
    if not path.is_file():
        save_tensors(_own_latents(model, store, settings, config.seed, device=device), path)
    own = load_tensors(path)
    marked = _marked(model, held, device=device)
    trainer = Trainer(
        DecoderLoss(coder, settings), settings.optimizer, folder, seed=config.seed, device=device
    )
    trainer.resume()
    save_config(config, folder / CONFIG_NAME)
    num_own = round(settings.own_rate * settings.optimizer.batch_size)

    def make_batch(generator: torch.Generator, _: int) -> Mapping[str, Any]:
        chosen = torch.randint(len(own["rows"]), (num_own,), generator=generator)
        count = settings.optimizer.batch_size - num_own
        rows = torch.randint(store.frames.num_frames, (count,), generator=generator)
        encoded = store.gather(rows.numpy())
        level = config.world.autoencoder.latent_noise * torch.rand(count, generator=generator)
        noise = torch.randn(encoded.shape, generator=generator)
        rows = torch.cat((own["rows"][chosen], rows)).numpy()
        weights = [
            place_weights(store.frames, row, config.train_dynamics, config.world.grid)
            for row in rows
        ]
        batch = {
            "latents": torch.cat(
                (own["latents"][chosen].float(), encoded + level[:, None, None, None] * noise)
            ),
            "frames": torch.from_numpy(store.frames.gather(rows)),
            "weight": torch.from_numpy(np.stack(weights))[:, None],
            "is_own": torch.arange(len(rows)) < num_own,
        }
        return {name: tensor.to(device) for name, tensor in batch.items()}

    def evaluate() -> Mapping[str, float]:
        save_tensors(coder.state_dict(), folder / WEIGHTS_NAME)
        strip = folder / "strips" / f"decoder-{trainer.train_step:07d}.png"
        return _evaluate(coder, held, marked, strip, device=device)

    trainer.run(
        make_batch,
        save_every=settings.save_every,
        evaluate_every=settings.evaluate_every,
        evaluate=evaluate,
        stop_at=stop_at,
    )
    return folder


def _own_latents(
    model: WorldModel,
    store: LatentStore,
    settings: DecoderTrainConfig,
    seed: int,
    *,
    device: torch.device,
) -> dict[str, Tensor]:
    """Return some latents (R, c, h, w) of rollouts, and the rows (R,) of the teacher's frames."""
    context = model.config.backbone.context_frames
    first, steps = rollout_starts(store, context, settings.rollout_steps)
    order = torch.randperm(len(first), generator=step_generator(seed, 0)).numpy()
    first = first[order[: settings.num_rollouts]]
    rows, latents = [], []
    logger.info("%d rollouts of %d steps", len(first), steps)
    for part in np.array_split(first, -(-len(first) // _BATCH)):
        for step, places, made in roll_out(model, store, part, steps, device=device):
            if step <= _FIRST_STEPS or step % settings.keep_every == 0:
                rows.append(torch.from_numpy(places))
                latents.append(made.half().cpu())
    return {"rows": torch.cat(rows), "latents": torch.cat(latents).contiguous()}


def _marked(
    model: WorldModel, held: LatentStore, *, device: torch.device
) -> dict[str, tuple[Tensor, np.ndarray]]:
    """Return latents of held-out rollouts, with rows, and encoded ones, by name."""
    context = model.config.backbone.context_frames
    first, steps = rollout_starts(held, context, max(_MARKS))
    found = {
        f"step_{step}": (made, rows)
        for step, rows, made in roll_out(model, held, first, steps, device=device)
        if step in _MARKS
    }
    rows = np.linspace(0, held.frames.num_frames - 1, _HELD_FRAMES).astype(int)
    return {**found, "encoded": (held.gather(rows), rows)}


def _evaluate(
    coder: Autoencoder,
    held: LatentStore,
    marked: Mapping[str, tuple[Tensor, np.ndarray]],
    strip: Path,
    *,
    device: torch.device,
) -> dict[str, float]:
    """Return PSNR in dB and gradient energy over the teacher's of latents, decoded."""
    result, lines = {}, []
    count = min(6, *(len(rows) for _, rows in marked.values()))
    for name, (latents, rows) in marked.items():
        shown = decode_latents(coder, latents, device=device)
        truth = torch.from_numpy(held.frames.gather(rows))
        result[f"psnr_{name}"] = float(psnr(shown.numpy(), truth.numpy()).mean())
        result[f"energy_{name}"] = float(gradient_energy(shown) / gradient_energy(truth))
        lines += [list(truth[:count].numpy()), list(shown[:count].numpy())]
    save_strip(lines, strip)
    return result
