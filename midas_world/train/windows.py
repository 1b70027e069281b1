"""What the refiner learns from: windows of the world's own rollouts beside those of real frames.

Rollouts begin at real frames and follow the teacher's conditions, as training's own do, so that the
decoded frames have the faults that play's have. They are made once for each set of weights, part by
part, and kept; a run that was cut goes on with the next part.

Shapes: W windows, h w pixels of one, B rollouts side by side, F frames, N tokens per frame, C
latent channels.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.autoencoder import Autoencoder
from midas_world.checkpoint import load_tensors, save_tensors, tensors_hash
from midas_world.conditions import Conditions
from midas_world.config import ProjectConfig
from midas_world.episodes import list_episodes
from midas_world.refiner import Refiner
from midas_world.train.autoencoder import decode_tokens
from midas_world.train.data import FrameStore, cache_key, open_frames
from midas_world.train.latents import LatentStore, open_latents
from midas_world.train.loop import mixed_precision, step_generator
from midas_world.train.sources import shards_url
from midas_world.world_model import WorldModel

_CONDITIONS = ("pose", "text", "audio", "present")


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
    if shards_url(config, data) is not None:
        raise ValueError(
            "the refiner learns from the frames of episodes, which latents in shards do not have: "
            "train it on folders of episodes"
        )
    settings, root = config.train_refiner, Path(config.data.folder or data)
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
                    latents = open_latents(
                        root / split, coder, config.world.conditions, device=device
                    )
                    source = latents, open_frames(root / split)
                    source[1].check_size(config.world.height, config.world.width)
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
    source: tuple[LatentStore, FrameStore],
    coder: Autoencoder,
    model: WorldModel,
    refiner: Refiner,
    device: torch.device,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the windows of some rollouts side by side."""
    settings, (latents, frames) = config.train_refiner, source
    length = settings.rollout_frames
    starts = torch.from_numpy(latents.sequence_starts(length + 1))
    rows = starts[torch.randint(len(starts), (settings.rollout_games,), generator=generator)]
    batch = latents.gather(rows, length + 1)
    with mixed_precision(device, enabled=True):
        own = model.own_context(
            batch["latents"][:, 0].to(device), batch["conditions"].to(device), generator
        )
    places = (rows[:, None] + torch.arange(length)).flatten()
    decoded = decode_tokens(coder, own.flatten(0, 1), config.world.grid, device=device)
    every = latents.conditions
    given = {name: getattr(every, name)[0, places][:, None] for name in _CONDITIONS}
    conditions = Conditions(**given)
    shown = refiner.places(refiner.corners(refiner.keypoints(conditions)))
    real = torch.from_numpy(frames.gather(places.numpy()))
    is_posed = conditions.present[:, 0, 0]
    windows = {"decoded": decoded[shown], "real": real[shown], **given}
    return {name: tensor[is_posed].contiguous() for name, tensor in windows.items()}


def _join(parts: list[Mapping[str, Tensor]]) -> Windows:
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    conditions = Conditions(**{name: joined[name] for name in _CONDITIONS})
    return Windows(joined["decoded"], joined["real"], conditions)
