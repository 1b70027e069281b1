"""The windows, each learned alone before what is painted already.

Beside the scenery they learn too little: a window is a small part of a picture, and what it shows
is rare. Here each window sees only its own cut of the picture, every cut is judged as latents and,
decoded, as a picture, and half the rows are drawn by how badly they were painted when they last
came (online batch selection, Loshchilov and Hutter 2015, arXiv 1511.06343): stumbles, kicks and
ends of games are few.

Shapes: B batch, F rows, c latent channels, h w fine grid, r s rows and columns of the cut.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.config import OptimizerConfig, ProjectConfig
from midas_world.model.autoencoder import Autoencoder, normalize_frames
from midas_world.model.windows import Window
from midas_world.model.world_model import WorldModel
from midas_world.train.boxes import paint_box
from midas_world.train.latents import LatentStore
from midas_world.train.loop import Trainer, mixed_precision
from midas_world.train.picture_loss import picture_losses
from midas_world.train.scenery import Lesson, held_rows, psnr_where, scenery_rows

logger = logging.getLogger(__name__)

_CANDIDATES = 16  # rows of which one that was painted badly is drawn
_SHARPNESS = 0.7  # of the odds: the power of the loss
_SQUARED_WEIGHT = 4.0
_LEAST_STEPS = 0.25
# Places that a cut has around its window, and those at its edges that are not judged as pictures.
_MARGIN, _BLIND = 3, 2


class Cuts(NamedTuple):
    """Windows with a margin.

    Attributes:
        made: (B, c, r, s) latents as painted.
        target: (B, c, r, s) as they are.
        weight: (B, 1, r, s) how much each place counts.
        is_judged: (B, 1, r, s) 0 where a cut decoded alone is not what the picture is there.
        frames: (B, 3, H, W) in [-1, 1], H W pixels of the cut.
    """

    made: Tensor
    target: Tensor
    weight: Tensor
    is_judged: Tensor
    frames: Tensor


class WindowLoss(nn.Module):
    """A window with its loss.

    Args:
        window: Learns.
        coder: Decodes.
        channel_weight: (c,) how much the picture hangs on each latent channel, 1 on average.
        energy_weight: Of the error of the gradient energy beside that of the pixels.
    """

    channel_weight: Tensor

    def __init__(
        self, window: Window, coder: Autoencoder, channel_weight: Tensor, *, energy_weight: float
    ) -> None:
        super().__init__()
        self.window, self.energy_weight = window, energy_weight
        self.register_buffer("channel_weight", channel_weight.clone()[:, None, None])
        self._coder = (coder,)  # does not learn

    def forward(self, *, rows: Tensor, **batch: Tensor) -> dict[str, Tensor]:
        """Return losses of a batch of `WindowRows.batch`, and "each" of its rows' on latents."""
        cuts = self.cuts(**batch)
        error = (cuts.made - cuts.target).square() * self.channel_weight
        error, count = error.mean(dim=1, keepdim=True) * cuts.weight, cuts.weight.sum((1, 2, 3))
        each = error.detach().sum((1, 2, 3)) / count.clamp_min(1.0)
        pixels, energy = picture_losses(
            self.shown(cuts),
            cuts.frames,
            cuts.weight,
            squared_weight=_SQUARED_WEIGHT,
            gradient_weight=1.0,
            most_weight=torch.inf,
        )
        latents = error.sum() / count.sum().clamp_min(1.0)
        loss = latents + pixels + self.energy_weight * energy
        losses = {"loss": loss, "latents": latents, "pixels": pixels, "energy": energy}
        return {**losses, "rows": rows, "each": each}

    def cuts(
        self,
        *,
        behind: Tensor,
        vector: Tensor,
        middle: Tensor,
        waves: Tensor,
        target: Tensor,
        weight: Tensor,
        frames: Tensor,
    ) -> Cuts:
        """Return the window of a batch of `WindowRows.batch` with what lies around it."""
        grid, step = torch.tensor(self.window.grid), self.window.step
        size = grid.minimum(torch.tensor(self.window.config.size) + 2 * _MARGIN)
        corners = self.window.corner(middle).cpu() - _MARGIN
        corners = corners.clamp_min(0).minimum(grid - size)
        rows, columns = size.tolist()

        def cut(whole: Tensor, scale: int = 1) -> Tensor:
            """Return cuts of (B, channels, ...)."""
            own = [
                each[:, y : y + scale * rows, x : x + scale * columns]
                for each, (y, x) in zip(whole, (scale * corners).tolist(), strict=True)
            ]
            return torch.stack(own)

        # Where the picture goes on and the cut does not, the decoder sees something else.
        place = torch.ones_like(weight)
        for own, (y, x) in zip(place[:, 0], corners.tolist(), strict=True):
            own[y : y + _BLIND if y else 0] = 0.0
            own[:, x : x + _BLIND if x else 0] = 0.0
            bottom, right = y + rows, x + columns
            own[bottom - _BLIND if bottom < len(own) else bottom : bottom] = 0.0
            own[:, right - _BLIND if right < own.shape[1] else right : right] = 0.0
        pictures = cut(frames.movedim(-1, 1), step).movedim(1, -1)
        return Cuts(
            made=cut(self.window(behind, vector, middle, lambda _: waves)),
            target=cut(target),
            weight=cut(weight),
            is_judged=cut(place),
            frames=normalize_frames(pictures).contiguous(),
        )

    def shown(self, cuts: Cuts) -> Tensor:
        """Return cuts as pictures (B, 3, H, W); what is not judged is as it should be."""
        latents = cuts.made.contiguous(memory_format=torch.channels_last)
        pictures = self._coder[0].decode(latents).float()
        is_judged = nn.functional.interpolate(cuts.is_judged, size=pictures.shape[2:])
        return torch.where(is_judged > 0.0, pictures, cuts.frames).contiguous()


