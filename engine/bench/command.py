"""``midas-world bench``: a world's speed on each backend here, as Markdown."""

import argparse
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
import torch

from engine.bench.quality import MAX_GAMES, measure_quality
from engine.bench.timing import Times, time_parts, time_steps
from engine.make import BACKENDS, make_engine
from engine.on_torch.engine import TorchEngine
from engine.spec import Engine
from midas_world.arguments import count, natural
from midas_world.machine import cpu_name, load_average, num_cores
from midas_world.tables import table_lines
from midas_world.types import BackendUnavailableError
from midas_world.world import World, load_world


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status: 0 fine, 1 a backend could not be measured.

    Raises:
        CheckpointError: There is no such world.
        ValueError: It has no start state to play from, or an argument is outside its limits.
    """
    arguments = _parser().parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    world = load_world(arguments.world)
    if not world.start_states:
        raise ValueError(f"{world.folder} has no start state to play from")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(
        f"# Speed of {world.folder.resolve().name}\n\n{cpu_name()}, {num_cores()} cores, load "
        f"{load_average():.1f}; {torch.get_num_threads()} threads; {gpu}; torch "
        f"{torch.__version__}; {datetime.now(UTC):%Y-%m-%d %H:%M}Z"
    )
    status = 0
    for backend in dict.fromkeys(arguments.backend):
        try:
            given = {"device": arguments.device, "num_denoise_steps": arguments.num_denoise_steps}
            engine = make_engine(world, backend, **given)
        except BackendUnavailableError as error:
            print(f"\n## {backend}\n\n**Not measured**: {error}")
            status = 1
            continue
        print(f"\n## {engine.spec}\n\nChosen: {engine.spec.reason}.\n")
        for line in _measured(engine, world, arguments):
            print(line, flush=True)
    return status


def _measured(engine: Engine, world: World, arguments: argparse.Namespace) -> Iterator[str]:
    """Yield tables of whole steps, of their parts and, if asked for, of how exact frames are."""
    start, batches = world.start_states[0], sorted(set(arguments.batches))
    rows = []
    for batch_size in batches:
        try:
            times = time_steps(engine, start, batch_size=batch_size, num_steps=arguments.steps)
        except torch.OutOfMemoryError:
            rows.append((batch_size, "out of GPU memory", None, None))
            break
        median, p99 = _spread(times)
        rows.append((batch_size, median, p99, 1e3 * batch_size / median))
    yield from table_lines(("games at once", "median ms", "p99 ms", "frames/s"), rows, digits=2)
    sizes = {"batch_size": batches[0], "num_steps": arguments.steps}
    if parts := time_parts(engine, start, **sizes):
        columns = (f"part of a step, games: {batches[0]}", "median ms", "p99 ms")
        spreads = [(part, *_spread(times)) for part, times in parts.items()]
        yield from ("", *table_lines(columns, spreads, digits=3))
    if steps := arguments.quality:
        device, num_denoise_steps = engine.spec.device, engine.spec.num_denoise_steps
        exact = {"dtype": torch.float32, "num_denoise_steps": num_denoise_steps}
        reference = TorchEngine(world, device=device, **exact)
        found = measure_quality(engine, reference, world.start_states, num_steps=steps)
        columns = (f"frames against {reference.spec}, {MAX_GAMES} games at most", "PSNR dB")
        yield from ("", *table_lines(columns, found.items(), digits=1))


def _spread(times: Times) -> tuple[float, float]:
    median, p99 = np.percentile(times, (50, 99))
    return float(median), float(p99)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="midas-world bench",
        description="Measure how fast a world runs here, as a whole and part by part, and, if "
        "asked, how close its frames are to float32's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--world", default="stage", help="a shipped world's name, or a folder")
    names = ", ".join(BACKENDS)
    add(
        "--backend",
        nargs="+",
        choices=BACKENDS,
        default=("torch",),
        metavar="NAME",
        help=f"of {names}",
    )
    add("--batches", type=count, nargs="+", default=(1, 2, 4, 8), metavar="B", help="games at once")
    add("--steps", type=count, default=100, metavar="N", help="timed, for each number of games")
    add(
        "--quality",
        type=natural,
        default=0,
        metavar="N",
        help="also hold frames against those of float32 torch: the decoder's, and those of "
        "rollouts of N steps, 50 say",
    )
    add(
        "--soak",
        metavar="STEPS",
        help="only play so many steps in the window, and tell how memory grew; see "
        "midas-world bench --soak 1 --help",
    )
    add("--num-denoise-steps", type=count, metavar="K", help="instead of the world's own")
    add("--device", help="cpu or cuda; by itself, the GPU where there is one")
    add("--threads", type=count, metavar="N", help="instead of PyTorch's own number")
    return parser
