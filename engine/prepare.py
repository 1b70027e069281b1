"""The files that backends start from, ONNX graphs and TensorRT engines: those missing are made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.on_tensorrt.build import Target, capability_here, provide_engine
from engine.on_tensorrt.plan import DEFAULT_PLANS, TrtPlan, load_plans
from midas_world.world import World


@dataclass(frozen=True)
class Job:
    """A file to make.

    Attributes:
        name: What is made, in a few words.
        make: Makes it if it is missing, tells which share is done meanwhile, and returns its path
            and whether it is new.
    """

    name: str
    make: Callable[[Callable[[float], None]], tuple[Path, bool]]


def prepare(
    jobs: Sequence[Job],
    *,
    on_progress: Callable[[str, float], None],
    on_made: Callable[[str], object] = lambda _: None,
) -> None:
    """Make files one after another.

    Args:
        jobs: Of `jobs_of`, `graph_jobs` or `engine_jobs`.
        on_progress: Told what is being made and which share of all is done, before each file, and
            while it is made where that is known.
        on_made: Told what became of each file.

    Raises:
        BackendUnavailableError: A package or the GPU is missing.
        EngineBuildError: TensorRT cannot build a plan.
    """
    for place, job in enumerate(jobs):
        furthest = 0.0

        def on_share(share: float) -> None:
            # Phases of a build follow each other, each from its own beginning.
            nonlocal furthest
            furthest = max(furthest, share)
            on_progress(job.name, (place + furthest) / len(jobs))  # noqa: B023 - called in this turn

        on_share(0.0)
        path, is_new = job.make(on_share)
        size = path.stat().st_size / 2**20
        on_made(f"{path}: {'built' if is_new else 'up to date'}, {size:.1f} MiB")


def jobs_of(backend: str, world: World, *, num_denoise_steps: int, folder: Path) -> list[Job]:
    """Return what a backend starts from on the machine at hand."""
    if backend == "onnx":
        return graph_jobs(world, num_denoise_steps=num_denoise_steps, folder=folder / "onnx")
    from engine.on_tensorrt.engine import BACKENDS

    target = Target(
        flavour=BACKENDS[backend], capability=capability_here(), folder=folder / "tensorrt"
    )
    plans = load_plans(DEFAULT_PLANS)
    return engine_jobs(world, plans, target, num_denoise_steps=num_denoise_steps)


def graph_jobs(world: World, *, num_denoise_steps: int, folder: Path | None) -> list[Job]:
    """Return the ONNX graphs of a world; they are kept below a folder, None is the user's cache."""
    # TensorRT does without ONNX Runtime, which may not be there.
    from engine.on_onnx.engine import DEFAULT_PRECISION
    from engine.on_onnx.export import export_graphs
    from engine.on_onnx.files import graph_paths, graphs_folder, is_intact

    paths = graph_paths(
        graphs_folder(world, folder=folder),
        precision=DEFAULT_PRECISION,
        num_denoise_steps=num_denoise_steps,
    )

    def job(name: str, path: Path) -> Job:
        def make(_: Callable[[float], None]) -> tuple[Path, bool]:
            was_there = is_intact(path)
            export_graphs(
                world,
                num_denoise_steps=num_denoise_steps,
                precision=DEFAULT_PRECISION,
                names=[name],
                folder=folder,
            )
            return path, not was_there

        return Job(f"onnx {name}", make)

    return [job(name, path) for name, path in paths.items()]


def engine_jobs(
    world: World, plans: Mapping[str, TrtPlan], target: Target, *, num_denoise_steps: int
) -> list[Job]:
    """Return TensorRT's engine files of plans by their names."""

    def job(name: str, plan: TrtPlan) -> Job:
        def make(on_share: Callable[[float], None]) -> tuple[Path, bool]:
            made = provide_engine(
                world,
                name,
                plan,
                target,
                num_denoise_steps=num_denoise_steps,
                on_progress=lambda _, done, total: on_share(done / max(total, 1)),
            )
            return made.path, made.is_new

        return Job(f"{target.flavour} {name} sm{target.capability}", make)

    return [job(name, plan) for name, plan in plans.items()]
