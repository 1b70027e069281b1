"""The edge of every command: what went wrong is one line, and what nobody expected is kept."""

import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence

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


def run_command(
    name: str,
    run: Callable[[list[str]], int],
    argv: Sequence[str],
    *,
    expected: tuple[type[Exception], ...] = (),
) -> int:
    """Run a command and return its exit status; whatever it raises becomes one line.

    Args:
        name: Of the command, which the line begins with.
        run: Takes the words without `DEBUG`, with which an error's traceback is shown, too.
        argv: The words after the command's name.
        expected: Exceptions that tell of bad input, beside the project's usual ones.
    """
    words = [word for word in argv if word != DEBUG]
    is_debugging = len(words) < len(argv)
    show_any_letter()
    try:
        return run(words)
    except Terminated:
        return EXIT_TERMINATED
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    # The process's edge: whatever it was, the user gets a line and not a page.
    except Exception as error:
        if is_debugging:
            traceback.print_exc()
        line = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, (*_EXPECTED, *expected)):
            print(f"{name}: {line}", file=sys.stderr)
            return EXIT_USAGE
        kept = "" if is_debugging else f"; {_keep(name, argv)}"
        print(f"{name}: unexpected {type(error).__name__}: {line}{kept}", file=sys.stderr)
        return EXIT_UNEXPECTED


def _keep(name: str, argv: Sequence[str]) -> str:
    """Write the traceback that is being handled to a log file; return words that say where."""
    head = f"midas-world {__version__}, Python {platform.python_version()}, {platform.platform()}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="midas-world-", suffix=".log", encoding="utf-8", delete=False
        ) as file:
            file.write(f"{head}\n{name} {' '.join(argv)}\n\n{traceback.format_exc()}")
    except OSError as error:
        return f"no log could be written ({error}): {DEBUG} shows where it came from"
    return f"where it came from is in {file.name}"
