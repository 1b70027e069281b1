"""A program's two ends towards the terminal: letters that it cannot show, and being ended."""

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

LOADING_THREAD = "stepper"


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
    """End the process at once, also where a world is still loading behind a closed window.

    Libraries that are being loaded in a thread crash if the interpreter is taken down around them.
    """
    if any(thread.name == LOADING_THREAD for thread in threading.enumerate()):
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's own order
    raise Terminated
