"""Measure a subject on every backend asked for, and say what the machine could do at best.

One result per backend, written as soon as it is there. The roofline is estimated for every world;
what is too large for a CPU gets the roofline alone.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from engine import TorchEngine, make_engine
from engine.bench.counting import StepCount, count_step
from engine.bench.notes import load_notes, roofline_notes, timing_notes
from engine.bench.quality import quality_result
from engine.bench.report import FORMAT_VERSION, write_report
from engine.bench.roofline import Rates, lower_bound, measure_rates
from engine.bench.subject import Subject
from engine.bench.timing import (
    EARLY_STEP,
    WARM_UP_STEPS,
    WINDOW_STEPS,
    Game,
    Spread,
    Times,
    measure_drift,
    spread_of,
    time_graphs,
    time_parts,
)
from engine.spec import Engine
from midas_world.machine import (
    cpu_name,
    forget_peak_memory,
    load_average,
    num_cores,
    peak_memory_mib,
)
from midas_world.types import BackendUnavailableError
from midas_world.world import StartState

if TYPE_CHECKING:  # ONNX Runtime may not be there
    from engine.onnx_engine import OnnxEngine

# More than that, and a CPU takes seconds for a frame, and memory that few have.
MAX_CPU_PARAMETERS = 1_000_000_000
_FLOAT_DTYPES = ("float32", "bfloat16")
# What TensorRT's plans call torch's dtypes.
_TORCH_NAMES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}

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
        drift_steps: Length of the game whose late steps are held against its early ones; 0: none.
        quality_steps: Length of the rollouts whose frames are held against those of float32
            torch; 0: none.
    """

    backends: tuple[str, ...] = ("torch",)
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8)
    num_steps: int = 100
    device: str | None = None
    num_denoise_steps: int | None = None
    drift_steps: int = 0
    quality_steps: int = 0

    def __post_init__(self) -> None:
        """Check that there is something to measure, and something to measure it on."""
        if not self.batch_sizes or self.batch_sizes[0] < 1:
            raise ValueError(f"batches must be at least 1, got {self.batch_sizes}")
        if self.num_steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.num_steps}")
        least = EARLY_STEP + 2 * WINDOW_STEPS
        if self.drift_steps and self.drift_steps < least:
            raise ValueError(f"drift must be at least {least} steps, got {self.drift_steps}")
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
    _log.info("counting what a frame of %s costs", subject.name)
    count = count_step(subject.config, num_denoise_steps=config.num_denoise_steps)
    report: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "subject": {
            "name": subject.name,
            "weights": subject.weights,
            "resolution": _resolution(subject),
            "tokens_per_frame": subject.config.tokens_per_frame,
            "context_frames": subject.config.backbone.context_frames,
            "num_parameters": count.num_parameters,
            "part_parameters": count.part_parameters,
        },
        "machine": _machine(),
        "results": [],
    }
    for backend in config.backends:
        _log.info("measuring the %s backend", backend)
        has_gpu = torch.cuda.is_available() and backend != "onnx"
        device = torch.device(config.device or ("cuda" if has_gpu else "cpu"))
        if device.type == "cpu" and count.num_parameters > MAX_CPU_PARAMETERS:
            result = _roofline_alone(backend, subject, count, config)
        else:
            result = _measured(backend, device, subject, count, config)
        report["results"].append(result)
        write_report(report, output)
    return report


def _measured(
    backend: str, device: torch.device, subject: Subject, count: StepCount, config: BenchConfig
) -> dict[str, Any]:
    """Return what was measured of a backend, or why nothing was."""
    load = load_average()
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
    dtype = _counted_dtype(spec.dtype)
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
    drift = None
    if config.drift_steps:
        _log.info("%s: %d steps of one game", backend, config.drift_steps)
        drift = asdict(measure_drift(engine, start, num_steps=config.drift_steps))
    quality = None
    if config.quality_steps:
        _log.info("%s: frames against those of float32 torch", backend)
        # The world is made again, so as not to have been in memory while that was measured.
        world = subject.make(device)
        quality = quality_result(engine, world, num_steps=config.quality_steps)
        del world
    # Last, for what it holds would count as the engine's memory.
    rates = _rates(spec.device, dtype)
    return {
        "title": title,
        "status": "measured",
        "reason": spec.reason,
        "conditions": f"{_conditions(subject, title, spec.device)}; chosen: {spec.reason}",
        "rates": asdict(rates),
        "part_batch_size": first,
        "parts": _part_rows(count, rates, dtype, first, parts, whole),
        "batches": [_with_roofline(row, count, rates, dtype) for row in batches],
        "drift": drift,
        "quality": quality,
        "notes": [
            *timing_notes(config.num_steps, spec=spec, has_parts=bool(parts)),
            *roofline_notes(rates, dtype),
            *([f"Rooflines count every part in {dtype}."] if dtype != spec.dtype else []),
            *load_notes(load),
        ],
    }


