"""A short run: `python -m tests.fuzz` is as long as you like."""

import ctypes
import os
import signal
import sys
import time

import pytest

from tests.fuzz import harness
from tests.fuzz.harness import run, table
from tests.fuzz.subjects import SUBJECTS, SilentlyWrongError, Subject

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of forked processes"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def test_changed_files_are_used_or_refused_in_words():
    num_inputs = 4 * len(SUBJECTS)
    counts, notes = run(num_inputs, seconds=200)
    print(table(counts))
    assert not notes
    assert counts.total() == num_inputs


def _fill(_):
    # As in a process in which the allocator has learned to keep what is freed.
    for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        ctypes.CDLL(None).mallopt(option, 2**30)
    return b"full" * 2**24


def _lie(folder):
    raise SilentlyWrongError("a lie")


@pytest.mark.parametrize(
    ("use", "outcome"),
    [
        (lambda _: {}["a"], "traceback"),
        (lambda _: bytes(2**40), "memory"),
        (_fill, "memory"),
        (lambda _: time.sleep(60), "hang"),
        (_lie, "silently wrong"),
        (lambda _: os.kill(os.getpid(), signal.SIGKILL), "crash"),
    ],
)
def test_what_is_worse_than_a_clear_error_is_told(monkeypatch, use, outcome):
    def use_changed(folder):
        if folder.name == "changed":
            use(folder)

    subject = Subject(lambda folder: (folder / "a.txt").write_text("words"), use_changed)
    monkeypatch.setattr(harness, "SUBJECTS", {"one": subject})
    monkeypatch.setattr(harness, "_HANG_S", 0.5)
    monkeypatch.setattr(harness, "_MUCH_MEMORY", 2**24)
    counts, notes = run(2, seconds=60)
    assert counts == {("one", outcome): 2}
    assert [note.split(": ")[:2] for note in notes] == [
        [f"seed {seed} one", outcome] for seed in (0, 1)
    ]
