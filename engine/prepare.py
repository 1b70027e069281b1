"""The files that backends start from, ONNX graphs and TensorRT engines: those missing are made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.on_onnx.export import export_graphs
from engine.on_onnx.files import graph_paths, graphs_folder, is_intact
from engine.on_tensorrt.build import Target, capability_here, engine_path, provide_engine
from engine.on_tensorrt.plan import PLAN_GRAPHS
from midas_world.world import World


@dataclass(frozen=True)
class Job:
    """A file to make.

    Attributes:
        name: What is made, in a few words.
        path: Where it comes to be.
        make: Makes it if it is missing.
    """

    name: str
    path: Path
    make: Callable[[], object]


def prepare(
    jobs: Sequence[Job],
    *,
    on_progress: Callable[[str, float], None],
    on_made: Callable[[str], object] = lambda _: None,
) -> None:
    """Make files one after another.

    Args:
        jobs: Of `jobs_of`.
        on_progress: Told before each file what is being made, and which share of all is done.
        on_made: Told what became of each file.

    Raises:
        BackendUnavailableError: A package or the GPU is missing, or a file cannot be made.
    """
    for place, job in enumerate(jobs):
        on_progress(job.name, place / len(jobs))
        was_there = is_intact(job.path)
        job.make()
        size = job.path.stat().st_size / 2**20
        on_made(f"{job.path}: {'up to date' if was_there else 'built'}, {size:.1f} MiB")


def jobs_of(
    backend: str,
    world: World,
    *,
    num_denoise_steps: int,
    folder: Path,
    capability: int | None = None,
) -> list[Job]:
    """Return what a backend starts from.

    Args:
        backend: One that starts from files.
        world: What it runs.
        num_denoise_steps: Head passes per frame.
        folder: Above those of the backends.
        capability: Of the GPU to build for; None is the one at hand.

    Raises:
        BackendUnavailableError: There is no GPU, or it is none of the backend's.
    """
    given = {"num_denoise_steps": num_denoise_steps}
    if backend == "onnx":
        folder /= "onnx"
        graphs = graphs_folder(world, folder=folder)
        paths = graph_paths(graphs, num_denoise_steps=num_denoise_steps)
        export = partial(export_graphs, world, folder=folder, **given)
        return [Job(f"onnx {n}", path, partial(export, names=[n])) for n, path in paths.items()]
    capability = capability or capability_here()
    target = Target(backend=backend, capability=capability, folder=folder / "tensorrt")
    target.check()
    return [
        Job(
            f"{backend} {graph} sm{capability}",
            engine_path(world, graph, target, **given),
            partial(provide_engine, world, graph, target, **given),
        )
        for graph in PLAN_GRAPHS
    ]
