"""Worker processes that collect one seed after another, and the reports of what became of each.

Knows processes, pipes and signals; what collecting a seed means is the caller's business
(collect.py). A worker that fails loses its seed, not the others, and one that dies is replaced.
"""

import contextlib
import errno
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol, cast


class Collector(Protocol):
    """Collects in one process; made there, and anew after an error."""

    def collect(self, seed: int) -> int:
        """Write what belongs to this seed; return its number of frames."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


@dataclass(frozen=True, kw_only=True)
class SeedReport:
    """What became of one seed.

    Attributes:
        error: Why it failed; None if it did not.
        disk_full: Whether it failed for want of space, as every other one would.
    """

    seed: int
    frames: int = 0
    error: str | None = None
    disk_full: bool = False


def run_workers(
    make_collector: Callable[[], Collector], seeds: Sequence[int], *, num_workers: int
) -> Generator[SeedReport, None, None]:
    """Hand seeds to worker processes and yield what became of each; ends early on a full disk.

    Closing the generator ends the workers in the midst of what they do.

    Args:
        make_collector: Called in the workers, so it must be something that pickle knows by name.
        seeds: What to collect, in this order.
        num_workers: Processes at most.

    Raises:
        RuntimeError: a worker process cannot start.
    """
    pending = deque(seeds)
    workers: dict[Connection, BaseProcess] = {}
    busy: dict[Connection, int | None] = {}  # None: not ready yet

    def start_worker() -> None:
        connection, process = _start_worker(make_collector)
        workers[connection], busy[connection] = process, None

    try:
        for _ in range(min(num_workers, len(seeds))):
            start_worker()
        while workers:
            for connection in cast("list[Connection]", wait(list(workers))):
                try:
                    report = connection.recv()
                except (EOFError, ConnectionError):
                    code = _join_worker(connection, workers)
                    seed = busy[connection]
                    if seed is None:
                        message = f"a worker could not start; it ended with code {code}"
                        raise RuntimeError(message) from None
                    yield SeedReport(seed=seed, error=f"its worker died with code {code}")
                    if pending:
                        start_worker()
                    continue
                if report is not None:
                    yield report
                    if report.disk_full:
                        pending.clear()
                busy[connection] = pending.popleft() if pending else None
                # A worker that died just now is met again, by recv, in the next round.
                with contextlib.suppress(BrokenPipeError):
                    connection.send(busy[connection])
                if busy[connection] is None:
                    _join_worker(connection, workers)
    finally:
        for process in workers.values():
            _kill(process)
        for connection in list(workers):
            _join_worker(connection, workers)


def _start_worker(make_collector: Callable[[], Collector]) -> tuple[Connection, BaseProcess]:
    """Return a new worker and our end of its pipe; it reports itself ready by sending None."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(make_collector, theirs), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def _kill(process: BaseProcess) -> None:
    """End a worker and what its env has started, such as ViZDoom's engine.

    Not by terminate(): SDL, which draws many an env, catches its signal.
    """
    assert process.pid is not None
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):  # it has not begun, or has ended
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


def _join_worker(connection: Connection, workers: dict[Connection, BaseProcess]) -> int | None:
    """Wait for a worker that is ending, take it from the table, and return its exit code."""
    process = workers.pop(connection)
    process.join()
    connection.close()
    return process.exitcode


def _work(make_collector: Callable[[], Collector], connection: Connection) -> None:
    """Collect the seeds that come down the pipe until None comes; the body of a worker."""
    # Ctrl-C reaches the whole process group; the parent decides what to do about it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.name == "posix":
        os.setpgid(0, 0)  # with all that the env starts
    threading.Thread(target=_die_with_parent, daemon=True).start()
    connection.send(None)
    collector = None
    while (seed := connection.recv()) is not None:
        try:
            collector = collector or make_collector()
            report = SeedReport(seed=seed, frames=collector.collect(seed))
        except Exception as error:  # The border of a process: whatever it is, report the seed.
            collector = None  # Its state is unknown now.
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            message = f"disk full: {error}" if full else traceback.format_exc()
            report = SeedReport(seed=seed, error=message, disk_full=full)
        connection.send(report)
    if collector is not None:
        collector.close()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    # A killed parent leaves nobody to clean up or to report to; the next start clears away.
    if os.name == "posix":
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
