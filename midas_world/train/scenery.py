"""What conditions and codes alone say of a step, learned before the dynamics.

That is scenery, things and windows, and what becomes of the codes. On sequences a frame's look
follows from the frame before, so words and tables would hardly learn, and a world whose memory is
weak drifts to the average of all scenes. Alone they learn in minutes, several times as many frames
a second as the whole model sees. Afterwards they stay as they are.

Shapes: B batch, c latent channels, h w fine grid, A audio size.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from midas_world.config import DynamicsTrainConfig, ProjectConfig
from midas_world.model.autoencoder import Autoencoder, normalize_frames
from midas_world.model.conditions import Conditions, with_hits
from midas_world.model.entries import Fate, kept
from midas_world.model.world_model import WorldModel
from midas_world.psnr import psnr_of
from midas_world.train.autoencoder import decode_latents
from midas_world.train.boxes import character_box, paint_box
from midas_world.train.latents import LatentStore
from midas_world.train.loop import Trainer, mixed_precision
from midas_world.train.picture_loss import picture_losses

# Parts of the model that learn here.
PAINTERS = ("conditions.", "scenery.", "windows.", "entries.", "fates.", "outcome.")
_HELD_FRAMES = 96
# Steps after a hit that count as soon.
_HIT_STEPS = 10
_SQUARED_WEIGHT = 4.0
# Few steps bring anything, and what they bring is soon computed.
_FATE_ROWS = 512


class Lesson(NamedTuple):
    """What parts of a model learn from before the dynamics.

    Attributes:
        model: Has a scenery memory; holds what was learned.
        coder: Decodes.
        channel_weight: (c,) how much the picture hangs on each latent channel, 1 on average.
        store: What is learned.
        held: Held-out episodes.
        config: `train_dynamics` has the settings.
        device: Of the model.
    """

    model: WorldModel
    coder: Autoencoder
    channel_weight: Tensor
    store: LatentStore
    held: LatentStore
    config: ProjectConfig
    device: torch.device


class SceneryLoss(nn.Module):
    """The parts of the world model that paint from conditions, with their loss.

    Args:
        model: Whose parts.
        coder: Decodes; it does not learn.
        config: Weights.
        channel_weight: (c,) how much the picture hangs on each latent channel, 1 on average.
    """

    channel_weight: Tensor

    def __init__(
        self,
        model: WorldModel,
        coder: Autoencoder,
        config: DynamicsTrainConfig,
        channel_weight: Tensor,
    ) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("channel_weight", channel_weight.clone())
        self.conditions, self.scenery, self.windows = model.conditions, model.scenery, model.windows
        self.entries, self.fates, self.outcome = model.entries, model.fates, model.outcome
        self._model, self._coder = (model,), (coder,)  # what else they have does not learn here

    def forward(
        self,
        *,
        conditions: Conditions,
        last_audio: Tensor,
        entries: Tensor,
        target: Tensor,
        is_scenery: Tensor,
        weight: Tensor,
        frames: Tensor,
        fates: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        """Return the losses of a batch of `scenery_rows`, and of one of `fate_rows`.

        The first rows' `frames` (B', H, W, 3) uint8 are those that are decoded; there may be none.
        """
        model = self._model[0]
        painted, whole = painted_pictures(model, conditions, last_audio, entries)
        error = self._error(painted, target)
        losses = {"scenery": (error * is_scenery).sum() / is_scenery.sum()}
        if len(self.windows):
            error = self._error(whole, target)
            # Where no window is, this is a number that nothing learns from.
            losses["windows"] = (error * weight).sum() / weight.sum()
        if len(frames):
            # Scenery learns from them, too, but not where the character or a region is.
            part = slice(len(frames))
            learns = (is_scenery[part] > 0).to(painted.dtype)
            shown = whole[part] + learns * (painted - painted.detach())[part]
            losses |= self._decoded(shown, frames, torch.maximum(weight, is_scenery)[part])
        if model.config.entries.num_classes:
            losses |= fate_losses(model, **fates)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _decoded(self, latents: Tensor, frames: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Return the losses of latents (B, c, h, w) as pictures."""
        latents = latents.contiguous(memory_format=torch.channels_last)
        made = self._coder[0].decode(latents).float().contiguous()
        pixels, energy = picture_losses(
            made,
            normalize_frames(frames).contiguous(),
            weight,
            squared_weight=_SQUARED_WEIGHT,
            gradient_weight=1.0,
        )
        return {"pixels": pixels, "energy": self.config.energy_weight * energy}

    def _error(self, made: Tensor, target: Tensor) -> Tensor:
        """Return the weighted error at every place, (B, 1, h, w)."""
        error = (made - target).square() * self.channel_weight[:, None, None]
        return error.mean(dim=1, keepdim=True)


