"""Stage three: train the refiner on windows of the world's own rollouts.

The world is finished then, and nothing of it changes: the refiner learns how a decoded character
differs from the real one of the same pose.

Shapes: B batch, h w pixels of a window.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from midas_world.checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_part,
    load_weights,
    save_tensors,
)
from midas_world.config import ProjectConfig, save_config
from midas_world.model.autoencoder import normalize_frames, quantize_frames
from midas_world.model.conditions import POSE, Conditions
from midas_world.model.refiner import Refiner
from midas_world.model.world_model import WorldModel
from midas_world.psnr import psnr_of
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.loop import (
    Trainer,
    alone,
    mixed_precision,
    seeded_weights,
    start_processes,
)
from midas_world.train.strips import save_strip
from midas_world.train.windows import Windows, open_windows
from midas_world.world import make_refiner

logger = logging.getLogger(__name__)

# Nearness to a limb's bone from which a pixel counts as the character's, as a share of reach.
_NEAR = 0.35
_STRIP_WINDOWS = 12


class RefinerLoss(nn.Module):
    """The refiner together with its loss, as the training loop wants it."""

    def __init__(self, refiner: Refiner, *, background_weight: float) -> None:
        super().__init__()
        self.refiner = refiner
        self.background_weight = background_weight

    def forward(
        self, *, decoded: Tensor, real: Tensor, conditions: Conditions, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the weighted squared error, and the plain one on the character.

        Args:
            decoded: (B, h, w, 3) uint8.
            real: (B, h, w, 3) uint8.
            conditions: (B, 1, ...).
            generator: Of what is left out, on the CPU.
        """
        sizes = self.refiner.conditions
        given = conditions.drop(sizes.drop_rate, sizes.word_drop_rate, generator)
        # Without a pose nothing is drawn.
        given.present[..., POSE] = conditions.present[..., POSE]
        error = redraw(self.refiner, decoded, given) - normalize_frames(real)
        nearness = self.refiner.nearness(conditions)
        weight = self.background_weight + (1 - self.background_weight) * (nearness / _NEAR).clamp(
            max=1.0
        )
        on_character = _mean_on(error.detach().square(), nearness > _NEAR)
        return {"loss": (weight * error.square()).mean(), "psnr": psnr_of(on_character)}


def redraw(refiner: Refiner, decoded: Tensor, conditions: Conditions) -> Tensor:
    """Return windows drawn anew, (B, h, w, 3) uint8 -> (B, 3, h, w) float32."""
    keypoints = refiner.keypoints(conditions)
    return refiner.redraw(
        normalize_frames(decoded),
        keypoints - refiner.corners(keypoints)[:, None],
        refiner.known(conditions),
    )


@alone
def train_refiner(
    config: ProjectConfig,
    data: Path,
    folder: Path,
    *,
    autoencoder: Path,
    dynamics: Path,
    device: torch.device | None = None,
    init_from: Path | None = None,
    stop_at: int | None = None,
) -> Path:
    """Train, or go on training, and return the checkpoint folder.

    Args:
        config: The whole project config; it is saved beside the weights.
        data: Folder with ``train`` and ``validation`` folders of episodes.
        folder: Receives windows, state, logs, strips and the checkpoint; an unfinished run there
            resumes.
        autoencoder: Checkpoint folder of the first stage.
        dynamics: Of the second stage.
        device: Default: CUDA if there is one, else the CPU.
        init_from: Checkpoint or world folder whose refiner a new run starts from.
        stop_at: Stop at this train step, as if the session had ended.

    Raises:
        ValueError: The config has no refiner, or the data are shards.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    coder = load_autoencoder(autoencoder, config).to(device)
    with seeded_weights(config.seed):
        refiner = make_refiner(config.world)
    if refiner is None:
        raise ValueError("there is no refiner to train: the config's world.refiner.widths is empty")
    with seeded_weights(config.seed):
        model = WorldModel(config.world)
    load_weights(model, load_part(dynamics, "model"), source=str(dynamics))
    model.to(device).eval().requires_grad_(requires_grad=False)
    start = {} if init_from is None else load_part(init_from, "refiner")
    if "output.weight" in start:
        load_weights(refiner, start, source=str(init_from))
    else:
        if init_from is not None:
            logger.info("%s has no refiner: it starts from nothing", init_from)
        # Words mean what they mean to the world model, which has seen them in more episodes.
        refiner.words.load_state_dict(model.conditions.words.state_dict())
    refiner.words.requires_grad_(requires_grad=False)
    refiner.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    settings = config.train_refiner
    with start_processes(device).first_goes_first():
        windows, held = open_windows(
            config, data, folder, coder=coder, model=model, refiner=refiner, device=device
        )
    module = RefinerLoss(refiner, background_weight=settings.background_weight)
    trainer = Trainer(module, settings.optimizer, folder, seed=config.seed, device=device)
    trainer.resume()
    if trainer.processes.is_first:
        save_config(config, folder / CONFIG_NAME)

    def make_batch(generator: torch.Generator, train_step: int) -> Mapping[str, Any]:  # noqa: ARG001
        size = settings.optimizer.batch_size
        rows = torch.randint(len(windows), (size,), generator=generator)
        return {**_placed(windows, rows, device), "generator": generator}

    def evaluate() -> Mapping[str, float]:
        chosen = torch.linspace(0, len(held) - 1, _STRIP_WINDOWS).round().long()
        batch = _placed(held, chosen, device)
        with torch.no_grad(), mixed_precision(device, enabled=True):
            made = quantize_frames(redraw(refiner, batch["decoded"], batch["conditions"]))
        lines = [batch["real"], batch["decoded"], made]
        save_strip(
            [list(line.cpu().numpy()) for line in lines],
            folder / "strips" / f"refiner-{trainer.train_step:07d}.png",
        )
        save_tensors(refiner.state_dict(), folder / WEIGHTS_NAME)
        before, after = measure(refiner, held, device=device)
        return {"psnr": after, "decoded_psnr": before}

    trainer.run(
        make_batch,
        save_every=settings.save_every,
        evaluate_every=settings.evaluate_every,
        evaluate=evaluate,
        stop_at=stop_at,
    )
    return folder


@torch.no_grad()
def measure(refiner: Refiner, windows: Windows, *, device: torch.device) -> tuple[float, float]:
    """Return the PSNR in dB on the character, as decoded and as drawn anew."""
    errors = []
    for rows in torch.arange(len(windows)).split(32):
        batch = _placed(windows, rows, device)
        real = normalize_frames(batch["real"])
        with mixed_precision(device, enabled=True):
            made = redraw(refiner, batch["decoded"], batch["conditions"])
        is_near = refiner.nearness(batch["conditions"]) > _NEAR
        shown = normalize_frames(batch["decoded"]), made.clamp(-1.0, 1.0)
        errors.append([_mean_on((picture - real).square(), is_near) for picture in shown])
    before, after = torch.tensor(errors).mean(dim=0)
    return float(psnr_of(before)), float(psnr_of(after))


def _placed(windows: Windows, rows: Tensor, device: torch.device) -> dict[str, Any]:
    return {
        "decoded": windows.decoded[rows].to(device),
        "real": windows.real[rows].to(device),
        "conditions": windows.conditions.pick(rows.tolist()).to(device),
    }


def _mean_on(squared: Tensor, where: Tensor) -> Tensor:
    """Return the mean of (B, 3, h, w) where (B, 1, h, w) is true."""
    return (squared * where).sum() / (squared.shape[1] * where.sum()).clamp_min(1)
