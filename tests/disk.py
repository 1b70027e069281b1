"""A disk that is full, and one that tells what was opened."""

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_OPEN, _CLOSE = 0x20, 0x18  # of Linux's inotify


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """Let this process write no file beyond so many bytes: OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def opened_files(folders: Iterable[Path]) -> Iterator[list[Path]]:
    """Give a list that at the end has the files in these folders as often as they were opened.

    The kernel says so, whatever code opened them.
    """
    if sys.platform != "linux":
        pytest.skip("only Linux tells what is opened")
    libc, opened = ctypes.CDLL(None), []
    watcher = libc.inotify_init1(os.O_NONBLOCK)
    try:
        # Equal events in a row come as one, so that closing parts them.
        watched = {
            libc.inotify_add_watch(watcher, os.fsencode(folder), _OPEN | _CLOSE): folder
            for folder in folders
        }
        yield opened
        events = os.read(watcher, 1 << 20)
        while events:
            number, mask, _, size = struct.unpack_from("iIII", events)
            name, events = events[16 : 16 + size].rstrip(b"\0"), events[16 + size :]
            if name and mask & _OPEN:
                opened.append(watched[number] / os.fsdecode(name))
    finally:
        os.close(watcher)
