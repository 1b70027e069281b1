"""A display server of one's own for tests that need a real one: Xvfb."""

import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

needs_xvfb = pytest.mark.skipif(shutil.which("Xvfb") is None, reason="needs Xvfb")


@contextmanager
def x_server() -> Iterator[str]:
    """Start one and yield its DISPLAY."""
    reads, writes = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writes), "-nolisten", "tcp", "-noreset"],
        pass_fds=[writes],
        stderr=subprocess.DEVNULL,
    )
    try:
        os.close(writes)
        assert select.select([reads], [], [], 30)[0], "Xvfb did not start"
        yield f":{os.read(reads, 16).decode().strip()}"
    finally:
        os.close(reads)
        server.terminate()
        server.wait(30)