class WindowRows:
    """Which rows a window learns from, and what it is given of them.

    Args:
        model: In evaluation mode.
        number: Which of its windows.
        store: The rows.
        config: Weights of places.
        device: Of the model.

    Attributes:
        odds: (F,) of each row, by how badly it was painted when it last came.
        seen: Rows in which the window is seen, (rows,) int64.
    """

    def __init__(
        self,
        model: WorldModel,
        number: int,
        store: LatentStore,
        config: ProjectConfig,
        *,
        device: torch.device,
    ) -> None:
        self.model, self.number, self.store, self.config = model, number, store, config
        self.device = device
        window = model.windows[number]
        assert isinstance(window, Window)
        self.window = window
        self.odds = torch.ones(store.frames.num_frames)
        shown = model.conditions.is_shown(
            store.conditions.map(lambda each: each[0, :, None]), window.config.shown_by
        )
        self.seen = (self.odds if shown is None else shown).nonzero()[:, 0]

    def state(self) -> dict[str, Tensor]:
        """Return the odds."""
        return {"odds": self.odds}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on with them."""
        self.odds = state["odds"].clone()

    def draw(self, generator: torch.Generator, count: int) -> Tensor:
        """Return rows (count,): half at random, half of several candidates each by their odds.

        The window is seen in all of them.
        """
        total = len(self.seen)
        rows = self.seen[torch.randint(total, (count,), generator=generator)]
        some = torch.randint(total, (count // 2, _CANDIDATES), generator=generator)
        some = self.seen[some]
        chosen = torch.multinomial(self.odds[some], 1, generator=generator)
        rows[: count // 2] = some.gather(1, chosen)[:, 0]
        return rows

    def learn(self, rows: Tensor, losses: Tensor) -> None:
        """Take the losses (B,) of rows (B,)."""
        share = (losses / losses.mean().clamp_min(1e-8)).cpu()
        self.odds[rows] = (0.3 + share) ** _SHARPNESS

    @torch.no_grad()
    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the arguments of `WindowLoss` of rows (B,)."""
        model, device = self.model, self.device
        assert model.scenery is not None
        given = scenery_rows(self.store, rows, self.config)
        conditions, entries = given["conditions"].to(device), given["entries"].to(device)
        with mixed_precision(device, enabled=True):
            cues = model.conditions.cues(conditions)
            behind = model.scenery(*cues, model.entries(entries, cues.clock))
            last_audio = given["last_audio"].to(device)
            vector = model.conditions.vector(conditions, cues, last_audio)
            behind = model.painted(behind, conditions, vector, stop=self.number)
        middle = model.conditions.middle_of(conditions)
        points = self.window.points(self.window.corner(middle))
        return {
            "behind": behind,
            "vector": vector.float(),
            "middle": middle,
            "waves": model.conditions.waves(conditions, points),
            "target": given["target"].to(device),
            "weight": self._weights(given["weight"], rows).to(device),
            "frames": torch.from_numpy(self.store.frames.gather(rows)).to(device),
        }

    def _weights(self, weight: Tensor, rows: np.ndarray) -> Tensor:
        """Return how much each place counts, (B, 1, h, w)."""
        frames, face = self.store.frames, self.config.train_dynamics.face
        if self.window.config.at is not None:
            return weight
        step = self.config.world.autoencoder.downsampling
        for own, row in zip(weight[:, 0].numpy(), rows, strict=True):
            if face is not None:
                middle = frames.keypoints[row][face.keypoint]
                box = np.array((*middle, face.radius, face.radius))
                paint_box(own, box, face.weight, step=step)
            for region in frames.regions[row]:  # is painted over
                if region[2] > 0:
                    paint_box(own, region, 0.0, step=step)
        return weight


