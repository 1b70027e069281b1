"""A program's two ends towards the terminal: letters that it cannot show, and being ended."""

import atexit
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def show_any_letter() -> None:
    """Let letters that the terminal's encoding lacks be shown as others, not end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def orderly_end() -> Iterator[None]:
    """Let SIGTERM end what runs as Ctrl-C does: what is open is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave(code: int) -> NoReturn:
    """End the process at once, when all that is open has been closed.

    To take the interpreter down around torch takes a second, and around libraries that a thread is
    still loading it crashes.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's own order
    raise Terminated
