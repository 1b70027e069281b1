"""Training windows out of shards: read in order, decoded in worker processes, shuffled.

One pass reads every shard once, in an order of its own; the shards of a pass are dealt out among
all workers of all processes, so that no two read the same one. What a worker draws depends on the
seed, its place among the workers and the shards alone, which lets a run that was killed go on with
the very batch it would have had: `first_batch` passes over what was seen without decoding it (but
must read it). That promise needs the same numbers of processes and workers as before.

Shapes: T steps of an episode, L frames of a window, N tokens per frame, C latent channels.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from midas_world.conditions import Conditions
from midas_world.conditions_config import ConditionsConfig
from midas_world.episodes import STEPS, Episode, EpisodeMetadata, load_episode
from midas_world.shards import (
    Losses,
    Sample,
    ShardError,
    ShardFolder,
    open_shards,
    read_samples,
)
from midas_world.train.latents import episode_columns

LATENTS = "latents.safetensors"
_MOST_EMPTY_PASSES = 3


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How windows are drawn from shards.

    Attributes:
        length: L, frames of a window.
        batch_size: Windows of a batch.
        seed: Of every choice.
        num_workers: Processes that decode for each training process; 0: it does so itself.
        shuffle_windows: Windows that each worker holds and draws from.
        windows_per_episode: Drawn from an episode in a pass; 0: as many as it is long enough for.
        passes: Passes over the shards; None: without end.
    """

    length: int
    batch_size: int = 1
    seed: int = 0
    num_workers: int = 0
    shuffle_windows: int = 1024
    windows_per_episode: int = 0
    passes: int | None = None

    @property
    def workers(self) -> int:
        """Processes or none: how many draw windows."""
        return max(1, self.num_workers)


class WindowStream(IterableDataset[dict[str, Tensor]]):
    """Windows of L frames of one episode each, with their columns; see `EpisodeRows.window`.

    Args:
        folder: Of frames or latents.
        options: How they are drawn.
        conditions: Sizes of the conditions.
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
        conditions: ConditionsConfig,
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
        self._conditions = conditions
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
        """Yield this worker's windows."""
        info = get_worker_info()
        number, workers = (info.id, info.num_workers) if info else (0, 1)
        assert workers == self.options.workers
        # The loader takes batches from its workers in turn, beginning with the first; this one
        # plays the worker whose turn it would have been.
        worker = (self._first_batch + number) % workers
        batches = max(0, math.ceil((self._first_batch - worker) / workers))
        return self._windows(worker, skip=batches * self.options.batch_size)

    def _windows(self, worker: int, *, skip: int) -> Iterator[dict[str, Tensor]]:
        options = self.options
        # The last number sets it apart from what orders the shards: seeds are padded with zeros.
        rng = np.random.default_rng((options.seed, self._rank, worker, 1))
        held: list[Any] = []  # windows; while passing over, (sample, start) of windows to be
        for sample in self._samples(worker):
            starts = self._starts(sample.num_frames, rng)
            rows = None if skip else self._decode(sample)
            for start in starts:
                entry = (sample, start) if rows is None else rows.window(start, options.length)
                if len(held) < max(1, options.shuffle_windows):
                    held.append(entry)
                    continue
                place = int(rng.integers(len(held)))
                entry, held[place] = held[place], entry
                if not skip:
                    yield entry
                    continue
                skip -= 1
                if not skip:
                    held = self._decoded(held)
                    rows = self._decode(sample)
        held = [held[place] for place in rng.permutation(len(held))][skip:]
        yield from self._decoded(held)

    def _samples(self, worker: int) -> Iterator[Sample]:
        """Yield the episodes of pass after pass that are long enough for a window."""
        losses = Losses()
        empty = 0
        for epoch in count() if self.options.passes is None else range(self.options.passes):
            empty += 1
            for place in self.shards_of(epoch, worker):
                for sample in read_samples(self.folder.url, self.folder.shards[place], losses):
                    self._lost[worker] = losses.num_episodes
                    if sample.num_frames >= self.options.length:
                        empty = 0
                        yield sample
                self._lost[worker] = losses.num_episodes
            if empty == _MOST_EMPTY_PASSES:
                raise ShardError(
                    f"{self.folder.url}: no readable episode of at least {self.options.length} "
                    f"frames in {empty} passes over a worker's shards"
                )

    def _starts(self, num_frames: int, rng: np.random.Generator) -> list[int]:
        length = self.options.length
        available = num_frames - length + 1
        wanted = self.options.windows_per_episode or num_frames // length
        return rng.choice(available, min(wanted, available), replace=False).tolist()

    def _decode(self, sample: Sample) -> "EpisodeRows":
        return decode_sample(sample, self._conditions)

    def _decoded(self, entries: Sequence[Any]) -> list[dict[str, Tensor]]:
        """Return entries as windows, decoding each episode once."""
        windows: list[Any] = list(entries)
        by_sample: dict[int, list[int]] = {}
        for place, entry in enumerate(entries):
            if isinstance(entry, tuple):
                by_sample.setdefault(id(entry[0]), []).append(place)
        for places in by_sample.values():
            rows = self._decode(entries[places[0]][0])
            for place in places:
                windows[place] = rows.window(entries[place][1], self.options.length)
        return windows