def painted_pictures(
    model: WorldModel, conditions: Conditions, last_audio: Tensor, entries: Tensor
) -> tuple[Tensor, Tensor]:
    """Return latents (B, c, h, w) of scenery and things, and with the windows.

    The windows do not change the former. `entries` (B, J, 2) are the codes that are kept.
    """
    assert model.scenery is not None
    cues = model.conditions.cues(conditions)
    scenery = model.scenery(*cues, model.entries(entries, cues.clock))
    vector = model.conditions.vector(conditions, cues, last_audio)
    return scenery, model.painted(scenery.detach(), conditions, vector)


def fate_losses(
    model: WorldModel,
    *,
    conditions: Conditions,
    gone: Tensor,
    reward: Tensor,
    cost: Tensor,
    terminated: Tensor,
) -> dict[str, Tensor]:
    """Return the losses of what becomes of codes, and of what that brings, by codes alone."""
    fate, outcome = model.fate(conditions), model.outcome
    reward_logits, cost_logits, end_logits = outcome.split(outcome.fates(fate.told))
    return {
        "gone": fate_loss(fate, conditions, gone),
        "reward": outcome.reward_loss(reward_logits, reward).mean(),
        "cost": binary_cross_entropy_with_logits(cost_logits, (cost > 0).float()),
        "termination": binary_cross_entropy_with_logits(end_logits, terminated.float()),
    }


def fate_loss(fate: Fate, conditions: Conditions, gone: Tensor) -> Tensor:
    """Return how badly it is told which codes are gone (B, J), a mean over those there are."""
    is_there = conditions.entries[:, 0, :, 0] >= 0
    each = binary_cross_entropy_with_logits(fate.gone, gone.float(), reduction="none")
    return torch.where(is_there, each, 0.0).sum() / is_there.sum().clamp_min(1)


