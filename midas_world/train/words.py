"""What words look like, learned before the dynamics: embeddings that tell coarse pictures apart.

On sequences a frame's look follows from the frame before, so the words' embeddings hardly learn; a
world whose words mean nothing then drifts to the average of all scenes. A small network that sees a
frame's words alone, and predicts its coarse latents, teaches them in a minute.

Shapes: F rows, L words of a text, c latent channels, E width of the embeddings.
"""

import logging

import numpy as np
import torch
from torch import Tensor, nn

from midas_world.model.layers import mlp
from midas_world.train.latents import LatentStore
from midas_world.train.loop import seeded_weights

logger = logging.getLogger(__name__)

_EVERY = 4
_BATCH = 256
_RATE = 1e-2
# Places of the coarse picture, at most.
_COARSE = (6, 10)


def fit_words(words: nn.EmbeddingBag, store: LatentStore, *, train_steps: int, seed: int) -> float:
    """Change the embeddings of words, and return the share of coarse pictures that they explain.

    Their scale becomes that of a unit normal, averaged over a text.

    Args:
        words: (buckets, E), averaged over a text; 0 fills up.
        store: Frames with their texts.
        train_steps: Updates, each of 256 frames.
        seed: Of the network and of the draws.
    """
    text = store.conditions.text[0]
    chosen, coarse = _coarse_latents(store)
    text, target = text[chosen], (coarse - coarse.mean(dim=0)) / coarse.std()
    with seeded_weights(seed):
        picture = mlp(words.embedding_dim, 256, target.shape[1])
    optimizer = torch.optim.Adam([*picture.parameters(), *words.parameters()], lr=_RATE)
    generator = torch.Generator().manual_seed(seed)
    explained = 0.0
    for step in range(train_steps):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1.0 - step / train_steps)
        rows = torch.randint(len(text), (_BATCH,), generator=generator)
        error = (picture(words(text[rows])) - target[rows]).square().mean()
        optimizer.zero_grad(set_to_none=True)
        error.backward()
        optimizer.step()
        now = 1.0 - float(error.detach() / target.var())
        explained += (now - explained) * max(0.02, 1.0 / (step + 1))
    with torch.no_grad():
        sample = words(text[:: max(1, len(text) // 4096)])
        words.weight -= sample.mean(dim=0) * (words.weight != 0).any(dim=1, keepdim=True)
        words.weight /= words(text[:: max(1, len(text) // 4096)]).square().mean().sqrt()
    logger.info("words explain %.2f of coarse pictures", explained)
    return explained


def _coarse_latents(store: LatentStore) -> tuple[np.ndarray, Tensor]:
    """Return every fourth row and its latents, averaged over blocks: (F / 4,) and (F / 4, n)."""
    rows = np.arange(0, store.frames.num_frames, _EVERY)
    parts = []
    for piece in np.array_split(rows, max(1, len(rows) // 64)):
        latents = store.gather(piece)
        height, width = latents.shape[2:]
        size = min(_COARSE[0], height), min(_COARSE[1], width)
        parts.append(nn.functional.adaptive_avg_pool2d(latents, size).flatten(1))
    return rows, torch.cat(parts)
