"""Measure a subject on every backend asked for; one result each, written as soon as it is there."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.bench.quality import quality_result
from engine.bench.report import FORMAT_VERSION, write_report
from engine.bench.subject import Subject
from engine.bench.timing import Times, time_parts, time_steps
from engine.make import make_engine
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
        """Check that there is something to measure it on."""
        if self.device and self.device.startswith("cuda") and not torch.cuda.is_available():
            raise BackendUnavailableError(f"there is no {self.device!r} device here; use 'cpu'")


def bench(subject: Subject, config: BenchConfig, output: Path) -> dict[str, Any]:
    """Measure a subject on each backend, write bench.json and bench.md after each, and return it.

    Raises:
        ValueError: num_denoise_steps is below 1.
    """
    counts = _count_parameters(subject.config)
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "subject": {
            "name": subject.name,
            "weights": subject.weights,
            "resolution": f"{subject.config.height}x{subject.config.width}",
            "tokens_per_frame": subject.config.tokens_per_frame,
            "context_frames": subject.config.backbone.context_frames,
            "num_parameters": sum(counts.values()),
            "part_parameters": counts,
        },
        "machine": {
            "CPU": f"{cpu_name()}, {num_cores()} cores",
            "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            "threads": str(torch.get_num_threads()),
            "torch": torch.__version__,
            "load average at the start": f"{load_average():.1f}",
            "measured at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "results": [],
    }
    for backend in config.backends:
        _log.info("measuring the %s backend", backend)
        has_gpu = torch.cuda.is_available() and backend != "onnx"
        device = torch.device(config.device or ("cuda" if has_gpu else "cpu"))
        try:
            if device.type == "cpu" and sum(counts.values()) > MAX_CPU_PARAMETERS:
                raise BackendUnavailableError(
                    f"more than {MAX_CPU_PARAMETERS / 1e9:.0f} billion parameters need a GPU"
                )
            result = _measured(backend, device, subject, config)
        except BackendUnavailableError as error:
            result = {"title": backend, "status": "unavailable", "reason": str(error)}
        report["results"].append(result)
        write_report(report, output)
    return report


def _measured(
    backend: str, device: torch.device, subject: Subject, config: BenchConfig
) -> dict[str, Any]:
    """Return what was measured of a backend."""
    world = subject.make(device)
    start = world.start_states[0]
    engine = make_engine(
        world,
        backend,
        device=config.device,
        num_denoise_steps=config.num_denoise_steps,
        remembers=False,
    )
    # Its weights are no longer needed where the engine has a copy of its own.
    del world
    batches: list[dict[str, Any]] = []
    for batch_size in config.batch_sizes:
        _log.info("%s: %d games at once", backend, batch_size)
        batches.append(_time_batch(engine, start, batch_size, config.num_steps))
        if batches[-1]["reason"]:
            break
    whole = {"part": "whole step", **{name: batches[0][name] for name in ("median_ms", "p99_ms")}}
    parts: list[dict[str, Any]] = []
    if whole["median_ms"]:
        sizes = {"batch_size": config.batch_sizes[0], "num_steps": config.num_steps}
        times = time_parts(engine, start, **sizes)
        parts = [{"part": part, **_spread(own)} for part, own in times.items()]
        if parts:
            rest = whole["median_ms"] - sum(row["median_ms"] for row in parts)
            parts.append({"part": "the rest", "median_ms": rest, "p99_ms": None})
        parts.append(whole)
    quality = None
    if config.quality_steps:
        # The world is made again, so as not to have been in memory while that was measured.
        quality = quality_result(engine, subject.make(device), num_steps=config.quality_steps)
    spec, where = engine.spec, f"{cpu_name()}, {torch.get_num_threads()} threads"
    if spec.device.startswith("cuda"):
        where = torch.cuda.get_device_name(spec.device)
    return {
        "title": str(spec),
        "status": "measured",
        "reason": spec.reason,
        "conditions": f"{where}; weights {subject.weights}; chosen: {spec.reason}",
        "part_batch_size": config.batch_sizes[0],
        "parts": parts,
        "batches": batches,
        "quality": quality,
    }


def _spread(times: Times) -> dict[str, float]:
    median, p99 = np.percentile(times, (50, 99))
    return {"median_ms": float(median), "p99_ms": float(p99)}


def _time_batch(
    engine: Engine, start: StartState, batch_size: int, num_steps: int
) -> dict[str, Any]:
    """Return the report's row of so many games at once; without times if memory ran out."""
    row: dict[str, Any] = {"batch_size": batch_size, "reason": ""}
    row |= dict.fromkeys(("median_ms", "p99_ms", "frames_per_s", "peak_mib", "gpu_peak_mib"))
    on_gpu = engine.spec.device.startswith("cuda")
    forget_peak_memory()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(engine.spec.device)
    try:
        row |= _spread(time_steps(engine, start, batch_size=batch_size, num_steps=num_steps))
    except torch.OutOfMemoryError:
        return row | {"reason": "out of GPU memory"}
    row["frames_per_s"] = 1e3 * batch_size / row["median_ms"]
    row["peak_mib"] = peak_memory_mib()
    if on_gpu:
        row["gpu_peak_mib"] = torch.cuda.max_memory_allocated(engine.spec.device) / 2**20
    return row


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
