"""How often things enter: the prior's rates, held to those of the teacher's walks.

Sequences begin more often where something happens (pool.py), which bends what the prior takes for
usual. So its biases are set at last to where, over walks that nobody chose, it expects as many of
each class as came (prior correction, King and Zeng 2001).

Shapes: R rows, F frames that the backbone sees, K classes.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.config import WorldConfig
from midas_world.model.world_model import WorldModel
from midas_world.train.latents import LatentStore

_ROWS, _BATCH, _ROUNDS = 1500, 12, 3


@torch.no_grad()
def calibrate_prior(model: WorldModel, store: LatentStore, *, generator: torch.Generator) -> None:
    """Change the prior's last biases to the teacher's rates, by the way that was walked anew.

    Where the camera had been before, things may have been taken, and play draws nothing: those rows
    do not count.

    Args:
        model: In evaluation mode; its prior is changed.
        store: Episodes of the teacher.
        generator: Chooses the rows of which the prior is asked.
    """
    frames, num_rows = model.config.backbone.context_frames, store.frames.num_frames
    travel = new_travel(store, model.config)
    side, weight = torch.from_numpy((travel > 0).astype(np.int64)), torch.from_numpy(np.abs(travel))
    first = store.starts[np.searchsorted(store.starts, np.arange(num_rows), "right") - 1]
    rows = np.flatnonzero((travel != 0) & (np.arange(num_rows) - first >= frames))
    if not len(rows):
        return
    coming = store.coming[torch.arange(num_rows), side]
    # Of all rows: a thing comes once in a hundred.
    true = torch.bincount(coming, weight, model.config.entries.num_classes + 1)
    # A class that never came keeps a little.
    true = (true / true.sum()).clamp_min(1e-4)
    chosen = torch.randperm(len(rows), generator=generator)[:_ROWS].numpy()
    rows = np.sort(rows[chosen])
    logits = torch.cat(
        [_logits(model, store, part) for part in np.array_split(rows, -(-len(rows) // _BATCH))]
    )
    index = torch.from_numpy(rows)
    logits, weight = logits[torch.arange(len(rows)), side[index]], weight[index]
    weight = (weight / weight.sum())[:, None]
    last = model.prior.trunk[-1]
    assert isinstance(last, nn.Linear)
    for _ in range(_ROUNDS):
        found = (logits.softmax(dim=1) * weight).sum(dim=0)
        change = (true / found).log()
        logits = logits + change
        last.bias.add_(change.to(last.bias))


def new_travel(store: LatentStore, config: WorldConfig) -> np.ndarray:
    """Return how far each row's camera goes beyond all earlier ones of its episode, px, (F,).

    It is negative to the left, and 0 where the camera had been before.
    """
    camera = config.conditions.camera
    places = store.conditions.pose[0, :, camera.index].double().numpy() * camera.loop
    travel = np.zeros(len(places))
    for start, end in pairwise(store.starts):
        steps = camera.travel(places[start : end - 1], places[start + 1 : end])
        way = np.concatenate(([0.0], np.cumsum(steps)))
        travel[start + 1 : end] = np.diff(np.maximum.accumulate(way))
        travel[start + 1 : end] += np.diff(np.minimum.accumulate(way))
    return travel


def _logits(model: WorldModel, store: LatentStore, rows: np.ndarray) -> Tensor:
    """Return the prior's logits of rows (R,), (R, 2, K + 1)."""
    frames, device = model.config.backbone.context_frames, model.change_std.device
    window = rows[:, None] - np.arange(frames)[::-1]
    conditions = store.conditions.map(lambda tensor: tensor[0, torch.from_numpy(window)])
    conditions = conditions.to(device)
    tokens = model.to_tokens(store.gather((window - 1).ravel()))
    context = tokens.unflatten(0, window.shape).to(device)
    level = torch.zeros(window.shape, device=device)
    hidden = model.hidden(context, level, conditions)[:, -1]
    return model.prior(hidden, conditions.entries[:, -1]).float().cpu()
