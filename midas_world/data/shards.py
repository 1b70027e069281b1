"""Shards: many episodes in few large files, read as a stream from a folder or any fsspec URL.

    train/
        index.json           what there is: see `ShardFolder` and `Shard`
        shard-000000.tar     plain tar; of each episode, one after another:
            episode-01000000.header.json
            episode-01000000.steps.safetensors
            episode-01000000.video.mp4

A member is a file of an episode's folder (episodes.py) behind the episode's name and a dot, which
is how WebDataset groups files too. A shard is written under a temporary name, then renamed, then
entered into the index: readers open only what the index lists. Every header holds the checksums of
the files beside it, so damage is found without decoding anything.

Several machines may write into one folder, each its own part of the names, with an index of its
own: index-3-of-8.json. Knows nothing of training or of what frames become (train/stream.py).

Ours, as the `webdataset` package cannot go on exactly where a run was killed: its makers advise to
draw with replacement instead (webdataset/webdataset, issues 234 and 271).
"""

import contextlib
import hashlib
import json
import logging
import re
import tarfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from midas_world.data.episodes import HEADER, STEPS, check_header
from midas_world.data.video import FRAMES_FILES
from midas_world.files import TEMPORARY_PREFIX, whole
from midas_world.typed import from_values
from midas_world.types import MidasWorldError

logger = logging.getLogger(__name__)

FORMAT = "midas-world shards"
FORMAT_VERSION = 2
INDEX = "index.json"
_PLAIN_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")
_PARTS = (HEADER, STEPS, *FRAMES_FILES.values())
_BLOCK = 1 << 20


class ShardError(MidasWorldError, ValueError):
    """A folder of shards cannot be used; the message names it and says why."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One episode as it lies in a shard.

    Attributes:
        name: Of the episode.
        files: What each of its files holds, by file name.
        header: The parsed ``header.json`` among them.
    """

    name: str
    files: Mapping[str, bytes]
    header: Mapping[str, Any]

    @property
    def num_frames(self) -> int:
        """T + 1."""
        return int(self.header["num_steps"]) + 1


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard, as the index describes it.

    Attributes:
        name: File name.
        num_bytes: Of the file.
        num_episodes: In it.
        num_frames: Of all of them.
        num_skipped: Episodes of the source that could not be read, and are not in it.
        last: Name of the last episode looked at for it; all names before it are done with.
        digest: SHA-256 of the file.
    """

    name: str
    num_bytes: int
    num_episodes: int
    num_frames: int
    num_skipped: int = 0
    last: str = ""
    digest: str

    def __post_init__(self) -> None:
        """Check the name, which is no path, and the counts."""
        if not _PLAIN_NAME.fullmatch(self.name):
            raise ValueError(f"a shard's name must be a plain one, got {self.name!r:.60}")
        for name in ("num_bytes", "num_episodes", "num_frames", "num_skipped"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ShardFolder:
    """What the index of a folder of shards says.

    Attributes:
        url: Of the folder.
        frame_size: (H, W), px.
        fps: Steps per second.
        shards: In order.
    """

    url: str
    frame_size: tuple[int, int]
    fps: float
    shards: tuple[Shard, ...] = ()

    @property
    def num_episodes(self) -> int:
        """In all shards."""
        return sum(shard.num_episodes for shard in self.shards)

    @property
    def num_frames(self) -> int:
        """In all shards."""
        return sum(shard.num_frames for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """Of all shards."""
        return sum(shard.num_bytes for shard in self.shards)

    def check_size(self, height: int, width: int) -> None:
        """Raise ShardError if frames have another size than a config wants."""
        if self.frame_size != (height, width):
            raise ShardError(
                f"the config wants frames of {height}x{width}, "
                f"{self.url} has {self.frame_size[0]}x{self.frame_size[1]}"
            )


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


def join(url: str, *names: str) -> str:
    """Return the URL of something inside a folder."""
    return "/".join((url.rstrip("/"), *names))


def has_shards(url: str) -> bool:
    """Whether an index of shards lies in a folder."""
    return bool(_index_files(url))


def open_shards(url: str, *, index: str | None = None) -> ShardFolder:
    """Return what a folder's index says, or that of all parts together where there is no whole one.

    Args:
        url: The folder: a path or any fsspec URL.
        index: Only the index of this file name.

    Raises:
        ShardError: There is no index, or it is not one that this program reads.
    """
    fs, path = _open_fs(url)
    files = [join(path, index)] if index else _index_files(url)
    if not files:
        raise ShardError(f"{url} holds no shards (no {INDEX}); make some: midas-world shards pack")
    folders = []
    for file in files:
        try:
            folders.append(_parse_index(url, json.loads(fs.cat_file(file))))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ShardError(f"{file} is no index of shards: {error}") from error
    if index is None and PurePosixPath(files[0]).name != INDEX:
        number = int(PurePosixPath(files[0]).stem.rpartition("-")[2])
        if len(files) != number:
            raise ShardError(f"{url} holds {len(files)} of {number} parts; make the others first")
    first = folders[0]
    for folder in folders[1:]:
        if folder.frame_size != first.frame_size:
            raise ShardError(f"the parts of {url} differ in frame size")
    shards = sorted((s for folder in folders for s in folder.shards), key=lambda s: s.name)
    return replace(first, shards=tuple(shards))


def save_index(folder: ShardFolder, *, index: str = INDEX) -> None:
    """Write or replace the index of a folder."""
    values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "frame_size": list(folder.frame_size),
        "fps": folder.fps,
        "shards": [asdict(shard) for shard in folder.shards],
    }
    # A shard a line: as short as JSON gets, and still to be read.
    text = json.dumps(values).replace('{"name"', '\n{"name"')
    with _replacing(join(folder.url, index)) as file:
        file.write(text.encode())


def write_shard(url: str, name: str, samples: Iterable[Sample]) -> Shard:
    """Write a shard whole, or not at all; equal samples give equal bytes."""
    num_episodes = num_frames = 0
    layout: Any = {"mode": "w|", "bufsize": _BLOCK, "format": tarfile.USTAR_FORMAT}
    sink: Any
    with _replacing(join(url, name)) as sink, tarfile.open(fileobj=sink, **layout) as tar:
        for sample in samples:
            # The header first: a stream's reader knows what to expect.
            for part in sorted(sample.files, key=lambda part: (part != HEADER, part)):
                member = tarfile.TarInfo(f"{sample.name}.{part}")
                member.size = len(sample.files[part])
                tar.addfile(member, BytesIO(sample.files[part]))
            num_episodes += 1
            num_frames += sample.num_frames
    return Shard(
        name=name,
        num_bytes=sink.num_bytes,
        num_episodes=num_episodes,
        num_frames=num_frames,
        digest=sink.digest.hexdigest(),
    )


def read_samples(url: str, shard: Shard, losses: Losses) -> Iterator[Sample]:
    """Yield a shard's episodes in order, never more than one of them in memory.

    Damaged episodes, and those behind the place where a shard is cut off, are passed over, warned
    of and counted in `losses`; so is a shard that is missing.
    """
    reason, count = "", 0
    fs, path = _open_fs(join(url, shard.name))
    try:
        with (
            fs.open(path, "rb") as file,
            tarfile.open(fileobj=file, mode="r|", bufsize=_BLOCK) as tar,
        ):
            for name, files in _grouped(tar):
                try:
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
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ShardError(f"{name}.{HEADER} is missing or no header: {error!r}") from error
    for part, fingerprint in expected.items():
        if part not in files:
            raise ShardError(f"{name}.{part} is missing")
        if fingerprint_of(files[part]) != fingerprint:
            raise ShardError(f"{name}.{part} is damaged: its checksum is another")
    return Sample(name=name, files={p: files[p] for p in (HEADER, *expected)}, header=header)


def fingerprint_of(content: bytes) -> dict[str, Any]:
    """Return what a header says of a file: its size and checksum."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _grouped(tar: tarfile.TarFile) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the files of each episode of an open tar stream."""
    name, files, last = "", {}, ""
    for member in tar:
        key, _, part = PurePosixPath(member.name).name.partition(".")
        # A member with holes in it may say that it is of any size.
        if not member.isfile() or member.issparse() or not _PLAIN_NAME.fullmatch(key):
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


