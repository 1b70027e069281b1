"""Work of a `BackgroundBuild` for tests: imports nothing, so that its process starts at once."""

import contextlib
import os
import tempfile
import time


def finish(name, sender):
    sender.send(("progress", f"building {name}, 50 %"))
    sender.send(("made", f"{name} is built"))


def crash(sender):
    raise SystemExit(3)


def tell_priority(sender):
    niceness = os.nice(0) if hasattr(os, "nice") else 19
    sender.send(("made", f"{niceness}, {os.environ['OMP_NUM_THREADS']} threads"))


def hold_a_temporary_file(folder, sender):
    with tempfile.TemporaryDirectory(dir=folder):
        sender.send(("progress", "half done"))
        time.sleep(600)


def refuse_to_end(sender):
    sender.send(("progress", "building"))
    while True:
        with contextlib.suppress(SystemExit):  # as a library's native code does
            time.sleep(600)
