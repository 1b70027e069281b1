"""A short run; FUZZ_SECONDS makes it longer, `python -m tests.fuzz` as long as you like."""

import os
import sys

import pytest

from tests.fuzz.harness import run, table


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of forked processes")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_changed_files_are_used_or_refused_in_words():
    seconds = float(os.environ.get("FUZZ_SECONDS", "3"))
    counts, notes = run(100_000, seconds=min(seconds, 60))
    print(table(counts))
    assert counts
    assert not notes
