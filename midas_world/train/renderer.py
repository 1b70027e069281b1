"""The first part of the second stage: train the neural renderer on single frames.

It learns to foretell a frame's latents from its conditions alone: a thousand frames cost what a
hundred cost on sequences. It is frozen then, and the world model learns the rest.

Shapes: B batch, N tokens per frame, C latent channels.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.autoencoder import Autoencoder
from midas_world.checkpoint import WEIGHTS_NAME, load_part, load_weights, save_tensors
from midas_world.conditions import ConditionEncoder, Conditions
from midas_world.config import ProjectConfig
from midas_world.klt import CellTransform
from midas_world.train.autoencoder import decode_tokens, psnr_of
from midas_world.train.limb_error import LimbError, make_limb_error
from midas_world.train.loop import Trainer, mixed_precision
from midas_world.train.sources import open_sequence_source
from midas_world.train.strips import save_strip


class RendererLoss(nn.Module):
    """The condition encoder together with the renderer's loss, as the training loop wants it.

    Args:
        conditions: With a renderer.
        change_std: (C,) the units in which an error counts.
        character_weight: Extra weight of the cells with keypoints.
        limb_error: What the error of the picture on limbs is measured by; None: it is not.
        limb_weight: Of that error.
    """

    change_std: Tensor

    def __init__(
        self,
        conditions: ConditionEncoder,
        change_std: Tensor,
        *,
        character_weight: float,
        limb_error: LimbError | None = None,
        limb_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.character_weight = character_weight
        self.limb_weight = limb_weight
        self.conditions = conditions
        self.limb_error = limb_error
        self.register_buffer("change_std", change_std)

    def forward(
        self, *, latents: Tensor, conditions: Conditions, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the mean squared error of what is foretold: weighted, plain, and on limbs alone.

        Args:
            latents: (B, 2, N, C) of a frame, and of the one that the conditions belong to.
            conditions: (B, 1, ...) of that one.
            generator: Of what is left out, on the CPU.
        """
        weight = 1.0 + self.character_weight * self.conditions.near_keypoints(conditions)
        given = conditions
        conditions = conditions.drop(self.conditions.config.drop_rate, 0.0, generator)
        foretold = self.conditions.foretell(conditions)
        change = (foretold.float() - latents[:, 1:]) / self.change_std
        error = change.square().mean(dim=-1)
        losses = {"loss": (weight * error).mean(), "error": error.mean()}
        if self.limb_error is not None:
            on_limbs = self.limb_error(change, self.conditions.limb_maps(given))
            losses |= {"loss": losses["loss"] + self.limb_weight * on_limbs, "limbs": on_limbs}
        return losses


def train_renderer(
    config: ProjectConfig,
    data: Path,
    folder: Path,
    conditions: ConditionEncoder,
    change_std: Tensor,
    *,
    coder: Autoencoder,
    device: torch.device,
) -> None:
    """Train, or go on training, and leave the averaged weights in ``conditions``.

    Args:
        config: Of the project.
        data: As in `train_dynamics`.
        folder: Receives state, logs, strips and weights; an unfinished run there resumes.
        conditions: Changed.
        change_std: (C,) of the world model.
        coder: Of the first stage.
        device: Where it trains.
    """
    settings = config.train_renderer
    single = replace(
        config,
        train_dynamics=replace(
            config.train_dynamics,
            optimizer=settings.optimizer,
            sequence_frames=1,
            scene_switch_rate=0.0,
        ),
    )
    source = open_sequence_source(single, data, coder, device=device)
    guider = None if conditions.renderer is None else conditions.renderer.guider
    if guider is not None and isinstance(coder.decoder, CellTransform):
        guider.fit(coder.decoder, coder.latent_std)
    limb_error = None
    if settings.limb_weight:
        limb_error = make_limb_error(conditions, coder, change_std)
    module = RendererLoss(
        conditions,
        change_std.clone(),
        character_weight=settings.character_weight,
        limb_error=limb_error,
        limb_weight=settings.limb_weight,
    )
    trainer = Trainer(
        module, settings.optimizer, folder, seed=config.seed, device=device, find_unused=True
    )
    trainer.resume()
    source.start(trainer.processes, trainer.train_step)
    size = settings.optimizer.batch_size
    nowhere = {"own_rows": torch.full((size,), -1), "own_latents": torch.zeros(size, 1, 1)}

    def make_batch(generator: torch.Generator, train_step: int) -> Mapping[str, Any]:  # noqa: ARG001
        batch = source.batch(generator, num_own=0, **nowhere)
        placed = {name: batch[name].to(device) for name in ("latents", "conditions")}
        return {**placed, "generator": generator}

    def evaluate() -> Mapping[str, float]:
        batch, real = source.held()
        of_real = batch["conditions"].frames(-real.shape[1], None).to(device)
        with torch.no_grad(), mixed_precision(device, enabled=True):
            foretold = conditions.foretell(of_real).float()
        shown = decode_tokens(coder, foretold.flatten(0, 1), config.world.grid, device=device)
        shown = shown.unflatten(0, foretold.shape[:2])
        error = (shown.float() - real.float()).div(127.5).square().mean(dim=(2, 3, 4))
        lines = []
        for index in np.linspace(0, len(shown) - 1, min(4, len(shown))).astype(int):
            steps = np.linspace(0, shown.shape[1] - 1, min(5, shown.shape[1])).astype(int)
            lines += [[picture[index, step].numpy() for step in steps] for picture in (real, shown)]
        save_strip(lines, folder / "strips" / f"renderer-{trainer.train_step:07d}.png")
        save_tensors(conditions.state_dict(), folder / WEIGHTS_NAME)
        return {"psnr": float(psnr_of(error).mean())}

    trainer.run(
        make_batch,
        save_every=settings.save_every,
        evaluate_every=settings.evaluate_every,
        evaluate=evaluate,
    )
    load_weights(conditions, load_part(folder, "conditions"), source=str(folder))