def _timer_of(engine: Engine) -> Callable[..., dict[str, Times]] | None:
    """Return what times the parts of an engine; None if nothing can."""
    if engine.spec.backend == "onnx":
        return functools.partial(time_graphs, cast("OnnxEngine", engine))
    # Not an engine made of it: TensorRT's runs other networks than the torch modules in it.
    return functools.partial(time_parts, engine) if type(engine) is TorchEngine else None


def _counted_dtype(dtype: str) -> str:
    """Return the torch dtype that stands for an engine's: of two precisions, the decoder's."""
    name = dtype.rpartition("/")[2]
    return _TORCH_NAMES.get(name, name)


def _roofline_alone(
    backend: str, subject: Subject, count: StepCount, config: BenchConfig
) -> dict[str, Any]:
    """Return the estimate for what is too large to play here."""
    rates = _rates("cpu", "float32")
    dtype = rates.fastest_dtype
    steps = config.num_denoise_steps or subject.config.diffusion.num_denoise_steps
    words = f"{backend} {dtype} on cpu, {steps} denoise steps"
    first = config.batch_sizes[0]
    rows = [_batch_row(batch_size, reason="not run") for batch_size in config.batch_sizes]
    return {
        "title": words,
        "status": "roofline",
        "reason": (
            f"{count.num_parameters / 1e9:.1f} billion parameters are too many to play on a CPU "
            f"(the limit is {MAX_CPU_PARAMETERS / 1e9:.0f} billion); on a machine with a GPU the "
            "same command measures them."
        ),
        "conditions": _conditions(subject, words, "cpu"),
        "rates": asdict(rates),
        "part_batch_size": first,
        "parts": _part_rows(count, rates, dtype, first, {}, None),
        "batches": [_with_roofline(row, count, rates, dtype) for row in rows],
        "drift": None,
        "quality": {"reason": "nothing was played"} if config.quality_steps else None,
        "notes": [*roofline_notes(rates, dtype), *load_notes(load_average())],
    }


def _time_batch(
    engine: Engine, start: StartState, batch_size: int, num_steps: int
) -> dict[str, Any]:
    """Return the report's row of so many games at once; without times if memory ran out."""
    on_gpu = engine.spec.device.startswith("cuda")
    forget_peak_memory()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(engine.spec.device)
    try:
        game = Game(engine, start, batch_size=batch_size)
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


def _with_roofline(
    row: Mapping[str, Any], count: StepCount, rates: Rates, dtype: str
) -> dict[str, Any]:
    """Return a row with the best that the rates allow, and how far from it the row is."""
    costs = [part.cost(dtype=dtype, batch_size=row["batch_size"]) for part in count.parts.values()]
    least = sum(lower_bound(cost, rates).milliseconds for cost in costs)
    return {
        **row,
        "roofline_ms": least,
        "roofline_frames_per_s": 1e3 * row["batch_size"] / least,
        "ratio": row["time"]["median_ms"] / least if row["time"] else None,
    }


def _part_rows(
    count: StepCount,
    rates: Rates,
    dtype: str,
    batch_size: int,
    parts: Mapping[str, Spread],
    whole: Mapping[str, float] | None,
) -> list[dict[str, Any]]:
    """Return the rows of the table of parts: each with its time if known, its cost and bound."""
    rows = []
    for name in dict.fromkeys((*parts, *count.parts)):
        time = asdict(parts[name]) if name in parts else None
        row: dict[str, Any] = {"part": name, "time": time, "cost": None}
        row |= dict.fromkeys(("roofline_ms", "limit", "ratio"))
        if name in count.parts:
            cost = count.parts[name].cost(dtype=dtype, batch_size=batch_size)
            bound = lower_bound(cost, rates)
            row["cost"] = asdict(cost)
            row["roofline_ms"], row["limit"] = bound.milliseconds, bound.limit
            row["ratio"] = time["median_ms"] / bound.milliseconds if time else None
        rows.append(row)
    if parts and whole:
        rest = whole["median_ms"] - sum(spread.median_ms for spread in parts.values())
        rows.append(_plain_row("Python and the rest", {"median_ms": rest}))
    total = _plain_row("whole step", whole)
    costs = [row["cost"] for row in rows if row["cost"]]
    total["cost"] = {key: sum(cost[key] for cost in costs) for key in costs[0] if key != "dtype"}
    total["roofline_ms"] = sum(row["roofline_ms"] for row in rows if row["roofline_ms"])
    total["ratio"] = whole["median_ms"] / total["roofline_ms"] if whole else None
    return [*rows, total]


def _plain_row(name: str, time: Mapping[str, float] | None) -> dict[str, Any]:
    empty = dict.fromkeys(("cost", "roofline_ms", "limit", "ratio"))
    return {"part": name, "time": dict(time) if time else None, **empty}


@functools.cache
def _rates(device: str, dtype: str) -> Rates:
    _log.info("measuring what %s can do", device)
    return measure_rates(device, dict.fromkeys((*_FLOAT_DTYPES, dtype)))


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
