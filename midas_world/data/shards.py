"""Shards: many episodes in one large file, read as a stream.

    shard-000000.tar         plain tar; of each episode, one after another:
        episode-01000000.header.json
        episode-01000000.steps.safetensors
        episode-01000000.video.mp4

A member is a file of an episode's folder (episodes.py) behind the episode's name and a dot, which
is how WebDataset groups files too. Every header holds the checksums of the files beside it, so
damage is found without decoding anything.

Ours, as WebDataset's own reader has no exact resume, and runs what a URL "pipe:" says in a shell.

Where shards lie, and their index: shard_index.py. Knows nothing of training or of what frames
become (train/stream.py).
"""

import json
import logging
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePosixPath
from typing import Any

from midas_world.data.episodes import HEADER, STEPS, UNREADABLE, check_header, fingerprint_of
from midas_world.data.shard_index import PLAIN_NAME, Shard, ShardError, join, open_fs, replacing
from midas_world.data.video import FRAMES_FILES

logger = logging.getLogger(__name__)

_PARTS = (HEADER, STEPS, *FRAMES_FILES.values())
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One episode as it lies in a shard.

    Attributes:
        files: What each of its files holds, by file name.
    """

    name: str
    files: Mapping[str, bytes]
    header: Mapping[str, Any]

    @property
    def num_frames(self) -> int:
        """T + 1."""
        return int(self.header["num_steps"]) + 1


@dataclass
class Losses:
    """What reading met that could not be read; each loss is warned of once.

    Attributes:
        num_episodes: Lost, each counted once however often its shard is read.
    """

    num_episodes: int = 0
    _known: dict[str, int] = field(default_factory=dict)

    def report(self, shard: str, num_lost: int, num_all: int, reason: str) -> None:
        """Count what a shard lost, and warn if that is news."""
        known = self._known.get(shard, 0)
        if num_lost > known:
            self._known[shard] = num_lost
            self.num_episodes += num_lost - known
            logger.warning("%s: %d of %d episodes lost: %s", shard, num_lost, num_all, reason)


def write_shard(url: str, name: str, samples: Iterable[Sample]) -> Shard:
    """Write a shard whole, or not at all; equal samples give equal bytes."""
    num_episodes = num_frames = num_bytes = 0
    layout: Any = {"mode": "w|", "bufsize": _BLOCK, "format": tarfile.USTAR_FORMAT}
    with replacing(join(url, name)) as sink:
        with tarfile.open(fileobj=sink, **layout) as tar:
            for sample in samples:
                # The header first: a stream's reader knows what to expect.
                for part in sorted(sample.files, key=lambda part: (part != HEADER, part)):
                    member = tarfile.TarInfo(f"{sample.name}.{part}")
                    member.size = len(sample.files[part])
                    tar.addfile(member, BytesIO(sample.files[part]))
                num_episodes += 1
                num_frames += sample.num_frames
        num_bytes = sink.tell()
    return Shard(name=name, num_bytes=num_bytes, num_episodes=num_episodes, num_frames=num_frames)


def read_samples(url: str, shard: Shard, losses: Losses) -> Iterator[Sample]:
    """Yield a shard's episodes in order, never more than one of them in memory.

    Damaged episodes, and those behind the place where a shard is cut off, are passed over, warned
    of and counted in `losses`; so is a shard that is missing.
    """
    reason, count = "", 0
    fs, path = open_fs(join(url, shard.name))
    try:
        with (
            fs.open(path, "rb") as file,
            tarfile.open(fileobj=file, mode="r|", bufsize=_BLOCK) as tar,
        ):
            for name, files in _grouped(tar):
                try:
                    if not shard.may_hold(name):
                        raise ShardError(f"{name} belongs to another shard")
                    sample = make_sample(name, files)
                except ShardError as error:
                    reason = str(error)
                else:
                    count += 1
                    yield sample
    except (tarfile.TarError, EOFError, FileNotFoundError) as error:
        reason = str(error) or type(error).__name__
    if count < shard.num_episodes:
        losses.report(
            join(url, shard.name),
            shard.num_episodes - count,
            shard.num_episodes,
            reason or "the shard ends early",
        )


def make_sample(name: str, files: Mapping[str, bytes]) -> Sample:
    """Return an episode's files as a sample, checked against their header.

    Raises:
        ShardError: A file is missing or differs from what was written.
    """
    try:
        header = json.loads(files[HEADER])
        expected = dict(header["files"])
        if not set(expected) <= set(_PARTS):
            raise ValueError(f"files must be of {', '.join(_PARTS)}")
        check_header(header)
    except UNREADABLE as error:
        raise ShardError(f"{name}.{HEADER} is missing or no header: {error!r}") from error
    for part, fingerprint in expected.items():
        if part not in files:
            raise ShardError(f"{name}.{part} is missing")
        if fingerprint_of(files[part]) != fingerprint:
            raise ShardError(f"{name}.{part} is damaged: its checksum is another")
    return Sample(name=name, files={p: files[p] for p in (HEADER, *expected)}, header=header)


def _grouped(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the files of each episode of an open tar stream."""
    name, files, last = "", {}, ""
    for member in tar:
        key, _, part = PurePosixPath(member.name).name.partition(".")
        # A member with holes in it may say that it is of any size.
        if not member.isfile() or member.issparse() or not PLAIN_NAME.fullmatch(key):
            raise tarfile.TarError(f"{member.name!r:.80} is no file of an episode")
        if key != name:
            if files:
                yield name, files
            if key <= last:
                raise tarfile.TarError(f"{key} comes twice, or out of order")
            name, files, last = key, {}, key
        content = tar.extractfile(member)
        if content is not None and part in _PARTS:
            files[part] = content.read()
    if files:
        yield name, files
