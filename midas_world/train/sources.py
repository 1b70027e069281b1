"""Where both stages get their batches from: episodes in memory-mapped files, or a stream of shards.

Episodes in a folder can be reached at any row, so each train step draws its rows from its own
generator, and the model's own rollouts can go on to the end of their episode. A stream of shards
gives what comes next: the order is its own (stream.py), and there is nothing to go on with.

Shapes: B batch, F frames, N tokens per frame, C latent channels.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from midas_world.autoencoder import Autoencoder
from midas_world.config import ProjectConfig
from midas_world.shards import Losses, ShardError, has_shards, join, open_shards, read_samples
from midas_world.train.data import open_frames
from midas_world.train.latents import encode_frames, open_latents
from midas_world.train.loop import Processes
from midas_world.train.scene_switches import switch_scenes
from midas_world.train.shard_latents import encode_shards, latents_url, missing_latents
from midas_world.train.stream import (
    StreamOptions,
    WindowStream,
    first_windows,
    make_loader,
    sequences,
)

MOST_HORIZON = 40
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


class SequenceSource(Protocol):
    """Gives the dynamics' stage its sequences of latents."""

    def start(self, processes: Processes, first_batch: int) -> None:
        """Get ready for the batches from one on."""
        ...

    def batch(
        self,
        generator: torch.Generator,
        *,
        num_own: int,
        own_rows: Tensor,
        own_latents: Tensor,
    ) -> dict[str, Any]:
        """Return a batch of `LatentStore.gather` with the "rows" its sequences begin at.

        Args:
            generator: Of the train step.
            num_own: The first so many sequences will see the model's own rollout.
            own_rows: (B,) where those rollouts stand, or -1.
            own_latents: (B, N, C) there.
        """
        ...

    def change_std(self) -> Tensor:
        """Return the standard deviation of latents' change from frame to frame, (C,)."""
        ...

    def held(self) -> tuple[dict[str, Any], Tensor]:
        """Return held-out sequences, and the real frames behind their context (B, F, H, W, 3)."""
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


def open_frame_source(config: ProjectConfig, data: Path) -> FrameSource:
    """Return the source of the autoencoder's stage; see `train_autoencoder`."""
    url = shards_url(config, data)
    if url is not None:
        return StreamedFrames(config, url)
    return StoredFrames(config, Path(config.data.folder or data))


