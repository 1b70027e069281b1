"""Folders of shards: where they lie, a path or any fsspec URL, and what their index says.

    train/
        index.json           what there is: see `ShardFolder` and `Shard`
        shard-000000.tar     see shards.py

A shard is written under a temporary name, then renamed, then entered into the index: readers open
only what the index lists. Shards are in the order of the episodes' names, so the index says which
names a shard may hold, and no episode counts twice.

Several machines may write into one folder, each its own part of the names, with an index of its
own: index-3-of-8.json. Knows nothing of what a shard holds.
"""

import contextlib
import hashlib
import json
import re
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from midas_world.files import TEMPORARY_PREFIX, whole
from midas_world.typed import from_values
from midas_world.types import MidasWorldError

FORMAT = "midas-world shards"
FORMAT_VERSION = 2
INDEX = "index.json"
PLAIN_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")
# They follow from where a shard stands, and in which index.
_UNWRITTEN = ("after", "part")


class ShardError(MidasWorldError, ValueError):
    """A folder of shards cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class Part:
    """One of several equal parts of all names, by a hash that other names have no say in."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"a part must be from 1/N to N/N, got {self.number}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Return the part of a text such as "3/8"."""
        if not re.fullmatch(r"\d+/\d+", text):
            raise ValueError(f"a part must look like 3/8, got {text!r}")
        return cls(*map(int, text.split("/")))

    @classmethod
    def of_index(cls, name: str) -> "Part":
        """Return the part that an index of this file name is of."""
        found = re.search(r"-(\d+)-of-(\d+)\.json$", name)
        return cls(int(found[1]), int(found[2])) if found else ALL_NAMES

    @property
    def suffix(self) -> str:
        """What sets this part's file names apart; "" where there is only one."""
        return "" if self.count == 1 else f"-{self.number}-of-{self.count}"

    @property
    def index(self) -> str:
        """The file name of this part's index."""
        return f"index{self.suffix}.json"

    def holds(self, name: str) -> bool:
        """Whether a name belongs to this part."""
        return zlib.crc32(name.encode()) % self.count == self.number - 1


ALL_NAMES = Part()


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
        after: The last name of the shard before it; "" if it is the first.
        part: Whose names it holds.
    """

    name: str
    num_bytes: int
    num_episodes: int
    num_frames: int
    num_skipped: int = 0
    last: str = ""
    digest: str
    after: str = ""
    part: Part = ALL_NAMES

    def __post_init__(self) -> None:
        """Check the name, which is no path, and the counts."""
        if not PLAIN_NAME.fullmatch(self.name):
            raise ValueError(f"a shard's name must be a plain one, got {self.name!r:.60}")
        for name in ("num_bytes", "num_episodes", "num_frames", "num_skipped"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    def may_hold(self, name: str) -> bool:
        """Whether an episode belongs here: of all shards of a folder, to one at most."""
        return self.after < name <= self.last and self.part.holds(name)


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
    fs, path = open_fs(url)
    files = [join(path, index)] if index else _index_files(url)
    if not files:
        raise ShardError(f"{url} holds no shards (no {INDEX}); make some: midas-world shards pack")
    folders = []
    for file in files:
        try:
            part = Part.of_index(PurePosixPath(file).name)
            folders.append(_parse_index(url, json.loads(fs.cat_file(file)), part))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ShardError(f"{file} is no index of shards: {error}") from error
    if index is None and PurePosixPath(files[0]).name != INDEX:
        count = Part.of_index(PurePosixPath(files[0]).name).count
        if len(files) != count:
            raise ShardError(f"{url} holds {len(files)} of {count} parts; make the others first")
    first = folders[0]
    for folder in folders[1:]:
        if folder.frame_size != first.frame_size:
            raise ShardError(f"the parts of {url} differ in frame size")
    shards = sorted((s for folder in folders for s in folder.shards), key=lambda s: s.name)
    return replace(first, shards=tuple(shards))


def save_index(folder: ShardFolder, *, index: str = INDEX) -> None:
    """Write or replace the index of a folder."""
    shards = [asdict(shard) for shard in folder.shards]
    for entry in shards:
        for name in _UNWRITTEN:
            del entry[name]
    values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "frame_size": list(folder.frame_size),
        "fps": folder.fps,
        "shards": shards,
    }
    # A shard a line: as short as JSON gets, and still to be read.
    text = json.dumps(values).replace('{"name"', '\n{"name"')
    with replacing(join(folder.url, index)) as file:
        file.write(text.encode())


def local_path(url: str) -> Path | None:
    """Return where on this machine's own disks a URL is; None if it is elsewhere."""
    fs, path = open_fs(url)
    return Path(path) if isinstance(fs, LocalFileSystem) else None


def open_fs(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it.

    Raises:
        ShardError: There is none for it, or a package for it is missing; the message names it.
    """
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ShardError(f"{url} cannot be opened: {error}") from error


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
def replacing(url: str) -> Iterator[_Counted]:
    """Give a new file that gets its name when it is whole."""
    if local := local_path(url):
        with whole(local) as place, place.open("wb") as stream:
            yield _Counted(stream)
        return
    fs, path = open_fs(url)
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


def _index_files(url: str) -> list[str]:
    fs, path = open_fs(url)
    if fs.exists(join(path, INDEX)):
        return [join(path, INDEX)]
    return sorted(fs.glob(join(path, "index-*-of-*.json")))


def _parse_index(url: str, values: Mapping[str, Any], part: Part) -> ShardFolder:
    if values["format"] != FORMAT or values["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"this program reads {FORMAT} {FORMAT_VERSION}, "
            f"got {values['format']} {values['format_version']}"
        )
    height, width = values["frame_size"]
    shards: list[Shard] = []
    for entry in values["shards"]:
        after = shards[-1].last if shards else ""
        shards.append(replace(from_values(Shard, entry), after=after, part=part))
        if shards[-1].last <= after:
            raise ValueError(f"{entry['name']} has no episodes after those of the shard before it")
    return ShardFolder(
        url=url,
        frame_size=(int(height), int(width)),
        fps=float(values["fps"]),
        shards=tuple(shards),
    )
