"""Measure a subject on every backend asked for; one result each, written as soon as it is there."""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from engine.bench.quality import quality_result
from engine.bench.report import FORMAT_VERSION, write_report
from engine.bench.subject import Subject
from engine.bench.timing import (
    WARM_UP_STEPS,
    Spread,
    TimedGame,
    Times,
    spread_of,
    time_graphs,
    time_parts,
)
from engine.make import make_engine
from engine.on_torch.engine import TorchEngine
from engine.spec import Engine
from midas_world.config import WorldConfig
from midas_world.machine import (
    cpu_name,
    forget_peak_memory,
    load_average,
    num_cores,
    peak_memory_mib,
)
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.world_model import WorldModel
from midas_world.types import BackendUnavailableError
from midas_world.world import StartState

if TYPE_CHECKING:  # ONNX Runtime may not be there
    from engine.on_onnx.engine import OnnxEngine

# More than that, and a CPU takes seconds for a frame, and memory that few have.
MAX_CPU_PARAMETERS = 1_000_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """How much is measured.

    Attributes:
        backends: Names of engines.
        batch_sizes: Games at once, rising; parts are timed for the fewest.
        num_steps: Timed, of each batch size and of the parts.
        device: "cpu" or "cuda"; None takes the GPU if there is one and the backend can use it.
        num_denoise_steps: K; None takes the world's own number.
        quality_steps: Length of the rollouts whose frames are held against those of float32
            torch; 0: none.
    """

    backends: tuple[str, ...] = ("torch",)
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    num_steps: int = 100
    device: str | None = None
    num_denoise_steps: int | None = None
    quality_steps: int = 0

    def __post_init__(self) -> None:
        """Check that there is something to measure, and something to measure it on."""
        if not self.batch_sizes or self.batch_sizes[0] < 1:
            raise ValueError(f"batches must be at least 1, got {self.batch_sizes}")
        if self.num_steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.num_steps}")
        if self.quality_steps < 0:
            raise ValueError(
                f"quality must be at least 1 step, or 0 for none, got {self.quality_steps}"
            )
        if self.device and self.device.startswith("cuda") and not torch.cuda.is_available():
            raise BackendUnavailableError(f"there is no {self.device!r} device here; use 'cpu'")


def bench(subject: Subject, config: BenchConfig, output: Path) -> dict[str, Any]:
    """Measure a subject on each backend, write the report after each, and return it.

    Args:
        subject: What to measure.
        config: How much.
        output: Folder that receives bench.json and bench.md.

    Raises:
        ValueError: num_denoise_steps is below 1.
    """
    counts = _count_parameters(subject.config)
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "subject": {
            "name": subject.name,
            "weights": subject.weights,
            "resolution": _resolution(subject),
            "tokens_per_frame": subject.config.tokens_per_frame,
            "context_frames": subject.config.backbone.context_frames,
            "num_parameters": sum(counts.values()),
            "part_parameters": counts,
        },
        "machine": _machine(),
        "results": [],
    }
    for backend in config.backends:
        _log.info("measuring the %s backend", backend)
        has_gpu = torch.cuda.is_available() and backend != "onnx"
        device = torch.device(config.device or ("cuda" if has_gpu else "cpu"))
        if device.type == "cpu" and sum(counts.values()) > MAX_CPU_PARAMETERS:
            words = f"more than {MAX_CPU_PARAMETERS / 1e9:.0f} billion parameters need a GPU"
            result = {"title": backend, "status": "unavailable", "reason": words}
        else:
            result = _measured(backend, device, subject, config)
        report["results"].append(result)
        write_report(report, output)
    return report