def fit_windows(lesson: Lesson, folder: Path) -> None:
    """Train each window, or go on training it; the model, whose scenery is finished, holds them.

    Nothing is trained without `train_dynamics.windows`. The folder receives one for each window
    that is seen in some frame, with state and logs; what was begun goes on.
    """
    model, windows = lesson.model, lesson.config.world.scenery.windows
    settings = lesson.config.train_dynamics.windows
    if settings is None:
        return
    sizes = [int(np.prod(window.size)) for window in windows.values()]
    is_training = model.training
    model.eval()
    for number, name in enumerate(windows):
        # What is small learns sooner.
        share = max(_LEAST_STEPS, sizes[number] / max(sizes))
        steps = max(1, round(share * settings.train_steps))
        _fit_window(lesson, number, replace(settings, train_steps=steps), folder / name)
    model.train(is_training)


def _fit_window(lesson: Lesson, number: int, settings: OptimizerConfig, folder: Path) -> None:
    """Train one window."""
    config, device = lesson.config, lesson.device
    rows, held = (
        WindowRows(lesson.model, number, store, config, device=device)
        for store in (lesson.store, lesson.held)
    )
    if not len(rows.seen):
        logger.warning("window %s is seen in no frame, and learns nothing", folder.name)
        return
    energy_weight = config.train_dynamics.energy_weight
    loss = WindowLoss(rows.window, lesson.coder, lesson.channel_weight, energy_weight=energy_weight)
    trainer = Trainer(loss, settings, folder, seed=config.seed, device=device, keeper=rows)
    trainer.resume()
    every = max(1, settings.train_steps // 10)

    def make_batch(generator: torch.Generator, _train_step: int) -> dict[str, Tensor]:
        drawn = rows.draw(generator, settings.batch_size)
        return {"rows": drawn, **rows.batch(drawn.numpy())}

    trainer.run(
        make_batch,
        save_every=min(every, config.train_dynamics.save_every),
        evaluate_every=every,
        evaluate=lambda: window_psnr(loss, held),
        after_step=lambda made: rows.learn(made["rows"], made["each"]),
    )
    loss.load_state_dict(trainer.average)


@torch.no_grad()
def window_psnr(loss: WindowLoss, rows: WindowRows) -> dict[str, float]:
    """Return the mean PSNR in dB of the cuts of held-out rows, where they count."""
    found = []
    for part in held_rows(rows.store):
        with mixed_precision(rows.device, enabled=True):
            cuts = loss.cuts(**rows.batch(part))
            shown = loss.shown(cuts).clamp(-1.0, 1.0)
        counts = (cuts.weight > 1.0) & (cuts.is_judged > 0.0)
        found.append(psnr_where(shown, cuts.frames, counts))
    values = torch.cat(found)
    return {"psnr": float(values.mean())} if len(values) else {}
