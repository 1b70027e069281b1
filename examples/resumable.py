"""Pieces of work, one process each, done in calls of limited time.

A call does what is not done yet, in order, until its time is up; what was under way then is ended,
and the next call goes on. A piece that fails is told of, and those that do not need it go on. All
that is known of the pieces lies in one JSON file.

Which pieces there are is the caller's business (gpu.py). Needs nothing but Python, and of this
project midas_world/files.py, on Linux or macOS.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from midas_world.files import write_whole

# Kept back of a call for ending what is under way, and for writing results.
RESERVE_S = 15.0
# A piece that cannot go on from where it was is not begun with less.
LEAST_S = 20.0
# So often a piece may take the whole call down with it.
MOST_STARTS = 3
_GRACE_S = 5.0

Run = Callable[[Sequence[str], Path, float], int | None]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One piece of the work.

    Attributes:
        name: "group/rest".
        command: Returns the words after `python`; called when the piece begins.
        goes_on: Whether it goes on by itself from where it was ended.
        needs: Names of pieces that must be done before.
        check: Returns words for the report once the process has ended well; raises ValueError if
            what it left is not what it was for. None: the last line of its log.
    """

    name: str
    command: Callable[[], Sequence[str]]
    goes_on: bool = False
    needs: tuple[str, ...] = ()
    check: Callable[[], str] | None = None

    @property
    def group(self) -> str:
        """What stands before the first slash."""
        return self.name.partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of a piece.

    Attributes:
        status: "open", "running", "unfinished", "done" or "failed".
        seconds: That its process ran, all calls together.
        starts: How often it was begun.
        cut_after_s: How long it had run when it was last ended for time.
        words: What it said, or why it failed.
    """

    status: str = "open"
    seconds: float = 0.0
    starts: int = 0
    cut_after_s: float = 0.0
    words: str = ""


@dataclass(kw_only=True)
class State:
    """What is known of all pieces, kept in a file."""

    path: Path
    settings: dict[str, Any]
    records: dict[str, Record] = field(default_factory=dict)

    def of(self, piece: Piece | str) -> Record:
        """Return what became of a piece."""
        return self.records.get(piece if isinstance(piece, str) else piece.name, Record())

    def note(self, piece: Piece, **changes: Any) -> None:
        """Change what is known of a piece, on disk too."""
        self.records[piece.name] = replace(self.of(piece), **changes)
        content = {
            "settings": self.settings,
            "pieces": {name: asdict(record) for name, record in self.records.items()},
        }
        write_whole(self.path, json.dumps(content, indent=1) + "\n")


def open_state(path: Path, settings: Mapping[str, Any]) -> State:
    """Return the state in a file, or a new one.

    Raises:
        ValueError: The work was begun with other settings, or the file cannot be read.
    """
    present: dict[str, Any] = json.loads(json.dumps(settings))
    if not path.is_file():
        return State(path=path, settings=present)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        records = {name: Record(**record) for name, record in content["pieces"].items()}
        earlier = content["settings"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for name in {**earlier, **present}:
        was, now = earlier.get(name), present.get(name)
        if was != now:
            raise ValueError(
                f"the work in {path.parent} was begun with {name} {was!r}, now {now!r}: give the "
                "same options, or another --work"
            )
    return State(path=path, settings=present, records=records)


def work_through(
    pieces: Sequence[Piece],
    state: State,
    *,
    logs: Path,
    seconds: float,
    run: Run,
    clock: Callable[[], float] = time.monotonic,
    tell: Callable[[str], None] = print,
    after_each: Callable[[], None] = lambda: None,
) -> None:
    """Do pieces until all are done or failed, or the time is up.

    Args:
        pieces: In this order.
        state: Changed, in its file too.
        logs: Folder that receives each piece's output.
        seconds: Of this call.
        run: Runs the words after `python` with a log and a limit in seconds, and returns the exit
            status, or None if the limit ended it: `run_process` with its environment.
        clock: Seconds.
        tell: Receives lines for a person.
        after_each: Called when a piece has ended.
    """
    deadline = clock() + seconds - RESERVE_S
    is_first = True
    for piece in pieces:
        record, left = state.of(piece), deadline - clock()
        if record.status in ("done", "failed"):
            continue
        if lacking := [name for name in piece.needs if state.of(name).status != "done"]:
            words = ", ".join(f"{name} ({state.of(name).status})" for name in lacking)
            state.note(piece, words=f"waits for {words}")
            continue
        if left < (1.0 if piece.goes_on else LEAST_S):
            continue
        if not piece.goes_on and not is_first and left <= record.cut_after_s:
            continue  # it was not through after that long: the next call begins with it
        if not piece.goes_on and record.status == "running" and record.starts >= MOST_STARTS:
            words = f"begun {record.starts} times, and never came to an end"
            state.note(piece, status="failed", words=words)
            continue
        tell(f"{piece.name}: {left:.0f} s left")
        log = logs / f"{piece.name.replace('/', '-')}.log"
        _do(piece, state, log=log, left=left, run=run, clock=clock, has_whole_call=is_first)
        is_first = False
        record = state.of(piece)
        tell(f"{piece.name}: {record.status} {record.words}")
        after_each()


def _do(
    piece: Piece,
    state: State,
    *,
    log: Path,
    left: float,
    run: Run,
    clock: Callable[[], float],
    has_whole_call: bool,
) -> None:
    """Do one piece and note what became of it."""
    earlier = state.of(piece)
    state.note(piece, status="running", starts=earlier.starts + 1, words="")
    log.parent.mkdir(parents=True, exist_ok=True)
    began = clock()
    changes: dict[str, Any]
    try:
        code = run(piece.command(), log, left)
        if code is None and not piece.goes_on and has_whole_call:
            changes = {"status": "failed", "words": f"not through in a whole call, {left:.0f} s"}
        elif code is None:
            words = "goes on with the next call" if piece.goes_on else "anew with the next call"
            changes = {"status": "unfinished", "words": words, "cut_after_s": clock() - began}
        elif code:
            changes = {"status": "failed", "words": f"exit status {code}: {_last_line(log)}"}
        else:
            words = piece.check() if piece.check else _last_line(log)
            changes = {"status": "done", "words": words}
    # Whatever it was that failed, the other pieces' time must not be lost with it.
    except Exception as error:
        changes = {"status": "failed", "words": f"{type(error).__name__}: {error}"}
    state.note(piece, seconds=round(earlier.seconds + clock() - began, 1), **changes)


def run_process(
    words: Sequence[str], log: Path, limit_s: float, *, environment: Mapping[str, str]
) -> int | None:
    """Run `python WORDS` with its output added to a log; None if the limit ended it.

    Args:
        words: After `python`.
        log: File that receives the output, after what is in it.
        limit_s: After so many seconds the process and all that it started are ended.
        environment: Variables beside this process's own.
    """
    with log.open("ab") as output:
        output.write(f"\n$ python {' '.join(words)}\n".encode())
        output.flush()
        process = subprocess.Popen(  # noqa: S603 - the caller's own words, and no shell
            [sys.executable, *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            process_group=0,  # so that its workers end with it
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, if it still runs, and all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break  # none of its group is left
        if number == signal.SIGTERM:
            _wait(process)
    process.wait()


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return


def _last_line(log: Path) -> str:
    """Return the last line of a log that is not empty, and not too much of it."""
    if not log.is_file():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[-500:]
