"""Training frames out of shards: read in order, decoded in worker processes, shuffled.

One pass reads every shard once, in an order of its own; the shards of a pass are dealt out among
all workers of all processes, so that no two read the same one. What a worker draws depends on the
seed, its place among the workers and the shards alone, which lets a run that was killed go on with
the very batch it would have had: `first_batch` passes over what was seen without decoding it (but
must read it). That promise needs the same numbers of processes and workers as before.

Shapes: T steps of an episode, K keypoints, O things.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from midas_world.data.episodes import load_episode
from midas_world.data.shard_index import ShardError, ShardFolder, open_shards
from midas_world.data.shards import Losses, Sample, read_samples
from midas_world.train.data import frame_columns

_MOST_EMPTY_PASSES = 3


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How frames are drawn from shards.

    Attributes:
        batch_size: Frames of a batch.
        seed: Of every choice.
        num_workers: Processes that decode for each training process; 0: it does so itself.
        shuffle_frames: Frames that each worker holds and draws from.
        frames_per_episode: Drawn from an episode in a pass; 0: all.
        passes: Passes over the shards; None: without end.
    """

    batch_size: int = 1
    seed: int = 0
    num_workers: int = 0
    shuffle_frames: int = 1024
    frames_per_episode: int = 0
    passes: int | None = None

    @property
    def workers(self) -> int:
        """Processes or none: how many draw frames."""
        return max(1, self.num_workers)


class FrameStream(IterableDataset[dict[str, Tensor]]):
    """Single frames with what `decode_sample` tells of them.

    Args:
        folder: Of the shards.
        options: How they are drawn.
        rank: Which of the training processes this is.
        num_ranks: How many there are.
        first_batch: How many batches each training process has had already.

    Raises:
        ShardError: There are fewer shards than workers of all processes.
    """

    def __init__(
        self,
        folder: ShardFolder,
        options: StreamOptions,
        *,
        rank: int = 0,
        num_ranks: int = 1,
        first_batch: int = 0,
    ) -> None:
        slots = num_ranks * options.workers
        if len(folder.shards) < slots:
            raise ShardError(
                f"{folder.url} has {len(folder.shards)} shards, fewer than the {slots} workers of "
                f"{num_ranks} processes; use fewer (data.num_workers), or pack smaller shards"
            )
        self.folder = folder
        self.options = options
        self._rank, self._num_ranks = rank, num_ranks
        self._first_batch = first_batch
        # Shared memory: workers count for the process that trains.
        self._lost = torch.zeros(options.workers, dtype=torch.int64).share_memory_()

    @property
    def num_lost(self) -> int:
        """Episodes that this process' workers could not read so far, each counted once."""
        return int(self._lost.sum())

    def shards_of(self, epoch: int, worker: int) -> list[int]:
        """Return the places of the shards that a worker of this process reads in a pass."""
        order = np.random.default_rng((self.options.seed, epoch)).permutation(
            len(self.folder.shards)
        )
        slot = self._rank * self.options.workers + worker
        return order[slot :: self._num_ranks * self.options.workers].tolist()

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield this worker's frames."""
        info = get_worker_info()
        number, workers = (info.id, info.num_workers) if info else (0, 1)
        assert workers == self.options.workers
        # The loader takes batches from its workers in turn, beginning with the first; this one
        # plays the worker whose turn it would have been.
        worker = (self._first_batch + number) % workers
        batches = max(0, math.ceil((self._first_batch - worker) / workers))
        return self._frames(worker, skip=batches * self.options.batch_size)

    def _frames(self, worker: int, *, skip: int) -> Iterator[dict[str, Tensor]]:
        options = self.options
        # The last number sets it apart from what orders the shards: seeds are padded with zeros.
        rng = np.random.default_rng((options.seed, self._rank, worker, 1))
        held: list[Any] = []  # frames; while passing over, (sample, place) of frames to be
        for sample in self._samples(worker):
            wanted = min(options.frames_per_episode or sample.num_frames, sample.num_frames)
            columns = None if skip else decode_sample(sample)
            for place in rng.choice(sample.num_frames, wanted, replace=False).tolist():
                entry = (sample, place) if columns is None else _frame(columns, place)
                if len(held) < max(1, options.shuffle_frames):
                    held.append(entry)
                    continue
                chosen = int(rng.integers(len(held)))
                entry, held[chosen] = held[chosen], entry
                if not skip:
                    yield entry
                    continue
                skip -= 1
                if not skip:
                    held = _decoded(held)
                    columns = decode_sample(sample)
        held = [held[place] for place in rng.permutation(len(held))][skip:]
        yield from _decoded(held)

    def _samples(self, worker: int) -> Iterator[Sample]:
        """Yield the episodes of pass after pass."""
        losses = Losses()
        empty = 0
        for epoch in count() if self.options.passes is None else range(self.options.passes):
            empty += 1
            for place in self.shards_of(epoch, worker):
                for sample in read_samples(self.folder.url, self.folder.shards[place], losses):
                    self._lost[worker] = losses.num_episodes
                    empty = 0
                    yield sample
                self._lost[worker] = losses.num_episodes
            if empty == _MOST_EMPTY_PASSES:
                raise ShardError(
                    f"{self.folder.url}: no readable episode in {empty} passes over a worker's "
                    "shards"
                )


def _frame(columns: Mapping[str, np.ndarray], place: int) -> dict[str, Tensor]:
    """Return copies of a row, so that the episode need not be held for it."""
    return {name: torch.from_numpy(column[place].copy()) for name, column in columns.items()}


def _decoded(entries: Sequence[Any]) -> list[dict[str, Tensor]]:
    """Return entries as frames, decoding each episode once."""
    frames: list[Any] = list(entries)
    by_sample: dict[int, list[int]] = {}
    for index, entry in enumerate(entries):
        if isinstance(entry, tuple):
            by_sample.setdefault(id(entry[0]), []).append(index)
    for indices in by_sample.values():
        columns = decode_sample(entries[indices[0]][0])
        for index in indices:
            frames[index] = _frame(columns, entries[index][1])
    return frames


def decode_sample(sample: Sample) -> dict[str, np.ndarray]:
    """Return the T + 1 rows of an episode.

    "frames" (T + 1, H, W, 3) uint8; "keypoints" (T + 1, K, 2), "things" (T + 1, O, 6) and "regions"
    as `FrameStore` has them.
    """
    episode = load_episode(Path(sample.name), sample.files)
    return {"frames": episode.frames, **frame_columns(episode)}


def make_loader(stream: FrameStream) -> DataLoader[dict[str, Tensor]]:
    """Return the loader of a stream's batches, with as many workers as its options say."""
    return DataLoader(
        stream,
        batch_size=stream.options.batch_size,
        num_workers=stream.options.num_workers,
        generator=torch.Generator().manual_seed(stream.options.seed),
    )


def first_frames(url: str, num_frames: int, *, per_episode: int, seed: int) -> Tensor:
    """Return frames spread over a folder's first episodes in the order of a seed, (B, H, W, 3).

    The same for every process. B is ``num_frames``, or as many as one pass gives.
    """
    options = StreamOptions(seed=seed, shuffle_frames=1, frames_per_episode=per_episode, passes=1)
    stream = FrameStream(open_shards(url), options)
    frames = [row["frames"] for row, _ in zip(stream, range(num_frames), strict=False)]
    if not frames:
        raise ShardError(f"{url}: no readable episode")
    return torch.stack(frames)