def fit_scenery(lesson: Lesson, folder: Path) -> None:
    """Train words and scenery, or go on training them; the model holds the result.

    The folder receives state and logs; an unfinished run there resumes.
    """
    model, coder, channel_weight, store, held, config, device = lesson
    training, settings = config.train_dynamics, config.train_dynamics.scenery
    assert settings is not None
    loss = SceneryLoss(model, coder, training, channel_weight)
    trainer = Trainer(loss, settings, folder, seed=config.seed, device=device, find_unused=True)
    trainer.resume()
    since_hit = store.conditions.tally[0, :, 1]
    hits = torch.nonzero((since_hit <= _HIT_STEPS) | (store.cost > 0)).flatten()
    num_hits = round(training.hit_rate * settings.batch_size) * (len(hits) > 0)
    num_decoded = round(training.decoded_rate * settings.batch_size)

    def make_batch(generator: torch.Generator, _train_step: int) -> Mapping[str, Any]:
        rows = torch.randint(store.frames.num_frames, (settings.batch_size,), generator=generator)
        rows[:num_hits] = hits[torch.randint(max(1, len(hits)), (num_hits,), generator=generator)]
        shuffled = rows[torch.randperm(len(rows), generator=generator)].numpy()
        batch = scenery_rows(store, shuffled, config)
        batch["frames"] = torch.zeros(0)
        if num_decoded:
            batch["frames"] = torch.from_numpy(store.frames.gather(shuffled[:num_decoded]))
        some = torch.randint(store.frames.num_frames, (_FATE_ROWS,), generator=generator)
        fates = {name: value.to(device) for name, value in fate_rows(store, some).items()}
        return {name: value.to(device) for name, value in batch.items()} | {"fates": fates}

    def evaluate() -> Mapping[str, float]:
        return scenery_psnr(model, coder, held, config, device=device)

    every = max(1, settings.train_steps // 10)
    save_every = min(every, training.save_every)
    trainer.run(make_batch, save_every=save_every, evaluate_every=every, evaluate=evaluate)
    model.load_state_dict(
        {name: value for name, value in trainer.average.items() if name.startswith(PAINTERS)},
        strict=False,
    )


def scenery_rows(store: LatentStore, rows: np.ndarray, config: ProjectConfig) -> dict[str, Any]:
    """Return the arguments of `SceneryLoss` of rows (B,), but for `frames` and `fates`.

    ``is_scenery`` (B, 1, h, w) is 0 where the character or a region of small things is, more at
    things, else 1; ``weight`` likewise is the weight of the finished picture.
    """
    frames, settings = store.frames, config.train_dynamics
    target = store.gather(rows)
    step = frames.frames[0].shape[1] // target.shape[2]
    shape = (len(rows), *target.shape[2:])
    is_scenery, weight = np.ones(shape, np.float32), np.ones(shape, np.float32)
    for place, row in enumerate(rows):
        for thing in frames.things[row]:
            if thing[0] >= 0:
                paint_box(is_scenery[place], thing[1:5], settings.thing_weight, step=step)
        boxes = [(item, settings.region_weight) for item in frames.regions[row] if item[2] > 0]
        if len(frames.keypoints[row]):
            boxes.append((character_box(frames.keypoints[row]), settings.character_weight))
        for box, value in boxes:
            paint_box(is_scenery[place], box, 0.0, step=step)
            paint_box(weight[place], box, value, step=step)
    index = torch.from_numpy(rows)
    conditions = store.conditions.map(lambda tensor: tensor[0, index][:, None])
    gone = torch.where(store.gone[index], 1.0, -1.0)
    starts = store.starts[np.searchsorted(store.starts, rows, side="right") - 1]
    return {
        "conditions": with_hits(conditions, store.cost[index] > 0, lives=config.world.lives),
        "last_audio": store.conditions.audio[0, torch.from_numpy(np.maximum(rows - 1, starts))],
        "entries": kept(conditions.entries[:, 0], gone),
        "target": target,
        "is_scenery": torch.from_numpy(is_scenery)[:, None],
        "weight": torch.from_numpy(weight)[:, None],
    }


def fate_rows(store: LatentStore, rows: Tensor) -> dict[str, Any]:
    """Return the arguments of `fate_losses` of rows (B,), but for the model."""
    return {
        "conditions": store.conditions.map(lambda tensor: tensor[0, rows][:, None]),
        "gone": store.gone[rows],
        "reward": store.reward[rows],
        "cost": store.cost[rows],
        "terminated": store.terminated[rows],
    }


@torch.no_grad()
def scenery_psnr(
    model: WorldModel,
    coder: Autoencoder,
    held: LatentStore,
    config: ProjectConfig,
    *,
    device: torch.device,
) -> dict[str, float]:
    """Return the mean PSNR of held-out frames as painted, decoded, in dB.

    Of scenery with its things ("psnr"), and of windows ("windows_psnr").
    """
    found: dict[str, list[Tensor]] = {"psnr": [], "windows_psnr": []}
    for rows in held_rows(held):
        batch = scenery_rows(held, rows, config)
        conditions = batch["conditions"].to(device)
        with mixed_precision(device, enabled=True):
            last_audio, entries = batch["last_audio"].to(device), batch["entries"].to(device)
            _, painted = painted_pictures(model, conditions, last_audio, entries)
        shown = normalize_frames(decode_latents(coder, painted.float(), device=device))
        truth = normalize_frames(torch.from_numpy(held.frames.gather(rows)))
        is_scenery = batch["is_scenery"]
        found["psnr"].append(psnr_where(shown, truth, is_scenery > 0))
        found["windows_psnr"].append(psnr_where(shown, truth, is_scenery == 0))
    joined = {name: torch.cat(values) for name, values in found.items()}
    return {name: float(values.mean()) for name, values in joined.items() if len(values)}


def held_rows(held: LatentStore) -> list[np.ndarray]:
    """Return the rows (B,) that are looked at, evenly spread, some at a time."""
    total = held.frames.num_frames
    rows = np.linspace(0, total - 1, min(_HELD_FRAMES, total)).astype(int)
    return np.array_split(rows, -(-len(rows) // 16))


def psnr_where(shown: Tensor, truth: Tensor, chosen: Tensor) -> Tensor:
    """Return the PSNR in dB of pictures (B, 3, H, W), of those with a chosen place (B, 1, h, w)."""
    share = nn.functional.interpolate(chosen.float(), size=truth.shape[2:])
    error, count = (shown - truth).square().mean(dim=1, keepdim=True) * share, share.sum((1, 2, 3))
    return psnr_of((error.sum((1, 2, 3)) / count)[count > 0])
