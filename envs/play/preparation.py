"""Engine files made in the background: the first start on a GPU plays on torch meanwhile.

In a process of its own, since exporting graphs is a minute of Python that would hold up every
frame. What was built is taken by the next start, which then measures which backend is fastest.
"""

from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine import Engine
    from midas_world.world import World

_JOIN_S = 10.0

Work = Callable[..., None]


class Preparation:
    """A process that builds, and what it last said.

    Args:
        work: Called in the process with `arguments` and then the connection to tell its progress
            by: ("progress", words) any number of times, and ("end", words) at the end.
        arguments: For the work.

    Attributes:
        words: What is being done, for the player; empty once it has ended.
    """

    def __init__(self, work: Work, arguments: Sequence[object]) -> None:
        # Not fork: CUDA and torch's threads do not survive it.
        context = get_context("spawn")
        self._receiver, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=work, args=(*arguments, sender), daemon=True)
        self._process.start()
        sender.close()
        self._is_ended = False
        self.words = "preparing engine files"

    def take_end(self) -> str:
        """Read what was said since the last call; return how it ended, once, and else nothing."""
        while not self._is_ended and self._receiver.poll():
            try:
                kind, words = self._receiver.recv()
            except EOFError:
                kind, words = "end", "the engine files could not be built: the process ended"
            self._is_ended = kind == "end"
            self.words = "" if self._is_ended else words
            if self._is_ended:
                return words
        return ""

    def close(self) -> None:
        """End the process, whatever it does; may be called twice. Half a file never stays."""
        self._process.terminate()
        self._process.join(_JOIN_S)
        self._receiver.close()
        self._is_ended, self.words = True, ""


def prepare_engines(
    world: "World", engine: "Engine", *, num_denoise_steps: int | None
) -> Preparation | None:
    """Begin to build the files of backends that could run here; None if there are none to build.

    Args:
        world: That is played.
        engine: That plays it meanwhile.
        num_denoise_steps: As the player asked.
    """
    from engine.select import unbuilt_backends

    backends = unbuilt_backends(
        world, device=engine.spec.device, num_denoise_steps=num_denoise_steps
    )
    if not backends:
        return None
    return Preparation(build, (world.folder, backends, engine.spec.num_denoise_steps))


def build(
    folder: Path, backends: Sequence[str], num_denoise_steps: int, sender: Connection
) -> None:
    """Build the engine files of a world for the GPU at hand; the work of a `Preparation`."""
    from engine.trt_build import Target, capability_here, default_folder, provide_engine
    from engine.trt_engine import BACKENDS
    from engine.trt_plan import DEFAULT_PLANS, load_plans
    from midas_world.types import MidasWorldError
    from midas_world.world import load_world

    plans = load_plans(DEFAULT_PLANS)
    parts, told = len(backends) * len(plans), ""

    def tell(number: int, name: str, share: float) -> None:
        nonlocal told
        percent = round(100 * (number + share) / parts)
        words = f"building {name} for later starts, {percent} %: torch plays meanwhile"
        if words != told:  # the pipe is small, and nobody reads it while the window is closed
            sender.send(("progress", words))
            told = words

    try:
        world = load_world(folder)
        for turn, backend in enumerate(backends):
            target = Target(
                flavour=BACKENDS[backend], capability=capability_here(), folder=default_folder()
            )
            for place, (name, plan) in enumerate(plans.items()):
                number, furthest = turn * len(plans) + place, 0.0

                def on_progress(_: str, done: int, total: int) -> None:
                    # Phases follow each other, each from its own beginning.
                    nonlocal furthest
                    furthest = max(furthest, done / max(total, 1))
                    tell(number, f"{backend} {name}", furthest)  # noqa: B023 - called in this turn

                tell(number, f"{backend} {name}", 0.0)
                provide_engine(
                    world,
                    name,
                    plan,
                    target,
                    num_denoise_steps=num_denoise_steps,
                    on_progress=on_progress,
                )
    except (MidasWorldError, ValueError) as error:
        sender.send(("end", f"the engine files could not be built: {error}"))
    else:
        sender.send(("end", f"engine files are built: the next start tries {', '.join(backends)}"))
