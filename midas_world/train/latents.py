"""The latents of episodes, encoded once per encoder, with the columns that training wants.

Shapes: F rows (frames of all episodes), c latent channels, h w fine grid, J entry codes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.checkpoint import tensors_hash
from midas_world.config import WorldConfig
from midas_world.data.episodes import Episode
from midas_world.model.autoencoder import Autoencoder, normalize_frames
from midas_world.model.conditions import Conditions, stack_conditions
from midas_world.train.data import FrameStore, kept_array, open_episodes
from midas_world.train.loop import mixed_precision
from midas_world.types import LONGEST_SINCE_HIT, StepConditions


@dataclass(frozen=True)
class LatentStore:
    """The latents and columns of all episodes of a folder, one after another.

    Row t of an episode holds its frame t with that frame's conditions, and the reward, cost and end
    of the step that led to it (0 and False for the first frame).

    Attributes:
        frames: Whose rows these are.
        latents: Of each episode, (T + 1, c, h, w) float16, memory-mapped.
        conditions: Of every frame, as one sequence (1, F, ...); entries and tally are those before
            its step, entries with what came into view.
        reward: (F,) float32.
        cost: (F,) float32.
        terminated: (F,) bool.
        gone: (F, J) bool: codes whose things are no more in the frame.
        coming: (F, 2) int64: the class in the strip that is uncovered next at the left and at the
            right; the number of classes if it is empty.
    """

    frames: FrameStore
    latents: tuple[np.ndarray, ...]
    conditions: Conditions
    reward: Tensor
    cost: Tensor
    terminated: Tensor
    gone: Tensor
    coming: Tensor

    @property
    def starts(self) -> np.ndarray:
        """First row of each episode, and F at the end."""
        return self.frames.starts

    def gather(self, rows: np.ndarray) -> Tensor:
        """Return the latents of rows (R,), (R, c, h, w) float32."""
        episode = np.searchsorted(self.starts, rows, side="right") - 1
        places = rows - self.starts[episode]
        parts = [self.latents[e][place] for e, place in zip(episode, places, strict=True)]
        return torch.from_numpy(np.stack(parts).astype(np.float32))


def open_latents(
    folder: Path, autoencoder: Autoencoder, config: WorldConfig, *, device: torch.device
) -> LatentStore:
    """Encode the episodes of a folder that this very encoder has not encoded before."""
    frames, joined = open_episodes(folder, lambda episode: episode_columns(episode, config))
    cache = folder / ".cache" / f"latents-{encoder_hash(autoencoder)}"
    cache.mkdir(parents=True, exist_ok=True)
    latents = []
    bar = tqdm(frames.names, desc="encode", unit="episode", mininterval=5.0)
    for name, pixels in zip(bar, frames.frames, strict=True):
        latents.append(
            kept_array(
                cache / name,
                lambda p=pixels: encode_frames(p, autoencoder, device=device).numpy(),
                shape=(len(pixels), None, None, None),
                dtype=np.float16,
            )
        )
    names = (item.name for item in fields(Conditions))
    return LatentStore(
        frames=frames,
        latents=tuple(latents),
        conditions=Conditions(**{name: torch.from_numpy(joined[name])[None] for name in names}),
        reward=torch.from_numpy(joined["reward"]),
        cost=torch.from_numpy(joined["cost"]),
        terminated=torch.from_numpy(joined["terminated"]),
        gone=torch.from_numpy(joined["gone"]),
        coming=torch.from_numpy(joined["coming"]),
    )


def encoder_hash(autoencoder: Autoencoder) -> str:
    """Return 16 hex digits that change with whatever has a say in the latents."""
    tensors = autoencoder.state_dict()
    # The decoder may go on learning: it has none.
    return tensors_hash({n: t for n, t in tensors.items() if not n.startswith("decoder.")})


@torch.no_grad()
def encode_frames(pixels: np.ndarray, autoencoder: Autoencoder, *, device: torch.device) -> Tensor:
    """Return the standardised latents of an episode's frames, (T + 1, c, h, w) float16."""
    parts = []
    size = 64 if device.type == "cuda" else 16
    for start in range(0, len(pixels), size):
        batch = torch.from_numpy(np.array(pixels[start : start + size])).to(device)
        inputs = normalize_frames(batch).contiguous(memory_format=torch.channels_last)
        with mixed_precision(device, enabled=True):
            latents = autoencoder.encode(inputs)
        parts.append(latents.to(torch.float16).cpu().contiguous())
    return torch.cat(parts)


