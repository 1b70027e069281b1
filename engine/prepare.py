"""Make the files that backends need to start at once: ONNX graphs, TensorRT engines."""

from collections.abc import Callable, Sequence
from pathlib import Path

from midas_world.world import World

# Told what is being made, in a few words, and which share of all is done.
OnProgress = Callable[[str, float], None]


def prepare(
    world: World,
    backends: Sequence[str],
    *,
    num_denoise_steps: int,
    on_progress: OnProgress,
    folder: Path | None = None,
) -> None:
    """Make the files that are missing of a world's backends, for the machine at hand.

    Args:
        world: Whose.
        backends: Of "onnx", "tensorrt" and "rtx".
        num_denoise_steps: Head passes per frame.
        on_progress: Called before each file, and while it is made where that is known.
        folder: Where the files are kept; None is the user's cache.

    Raises:
        BackendUnavailableError: A package or the GPU is missing.
        EngineBuildError: TensorRT cannot build a plan.
    """
    makers = [
        (f"{backend} {name}", make)
        for backend in backends
        for name, make in _makers(backend, world, num_denoise_steps, folder).items()
    ]
    for place, (name, make) in enumerate(makers):
        furthest = 0.0

        def on_share(share: float) -> None:
            # Phases of a build follow each other, each from its own beginning.
            nonlocal furthest
            furthest = max(furthest, share)
            on_progress(name, (place + furthest) / len(makers))  # noqa: B023 - called in this turn

        on_share(0.0)
        make(on_share)


_Make = Callable[[Callable[[float], None]], object]


def _makers(
    backend: str, world: World, num_denoise_steps: int, folder: Path | None
) -> dict[str, _Make]:
    """Return what makes each file of a backend, telling the share of it that is done."""
    if backend == "onnx":
        return _graph_makers(world, num_denoise_steps, folder)
    return _engine_makers(backend, world, num_denoise_steps, folder)


def _graph_makers(world: World, num_denoise_steps: int, folder: Path | None) -> dict[str, _Make]:
    from engine.on_onnx.engine import DEFAULT_PRECISION
    from engine.on_onnx.export import export_graphs
    from engine.on_onnx.graphs import GRAPHS

    def maker(name: str) -> _Make:
        return lambda _: export_graphs(
            world,
            num_denoise_steps=num_denoise_steps,
            precision=DEFAULT_PRECISION,
            names=[name],
            folder=folder and folder / "onnx",
        )

    return {name: maker(name) for name in GRAPHS}


def _engine_makers(
    backend: str, world: World, num_denoise_steps: int, folder: Path | None
) -> dict[str, _Make]:
    from engine.on_tensorrt.build import Target, capability_here, default_folder, provide_engine
    from engine.on_tensorrt.engine import BACKENDS
    from engine.on_tensorrt.plan import DEFAULT_PLANS, TrtPlan, load_plans

    target = Target(
        flavour=BACKENDS[backend],
        capability=capability_here(),
        folder=folder / "tensorrt" if folder else default_folder(),
    )

    def maker(name: str, plan: TrtPlan) -> _Make:
        def make(on_share: Callable[[float], None]) -> object:
            return provide_engine(
                world,
                name,
                plan,
                target,
                num_denoise_steps=num_denoise_steps,
                on_progress=lambda _, done, total: on_share(done / max(total, 1)),
            )

        return make

    return {name: maker(name, plan) for name, plan in load_plans(DEFAULT_PLANS).items()}
