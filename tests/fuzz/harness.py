"""Opens changed files in children that may die, and counts what came of it.

Outcomes: "worked"; "clear": one of our errors, in one line; "traceback": any other; "memory": it
ran out, or much of it was in use; "hang"; "silently wrong": taken for good; "crash": the process
died.
"""

import logging
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from midas_world.machine import give_back_memory
from midas_world.types import MidasWorldError
from tests.fuzz.mutations import mutate_file
from tests.fuzz.subjects import SUBJECTS, SilentlyWrongError, remember_configs

BAD = ("traceback", "memory", "hang", "silently wrong", "crash")
_HANG_S = 30  # of the clock, on a machine that may have other work
_TOO_LONG = signal.SIGUSR1  # which nobody handles
_MORE_MEMORY = 2 * 2**30
_MUCH_MEMORY = 2**29  # that one small input makes a process use at its peak
_CHILD_INPUTS = 1000


def run(num_inputs: int, *, seconds: float, first_seed: int = 0) -> tuple[Counter, list[str]]:
    """Open so many changed files, for so many seconds at most; return counts and what was bad."""
    counts: Counter[tuple[str, str]] = Counter()
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="midas-fuzz-") as folder:
        for name, subject in SUBJECTS.items():
            (Path(folder) / "good" / name).mkdir(parents=True)
            subject.make(Path(folder) / "good" / name)
            subject.use(Path(folder) / "good" / name)  # which has to work
        end = time.monotonic() + seconds
        seed, last = first_seed, first_seed + num_inputs
        while seed < last and time.monotonic() < end:
            seed = _run_child(
                Path(folder), seed, min(last, seed + _CHILD_INPUTS), end, counts, notes
            )
    return counts, notes


def _run_child(
    folder: Path, seed: int, stop: int, end: float, counts: Counter, notes: list[str]
) -> int:
    """Let a child open some; return the seed to go on from."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _work(folder, seed, stop, end, writing)
    os.close(writing)
    for line in _lines(reading, child):
        name, outcome, words = line.split("\t")
        counts[name, outcome] += 1
        if outcome in BAD:
            notes.append(f"seed {seed} {name}: {outcome}: {words}")
        seed += 1
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if status:
        name, outcome = _name_of(seed), "hang" if os.WTERMSIG(status) == _TOO_LONG else "crash"
        counts[name, outcome] += 1
        notes.append(f"seed {seed} {name}: {outcome}: status {status}")
        seed += 1
    return seed


def _lines(reading: int, child: int) -> Iterator[str]:
    """Yield what a child writes until its end, which comes when it is silent for too long."""
    rest = b""
    while select.select([reading], [], [], _HANG_S)[0]:
        if not (data := os.read(reading, 1 << 16)):
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
    os.kill(child, _TOO_LONG)


def _work(folder: Path, seed: int, stop: int, end: float, writing: int) -> None:
    """Open inputs until told otherwise, one line for each; never returns."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + _MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    remember_configs()
    for number in range(seed, stop):
        if time.monotonic() >= end:
            break
        outcome, words = _open(folder, number)
        line = f"{_name_of(number)}\t{outcome}\t{' '.join(words.split())[:300]}\n"
        os.write(writing, line.encode(errors="replace"))
    os._exit(0)


def _name_of(seed: int) -> str:
    return list(SUBJECTS)[seed % len(SUBJECTS)]


def make_input(folder: Path, seed: int) -> Path:
    """Write the changed file or folder of a seed and return it."""
    name, rng = _name_of(seed), np.random.default_rng(seed)
    path = folder / "changed"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(folder / "good" / name, path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    mutate_file(files[int(rng.integers(len(files)))], rng)
    return path


def _open(folder: Path, seed: int) -> tuple[str, str]:
    path = make_input(folder, seed)
    give_back_memory()  # else what an earlier input took and freed is taken again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = _peak_memory()
    outcome, words = _use(path, seed)
    more = _peak_memory() - before
    if more > _MUCH_MEMORY:
        return "memory", f"{outcome}, with {more >> 20} MiB more: {words}"
    return outcome, words


def _peak_memory() -> int:
    """Return the most bytes that this process has used since its peak is counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _use(path: Path, seed: int) -> tuple[str, str]:
    try:
        SUBJECTS[_name_of(seed)].use(path)
    except SilentlyWrongError as error:
        return "silently wrong", str(error)
    except MemoryError as error:
        return "memory", str(error)
    except (MidasWorldError, ValueError, OSError) as error:
        return "clear", str(error)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    return "worked", ""


def table(counts: Counter) -> str:
    """Return counts as lines: kinds of files, and what came of them."""
    outcomes = ("worked", "clear", *BAD)
    lines = [f"{'':10}" + "".join(f"{outcome:>16}" for outcome in outcomes)]
    for name in SUBJECTS:
        lines.append(f"{name:10}" + "".join(f"{counts[name, o]:16}" for o in outcomes))
    sums = [sum(counts[name, outcome] for name in SUBJECTS) for outcome in outcomes]
    return "\n".join([*lines, f"{'all':10}" + "".join(f"{number:16}" for number in sums)])
