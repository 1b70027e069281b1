"""One at a time: what works on a folder keeps others from working on it, until its process ends."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from midas_world.types import MidasWorldError


class BusyError(MidasWorldError):
    """Another process, or another part of this one, works on a folder; the message names it."""


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Work on a folder, which may not exist yet, alone; a hidden file beside it says so.

    Raises:
        BusyError: Another one works on it.
    """
    path = folder.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    # Windows and their games are closed by other threads than opened them.
    lock = FileLock(path.with_name(f".{path.name}.lock"), timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(
            f"another midas-world is at work on {folder}: wait for it, or name another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
