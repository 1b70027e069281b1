"""The edge of every command: what went wrong is one line, and what nobody expected is kept."""

import contextlib
import functools
import platform
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar

from midas_world import __version__
from midas_world.terminal import Terminated, show_any_letter
from midas_world.types import MidasWorldError

DEBUG = "--debug"
DEBUG_HELP = "show where an error came from"
EXIT_USAGE = 2
EXIT_UNEXPECTED = 70  # EX_SOFTWARE of BSD's sysexits.h
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

# What the project raises for bad input, bad files and missing packages, with words of its own.
_EXPECTED = (MidasWorldError, ValueError, OSError, ImportError)


# Whether this command, or one that runs it as a part, was asked to show where errors came from.
_is_debugging = ContextVar("is_debugging", default=False)


def run_command(
    name: str,
    run: Callable[[list[str]], int | None],
    argv: Sequence[str],
    *,
    expected: tuple[type[Exception], ...] = (),
) -> int:
    """Run a command and return its exit status; whatever it raises becomes one line.

    So does what ends a thread that it began.

    Args:
        name: Of the command, which the line begins with.
        run: Takes the words without `DEBUG`, with which an error's traceback is shown, too. It may
            run other commands; None is 0.
        argv: The words after the command's name.
        expected: Exceptions that tell of bad input, beside the project's usual ones.
    """
    words = [word for word in argv if word != DEBUG]
    outer = _is_debugging.set(_is_debugging.get() or len(words) < len(argv))
    tell = functools.partial(_tell, f"{name} {' '.join(argv)}", name, (*_EXPECTED, *expected))
    show_any_letter()
    try:
        with _threads_end_in(tell):
            return run(words) or 0
    except Terminated:
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    # The process's edge: whatever it was, the user gets a line and not a page.
    except Exception as error:
        return tell(error)
    finally:
        _is_debugging.reset(outer)


@contextlib.contextmanager
def _threads_end_in(tell: Callable[[Exception], int]) -> Iterator[None]:
    """Tell what ends a thread, of whose ends nobody else hears."""
    before, is_debugging = threading.excepthook, _is_debugging.get()

    def hear(args: threading.ExceptHookArgs) -> None:
        if isinstance(args.exc_value, Exception):
            _is_debugging.set(is_debugging)  # of this thread
            tell(args.exc_value)

    threading.excepthook = hear
    try:
        yield
    finally:
        threading.excepthook = before


def _tell(command: str, name: str, expected: tuple[type[Exception], ...], error: Exception) -> int:
    """Say in a line what went wrong, and keep or show where; return the exit status."""
    is_debugging = _is_debugging.get()
    if is_debugging:
        traceback.print_exception(error)
    line = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, expected):
        print(f"{name}: {line}", file=sys.stderr)
        return EXIT_USAGE
    kept = "" if is_debugging else f"; {_keep(command, error)}"
    print(f"{name}: unexpected {type(error).__name__}: {line}{kept}", file=sys.stderr)
    return EXIT_UNEXPECTED


def _keep(command: str, error: Exception) -> str:
    """Write the traceback of an error to a log file; return words that say where."""
    head = f"midas-world {__version__}, Python {platform.python_version()}, {platform.platform()}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="midas-world-", suffix=".log", encoding="utf-8", delete=False
        ) as file:
            file.write(f"{head}\n{command}\n\n{''.join(traceback.format_exception(error))}")
    except OSError as objection:
        return f"no log could be written ({objection}): {DEBUG} shows where it came from"
    return f"where it came from is in {file.name}"
