"""Where things that can be made again are kept: exported graphs, engine files, measurements."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

APP_NAME = "midas-world"


def cache_folder() -> Path:
    """Return MIDAS_WORLD_CACHE, or this user's cache folder by the platform's custom.

    It may not exist yet.
    """
    if chosen := os.environ.get("MIDAS_WORLD_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        return base / APP_NAME / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / APP_NAME
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / APP_NAME


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is either there whole or not at all."""
    with _written(path, data) as temporary:
        temporary.replace(path)


def write_first(path: Path, data: bytes) -> None:
    """Write a file whole, unless it is there: of several processes, the first has the word."""
    with _written(path, data) as temporary, contextlib.suppress(FileExistsError):
        path.hardlink_to(temporary)


@contextlib.contextmanager
def _written(path: Path, data: bytes) -> Iterator[Path]:
    """Give a temporary file beside a path that holds the data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as folder:
        temporary = Path(folder) / path.name
        temporary.write_bytes(data)
        yield temporary
