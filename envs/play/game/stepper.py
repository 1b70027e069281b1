"""A thread that makes a step when one is due, and obeys commands in between.

What a step is and what can be commanded is up to who derives from it, and to that one's parts.
"""

import functools
import queue
import threading
import time
from collections.abc import Callable
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeVar

from envs.play.game.game import Game
from envs.play.game.moments import View
from envs.play.game.samples import Samples

# Sleeping is not exact: a step that starts this share of a period late still counts as on time.
_TOLERANCE = 0.1
# Playing so many steps again is worth a word to the player.
_LONG_WAY_STEPS = 40

P = ParamSpec("P")
S = TypeVar("S", bound="Asked")
Command = Callable[[Game], object]
Status = Literal[
    "loading", "playing", "paused", "rewinding", "watching", "over", "failed", "closed"
]


class StepClock:
    """When steps are due at a fixed rate. A late step delays the next ones: none are caught up.

    Attributes:
        num_missed: Steps that started late.
        intervals: Seconds from one step's start to the next one's.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.num_missed = 0
        self.intervals = Samples()
        self._due: float | None = None
        self._started: float | None = None

    def restart(self) -> None:
        """Let the next step be due at once, as after a pause."""
        self._due = self._started = None

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next step is due, at least 0."""
        return 0.0 if self._due is None else max(0.0, self._due - now)

    def start_step(self, now: float) -> None:
        """Note that a step starts."""
        if self._started is not None:
            self.intervals.append(now - self._started)
        self._started = now
        due = now if self._due is None else self._due
        is_late = now > due + _TOLERANCE * self.period_s
        self.num_missed += is_late
        self._due = (now if is_late else due) + self.period_s


class Asked(Protocol):
    """A stepper, or a part of one."""

    def put(self, command: Command, /) -> None:
        """Let a command run in the stepper's thread."""
        ...


def in_turn(act: Callable[Concatenate[S, Game, P], object]) -> Callable[Concatenate[S, P], None]:
    """Let a method be asked for by any thread: it runs in the stepper's, at its turn.

    There it gets the game before its other arguments.
    """

    @functools.wraps(act)
    def ask(self: S, *args: P.args, **kwargs: P.kwargs) -> None:
        self.put(lambda game: act(self, game, *args, **kwargs))

    return ask


class _ClosedError(Exception):
    """The thread is to end in the middle of something long."""


class Stepper:
    """A thread that plays; other threads ask for things by commands, and look at what it tells.

    Attributes:
        clock: When steps are due, and how many were late.
        view: The newest frame and what belongs to it; None while loading.
        message: What the player should be told, such as why a prompt was refused.
        progress: What the player waits for, while a film is on.
    """

    def __init__(self, *, notify: Callable[[], object]) -> None:
        self.status: Status = "loading"
        self.error: Exception | None = None
        self.view: View | None = None
        self.message = self.progress = ""
        self.clock = StepClock(1.0)
        self._notify = notify
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._is_opening = False  # what is played, which takes long; nothing is open yet
        self._thread = threading.Thread(target=self._run, name="stepper", daemon=True)

    def start(self) -> None:
        """Start loading, then playing."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and close the game; may be called twice.

        What still loads is not waited for: nothing is open yet, and it ends as it is loaded.
        """
        self._closing.set()
        self.put(lambda _: None)
        if self._thread.is_alive() and not self._is_opening:
            self._thread.join(timeout=60.0)

    def put(self, command: Command, /) -> None:
        """Let a command run in this thread, at its turn."""
        self._commands.put(command)

    def set_status(self, status: Status) -> None:
        """Change the status and tell it; only in this thread."""
        self.status = status
        self.tell()

    def tell(self) -> None:
        """Wake who looks."""
        if not self._closing.is_set():
            self._notify()

    def tell_progress(self, done: int, total: int) -> None:
        """Tell the player about a long way; end it if the window is closed meanwhile."""
        self._end_if_closing()
        self.progress = f"playing {total} steps again, {total - done} to go"
        if total >= _LONG_WAY_STEPS and done % 10 == 0:
            self.message = f"playing {total} steps again: {done} done"
            self.tell()

    def _run(self) -> None:
        try:
            self._play()
        except _ClosedError:
            self.set_status("closed")
        # The thread's edge: whatever it was, the window's thread must hear of it and end.
        except Exception as error:
            self.error = error
            self.set_status("failed")

    def _play(self) -> None:
        """Load what is played, and play until the thread is closed."""
        raise NotImplementedError

    def _next_command(self, clock: StepClock | None) -> Command | None:
        """Wait for a command and return it, or None once the next step of a clock is due."""
        wait_s = None if clock is None else clock.wait_s(time.perf_counter())
        try:
            # SimpleQueue.get takes a timeout of 0 for "do not wait".
            return self._commands.get(timeout=wait_s)
        except queue.Empty:
            return None

    def _end_if_closing(self) -> None:
        """Leave something long, such as the way to an earlier moment, if nobody waits for it."""
        if self._closing.is_set():
            raise _ClosedError
