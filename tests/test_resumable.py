"""Pieces of work in calls of limited time: what runs when, and what a call leaves to the next."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from examples.resumable import (
    LEAST_S,
    MOST_STARTS,
    RESERVE_S,
    Piece,
    Record,
    State,
    open_state,
    run_process,
    work_through,
)

CALL_S = 100.0 + RESERVE_S


class Machine:
    """A clock, and processes that take the time and end as they are told: by name, in order."""

    def __init__(self, **ends: Sequence[tuple[float, int]]) -> None:
        self.now = 1000.0
        self.ends = {name: list(each) for name, each in ends.items()}
        self.ran: list[tuple[str, float]] = []

    def clock(self) -> float:
        return self.now

    def run(self, words: Sequence[str], log: Path, limit_s: float) -> int | None:
        (name,) = words
        self.ran.append((name, limit_s))
        seconds, code = self.ends[name].pop(0) if self.ends.get(name) else (1.0, 0)
        self.now += min(seconds, limit_s)
        log.write_text(f"about {name}\n\nthe end of {name}\n")
        return None if seconds > limit_s else code

    @property
    def names(self) -> list[str]:
        names, self.ran = [name for name, _ in self.ran], []
        return names


def piece(name: str, **more) -> Piece:
    return Piece(name=name, command=lambda: [name], **more)


@pytest.fixture
def state(tmp_path) -> State:
    return open_state(tmp_path / "state.json", {"scale": 1.0})


def call(machine: Machine, state: State, *pieces: Piece, seconds: float = CALL_S) -> list[str]:
    """Make one call, with the state read from disk as a call does; return what it told."""
    told: list[str] = []
    again = open_state(state.path, state.settings)
    work_through(
        pieces,
        again,
        logs=state.path.parent / "logs",
        seconds=seconds,
        run=machine.run,
        clock=machine.clock,
        tell=told.append,
    )
    state.records = again.records
    return told


def test_pieces_run_in_order_and_once(state):
    machine = Machine()
    pieces = piece("a"), piece("b")
    call(machine, state, *pieces)
    assert machine.ran == [("a", 100.0), ("b", 99.0)]
    assert [state.of(name).status for name in "ab"] == ["done", "done"]
    assert state.of("a").words == "the end of a"
    call(machine, state, *pieces)
    assert len(machine.ran) == 2


def test_what_goes_on_is_ended_at_the_deadline_and_gone_on_with(state):
    machine = Machine(a=[(250.0, 0), (150.0, 0), (50.0, 0)])
    pieces = piece("a", goes_on=True), piece("b")
    for _ in range(2):
        began = machine.now
        call(machine, state, *pieces)
        assert machine.now - began == CALL_S - RESERVE_S
        assert state.of("a").status == "unfinished"
        assert machine.names == ["a"]
    call(machine, state, *pieces)
    assert machine.names == ["a", "b"]
    assert state.of("a").seconds == 250.0
    assert state.of("a").starts == 3


def test_what_cannot_go_on_begins_anew_and_first_in_the_next_call(state):
    machine = Machine(a=[(60.0, 0)], b=[(80.0, 0), (80.0, 0)])
    pieces = piece("a"), piece("b")
    call(machine, state, *pieces)
    assert state.of("b").status == "unfinished"
    assert state.of("b").cut_after_s == 40.0
    call(machine, state, *pieces)
    assert machine.names == ["a", "b", "b"]
    assert state.of("b").status == "done"


def test_what_was_cut_off_is_not_begun_with_less_time_than_that(state):
    machine = Machine(a=[(10.0, 0)], b=[(95.0, 0), (95.0, 0)], c=[(1.0, 0)])
    call(machine, state, piece("a"), piece("b"))
    assert state.of("b").cut_after_s == 90.0
    machine.names  # noqa: B018 - forgotten
    # Another piece comes first now: 80 s are left, and the one that needs more is not begun.
    machine.ends["first"] = [(20.0, 0)]
    call(machine, state, piece("first"), piece("b"), piece("c"))
    assert machine.names == ["first", "c"]


def test_what_a_whole_call_is_too_short_for_fails(state):
    machine = Machine(a=[(500.0, 0)])
    call(machine, state, piece("a"), piece("b"))
    assert state.of("a").status == "failed"
    assert state.of("a").words == "not through in a whole call, 100 s"


def test_nothing_is_begun_with_too_little_time(state):
    machine = Machine(a=[(100.0 - LEAST_S + 1.0, 0)])
    call(machine, state, piece("a"), piece("b"), piece("c", goes_on=True))
    assert machine.names == ["a", "c"]
    assert state.of("b").status == "open"


def test_a_failing_piece_is_told_and_those_that_do_not_need_it_go_on(state):
    machine = Machine(a=[(1.0, 2)])
    told = call(machine, state, piece("a"), piece("b", needs=("a",)), piece("c"))
    assert machine.names == ["a", "c"]
    assert state.of("a").words == "exit status 2: the end of a"
    assert any("a: failed exit status 2" in line for line in told)
    assert state.of("b").words == "waits for a (failed)"
    call(machine, state, piece("a"), piece("b", needs=("a",)))
    assert machine.names == []


def test_a_piece_that_cannot_even_begin_fails_alone(state):
    def broken():
        raise ModuleNotFoundError("No module named 'omegaconf'")

    machine = Machine()
    call(machine, state, Piece(name="a", command=broken), piece("b"))
    assert state.of("a").words == "ModuleNotFoundError: No module named 'omegaconf'"
    assert machine.names == ["b"]


def test_a_check_may_still_say_no(state):
    def check():
        raise ValueError("no test ran")

    call(Machine(), state, piece("a", check=check), piece("b", check=lambda: "12 tests passed"))
    assert state.of("a") == Record(
        status="failed", seconds=1.0, starts=1, words="ValueError: no test ran"
    )
    assert state.of("b").words == "12 tests passed"


def test_a_piece_that_takes_the_call_down_is_not_begun_for_ever(state):
    class Killed(BaseException):
        pass

    def kill(words: Sequence[str], log: Path, limit_s: float) -> int | None:
        raise Killed

    machine = Machine()
    machine.run, run = kill, machine.run
    for _ in range(MOST_STARTS):
        with pytest.raises(Killed):
            call(machine, state, piece("a"), piece("b"))
    machine.run = run
    call(machine, state, piece("a"), piece("b"))
    assert machine.names == ["b"]
    assert state.of("a").words == "begun 3 times, and never came to an end"


def test_other_settings_are_refused(state):
    call(Machine(), state, piece("a"))
    with pytest.raises(ValueError, match=r"begun with scale 1.0, now 2.0: give the same options"):
        open_state(state.path, {"scale": 2.0})
    state.path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        open_state(state.path, {"scale": 1.0})


def test_a_process_leaves_its_output_and_its_status(tmp_path):
    log = tmp_path / "log"
    code = "import os, sys; print(os.environ['WHO']); print('bad', file=sys.stderr); sys.exit(3)"
    assert run_process(["-c", code], log, 60.0, environment={"WHO": "me"}) == 3
    assert "\nme\nbad\n" in log.read_text()
    assert run_process(["-c", "print(1)"], log, 60.0, environment={}) == 0
    assert log.read_text().startswith("\n$ python -c import os")


def test_a_process_is_ended_at_its_limit(tmp_path):
    words = ["-c", "import signal; signal.pause()"]
    assert run_process(words, tmp_path / "log", 0.1, environment={}) is None
