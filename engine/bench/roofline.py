"""How fast this machine could be at best: measured rates, and the time they leave for a cost.

A part takes at least as long as its bytes need to pass through memory, and at least as long as its
operations take at the rate of a large matrix product. What fits into a processor's caches can be
faster than the memory bound says, so a small world may lie below its roofline.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.bench.counting import Cost

# Far larger than caches; and a matrix that a machine takes milliseconds to multiply.
COPY_BYTES = {"cpu": 2**28, "cuda": 2**30}
MATRIX_SIZE = {"cpu": 1024, "cuda": 8192}
REPEATS = 7
_WARM_UPS = 2


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a device was measured to do.

    Attributes:
        device: "cpu" or "cuda:0".
        num_threads: That worked, on a CPU.
        bytes_per_s: Read and written by a large copy.
        flops_per_s: Of a large matrix product, by dtype; a dtype is missing that has none here.
    """

    device: str
    num_threads: int
    bytes_per_s: float
    flops_per_s: Mapping[str, float]

    @property
    def fastest_dtype(self) -> str:
        """The floating-point dtype whose products are fastest."""
        rates = {name: rate for name, rate in self.flops_per_s.items() if name != "int8"}
        return max(rates, key=rates.__getitem__)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The least time of a cost, and whether "memory" or "products" set it."""

    milliseconds: float
    limit: str


def lower_bound(cost: Cost, rates: Rates) -> Bound:
    """Return the least time that a cost takes; of a dtype without a rate, that of its bytes."""
    memory = 1e3 * cost.num_bytes / rates.bytes_per_s
    rate = rates.flops_per_s.get(cost.dtype)
    products = 1e3 * cost.flops / rate if rate else 0.0
    if products > memory:
        return Bound(milliseconds=products, limit="products")
    return Bound(milliseconds=memory, limit="memory")


def measure_rates(device: str, dtypes: Iterable[str] = ("float32", "bfloat16")) -> Rates:
    """Return the rates of a device, medians of a few runs each; takes about a second."""
    torch_device = torch.device(device)
    return Rates(
        device=device,
        num_threads=torch.get_num_threads(),
        bytes_per_s=_bandwidth(torch_device),
        flops_per_s={
            name: rate for name in dtypes if (rate := _product_rate(torch_device, name)) is not None
        },
    )


def _bandwidth(device: torch.device) -> float:
    count = COPY_BYTES[device.type] // 4
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    return 8 * count / _median_seconds(lambda: target.copy_(source), device)


def _product_rate(device: torch.device, dtype: str) -> float | None:
    """Return operations per second of a square matrix product; None if there is none to time."""
    size = MATRIX_SIZE[device.type]
    if dtype == "int8":
        # PyTorch's only product of eight-bit matrices; without VNNI it is written for nobody's use.
        if device.type == "cpu" and not torch.cpu._is_vnni_supported():
            return None
        matrix = torch.ones(size, size, dtype=torch.int8, device=device)
        seconds = _median_seconds(lambda: torch._int_mm(matrix, matrix), device)  # pyright: ignore[reportPrivateImportUsage]
    else:
        generator = torch.Generator(device).manual_seed(0)
        matrix = torch.randn(size, size, generator=generator, device=device)
        matrix = matrix.to(getattr(torch, dtype))
        out = torch.empty_like(matrix)
        seconds = _median_seconds(lambda: torch.mm(matrix, matrix, out=out), device)
    return 2 * size**3 / seconds


def _median_seconds(call: Callable[[], Tensor], device: torch.device) -> float:
    times = []
    for _ in range(_WARM_UPS + REPEATS):
        _synchronize(device)
        began = time.perf_counter()
        call()
        _synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[_WARM_UPS:])


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
