"""What the refiner learns from: windows of the world's own rollouts beside those of real frames.

Rollouts begin after real frames and follow the teacher's conditions, so that the decoded frames
have the faults that play's have. They are made once for each set of weights, part by part, and
kept; a run that was cut goes on with the next part.

Shapes: W windows, h w pixels of one, B rollouts side by side.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.checkpoint import load_tensors, save_tensors, tensors_hash
from midas_world.config import ProjectConfig
from midas_world.data.episodes import list_episodes
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.conditions import POSE, Conditions
from midas_world.model.diffusion import sample_noise
from midas_world.model.refiner import Refiner
from midas_world.model.world_model import WorldModel
from midas_world.train.autoencoder import decode_latents
from midas_world.train.data import cache_key
from midas_world.train.latents import LatentStore, open_latents
from midas_world.train.loop import mixed_precision, step_generator
from midas_world.train.sources import episodes_folder

_CONDITIONS = ("pose", "text", "audio", "present", "entries")


@dataclass(frozen=True)
class Windows:
    """Windows around characters.

    Attributes:
        decoded: (W, h, w, 3) uint8, of the world's rollouts.
        real: (W, h, w, 3) uint8, of the same places in the teacher's frames.
        conditions: (W, 1, ...) of these frames.
    """

    decoded: Tensor
    real: Tensor
    conditions: Conditions

    def __len__(self) -> int:
        """Return W."""
        return len(self.decoded)


def open_windows(
    config: ProjectConfig,
    data: Path,
    folder: Path,
    *,
    coder: Autoencoder,
    model: WorldModel,
    refiner: Refiner,
    device: torch.device,
) -> tuple[Windows, Windows]:
    """Return the windows of training and of held-out episodes, making those that are missing.

    Args:
        config: Of the project.
        data: As in `train_dynamics`; folders of episodes.
        folder: Receives a folder of windows.
        coder: Of the first stage.
        model: Of the second stage, in evaluation mode.
        refiner: Says where windows lie.
        device: Where rollouts are made.

    Raises:
        ValueError: The data are shards, or all episodes are shorter than a rollout.
    """
    settings, root = config.train_refiner, episodes_folder(config, data)
    made_of = tensors_hash(
        {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        | {f"coder.{name}": tensor for name, tensor in coder.state_dict().items()}
    )
    sizes = refiner.config.window, refiner.config.lift
    sizes = *sizes, settings.rollout_games, settings.rollout_frames, config.seed
    both = []
    for split, count in (
        ("train", settings.num_rollouts),
        ("validation", settings.num_validation_rollouts),
    ):
        parts, source = [], None
        where = folder / f"windows-{_hash(made_of, sizes, _names(root / split))}"
        for part in tqdm(range(count), desc=f"windows, {split}", mininterval=5.0):
            path = where / f"{split}-{part:04d}.safetensors"
            if not path.is_file():
                if source is None:
                    source = open_latents(root / split, coder, config.world, device=device)
                generator = step_generator(config.seed, part)
                made = _make_part(config, source, coder, model, refiner, device, generator)
                path.parent.mkdir(parents=True, exist_ok=True)
                save_tensors(made, path)
            parts.append(load_tensors(path))
        both.append(_join(parts))
    return both[0], both[1]


def _names(folder: Path) -> list[str]:
    """Return what changes with any episode of a folder."""
    return [f"{path.name}-{cache_key(path)}" for path in list_episodes(folder)]


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@torch.no_grad()
def _make_part(
    config: ProjectConfig,
    store: LatentStore,
    coder: Autoencoder,
    model: WorldModel,
    refiner: Refiner,
    device: torch.device,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the windows of some rollouts side by side."""
    settings, context = config.train_refiner, config.world.backbone.context_frames
    length = context + settings.rollout_frames
    starts = _starts(store.starts, length)
    first = starts[torch.randint(len(starts), (settings.rollout_games,), generator=generator)]
    parts = []
    made = _rollouts(model, store, first.numpy(), length, device, generator)
    for step, latents in enumerate(made, start=context):
        rows = first + step
        conditions = store.conditions.map(lambda tensor, rows=rows: tensor[0, rows][:, None])
        shown = refiner.places(refiner.corners(refiner.keypoints(conditions)))
        decoded = decode_latents(coder, latents, device=device)
        real = torch.from_numpy(store.frames.gather(rows.numpy()))
        windows = {"decoded": decoded[shown], "real": real[shown], **vars(conditions)}
        is_posed = conditions.present[:, 0, POSE]
        parts.append({name: tensor[is_posed] for name, tensor in windows.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _starts(starts: np.ndarray, length: int) -> Tensor:
    """Return the rows from which there are so many frames of one episode."""
    rows = [torch.arange(int(a), int(b) - length + 1) for a, b in pairwise(starts)]
    found = torch.cat(rows)
    if not len(found):
        raise ValueError(f"no episode has {length} frames, as many as a rollout with its context")
    return found


def _rollouts(
    model: WorldModel,
    store: LatentStore,
    first: np.ndarray,
    length: int,
    device: torch.device,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """Yield the latents (B, c, h, w) of each frame made, after as many real ones as the context."""
    settings, context = model.config.head, model.config.backbone.context_frames
    cache = model.new_cache(len(first), dtype=torch.float32, device=device)
    tokens = model.to_tokens(store.gather(first).to(device))
    shape = (len(first), *store.latents[0].shape[1:])
    for step in range(1, length):
        rows = first + step
        given = store.conditions.map(lambda t, rows=rows: t[0, torch.from_numpy(rows)][:, None])
        with mixed_precision(device, enabled=True):
            guidance = model.step_guidance(tokens, given.to(device), cache)
            cache.commit()
            if step < context:
                tokens = model.to_tokens(store.gather(rows).to(device))
                continue
            noise = sample_noise(shape, settings, generator).to(device)
            steps = settings.num_denoise_steps
            made = model.sample(guidance, noise, num_denoise_steps=steps).float()
        tokens = model.to_tokens(made)
        yield made


def _join(parts: list[Mapping[str, Tensor]]) -> Windows:
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    conditions = Conditions(**{name: joined[name] for name in _CONDITIONS})
    return Windows(joined["decoded"], joined["real"], conditions)