def _measured(
    backend: str, device: torch.device, subject: Subject, config: BenchConfig
) -> dict[str, Any]:
    """Return what was measured of a backend, or why nothing was."""
    world = subject.make(device)
    start = world.start_states[0]
    try:
        engine = make_engine(
            world,
            backend,
            device=config.device,
            num_denoise_steps=config.num_denoise_steps,
            remembers=False,
        )
    except BackendUnavailableError as error:
        return {"title": backend, "status": "unavailable", "reason": str(error)}
    # Its weights are no longer needed where the engine has a copy of its own.
    del world
    spec = engine.spec
    title = str(spec)
    batches = []
    for batch_size in config.batch_sizes:
        _log.info("%s: %d games at once", backend, batch_size)
        batches.append(_time_batch(engine, start, batch_size, config.num_steps))
        if batches[-1]["time"] is None:
            break
    whole, first = batches[0]["time"], config.batch_sizes[0]
    parts: dict[str, Spread] = {}
    if whole and (time_each := _timer_of(engine)):
        times = time_each(start, batch_size=first, num_steps=config.num_steps)
        parts = {name: spread_of(values) for name, values in times.items()}
    quality = None
    if config.quality_steps:
        _log.info("%s: frames against those of float32 torch", backend)
        # The world is made again, so as not to have been in memory while that was measured.
        world = subject.make(device)
        quality = quality_result(engine, world, num_steps=config.quality_steps)
        del world
    return {
        "title": title,
        "status": "measured",
        "reason": spec.reason,
        "conditions": f"{_conditions(subject, title, spec.device)}; chosen: {spec.reason}",
        "part_batch_size": first,
        "parts": _part_rows(parts, whole),
        "batches": batches,
        "quality": quality,
    }


def _timer_of(engine: Engine) -> Callable[..., dict[str, Times]] | None:
    """Return what times the parts of an engine; None if nothing can."""
    if engine.spec.backend == "onnx":
        return functools.partial(time_graphs, cast("OnnxEngine", engine))
    # Not an engine made of it: TensorRT's runs other networks than the torch modules in it.
    return functools.partial(time_parts, engine) if type(engine) is TorchEngine else None


def _time_batch(
    engine: Engine, start: StartState, batch_size: int, num_steps: int
) -> dict[str, Any]:
    """Return the report's row of so many games at once; without times if memory ran out."""
    on_gpu = engine.spec.device.startswith("cuda")
    forget_peak_memory()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(engine.spec.device)
    try:
        game = TimedGame(engine, start, batch_size=batch_size)
        game.time_steps(WARM_UP_STEPS)
        times = game.time_steps(num_steps)
    except torch.OutOfMemoryError:
        return _batch_row(batch_size, reason="out of GPU memory")
    row = _batch_row(batch_size)
    row["time"] = asdict(spread_of(times))
    row["frames_per_s"] = 1e3 * batch_size / row["time"]["median_ms"]
    row["peak_mib"] = peak_memory_mib()
    if on_gpu:
        row["gpu_peak_mib"] = torch.cuda.max_memory_allocated(engine.spec.device) / 2**20
    return row


def _batch_row(batch_size: int, *, reason: str = "") -> dict[str, Any]:
    measured = dict.fromkeys(("time", "frames_per_s", "peak_mib", "gpu_peak_mib"))
    return {"batch_size": batch_size, "reason": reason, **measured}


def _part_rows(
    parts: Mapping[str, Spread], whole: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """Return the rows of the table of parts; what is left of a step is Python and the rest."""
    rows: list[dict[str, Any]] = [{"part": k, "time": asdict(v)} for k, v in parts.items()]
    if whole:
        if parts:
            rest = whole["median_ms"] - sum(spread.median_ms for spread in parts.values())
            rows.append({"part": "Python and the rest", "time": {"median_ms": rest}})
        rows.append({"part": "whole step", "time": dict(whole)})
    return rows


def _count_parameters(config: WorldConfig) -> dict[str, int]:
    """Return how many numbers are learned, by part."""
    with torch.device("meta"):
        model, autoencoder = WorldModel(config), Autoencoder(config.autoencoder)
    parts = {
        "backbone": model.backbone,
        "head": model.head,
        "encoder": autoencoder.encoder,
        "decoder": autoencoder.decoder,
    }
    counts = {k: sum(p.numel() for p in part.parameters()) for k, part in parts.items()}
    whole = sum(p.numel() for part in (model, autoencoder) for p in part.parameters())
    return {**counts, "rest": whole - sum(counts.values())}


def _machine() -> dict[str, str]:
    return {
        "CPU": f"{cpu_name()}, {num_cores()} cores",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "load average at the start": f"{load_average():.1f}",
        "measured at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _resolution(subject: Subject) -> str:
    return f"{subject.config.height}x{subject.config.width}"


def _conditions(subject: Subject, words: str, device: str) -> str:
    """Return under which conditions a result was measured."""
    where = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else f"{cpu_name()}, {torch.get_num_threads()} threads"
    )
    return f"{words} ({where}); {_resolution(subject)}; weights {subject.weights}"
