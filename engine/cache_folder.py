"""Where things that can be made again are kept: exported graphs, engine files, measurements."""

import atexit
import contextlib
import functools
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

APP_NAME = "midas-world"

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return MIDAS_WORLD_CACHE, or this user's cache folder by the platform's custom.

    Where nothing can be written there, and nothing was before, a warning and a temporary folder,
    which goes with this process.
    """
    try:
        chosen = _chosen_folder()
    except RuntimeError as error:  # no HOME, and a user that no passwd file knows
        return _temporary_folder(str(error))
    if words := _objection(chosen):
        return _temporary_folder(words)
    return chosen


@contextlib.contextmanager
def or_not_kept() -> Iterator[None]:
    """Go on without what cannot be written into the cache, and say why it will be made again."""
    try:
        yield
    except OSError as error:
        _log.warning("not kept: %s; MIDAS_WORLD_CACHE names another cache folder", error)


def _objection(folder: Path) -> str:
    """Return why a folder is no good as cache; nothing if it is."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):  # else it may be of use as it is
            tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"{folder} cannot be used: {error.strerror or error}"
    return ""


@functools.cache
def _temporary_folder(words: str) -> Path:
    """Return a folder that is removed with this process, and say why it is used."""
    _log.warning(
        "%s; what is made now is not kept for the next start: MIDAS_WORLD_CACHE names another "
        "cache folder",
        words,
    )
    folder = tempfile.mkdtemp(prefix=f"{APP_NAME}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _chosen_folder() -> Path:
    if chosen := os.environ.get("MIDAS_WORLD_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        return base / APP_NAME / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / APP_NAME
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / APP_NAME
