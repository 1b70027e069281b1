"""Recorders killed with SIGKILL: what they leave opens, and lacks no more than the last second.

`python -m tests.test_killed FOLDER SEED` is such a recorder.
"""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from envs.recording.record import RecordSession
from midas_world.data.video import import_av
from midas_world.sessions.session import load_session

FPS = 60
LONGEST_S, OPENING_S = 1.6, 0.08  # of play; about what opening takes


class StripesEnv(gym.Env):
    """Frames that differ: the number of the step as a pattern."""

    def __init__(self):
        self.action_space = spaces.Discrete(5)
        self.observation_space = spaces.Box(0, 255, (48, 64, 3), np.uint8)
        self.count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._frame(), {}

    def step(self, action):
        self.count += 1
        return self._frame(), float(action), False, False, {"pose": np.full(8, self.count, "f4")}

    def _frame(self):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[:, :: self.count % 7 + 2] = (self.count * 5 % 256, 90, 200)
        return frame


def record(folder: Path, seed: int) -> None:
    """Record until killed, and tell when it opens and when each step was done."""
    import_av()
    env, rng = RecordSession(StripesEnv(), folder, fps=FPS), np.random.default_rng(seed)
    print("opens", flush=True)
    env.reset(seed=seed)
    due = time.monotonic()
    while True:
        env.step(int(rng.integers(5)))
        print(time.monotonic(), flush=True)
        due = max(due + 1 / FPS, time.monotonic())  # late steps are not caught up
        time.sleep(max(0.0, due - time.monotonic()))


def killed(folder: Path, seed: int) -> np.ndarray:
    """Return when each step was done of a recorder that was killed at a random moment.

    One in ten is killed while it opens its files, the others after so much of their own play: on a
    busy machine that takes longer. Either may be in the midst of a step.
    """
    rng, times = np.random.default_rng(seed), []
    command = [sys.executable, "-m", "tests.test_killed", str(folder), str(seed)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as recorder:
        try:
            assert recorder.stdout.readline() == "opens\n"
            if seed % 10 == 9:
                time.sleep(rng.uniform(0.0, OPENING_S))
            else:
                played_s = rng.uniform(0.0, LONGEST_S)
                while not times or times[-1] - times[0] < played_s:
                    times.append(float(recorder.stdout.readline()))
                time.sleep(rng.uniform(0.0, 1 / FPS))
            assert recorder.poll() is None, "the recorder ended by itself"
        finally:
            recorder.kill()
        return np.array([*times, *map(float, recorder.stdout)])


@pytest.mark.slow  # a second of play before most are killed, and all have the cores together
@pytest.mark.timeout(1000)
def test_killed_sessions_hold_all_but_the_last_second(tmp_path):
    count = 200 if os.environ.get("MIDAS_TEST_LARGE") else 12
    folders = [tmp_path / str(seed) for seed in range(count)]
    with ThreadPoolExecutor(16) as threads:
        runs = list(threads.map(killed, folders, range(count)))
    lost, num_long = [], 0
    for folder, times in zip(folders, runs, strict=True):
        if not folder.exists():
            assert not times.size, folder  # not open yet: nothing was played
            continue
        session = load_session(folder)
        assert not session.is_closed
        older = times <= times[-1:] - 1.0  # more than a second of play before the last step
        assert session.num_steps >= older.sum(), folder
        assert len(list(session.frames())) == session.num_frames
        lost.append(max(0, times.size - session.num_steps))
        num_long += older.any()
    # It would be no test if nobody had played for longer than a second.
    assert num_long > count // 4
    print(f"{count} killed; steps lost: median {np.median(lost):.0f}, at most {max(lost)} of 60/s")


if __name__ == "__main__":
    record(Path(sys.argv[1]), int(sys.argv[2]))
