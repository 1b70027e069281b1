"""Files and folders that are there whole or not at all, whatever happens while they are written.

What is being written lies in a hidden folder beside its place, is flushed to the disk and gets its
own name last. So a reader meets the old one or the new one, also after a power cut, and of a writer
that fails nothing is left. One that was killed leaves a hidden folder, which a later one removes.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from errno import ENOTDIR
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
_STALE_S = 24 * 3600.0


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give the place to write a file or a folder at, which comes to be at `path` at the end.

    Args:
        path: Its parents are made. A file there is replaced by a file. What is written beside the
            place comes to be beside `path`, before it.

    Raises:
        FileExistsError: A folder was written, and there is something at `path`.
        OSError: It cannot be written; then nothing is.
    """
    with _beside(path) as place:
        yield place
        made = sorted(place.parent.iterdir(), key=lambda item: item.name == place.name)
        for item in made:
            _flush(item)
        if place.is_dir() and path.exists():
            raise FileExistsError(f"{path} exists already")
        for item in made:
            item.replace(path.with_name(item.name))
        _flush_folder(path.parent)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file that is there whole or not at all; see `whole`."""
    with whole(path) as place:
        place.write_bytes(content.encode() if isinstance(content, str) else content)


def write_first(path: Path, content: bytes) -> None:
    """Write a file whole, unless it is there: of several processes, the first has the word."""
    with _beside(path) as place:
        place.write_bytes(content)
        _flush(place)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(place)
        _flush_folder(path.parent)


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a path of the same name in a new folder beside it, which is removed at the end."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(ENOTDIR, "Not a directory", str(path.parent)) from error
    remove_temporaries(path.parent, older_than_s=_STALE_S)
    with tempfile.TemporaryDirectory(
        dir=path.parent, prefix=TEMPORARY_PREFIX, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder) / path.name


def remove_temporaries(folder: Path, *, older_than_s: float = 0.0) -> int:
    """Delete what writers that were killed left in a folder; return how many there were.

    Args:
        folder: Nobody may be writing in it, unless it takes less than `older_than_s`.
        older_than_s: Only what is older than that.
    """
    removed = 0
    for left in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # its writer has just done so
            if time.time() - left.stat().st_mtime >= older_than_s:
                shutil.rmtree(left, ignore_errors=True)
                removed += 1
    return removed


def _flush(item: Path) -> None:
    """Let the disk have a file, or a folder and all that is in it."""
    if not item.is_dir():
        with item.open("rb+") as stream:
            os.fsync(stream.fileno())
        return
    for inner in item.iterdir():
        _flush(inner)
    _flush_folder(item)


def _flush_folder(folder: Path) -> None:
    if sys.platform == "win32":  # which lets nobody open one
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
