"""Recorders killed with SIGKILL: what they leave opens, and lacks no more than the last second."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from midas_world.sessions.session import load_session

ROOT = Path(__file__).parents[1]


@pytest.mark.slow  # a second of play before most are killed, and all have the cores together
@pytest.mark.timeout(1000)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_sessions_hold_all_but_the_last_second(tmp_path):
    count = 200 if os.environ.get("MIDAS_TEST_LARGE") else 12
    program = [sys.executable, "-m", "tests.kill_recorders", str(tmp_path), str(count), "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(program, cwd=ROOT, env=environment, check=True, timeout=900)
    killed = json.loads((tmp_path / "killed.json").read_text())
    assert len(killed) == count
    lost = []
    for item in killed:
        if not (tmp_path / item["folder"]).exists():
            assert item["num_steps"] == 0, item  # not open yet: nothing was played
            continue
        session = load_session(tmp_path / item["folder"])
        assert not session.is_closed
        assert session.num_steps >= item["num_older"], item
        assert len(list(session.frames())) == session.num_frames
        lost.append(max(0, item["num_steps"] - session.num_steps))
    # It would be no test if nobody had played for longer than a second.
    assert sum(item["num_older"] > 0 for item in killed) > count // 4
    print(f"{count} killed; steps lost: median {np.median(lost):.0f}, at most {max(lost)} of 60/s")
