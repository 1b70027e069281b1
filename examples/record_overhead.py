"""Measures what recording costs: `python -m examples.record_overhead [--steps 400]`.

One environment is stepped in turns with and without recording, so that a machine that is busy with
something else is so for both. By default it steps as fast as it can, which is the hardest case.
Processor time is that of all threads, and tells more than the rate where others use the machine.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from envs.recording.record import EnvRecorder
from midas_world.edge import run_command
from midas_world.sessions.session import load_session


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """What recording cost.

    Attributes:
        rate_without: Steps per second, the median over the turns.
        rate_with: The same while recording, until the last frame of the turn was written.
        cpu_ms_without: Processor time of a step, the median over the turns.
        cpu_ms_with: The same while recording.
        waited_s: How long steps had to wait for the writer, of all turns together.
        num_recorded: Frames handed over.
        num_held: Frames that the session on disk holds.
        bytes_per_frame: On disk.
    """

    rate_without: float
    rate_with: float
    cpu_ms_without: float
    cpu_ms_with: float
    waited_s: float
    num_recorded: int
    num_held: int
    bytes_per_frame: float

    @property
    def share(self) -> float:
        """Share of the step rate that recording takes; negative if it was measured faster."""
        return 1.0 - self.rate_with / self.rate_without

    def __str__(self) -> str:
        """Words for the terminal."""
        return (
            f"without recording {self.rate_without:.1f} steps/s, with {self.rate_with:.1f}: "
            f"costs {100 * self.share:.1f} %\n"
            f"processor time of a step {self.cpu_ms_without:.1f} ms, {self.cpu_ms_with:.1f} ms\n"
            f"{self.num_recorded} frames recorded, {self.num_held} held, "
            f"{self.num_recorded - self.num_held} dropped; waited {self.waited_s:.2f} s; "
            f"{self.bytes_per_frame / 1000:.1f} KB a frame"
        )


def measure(
    env: gym.Env[Any, Any],
    folder: Path,
    *,
    num_steps: int,
    steps_per_turn: int = 20,
    fps: float | None = None,
) -> Overhead:
    """Step an environment in turns with and without recording it.

    Args:
        env: With observations that are pictures.
        folder: Of the session; to be made.
        num_steps: In all.
        steps_per_turn: Of one turn.
        fps: Steps per second; None is as fast as it goes.
    """
    rng = np.random.default_rng(0)
    records_first = False
    recorder = EnvRecorder(env, folder)
    observation, info = env.reset(seed=0)
    recorder.begin(observation, info, kind="reset", begin={"seed": 0})
    recorder.check_open()
    rates: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    env.action_space.seed(0)
    for turn in range(max(2, num_steps // steps_per_turn)):
        if turn % 2 == 0:
            # Which comes first is drawn, so that nothing regular can favour one.
            records_first = bool(rng.integers(2))
        records = records_first == (turn % 2 == 0)
        action = env.action_space.sample()
        started, cpu_started = time.perf_counter(), time.process_time()
        for step in range(steps_per_turn):
            if fps:
                time.sleep(max(0.0, started + step / fps - time.perf_counter()))
            began = time.perf_counter()
            outcome = env.step(action)
            if records:
                recorder.step(action, *outcome, step_time=time.perf_counter() - began)
            if outcome[2] or outcome[3]:
                observation, info = env.reset()
                if records:
                    recorder.begin(observation, info, kind="reset", begin={"seed": None})
        status = recorder.status
        while records and status is not None and status.num_pending:
            time.sleep(0.0005)
            status = recorder.status
        rates[records].append(steps_per_turn / (time.perf_counter() - started))
        cpu[records].append(1000 * (time.process_time() - cpu_started) / steps_per_turn)
    recorder.close()
    status = recorder.status
    assert status is not None
    session = load_session(folder)
    return Overhead(
        rate_without=float(np.median(rates[False])),
        rate_with=float(np.median(rates[True])),
        cpu_ms_without=float(np.median(cpu[False])),
        cpu_ms_with=float(np.median(cpu[True])),
        waited_s=status.waited_s,
        num_recorded=status.num_frames,
        num_held=session.num_frames,
        bytes_per_frame=status.num_bytes / status.num_frames,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m examples.record_overhead", description=__doc__)
    parser.add_argument("--world", default="stage", help="a shipped world's name, or a folder")
    parser.add_argument("--steps", type=int, default=400, help="in all (default: %(default)s)")
    parser.add_argument("--fps", type=float, help="steps per second (default: as fast as it goes)")
    args = parser.parse_args(argv)
    # torch takes seconds to load: --help does without.
    from envs.world.env import WorldEnv

    env = WorldEnv(args.world, horizon=10**9)
    with tempfile.TemporaryDirectory() as folder:
        print(measure(env, Path(folder) / "session", num_steps=args.steps, fps=args.fps))
    env.close()


if __name__ == "__main__":
    sys.exit(run_command("record_overhead", main, sys.argv[1:]))
