"""Kills recorders at random moments; run by test_killed.py as a program of its own.

Forks children that record a fast environment at 60 steps a second, each until it is killed with
SIGKILL, and writes down what each had done by then: python kill_recorders.py FOLDER COUNT SEED

One in ten is killed while it opens its files, the others after so many seconds of their own play:
on a busy machine that takes longer, and says as much.
"""

import json
import mmap
import os
import signal
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium import spaces

import midas_world.sessions.video  # noqa: F401  loaded once, before the forks
from envs.recording.record import RecordSession
from midas_world.data.video import import_av

AT_ONCE = 16
FPS = 60
LONGEST_S = 1.6
OPENING_S = 0.08  # about what opening takes
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


@dataclass(kw_only=True)
class Recorder:
    """A child that records, and when it is to be killed."""

    pid: int
    folder: Path
    shared: mmap.mmap
    kill_at: float | None  # known from the start of one that is killed while it opens
    played_s: float  # of the others: after so much play,
    delay_s: float  # and so much more, that it may be anywhere in a step

    @property
    def times(self) -> tuple[float, ...]:
        """When each step was done."""
        (count,) = struct.unpack_from("q", self.shared, 0)
        return struct.unpack_from(f"{count}d", self.shared, 8)

    def is_due(self) -> bool:
        """Return whether its moment has come."""
        if self.kill_at is None:
            times = self.times
            if not times or times[-1] - times[0] < self.played_s:
                return False
            self.kill_at = time.monotonic() + self.delay_s
        return time.monotonic() >= self.kill_at

    def kill(self) -> dict:
        """Kill it, and return what it had done."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        if not os.WIFSIGNALED(status):
            raise RuntimeError(f"the recorder of {self.folder} ended by itself")
        times = self.times
        return {
            "folder": self.folder.name,
            "num_steps": len(times),
            # More than a second of play before the last step.
            "num_older": sum(at <= times[-1] - 1.0 for at in times),
        }


def start(folder: Path, seed: int, rng: np.random.Generator) -> Recorder:
    """Return a recorder that runs, to be killed at a random moment."""
    shared = mmap.mmap(-1, 8 * 4096)
    is_opening = seed % 10 == 9
    opening_s, played_s = rng.uniform(0.0, OPENING_S), rng.uniform(0.0, LONGEST_S)
    pid = os.fork()
    if pid == 0:
        record(folder, seed, shared)
        os._exit(1)
    return Recorder(
        pid=pid,
        folder=folder,
        shared=shared,
        kill_at=time.monotonic() + opening_s if is_opening else None,
        played_s=played_s,
        delay_s=rng.uniform(0.0, 1 / FPS),
    )


def main() -> None:
    """Kill as many recorders as were asked for, and write down what each had done."""
    folder, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    import_av()
    rng = np.random.default_rng(seed)
    running: list[Recorder] = []
    done: list[dict] = []
    num_started = 0
    while len(done) < count:
        while len(running) < AT_ONCE and num_started < count:
            running.append(start(folder / f"session-{num_started:04d}", num_started, rng))
            num_started += 1
        for recorder in [recorder for recorder in running if recorder.is_due()]:
            running.remove(recorder)
            done.append(recorder.kill())
        time.sleep(0.002)
    (folder / "killed.json").write_text(json.dumps(done))


if __name__ == "__main__":
    main()
