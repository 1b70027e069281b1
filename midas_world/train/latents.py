"""The latents of episodes, encoded once per encoder, with the columns that training wants.

Shapes: F rows (frames of all episodes), N tokens per frame, C latent channels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.autoencoder import Autoencoder, normalize_frames, to_tokens
from midas_world.checkpoint import load_tensors, save_tensors, tensors_hash
from midas_world.conditions import Conditions, hash_text
from midas_world.conditions_config import ConditionsConfig
from midas_world.episodes import Episode, load_episode
from midas_world.train.data import FrameStore, cache_key, open_frames
from midas_world.train.loop import mixed_precision


@dataclass(frozen=True)
class LatentStore:
    """The latents and columns of all episodes of a folder, one after another.

    Row t of an episode holds its frame t with that frame's conditions, and the reward and end of
    the step that led to it (0 and False for the first frame).

    Attributes:
        latents: (F, N, C) float16.
        conditions: Of every frame, as one sequence (1, F, ...).
        reward: (F,) float32.
        terminated: (F,) bool.
        starts: First row of each episode, and F at the end.
    """

    latents: Tensor
    conditions: Conditions
    reward: Tensor
    terminated: Tensor
    starts: np.ndarray

    def sequence_starts(self, length: int) -> np.ndarray:
        """Return every row from which ``length`` frames of one episode follow.

        Raises:
            ValueError: No episode is that long.
        """
        pieces = [
            np.arange(first, last - length + 1)
            for first, last in zip(self.starts[:-1], self.starts[1:], strict=True)
        ]
        rows = np.concatenate(pieces)
        if not len(rows):
            raise ValueError(f"no episode has {length} frames")
        return rows

    def gather(self, first_rows: Tensor, length: int) -> dict[str, Any]:
        """Return sequences of ``length`` frames as keyword arguments of `WorldModel.losses`."""
        rows = first_rows[:, None] + torch.arange(length)
        later = rows[:, 1:]
        conditions = Conditions(
            pose=self.conditions.pose[0, later],
            text=self.conditions.text[0, later],
            audio=self.conditions.audio[0, later],
            present=self.conditions.present[0, later],
        )
        return {
            "latents": self.latents[rows].float(),
            "conditions": conditions,
            "reward": self.reward[later],
            "terminated": self.terminated[later],
        }


def open_latents(
    folder: Path, autoencoder: Autoencoder, config: ConditionsConfig, *, device: torch.device
) -> LatentStore:
    """Encode the episodes of a folder that this very encoder has not encoded before."""
    frames = open_frames(folder)
    cache = folder / ".cache" / f"latents-{encoder_hash(autoencoder)}"
    parts = []
    bar = tqdm(frames.episodes, desc="encode", unit="episode", mininterval=5.0)
    for episode, pixels in zip(bar, frames.frames, strict=True):
        path = cache / f"{episode.name}-{cache_key(episode)}.safetensors"
        if not path.is_file():
            save_tensors({"latents": encode_frames(pixels, autoencoder, device=device)}, path)
        parts.append(load_tensors(path)["latents"])
    conditions, reward, terminated = _columns(frames, config)
    return LatentStore(torch.cat(parts), conditions, reward, terminated, frames.starts)


def encoder_hash(autoencoder: Autoencoder) -> str:
    """Return 16 hex digits that change with whatever has a say in the latents."""
    tensors = autoencoder.state_dict()
    if autoencoder.encoder is not None:
        # The decoder may go on learning: it has none.
        tensors = {n: tensor for n, tensor in tensors.items() if not n.startswith("decoder.")}
    return tensors_hash(tensors)


@torch.no_grad()
def encode_frames(pixels: np.ndarray, autoencoder: Autoencoder, *, device: torch.device) -> Tensor:
    """Return the standardised latent tokens of an episode's frames, (T + 1, N, C) float16."""
    parts = []
    size = 64 if device.type == "cuda" else 16
    for start in range(0, len(pixels), size):
        batch = torch.from_numpy(np.array(pixels[start : start + size]))
        with mixed_precision(device, enabled=True):
            latents = autoencoder.encode(normalize_frames(batch.to(device)))
        parts.append(to_tokens(latents).to(torch.float16).cpu())
    return torch.cat(parts)


def _columns(frames: FrameStore, config: ConditionsConfig) -> tuple[Conditions, Tensor, Tensor]:
    """Return conditions, rewards and ends of all frames, from the episodes' columns."""
    parts = [episode_columns(load_episode(path, frames=False), config) for path in frames.episodes]
    columns = {
        name: torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in parts[0]
    }
    conditions = Conditions(
        **{name: columns[name][None] for name in ("pose", "text", "audio", "present")}
    )
    return conditions, columns["reward"], columns["terminated"]


def episode_columns(episode: Episode, config: ConditionsConfig) -> dict[str, np.ndarray]:
    """Return pose, text, audio, present, reward and terminated of an episode's T + 1 rows."""
    count = episode.num_steps + 1
    pose = np.zeros((count, config.pose_size), np.float32)
    text = np.zeros((count, config.text_length), np.int64)
    audio = np.zeros((count, config.audio_size), np.float32)
    present = np.zeros((count, 3), bool)
    reward, terminated = np.zeros(count, np.float32), np.zeros(count, bool)
    if episode.pose is not None:
        pose[:], present[:, 0] = episode.pose, True
    if episode.text is not None:
        hashed = {words: hash_text(words, config) for words in set(episode.text)}
        text[:] = [hashed[words] for words in episode.text]
        present[:, 1] = True
    if episode.audio is not None:
        audio[:], present[:, 2] = episode.audio, True
    reward[1:] = episode.rewards
    terminated[1:] = episode.terminated
    return {
        "pose": pose,
        "text": text,
        "audio": audio,
        "present": present,
        "reward": reward,
        "terminated": terminated,
    }