def local_path(url: str) -> Path | None:
    """Return where on this machine's own disks a URL is; None if it is elsewhere."""
    fs, path = _open_fs(url)
    return Path(path) if isinstance(fs, LocalFileSystem) else None


def _open_fs(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it.

    Raises:
        ShardError: There is none for it, or a package for it is missing; the message names it.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ShardError(f"{url} cannot be opened: {error}") from error


def _index_files(url: str) -> list[str]:
    fs, path = _open_fs(url)
    if fs.exists(join(path, INDEX)):
        return [join(path, INDEX)]
    return sorted(fs.glob(join(path, "index-*-of-*.json")))


def _parse_index(url: str, values: Mapping[str, Any]) -> ShardFolder:
    if values["format"] != FORMAT or values["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"this program reads {FORMAT} {FORMAT_VERSION}, "
            f"got {values['format']} {values['format_version']}"
        )
    height, width = values["frame_size"]
    shards = tuple(from_values(Shard, entry) for entry in values["shards"])
    for which in ("name", "digest"):
        kept = [getattr(shard, which) for shard in shards]
        if twice := [value for value in set(kept) if kept.count(value) > 1]:
            raise ValueError(f"two shards have the {which} {twice[0]}")
    return ShardFolder(
        url=url,
        frame_size=(int(height), int(width)),
        fps=float(values["fps"]),
        shards=shards,
    )


class _Counted:
    """A stream that counts and hashes what is written to it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.num_bytes, self.digest = 0, hashlib.sha256()

    def write(self, content: bytes) -> int:
        """Append bytes."""
        self.num_bytes += len(content)
        self.digest.update(content)
        return self._stream.write(content)


@contextlib.contextmanager
def _replacing(url: str) -> Iterator[_Counted]:
    """Give a new file that gets its name when it is whole."""
    if local := local_path(url):
        with whole(local) as place, place.open("wb") as stream:
            yield _Counted(stream)
        return
    fs, path = _open_fs(url)
    folder, _, name = path.rpartition("/")
    fs.makedirs(folder, exist_ok=True)
    temporary = f"{folder}/{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{name}"
    try:
        with fs.open(temporary, "wb") as stream:
            yield _Counted(stream)
        fs.mv(temporary, path)
    except BaseException:
        if fs.exists(temporary):
            fs.rm(temporary)
        raise