@dataclass(frozen=True, kw_only=True)
class EpisodeRows:
    """A decoded episode; row t holds frame t and what led to it.

    Attributes:
        columns: Of T + 1 rows each: "frames" (H, W, 3) uint8 or "latents" (N, C) float16;
            "keypoints" (K, 2); "pose", "text", "audio" and "present" as `Conditions` has them;
            "actions", "reward" and "terminated" of the step that led there, 0 for the first row.
    """

    columns: Mapping[str, np.ndarray]

    def window(self, start: int, length: int) -> dict[str, Tensor]:
        """Return copies of ``length`` rows, so that the episode need not be held for them."""
        return {
            name: torch.from_numpy(column[start : start + length].copy())
            for name, column in self.columns.items()
        }


def decode_sample(sample: Sample, conditions: ConditionsConfig) -> EpisodeRows:
    """Return the rows of an episode of frames or latents."""
    if LATENTS in sample.files:
        episode = load_columns(sample)
        pixels = safetensors.numpy.load(sample.files[LATENTS])
    else:
        episode = load_sample(sample)
        pixels = {"frames": episode.frames}
    actions = np.zeros((sample.num_frames, *episode.actions.shape[1:]), episode.actions.dtype)
    actions[1:] = episode.actions
    keypoints = episode.extras.get("keypoints", np.zeros((sample.num_frames, 0, 2)))
    columns = {"keypoints": keypoints.astype(np.float32), "actions": actions}
    return EpisodeRows(columns={**pixels, **columns, **episode_columns(episode, conditions)})


def load_sample(sample: Sample) -> Episode:
    """Return the episode of a sample with frames."""
    # The decoders read files; a temporary one never leaves the page cache.
    with tempfile.TemporaryDirectory(prefix="midas-world-") as folder:
        path = Path(folder) / sample.name
        path.mkdir()
        for name, content in sample.files.items():
            (path / name).write_bytes(content)
        return load_episode(path)


def load_columns(sample: Sample) -> Episode:
    """Return the episode of a sample of either kind, without its pixels."""
    columns = safetensors.numpy.load(sample.files[STEPS])
    extras = {
        name.removeprefix("extras/"): columns.pop(name)
        for name in sorted(columns)
        if name.startswith("extras/")
    }
    indices = columns.pop("text", None)
    texts = sample.header["texts"]
    return Episode(
        frames=np.empty((sample.num_frames, 0, 0, 3), np.uint8),
        text=None if indices is None else tuple(texts[index] for index in indices),
        extras=extras,
        metadata=EpisodeMetadata(**sample.header["metadata"]),
        **columns,
    )


def make_loader(stream: WindowStream) -> DataLoader[dict[str, Tensor]]:
    """Return the loader of a stream's batches, with as many workers as its options say."""
    return DataLoader(
        stream,
        batch_size=stream.options.batch_size,
        num_workers=stream.options.num_workers,
        generator=torch.Generator().manual_seed(stream.options.seed),
    )


def first_windows(
    url: str,
    num_windows: int,
    *,
    length: int,
    per_episode: int,
    seed: int,
    conditions: ConditionsConfig,
) -> dict[str, Tensor]:
    """Return windows spread over a folder's first episodes in the order of a seed, as one batch.

    The same for every process. Holds ``num_windows`` windows, or as many as one pass gives.
    """
    options = StreamOptions(
        length=length, seed=seed, shuffle_windows=1, windows_per_episode=per_episode, passes=1
    )
    stream = WindowStream(open_shards(url), options, conditions)
    windows = [window for window, _ in zip(stream, range(num_windows), strict=False)]
    if not windows:
        raise ShardError(f"{url}: no readable episode has {length} frames")
    return {name: torch.stack([window[name] for window in windows]) for name in windows[0]}


def sequences(batch: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return windows of latents as keyword arguments of `WorldModel.losses`; see `LatentStore`."""
    names = ("pose", "text", "audio", "present")
    return {
        "latents": batch["latents"].float(),
        "conditions": Conditions(**{name: batch[name][:, 1:] for name in names}),
        "reward": batch["reward"][:, 1:],
        "terminated": batch["terminated"][:, 1:],
    }
