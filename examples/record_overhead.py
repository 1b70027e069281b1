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
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from envs.recording.record import EnvRecorder
from midas_world.edge import run_command
from midas_world.sessions.session import load_session


def measure(
    env: gym.Env[Any, Any],
    folder: Path,
    *,
    num_steps: int,
    steps_per_turn: int = 20,
    fps: float | None = None,
) -> str:
    """Step an environment in turns with and without recording; return in words what it cost."""
    rng = np.random.default_rng(0)
    records_first = False
    recorder = EnvRecorder(env, folder)
    observation, info = env.reset(seed=0)
    recorder.begin(observation, info, kind="reset", begin={"seed": 0})
    recorder.check_open()
    # Steps per second, and processor time of a step in ms, without and with recording.
    rates: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    env.action_space.seed(0)
    for turn in range(2 * max(1, num_steps // (2 * steps_per_turn))):
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
                recorder.step(action, outcome, step_time=time.perf_counter() - began)
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
    held = load_session(folder).num_frames
    (without, recording), (cpu_without, cpu_recording) = np.median(rates, 1), np.median(cpu, 1)
    return (
        f"without recording {without:.1f} steps/s, with {recording:.1f}: "
        f"costs {100 * (1 - recording / without):.1f} %\n"
        f"processor time of a step {cpu_without:.1f} ms, {cpu_recording:.1f} ms\n"
        f"{status.num_frames} frames recorded, {held} held, {status.num_frames - held} dropped; "
        f"waited {status.waited_s:.2f} s; "
        f"{status.num_bytes / status.num_frames / 1000:.1f} KB a frame"
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
