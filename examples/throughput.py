"""How many frames a second a world makes for B games at once, and in how much memory.

    python -m examples.throughput                        # the curve, as a Markdown table
    python -m examples.throughput --backend torch        # on another backend than "auto" takes
    python -m examples.throughput --memory-steps 20000   # whether memory grows with the steps
    python -m examples.throughput --states               # what a rollout state costs beside a step

This measures whole environments; `midas-world bench` measures the networks, part by part.
Each row is measured in a process of its own, so that its memory is its own. Linux and macOS.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

from midas_world.edge import run_command
from midas_world.machine import peak_memory_mib

WARM_UP_STEPS = 10
FIRST_STEPS = 200
BATCHES = (1, 2, 4, 8, 16, 32)
OBSERVATIONS = ("pixels", "latent")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for and print it."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.memory_steps is not None and args.memory_steps <= FIRST_STEPS:
        parser.error(f"--memory-steps must be more than {FIRST_STEPS}, got {args.memory_steps}")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        if args.memory_steps:
            print(f"| observation | MiB after {FIRST_STEPS} steps | after {args.memory_steps} |")
            print("|---|---|---|")
            for mode in args.observation:
                job = pool.submit(memory, args.world, args.backend, mode, args.memory_steps)
                first, last = job.result()
                print(
                    f"| {mode} | {first:.0f} | {last:.0f} ({last / first - 1:+.1%}) |", flush=True
                )
            return
        if args.states:
            print("| state, MB | saved in, ms | restored in, ms | step, ms |")
            print("|---|---|---|---|")
            row = pool.submit(states, args.world, args.backend, args.steps).result()
            print("| " + " | ".join(f"{value:.1f}" for value in row) + " |", flush=True)
            return
        print("| observation | games | frames/s | step, median ms | p99 ms | peak memory, MiB |")
        print("|---|---|---|---|---|---|")
        for mode in args.observation:
            for batch in args.batch:
                job = pool.submit(throughput, args.world, args.backend, mode, batch, args.steps)
                median, p99, peak = job.result()
                rate = 1e3 * batch / median
                print(
                    f"| {mode} | {batch} | {rate:.0f} | {median:.1f} | {p99:.1f} | {peak:.0f} |",
                    flush=True,
                )


def throughput(
    world: str, backend: str, observation: str, batch: int, steps: int
) -> tuple[float, float, float]:
    """Return median and p99 of a step in ms, and this process's peak memory in MiB."""
    times: list[float] = []
    for seconds in _play(world, backend, observation, batch, WARM_UP_STEPS + steps):
        times.append(1e3 * seconds)
    times = sorted(times[WARM_UP_STEPS:])
    p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
    return statistics.median(times), p99, peak_memory_mib()


def memory(world: str, backend: str, observation: str, steps: int) -> tuple[float, float]:
    """Return this process's peak memory in MiB after FIRST_STEPS steps and after all of them."""
    first = 0.0
    for number, _ in enumerate(_play(world, backend, observation, 1, steps), start=1):
        if number == FIRST_STEPS:
            first = peak_memory_mib()
    return first, peak_memory_mib()


def states(world: str, backend: str, steps: int) -> tuple[float, float, float, float]:
    """Return a state's size in MB, and medians in ms: save, restore, and a step of one game."""
    import gymnasium

    import midas_world  # noqa: F401 - registers the ids
    from envs.world.env import WorldEnv

    env = gymnasium.make("midas/Stage-v0", world=world, backend=backend, horizon=10**9).unwrapped
    assert isinstance(env, WorldEnv)
    env.reset(seed=0)
    env.action_space.seed(0)
    times: list[tuple[float, ...]] = []
    size = 0.0
    for _ in range(WARM_UP_STEPS + steps):
        action = env.action_space.sample()
        marks = [time.perf_counter()]
        state = env.save_state()
        marks.append(time.perf_counter())
        env.step(action)
        marks.append(time.perf_counter())
        env.restore_state(state)
        marks.append(time.perf_counter())
        env.step(action)
        times.append(tuple(1e3 * (end - begin) for begin, end in pairwise(marks)))
        size = sum(tensor.nbytes for tensor in state.tensors.values()) / 1e6
    env.close()
    save, step, restore = (
        statistics.median(part) for part in zip(*times[WARM_UP_STEPS:], strict=True)
    )
    return size, save, restore, step


def _play(world: str, backend: str, observation: str, batch: int, steps: int):
    """Play random actions and yield how many seconds each step took."""
    # The parent stays small: what it holds would count as its children's memory.
    import gymnasium

    import midas_world  # noqa: F401 - registers the ids

    games = gymnasium.make_vec(
        "midas/Stage-v0",
        num_envs=batch,
        world=world,
        backend=backend,
        observation=observation,
        horizon=10**9,
    )
    games.action_space.seed(0)
    games.reset(seed=0)
    for _ in range(steps):
        actions = games.action_space.sample()
        started = time.perf_counter()
        games.step(actions)
        yield time.perf_counter() - started
    games.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure a world's speed and memory.")
    parser.add_argument("--world", default="stage", help="a shipped world's name, or a folder")
    parser.add_argument("--backend", default="auto", help="as the environments take it")
    parser.add_argument("--batch", type=int, nargs="+", default=BATCHES, metavar="B")
    parser.add_argument("--observation", nargs="+", default=OBSERVATIONS, choices=OBSERVATIONS)
    parser.add_argument("--steps", type=int, default=100, help="measured steps per row")
    parser.add_argument(
        "--memory-steps", type=int, help=f"steps of the memory check, more than {FIRST_STEPS}"
    )
    parser.add_argument("--states", action="store_true", help="what saving and restoring costs")
    return parser


if __name__ == "__main__":
    sys.exit(run_command("throughput", main, sys.argv[1:]))
