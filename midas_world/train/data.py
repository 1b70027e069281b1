"""What training reads: decoded frames and encoded latents of episodes, cached on disk.

Episodes are decoded once into a memory-mapped file of frames, and encoded once per autoencoder
into latents, so that a train step only gathers rows. Knows episodes, not environments.

Shapes: F frames, H W pixels, N tokens per frame, C latent channels, P pose size, A audio size.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.checkpoint import load_tensors, save_tensors
from midas_world.episodes import EpisodeError, list_episodes, load_episode

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameStore:
    """All frames of a folder of episodes, one after another.

    Attributes:
        frames: (F, H, W, 3) uint8, memory-mapped.
        keypoints: (F, K, 2) float32 px, or (F, 0, 2) where the teacher has none.
        starts: First frame of each episode, and F at the end.
        episodes: The episodes' folders.
    """

    frames: np.ndarray
    keypoints: np.ndarray
    starts: np.ndarray
    episodes: tuple[Path, ...]

    @property
    def num_frames(self) -> int:
        """F."""
        return len(self.frames)

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError if the frames have another size than a config wants."""
        if self.frames.shape[1:3] != (height, width):
            raise ValueError(
                f"the config wants frames of {height}x{width}, the episodes have "
                f"{self.frames.shape[1]}x{self.frames.shape[2]}"
            )


def folder_hash(episodes: Sequence[Path]) -> str:
    """Return 16 hex digits that change with the list of episodes or any of their headers."""
    digest = hashlib.sha256()
    for episode in episodes:
        digest.update(episode.name.encode())
        digest.update((episode / "header.json").read_bytes())
    return digest.hexdigest()[:16]


def open_frames(folder: Path) -> FrameStore:
    """Decode every episode of a folder, or reopen what was decoded before.

    Raises:
        ValueError: The folder holds no readable episode.
    """
    episodes = list_episodes(folder)
    if not episodes:
        raise ValueError(f"no episodes in {folder}; collect some first")
    cache = folder / ".cache" / f"frames-{folder_hash(episodes)}"
    if not (cache / "index.json").is_file():
        _decode(episodes, cache)
    index = json.loads((cache / "index.json").read_text())
    shape = tuple(index["shape"])
    frames = np.memmap(cache / "frames.u8", dtype=np.uint8, mode="r", shape=shape)
    keypoints = load_tensors(cache / "keypoints.safetensors")["keypoints"].numpy()
    kept = tuple(folder / name for name in index["episodes"])
    return FrameStore(frames, keypoints, np.asarray(index["starts"]), kept)


def _decode(episodes: Sequence[Path], cache: Path) -> None:
    """Write the decoded frames; the index comes last and makes them valid."""
    cache.mkdir(parents=True, exist_ok=True)
    starts, names, keypoints, frame_shape = [0], [], [], (0, 0, 3)
    with (cache / "frames.u8").open("wb") as file:
        for path in tqdm(episodes, desc="decode", unit="episode", mininterval=5.0):
            try:
                episode = load_episode(path)
            except EpisodeError as error:
                logger.warning("skipped: %s", error)
                continue
            file.write(np.ascontiguousarray(episode.frames).tobytes())
            count, frame_shape = len(episode.frames), episode.frames.shape[1:]
            empty = np.zeros((count, 0, 2), np.float32)
            keypoints.append(episode.extras.get("keypoints", empty).astype(np.float32))
            starts.append(starts[-1] + count)
            names.append(path.name)
    if not names:
        raise ValueError(f"none of the {len(episodes)} episodes in {cache.parents[1]} is readable")
    rows = np.concatenate(keypoints)
    save_tensors({"keypoints": torch.from_numpy(rows)}, cache / "keypoints.safetensors")
    index = {"shape": [starts[-1], *frame_shape], "starts": starts, "episodes": names}
    (cache / ".tmp-index.json").write_text(json.dumps(index))
    (cache / ".tmp-index.json").replace(cache / "index.json")


def character_weight(keypoints: Tensor, height: int, width: int, *, radius: float = 9.0) -> Tensor:
    """Return 1 near the character's keypoints and 0 far away, (B, K, 2) px -> (B, 1, H, W).

    A smooth mask from the distance to the nearest keypoint or midpoint of neighbouring ones,
    computed at a quarter of the resolution.
    """
    batch, count, _ = keypoints.shape
    if not count:
        return keypoints.new_zeros(batch, 1, height, width)
    step = 4
    rows = torch.arange(height // step, device=keypoints.device) * step + step / 2
    columns = torch.arange(width // step, device=keypoints.device) * step + step / 2
    points = torch.cat((keypoints, keypoints[:, :1] + 0.5 * (keypoints - keypoints[:, :1])), dim=1)
    if count == 15:  # the human's limbs: elbow-wrist, shoulder-elbow, hip-knee, knee-ankle middles
        pairs = torch.tensor(
            [[3, 5], [4, 6], [5, 7], [6, 8], [9, 11], [10, 12], [11, 13], [12, 14], [1, 2]]
        )
        points = torch.cat((keypoints, keypoints[:, pairs.to(keypoints.device)].mean(dim=2)), dim=1)
    dy = rows[None, None, :, None] - points[:, :, 1, None, None]
    dx = columns[None, None, None, :] - points[:, :, 0, None, None]
    nearest = (dx.square() + dy.square()).amin(dim=1, keepdim=True)
    mask = torch.exp(-nearest / (2 * radius**2))
    return torch.nn.functional.interpolate(mask, size=(height, width), mode="bilinear")
