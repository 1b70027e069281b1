"""The scenery memory, learned before the dynamics: what words, camera and clock say of a picture.

On sequences a frame's look follows from the frame before, so words and tables would hardly learn,
and a world whose memory is weak drifts to the average of all scenes. Alone they learn in minutes,
some ten times as many frames a second as the whole model sees. Afterwards they stay as they are.

Shapes: B batch, c latent channels, h w fine grid.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.config import ProjectConfig
from midas_world.model.autoencoder import Autoencoder, normalize_frames
from midas_world.model.conditions import Conditions
from midas_world.model.world_model import WorldModel
from midas_world.train.autoencoder import decode_latents, psnr_of
from midas_world.train.boxes import character_box, paint_box
from midas_world.train.latents import LatentStore
from midas_world.train.loop import Trainer, mixed_precision

_HELD_FRAMES = 96


class SceneryLoss(nn.Module):
    """The parts of the world model that the scenery hangs on, with their loss."""

    def __init__(self, model: WorldModel) -> None:
        super().__init__()
        self.conditions, self.scenery = model.conditions, model.scenery
        self._model = (model,)  # its other parts do not learn here

    def forward(
        self, *, conditions: Conditions, target: Tensor, weight: Tensor
    ) -> dict[str, Tensor]:
        """Return the squared error of latents (B, c, h, w) where weight (B, 1, h, w) is 1."""
        painted = self._model[0].painted(self.conditions.cues(conditions))
        error = (painted - target).square().mean(dim=1, keepdim=True)
        return {"loss": (error * weight).sum() / weight.sum()}


def fit_scenery(
    model: WorldModel,
    coder: Autoencoder,
    store: LatentStore,
    held: LatentStore,
    config: ProjectConfig,
    folder: Path,
    *,
    device: torch.device,
) -> None:
    """Train words and scenery, or go on training them; the model holds the result.

    Args:
        model: Has a scenery memory.
        coder: Decodes, to tell how good it is.
        store: What is learned.
        held: Held-out episodes.
        config: `train_dynamics.scenery` has the settings.
        folder: Receives state and logs; an unfinished run there resumes.
        device: Of the model.
    """
    settings = config.train_dynamics.scenery
    assert settings is not None
    trainer = Trainer(
        SceneryLoss(model), settings, folder, seed=config.seed, device=device, find_unused=True
    )
    trainer.resume()

    def make_batch(generator: torch.Generator, _train_step: int) -> Mapping[str, Any]:
        rows = torch.randint(store.frames.num_frames, (settings.batch_size,), generator=generator)
        conditions, target, weight = scenery_rows(store, np.sort(rows.numpy()))
        return {
            "conditions": conditions.to(device),
            "target": target.to(device),
            "weight": weight.to(device),
        }

    def evaluate() -> Mapping[str, float]:
        return {"psnr": scenery_psnr(model, coder, held, device=device)}

    every = max(1, settings.train_steps // 10)
    trainer.run(make_batch, save_every=every, evaluate_every=every, evaluate=evaluate)
    model.load_state_dict(
        {
            name: value
            for name, value in trainer.average.items()
            if name.startswith(("conditions.", "scenery."))
        },
        strict=False,
    )


def scenery_rows(store: LatentStore, rows: np.ndarray) -> tuple[Conditions, Tensor, Tensor]:
    """Return conditions (B, 1, ...), latents (B, c, h, w) and weights (B, 1, h, w) of rows.

    The weight is 0 where the character, a thing or a region of small things is, else 1.
    """
    frames = store.frames
    target = store.gather(rows)
    step = frames.frames[0].shape[1] // target.shape[2]
    weight = np.ones((len(rows), *target.shape[2:]), np.float32)
    for own, row in zip(weight, rows, strict=True):
        boxes = [region for region in frames.regions[row] if region[2] > 0]
        boxes += [thing[1:5] for thing in frames.things[row] if thing[0] >= 0]
        if len(frames.keypoints[row]):
            boxes.append(character_box(frames.keypoints[row]))
        for box in boxes:
            paint_box(own, box, 0.0, step=step)
    index = torch.from_numpy(rows)
    conditions = store.conditions.map(lambda tensor: tensor[0, index][:, None])
    return conditions, target, torch.from_numpy(weight)[:, None]


@torch.no_grad()
def scenery_psnr(
    model: WorldModel, coder: Autoencoder, held: LatentStore, *, device: torch.device
) -> float:
    """Return the mean PSNR of held-out scenery as remembered, decoded, in dB."""
    total = held.frames.num_frames
    found = []
    for rows in np.linspace(0, total - 1, min(_HELD_FRAMES, total)).astype(int).reshape(-1, 1):
        conditions, _, weight = scenery_rows(held, rows)
        with mixed_precision(device, enabled=True):
            painted = model.painted(model.conditions.cues(conditions.to(device)))
        shown = normalize_frames(decode_latents(coder, painted.float(), device=device))
        truth = normalize_frames(torch.from_numpy(held.frames.gather(rows)))
        share = nn.functional.interpolate(weight, size=truth.shape[2:])
        error = ((shown - truth).square().mean(dim=1, keepdim=True) * share).sum() / share.sum()
        found.append(psnr_of(error))
    return float(torch.stack(found).mean())
