"""Files of faster engines, made in the background: the first start plays on torch meanwhile.

ONNX graphs on a CPU, TensorRT engines on a GPU. In a process of its own, since exporting graphs is
a minute of Python that would hold up every frame. What was made is taken when the player starts
again, here or later: then it is measured which backend is fastest.
"""

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.spec import Engine
    from midas_world.world import World

_JOIN_S = 0.5

# Windows' name of it is BELOW_NORMAL_PRIORITY_CLASS.
_BELOW_NORMAL = 0x4000

_log = logging.getLogger(__name__)

Work = Callable[..., None]


class BackgroundBuild:
    """A process that builds, and what it last said.

    Args:
        work: Called in the process with `arguments` and then the connection to tell its progress
            by: ("progress", words) any number of times, and at the end ("made", words), or
            ("failed", words).
    """

    def __init__(self, work: Work, arguments: Sequence[object]) -> None:
        # Not fork: CUDA and torch's threads do not survive it.
        context = get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_give_way_and, args=(work, *arguments, sender), daemon=True
        )
        self._process.start()
        sender.close()
        self._is_ended = False
        self.is_made = False
        self.words = "preparing a faster engine"

    def take_end(self) -> str:
        """Read what was said since the last call; return how it ended, once, and else nothing."""
        while not self._is_ended:
            try:
                if not self._receiver.poll():
                    break
                kind, words = self._receiver.recv()
            except (EOFError, BrokenPipeError):  # the second from Windows, already when asked
                kind, words = "failed", "a faster engine could not be made: the process ended"
            self._is_ended = kind != "progress"
            self.is_made = kind == "made"
            self.words = "" if self._is_ended else words
            if self._is_ended:
                return words
        return ""

    def close(self) -> None:
        """End the process, whatever it does; may be called twice. No file is left half made."""
        self._is_ended, self.words = True, ""  # first, for another thread may ask meanwhile
        self._process.terminate()
        self._process.join(_JOIN_S)
        if self._process.is_alive():  # in native code, or in a library that swallows the exit
            self._process.kill()
            self._process.join()
        self._receiver.close()


def begin_build(
    world: "World", engine: "Engine", *, num_denoise_steps: int | None
) -> BackgroundBuild | None:
    """Begin to make the files of backends that could run here; None if there are none to make."""
    from engine.backends import Request
    from engine.select import unbuilt_backends
    from midas_world.user_folders import cache_folder

    request = Request(
        world=world,
        device=engine.spec.device,
        num_denoise_steps=num_denoise_steps,
        folder=cache_folder(),
    )
    backends = unbuilt_backends(request)
    if not backends:
        return None
    steps = engine.spec.num_denoise_steps
    return BackgroundBuild(build, (world.folder, backends, steps, request.folder))


def build(
    folder: Path, backends: Sequence[str], num_denoise_steps: int, cache: Path, sender: Connection
) -> None:
    """Make the files of a world's backends for this machine; the work of a `BackgroundBuild`."""
    from engine.prepare import jobs_of, prepare
    from midas_world.world import load_world

    told = ""

    def tell(name: str, share: float) -> None:
        nonlocal told
        words = f"making {name} for faster play, {round(100 * share)} %: torch plays meanwhile"
        if words != told:  # the pipe is small, and nobody reads it while the window is closed
            sender.send(("progress", words))
            told = words

    try:
        given = {"num_denoise_steps": num_denoise_steps, "folder": cache}
        world = load_world(folder)
        jobs = [job for backend in backends for job in jobs_of(backend, world, **given)]
        prepare(jobs, on_progress=tell)
    # The process's edge: whatever it was, the player must hear of it.
    except Exception as error:
        _log.exception("%s could not be made ready", ", ".join(backends))
        words = str(error).strip().partition("\n")[0] or type(error).__name__
        with contextlib.suppress(BrokenPipeError):  # nobody may be left to hear it
            sender.send(("failed", f"a faster engine could not be made: {words}"))
    else:
        sender.send(("made", f"a faster engine is made: R starts again on {', '.join(backends)}"))


def _give_way_and(work: Work, *arguments: object) -> None:
    """Work without taking the processor from the game, and leave nothing half done behind."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.windll.kernel32
        kernel.SetPriorityClass(kernel.GetCurrentProcess(), _BELOW_NORMAL)
    else:
        os.nice(19)
    if hasattr(os, "SCHED_IDLE"):  # Linux: only what the game leaves over
        with contextlib.suppress(PermissionError):  # as some containers answer
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    # So that temporary files are removed when the window closes; Windows asks nobody.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    work(*arguments)
