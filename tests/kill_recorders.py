"""Kills recorders at random moments; run by test_sessions.py as a program of its own.

Forks children that record a fast environment at 60 steps a second, each until it is killed with
SIGKILL, and writes down what each had done by then: python kill_recorders.py FOLDER COUNT SEED
"""

import json
import mmap
import os
import signal
import struct
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import midas_world.session_video  # noqa: F401  loaded once, before the forks
from envs.record import RecordSession
from midas_world.video import import_av

AT_ONCE = 10
FPS = 60
HEIGHT, WIDTH = 48, 64


class StripesEnv(gym.Env):
    """Frames that differ: the number of the step as a pattern."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012
    render_mode = "rgb_array"

    def __init__(self):
        self.action_space = spaces.Discrete(5)
        self.observation_space = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        self.count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._frame(), {}

    def step(self, action):
        self.count += 1
        return self._frame(), float(action), False, False, {"pose": np.full(8, self.count, "f4")}

    def _frame(self):
        frame = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        frame[:, :: self.count % 7 + 2] = (self.count * 5 % 256, 90, 200)
        return frame


def record(folder: Path, seed: int, shared: mmap.mmap) -> None:
    """Record until killed; `shared` holds the number of steps and the time of each."""
    env = RecordSession(StripesEnv(), folder)
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    due = time.monotonic()
    number = 0
    while True:
        env.step(int(rng.integers(5)))
        number += 1
        struct.pack_into("d", shared, 8 * number, time.monotonic())
        struct.pack_into("q", shared, 0, number)
        due = max(due + 1 / FPS, time.monotonic())  # late steps are not caught up
        time.sleep(max(0.0, due - time.monotonic()))


def kill_some(folder: Path, seeds: range, rng: np.random.Generator) -> list[dict]:
    """Start recorders, kill each at a moment of its own, and return what they had done."""
    running = []
    for seed in seeds:
        shared = mmap.mmap(-1, 8 * 4096)
        path = folder / f"session-{seed:04d}"
        pid = os.fork()
        if pid == 0:
            record(path, seed, shared)
            os._exit(1)
        running.append((pid, path, shared))
    for _, path, _ in running:
        while not (path / "video.mp4").exists():
            time.sleep(0.005)
    began = time.monotonic()
    moments = sorted(zip(rng.uniform(0.05, 2.2, len(running)), running, strict=True))
    done = []
    for moment, (pid, path, shared) in moments:
        time.sleep(max(0.0, began + moment - time.monotonic()))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        (count,) = struct.unpack_from("q", shared, 0)
        times = struct.unpack_from(f"{count}d", shared, 8)
        done.append(
            {
                "folder": path.name,
                "num_steps": count,
                # More than a second of play before the last step.
                "num_older": sum(at <= times[-1] - 1.0 for at in times),
            }
        )
    return done


def main() -> None:
    """Kill as many recorders as were asked for."""
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    import_av()
    rng = np.random.default_rng(seed)
    done = []
    for start in range(0, count, AT_ONCE):
        done += kill_some(folder, range(start, min(count, start + AT_ONCE)), rng)
    (folder / "killed.json").write_text(json.dumps(done))


if __name__ == "__main__":
    main()
