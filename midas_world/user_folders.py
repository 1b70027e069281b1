"""A user's own folders: of settings, and of what can be made again.

The latter is exported graphs, engine files and measurements.
"""

import atexit
import contextlib
import functools
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs

APP_NAME = "midas-world"

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return MIDAS_WORLD_CACHE, or this user's cache folder by the platform's custom.

    Where nothing can be written there, and nothing was before, a warning and a temporary folder,
    which goes with this process.
    """
    try:
        named = os.environ.get("MIDAS_WORLD_CACHE")
        chosen = Path(named) if named else _home_folder(platformdirs.user_cache_path)
    except RuntimeError as error:
        return _temporary_folder(str(error))
    if words := _objection(chosen):
        return _temporary_folder(words)
    return chosen


def settings_folder() -> Path:
    """Return where a player's own things are kept: settings, and the best that was done."""
    try:
        return _home_folder(platformdirs.user_config_path)
    except RuntimeError:
        return cache_folder()


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


def _home_folder(find: Callable[..., Path]) -> Path:
    """Return a folder of platformdirs.

    Raises:
        RuntimeError: There is no HOME, and no passwd file knows the user.
    """
    folder = find(APP_NAME, appauthor=False)
    if not folder.is_absolute():  # older ones leave a "~" in it
        raise RuntimeError("could not determine the home directory")
    return folder
