"""Where the autoencoder's stage gets its batches from: episodes in memory-mapped files, or shards.

Episodes in a folder can be reached at any row, so each train step draws its rows from its own
generator. A stream of shards gives what comes next: the order is its own (stream.py).

Shapes: B batch, O things.
"""

import math
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from midas_world.config import ProjectConfig
from midas_world.data.shard_index import has_shards, join, open_shards
from midas_world.train.data import open_frames
from midas_world.train.processes import Processes
from midas_world.train.stream import FrameStream, StreamOptions, first_frames, make_loader

_SAMPLE_PER_EPISODE = 8


class FrameSource(Protocol):
    """Gives the autoencoder's stage its frames."""

    def start(self, processes: Processes, first_batch: int) -> None:
        """Get ready for the batches from one on."""
        ...

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return frames (B, H, W, 3) uint8, their keypoints (B, K, 2) and things (B, O, 6)."""
        ...

    def sample(self, count: int) -> Tensor:
        """Return frames spread over the training data, always the same: (B, H, W, 3) uint8."""
        ...

    def held(self, count: int) -> Tensor:
        """Return held-out frames, always the same: (B, H, W, 3) uint8."""
        ...


def shards_url(config: ProjectConfig, data: Path) -> str | None:
    """Return where the shards lie that a run reads; None if it reads folders of episodes.

    Raises:
        ShardError: ``data.folder`` is a URL without shards.
    """
    url = config.data.folder or str(data)
    if has_shards(join(url, "train")):
        return url
    if "://" in url:
        open_shards(join(url, "train"))  # says what is missing
    return None


def episodes_folder(config: ProjectConfig, data: Path) -> Path:
    """Return the folder of episodes that a stage reads which walks through whole episodes.

    Raises:
        ValueError: There are shards instead.
    """
    url = shards_url(config, data)
    if url is not None:
        raise ValueError(
            f"{url} holds shards, which serve the autoencoder's stage alone; the others walk "
            f"through episodes in folders: midas-world shards unpack {url} FOLDER"
        )
    return Path(config.data.folder or data)


def open_frame_source(config: ProjectConfig, data: Path) -> FrameSource:
    """Return the source of the autoencoder's stage; see `train_autoencoder`."""
    url = shards_url(config, data)
    if url is not None:
        return StreamedFrames(config, url)
    return StoredFrames(config, Path(config.data.folder or data))


class StoredFrames:
    """Frames of two folders of episodes."""

    def __init__(self, config: ProjectConfig, data: Path) -> None:
        self._seed = config.seed
        self._train, self._held = open_frames(data / "train"), open_frames(data / "validation")
        self._train.check_size(config.world.height, config.world.width)

    def start(self, processes: Processes, first_batch: int) -> None:
        """Need nothing: every train step draws by itself."""

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return frames drawn from all."""
        rows = torch.randint(self._train.num_frames, (size,), generator=generator).numpy()
        columns = self._train.gather(rows), self._train.keypoints[rows], self._train.things[rows]
        frames, keypoints, things = (torch.from_numpy(column) for column in columns)
        return frames, keypoints, things

    def sample(self, count: int) -> Tensor:
        """Return frames at equal distances."""
        total = self._train.num_frames
        rows = np.linspace(0, total - 1, min(count, total)).astype(int)
        return torch.from_numpy(self._train.gather(rows))

    def held(self, count: int) -> Tensor:
        """Return held-out frames drawn once."""
        rng, total = np.random.default_rng(self._seed), self._held.num_frames
        chosen = np.sort(rng.choice(total, min(count, total), replace=False))
        return torch.from_numpy(self._held.gather(chosen))


class StreamedFrames:
    """Frames of shards."""

    def __init__(self, config: ProjectConfig, url: str) -> None:
        self._config, self._url = config, url
        self._folder = open_shards(join(url, "train"))
        self._folder.check_size(config.world.height, config.world.width)
        self._sample: Tensor | None = None

    def start(self, processes: Processes, first_batch: int) -> None:
        """Open the stream where the run was left."""
        data = self._config.data
        options = StreamOptions(
            batch_size=self._config.train_autoencoder.optimizer.batch_size,
            seed=self._config.seed,
            num_workers=data.num_workers,
            shuffle_frames=data.shuffle_frames,
            frames_per_episode=data.frames_per_episode,
        )
        stream = FrameStream(
            self._folder,
            options,
            rank=processes.rank,
            num_ranks=processes.count,
            first_batch=first_batch,
        )
        self._batches = iter(make_loader(stream))

    def batch(
        self,
        size: int,  # noqa: ARG002
        generator: torch.Generator,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the frames that come next."""
        rows = next(self._batches)
        return rows["frames"], rows["keypoints"], rows["things"]

    def sample(self, count: int) -> Tensor:
        """Return some frames of each of the first episodes; they stay in memory."""
        if self._sample is None:
            self._sample = self._first("train", count)
        return self._sample[:count]

    def held(self, count: int) -> Tensor:
        """Return some frames of each of the first held-out episodes."""
        return self._first("validation", count)

    def _first(self, split: str, count: int) -> Tensor:
        url = join(self._url, split)
        enough = math.ceil(count / open_shards(url).num_episodes)
        return first_frames(
            url, count, per_episode=max(_SAMPLE_PER_EPISODE, enough), seed=self._config.seed
        )