def episode_columns(episode: Episode, config: WorldConfig) -> dict[str, np.ndarray]:
    """Return what `LatentStore` holds of an episode's T + 1 rows."""
    count = episode.num_steps + 1
    given = sequence_conditions(episode.conditions, config)
    columns = {name: tensor[0].numpy() for name, tensor in vars(given).items()}
    reward, cost = np.zeros(count, np.float32), np.zeros(count, np.float32)
    terminated = np.zeros(count, bool)
    reward[1:], terminated[1:] = episode.rewards, episode.terminated
    if "cost" in episode.extras:
        cost[:] = episode.extras["cost"]
    none = np.zeros((count, 0, 6), np.float32)
    things = np.asarray(episode.extras.get("things", none), np.float32)
    entries, gone = thing_codes(things, columns["pose"], config)
    return {
        **columns,
        "reward": reward,
        "cost": cost,
        "terminated": terminated,
        "entries": entries,
        "gone": gone,
        "tally": tallies(cost, config),
        "coming": coming_classes(things, columns["pose"], config),
    }


def sequence_conditions(steps: Sequence[StepConditions], config: WorldConfig) -> Conditions:
    """Return the conditions of F frames as one sequence, (1, F, ...)."""
    rows = stack_conditions(steps, config.conditions, capacity=config.entries.capacity)
    return rows.map(lambda tensor: tensor.transpose(0, 1))


def thing_codes(
    things: np.ndarray, pose: np.ndarray, config: WorldConfig, *, only_seen: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes that are told of each row of an episode, and which of them are gone in it.

    They are of the things that were there before the row's step, or came with it, in view of its
    camera: nearest first, as play tells them.

    Args:
        things: (T + 1, O, 6), as teachers tell them.
        pose: (T + 1, P).
        config: Of the world.
        only_seen: Tell nothing that was in no picture before the row's step.

    Returns:
        (T + 1, J, 2) float32 and (T + 1, J) bool.
    """
    count, capacity = len(things), config.entries.capacity
    codes = np.full((count, capacity, 2), -1.0, np.float32)
    gone = np.zeros((count, capacity), bool)
    if not config.entries.num_classes:
        return codes, gone
    camera, half = config.conditions.camera, config.width / 2
    cameras = pose[:, camera.index].astype(np.float64) * camera.loop
    before: dict[tuple[float, float], float] = {}
    seen: set[tuple[float, float]] = set()
    for row, listed in enumerate(things):
        now = {(t[0], t[5]): float(t[1]) - half for t in listed if t[0] >= 0}
        travel = camera.travel(cameras[row - 1], cameras[row]) if row else 0.0
        known = {name: place - travel for name, place in before.items()} | now
        reach = half + config.entries.outside
        told = sorted((abs(p), name, p) for name, p in known.items() if abs(p) <= reach)
        if only_seen:
            told = [code for code in told if code[1] in seen]
        for slot, (_, name, place) in enumerate(told[:capacity]):
            codes[row, slot] = name[0], place
            gone[row, slot] = name not in now
        before = now
        seen |= {name for name, place in now.items() if abs(place) < half}
    return codes, gone


def tallies(cost: np.ndarray, config: WorldConfig) -> np.ndarray:
    """Return share of lives and steps since the last hit before each row, (T + 1, 2) float32."""
    rows = np.arange(len(cost))
    before = np.concatenate(([False], cost[:-1] > 0))  # whether the row before was a hit
    last = np.maximum.accumulate(np.where(before, rows - 1, -LONGEST_SINCE_HIT))
    since = np.minimum(rows - last, LONGEST_SINCE_HIT)
    share = np.ones(len(cost))
    if config.lives:
        share = np.maximum(config.lives - np.cumsum(before), 0) / config.lives
    return np.stack((share, since), axis=1).astype(np.float32)


def coming_classes(things: np.ndarray, pose: np.ndarray, config: WorldConfig) -> np.ndarray:
    """Return `LatentStore.coming` of an episode, (T + 1, 2) int64."""
    entries, camera = config.entries, config.conditions.camera
    coming = np.full((len(things), 2), entries.num_classes, np.int64)
    if not entries.num_classes:
        return coming
    # A share in float32 is off by up to 1e-4 px, which must not decide at a strip's edge.
    places = np.round(pose[:, camera.index].astype(np.float64) * camera.loop, 2) + 1e-3
    reach = config.width / 2 + entries.outside
    for row, listed in enumerate(things):
        # Strips of the loop's own count; only differences matter.
        left = np.floor((places[row] - reach) / entries.strip) - 1
        right = np.floor((places[row] + reach) / entries.strip) + 1
        for thing in listed:
            if thing[0] < 0:
                continue
            strip = np.floor((places[row] + thing[1] - config.width / 2) / entries.strip)
            for side, wanted in enumerate((left, right)):
                if strip == wanted:
                    coming[row, side] = int(thing[0])
    return coming
