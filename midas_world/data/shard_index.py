"""Folders of shards: where they lie, a path or any fsspec URL, and what their index says.

    train/
        index.json           what there is: see `ShardFolder` and `Shard`
        shard-000000.tar     see shards.py

A shard is written under a temporary name, then renamed, then entered into the index: readers open
only what the index lists. Shards are in the order of the episodes' names, so the index says which
names a shard may hold, and no episode counts twice.

Knows nothing of what a shard holds.
"""

import contextlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from midas_world.data.episodes import UNREADABLE
from midas_world.files import TEMPORARY_PREFIX, whole
from midas_world.typed import from_values
from midas_world.types import MidasWorldError

FORMAT = "midas-world shards"
FORMAT_VERSION = 3
INDEX = "index.json"
PLAIN_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")


class ShardError(MidasWorldError, ValueError):
    """A folder of shards cannot be used; the message names it and says why."""


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
        after: The last name of the shard before it; "" if it is the first. Follows from where it
            stands in the index, which does not hold it.
    """

    name: str
    num_bytes: int
    num_episodes: int
    num_frames: int
    num_skipped: int = 0
    last: str = ""
    after: str = ""

    def __post_init__(self) -> None:
        """Check the name, which is no path, and the counts."""
        if not PLAIN_NAME.fullmatch(self.name):
            raise ValueError(f"a shard's name must be a plain one, got {self.name!r:.60}")
        for name in ("num_bytes", "num_episodes", "num_frames", "num_skipped"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    def may_hold(self, name: str) -> bool:
        """Whether an episode belongs here: of all shards of a folder, to one at most."""
        return self.after < name <= self.last


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
    fs, path = open_fs(url)
    return fs.exists(join(path, INDEX))


def open_shards(url: str) -> ShardFolder:
    """Return what the index of a folder says, which is a path or any fsspec URL.

    Raises:
        ShardError: There is no index, or it is not one that this program reads.
    """
    fs, path = open_fs(url)
    file = join(path, INDEX)
    if not fs.exists(file):
        raise ShardError(f"{url} holds no shards (no {INDEX}); make some: midas-world shards pack")
    try:
        return _parse_index(url, json.loads(fs.cat_file(file)))
    except UNREADABLE as error:
        raise ShardError(f"{file} is no index of shards: {error}") from error


def save_index(folder: ShardFolder) -> None:
    """Write or replace the index of a folder."""
    shards = [asdict(shard) for shard in folder.shards]
    for entry in shards:
        del entry["after"]
    values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "frame_size": list(folder.frame_size),
        "fps": folder.fps,
        "shards": shards,
    }
    # A shard a line: as short as JSON gets, and still to be read.
    text = json.dumps(values).replace('{"name"', '\n{"name"')
    with replacing(join(folder.url, INDEX)) as file:
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


@contextlib.contextmanager
def replacing(url: str) -> Iterator[Any]:
    """Give a new file that gets its name when it is whole."""
    if local := local_path(url):
        with whole(local) as place, place.open("wb") as stream:
            yield stream
        return
    fs, path = open_fs(url)
    folder, _, name = path.rpartition("/")
    fs.makedirs(folder, exist_ok=True)
    temporary = f"{folder}/{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{name}"
    try:
        with fs.open(temporary, "wb") as stream:
            yield stream
        fs.mv(temporary, path)
    except BaseException:
        if fs.exists(temporary):
            fs.rm(temporary)
        raise


def _parse_index(url: str, values: Mapping[str, Any]) -> ShardFolder:
    if values["format"] != FORMAT or values["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"this program reads {FORMAT} {FORMAT_VERSION}, "
            f"got {values['format']} {values['format_version']}"
        )
    height, width = values["frame_size"]
    shards: list[Shard] = []
    for entry in values["shards"]:
        after = shards[-1].last if shards else ""
        shards.append(replace(from_values(Shard, entry), after=after))
        if shards[-1].last <= after:
            raise ValueError(f"{entry['name']} has no episodes after those of the shard before it")
    return ShardFolder(
        url=url,
        frame_size=(int(height), int(width)),
        fps=float(values["fps"]),
        shards=tuple(shards),
    )