def open_sequence_source(
    config: ProjectConfig, data: Path, coder: Autoencoder, *, device: torch.device
) -> SequenceSource:
    """Return the source of the dynamics' stage; encodes what was not encoded before."""
    url = shards_url(config, data)
    if url is not None:
        return StreamedSequences(config, url, coder, device=device)
    return StoredSequences(config, Path(config.data.folder or data), coder, device=device)


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
        size = self._config.train_autoencoder.optimizer.batch_size
        options = _options(self._config, length=1, batch_size=size)
        self._batches = _batches(
            WindowStream(
                self._folder,
                options,
                self._config.world.conditions,
                rank=processes.rank,
                num_ranks=processes.count,
                first_batch=first_batch,
            )
        )

    def batch(
        self,
        size: int,
        generator: torch.Generator,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the frames that come next; shards list no things."""
        windows = next(self._batches)
        return windows["frames"][:, 0], windows["keypoints"][:, 0], torch.zeros(size, 0, 6)

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
        return first_windows(
            url,
            count,
            length=1,
            per_episode=max(_SAMPLE_PER_EPISODE, math.ceil(count / open_shards(url).num_episodes)),
            seed=self._config.seed,
            conditions=self._config.world.conditions,
        )["frames"][:, 0]


class StoredSequences:
    """Latents of two folders of episodes."""

    def __init__(
        self, config: ProjectConfig, data: Path, coder: Autoencoder, *, device: torch.device
    ) -> None:
        world, self._settings = config.world, config.train_dynamics
        self._train = open_latents(data / "train", coder, world.conditions, device=device)
        self._held = open_latents(data / "validation", coder, world.conditions, device=device)
        self._held_frames = open_frames(data / "validation")
        self._held_frames.check_size(world.height, world.width)
        self._length = self._settings.sequence_frames + 1
        self._starts = torch.from_numpy(self._train.sequence_starts(self._length))
        self._is_start = torch.zeros(len(self._train.latents), dtype=torch.bool)
        self._is_start[self._starts] = True
        endings = self._train.terminated.nonzero()[:, 0] - self._settings.sequence_frames
        self._endings = endings[(endings >= 0) & self._is_start[endings]]
        # The longest held-out episodes decide: one that ended early must not shorten all
        # measurements.
        self._context = world.backbone.context_frames
        longest = int(np.diff(self._held.starts).max())
        self._horizon = _horizon(longest, self._context)
        starts = torch.from_numpy(self._held.sequence_starts(self._context + self._horizon))
        chosen = torch.linspace(0, len(starts) - 1, self._settings.num_validation)
        self._chosen = starts[chosen.round().long()]

    def start(self, processes: Processes, first_batch: int) -> None:
        """Need nothing: every train step draws by itself."""

    def batch(
        self,
        generator: torch.Generator,
        *,
        num_own: int,
        own_rows: Tensor,
        own_latents: Tensor,
    ) -> dict[str, Any]:
        """Return sequences drawn from all, and those that go on where rollouts stand."""
        settings, starts = self._settings, self._starts
        size = settings.optimizer.batch_size
        rows = starts[torch.randint(len(starts), (size,), generator=generator)]
        if len(self._endings):
            endings = self._endings[torch.randint(len(self._endings), (size,), generator=generator)]
            is_ending = torch.rand(size, generator=generator) < settings.ending_rate
            rows = torch.where(is_ending, endings, rows)
        own = torch.arange(size) < num_own
        goes_on = own & (own_rows >= 0) & self._is_start[own_rows] & settings.self_context_carries
        goes_on &= torch.rand(size, generator=generator) >= settings.self_context_fresh_rate
        rows = torch.where(goes_on, own_rows, rows)
        batch = self._train.gather(rows, self._length)
        batch["latents"][goes_on, 0] = own_latents[goes_on]
        if settings.scene_switch_rate:
            others = starts[torch.randint(len(starts), (size,), generator=generator)]
            other = self._train.gather(others, self._length)
            switched = switch_scenes(batch, other, settings.scene_switch_rate, generator)
            rows = torch.where(switched, others, rows)
        return {**batch, "rows": rows}

    def change_std(self) -> Tensor:
        """Return it of some thousand changes."""
        rows = torch.from_numpy(self._train.sequence_starts(2))
        rows = rows[:: max(1, len(rows) // 4096)]
        change = self._train.latents[rows + 1].float() - self._train.latents[rows].float()
        return change.std(dim=(0, 1)).clamp_min(1e-2)

    def held(self) -> tuple[dict[str, Any], Tensor]:
        """Return sequences at equal distances."""
        length = self._context + self._horizon
        rows = self._chosen[:, None] + torch.arange(self._context, length)
        real = torch.from_numpy(self._held_frames.gather(rows.flatten().numpy()))
        return self._held.gather(self._chosen, length), real.unflatten(0, tuple(rows.shape))


class StreamedSequences:
    """Latents of shards; the held-out ones are few, and stay in memory."""

    def __init__(
        self, config: ProjectConfig, url: str, coder: Autoencoder, *, device: torch.device
    ) -> None:
        if config.train_dynamics.self_context_carries:
            raise ShardError(
                "a stream of shards cannot go on with the model's own rollouts, as the preset "
                "wants; set train_dynamics.self_context_carries=false, or train on episodes"
            )
        self._config = config
        train = join(url, "train")
        open_shards(train).check_size(config.world.height, config.world.width)
        if missing_latents(train, coder):
            encode_shards(train, coder, device=device)
        self._folder = open_shards(latents_url(train, coder))
        self._held = self._open_held(join(url, "validation"), coder, device=device)

    def start(self, processes: Processes, first_batch: int) -> None:
        """Open the stream where the run was left."""
        settings = self._config.train_dynamics
        options = _options(
            self._config,
            length=settings.sequence_frames + 1,
            batch_size=settings.optimizer.batch_size,
        )
        self._batches = _batches(
            WindowStream(
                self._folder,
                options,
                self._config.world.conditions,
                rank=processes.rank,
                num_ranks=processes.count,
                first_batch=first_batch,
            )
        )

    def batch(
        self,
        generator: torch.Generator,
        *,
        num_own: int,  # noqa: ARG002
        own_rows: Tensor,
        own_latents: Tensor,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Return the sequences that come next; scenes switch to those of the same batch."""
        batch = sequences(next(self._batches))
        rate = self._config.train_dynamics.scene_switch_rate
        if rate:
            # Of the same batch: each sequence goes on as the one before it.
            tensors = {name: batch[name].roll(1, 0) for name in ("latents", "reward", "terminated")}
            other = {**tensors, "conditions": batch["conditions"].roll()}
            switch_scenes(batch, other, rate, generator)
        return {**batch, "rows": torch.zeros_like(own_rows)}

    def change_std(self) -> Tensor:
        """Return it of some changes in each of the first episodes."""
        windows = first_windows(
            self._folder.url,
            4096,
            length=2,
            per_episode=max(_SAMPLE_PER_EPISODE, math.ceil(4096 / self._folder.num_episodes)),
            seed=self._config.seed,
            conditions=self._config.world.conditions,
        )["latents"].float()
        return (windows[:, 1] - windows[:, 0]).std(dim=(0, 1)).clamp_min(1e-2)

    def held(self) -> tuple[dict[str, Any], Tensor]:
        """Return sequences of the first held-out episodes."""
        return self._held

    def _open_held(
        self, url: str, coder: Autoencoder, *, device: torch.device
    ) -> tuple[dict[str, Any], Tensor]:
        folder, world = open_shards(url), self._config.world
        count = self._config.train_dynamics.num_validation
        context = world.backbone.context_frames
        # The longest of the episodes that are looked at decides, as with folders of episodes.
        samples = (
            sample for shard in folder.shards for sample in read_samples(url, shard, Losses())
        )
        lengths = [sample.num_frames for sample, _ in zip(samples, range(4 * count), strict=False)]
        windows = first_windows(
            url,
            count,
            length=context + _horizon(max(lengths, default=0), context),
            per_episode=math.ceil(count / folder.num_episodes),
            seed=self._config.seed,
            conditions=world.conditions,
        )
        frames = windows.pop("frames")
        latents = encode_frames(frames.flatten(0, 1).numpy(), coder, device=device)
        latents = latents.unflatten(0, tuple(frames.shape[:2]))
        return sequences({**windows, "latents": latents}), frames[:, context:]


def _horizon(longest: int, context: int) -> int:
    """Return how many frames are rolled out behind a context, given the longest episode."""
    return max(1, min(MOST_HORIZON, longest - context - 1))


def _options(config: ProjectConfig, *, length: int, batch_size: int) -> StreamOptions:
    return StreamOptions(
        length=length,
        batch_size=batch_size,
        seed=config.seed,
        num_workers=config.data.num_workers,
        shuffle_windows=config.data.shuffle_windows,
        windows_per_episode=config.data.windows_per_episode,
    )


def _batches(stream: WindowStream) -> Iterator[dict[str, Tensor]]:
    return iter(make_loader(stream))
