"""How often things enter: the prior's rates, held to those of the teacher's walks.

Sequences begin more often where something happens (pool.py), which bends what the prior takes for
usual. So its biases are set at last to where, over walks that nobody chose, it expects as many of
each class as came (prior correction, King and Zeng 2001).

Shapes: R rows, F frames that the backbone sees, K classes.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.model.world_model import WorldModel
from midas_world.train.latents import LatentStore

_ROWS, _BATCH, _ROUNDS = 1500, 12, 3


@torch.no_grad()
def calibrate_prior(model: WorldModel, store: LatentStore, *, generator: torch.Generator) -> None:
    """Change the prior's last biases to the rates of random rows, by the way that was walked.

    Args:
        model: In evaluation mode; its prior is changed.
        store: Episodes of the teacher.
        generator: Chooses the rows.
    """
    frames, camera = model.config.backbone.context_frames, model.config.conditions.camera
    first = store.starts[np.searchsorted(store.starts, np.arange(store.starts[-1]), "right") - 1]
    rows = np.flatnonzero(np.arange(store.starts[-1]) - first >= frames)
    chosen = torch.randperm(len(rows), generator=generator)[:_ROWS].numpy()
    rows = np.sort(rows[chosen])
    share = store.conditions.pose[0, :, camera.index].numpy()
    way = ((share[rows] - share[rows - 1] + 0.5) % 1.0 - 0.5) * camera.loop
    side, weight = torch.from_numpy((way > 0).astype(np.int64)), torch.from_numpy(np.abs(way))
    if not weight.any():
        return
    logits = torch.cat(
        [_logits(model, store, part) for part in np.array_split(rows, -(-len(rows) // _BATCH))]
    )
    index = torch.arange(len(rows))
    logits, came = logits[index, side], store.coming[torch.from_numpy(rows)][index, side]
    weight = (weight / weight.sum()).float()[:, None]
    is_it = functional.one_hot(came, logits.shape[1]).float()
    # A class that never came keeps a little.
    true = (is_it * weight).sum(dim=0).clamp_min(1e-4)
    last = model.prior.trunk[-1]
    assert isinstance(last, nn.Linear)
    for _ in range(_ROUNDS):
        found = (logits.softmax(dim=1) * weight).sum(dim=0)
        change = (true / found).log()
        logits = logits + change
        last.bias.add_(change.to(last.bias))


def _logits(model: WorldModel, store: LatentStore, rows: np.ndarray) -> Tensor:
    """Return the prior's logits of rows (R,), (R, 2, K + 1)."""
    frames, device = model.config.backbone.context_frames, model.change_std.device
    window = rows[:, None] - np.arange(frames)[::-1]
    conditions = store.conditions.map(lambda tensor: tensor[0, torch.from_numpy(window)])
    tokens = model.to_tokens(store.gather((window - 1).ravel()))
    context = tokens.unflatten(0, window.shape).to(device)
    level = torch.zeros(window.shape, device=device)
    return model.prior(model.hidden(context, level, conditions.to(device))[:, -1]).float().cpu()
