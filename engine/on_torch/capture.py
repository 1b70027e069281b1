"""What CUDA graphs need of a device: memory that stays where it is, capture, and a way to wait.

Knows nothing of worlds: graphs.py says what is captured. On a CPU a test's own `Capturer`
stands in.
"""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from midas_world.types import MidasWorldError

# Runs before capture: libraries choose kernels and allocate their workspaces in the first.
WARM_UP_RUNS = 2
# Every tensor of a pack begins at a multiple of it, as memory that a GPU allocates does.
_ALIGNMENT = 256

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]


class CaptureError(MidasWorldError):
    """The work cannot be captured as a CUDA graph; the message says why."""


class Capturer(Protocol):
    """What graphs need of a GPU."""

    def memory(self, num_bytes: int) -> tuple[Tensor, Tensor]:
        """Return zeros on the host and on the device, each (num_bytes,) uint8."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Run the work a few times, which changes what it changes, and return what repeats it."""
        ...

    def mark(self) -> Callable[[], None]:
        """Return what waits until all that was asked of the device so far is done."""
        ...


class CudaCapturer:
    """A CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._anchor: tuple[torch.cuda.CUDAGraph, torch.cuda.Stream] | None = None

    def memory(self, num_bytes: int) -> tuple[Tensor, Tensor]:
        """Return zeros in pinned memory and on the device, each (num_bytes,) uint8."""
        host = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=True)
        return host, torch.zeros(num_bytes, dtype=torch.uint8, device=self._device)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return the replay of a CUDA graph of the work, after a few runs of it."""
        with torch.cuda.device(self._device):
            if self._anchor is None:
                # Memory of graphs may be shared only as long as one of them exists: this one does.
                stream = torch.cuda.Stream(self._device)
                scratch = torch.zeros(1, device=self._device)
                anchor, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
                with torch.cuda.graph(
                    anchor, pool=pool, stream=stream, capture_error_mode="thread_local"
                ):
                    scratch.add_(1)
                self._anchor = anchor, stream
            anchor, stream = self._anchor
            usual = torch.cuda.current_stream(self._device)
            stream.wait_stream(usual)
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP_RUNS):
                    work()
            usual.wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the GPU meanwhile: what they do is not captured.
            with torch.cuda.graph(
                graph, pool=anchor.pool(), stream=stream, capture_error_mode="thread_local"
            ):
                work()
        return graph.replay

    def mark(self) -> Callable[[], None]:
        """Return what waits until all that is on the current stream is done."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return event.synchronize


class Pack:
    """Tensors side by side in one piece of memory, on the host and on the device.

    Attributes:
        host: The tensors by name, in pinned memory.
        device: The same, on the device.
    """

    def __init__(self, capturer: Capturer, layout: Layout) -> None:
        places, end = {}, 0
        for name, (shape, dtype) in layout.items():
            size = math.prod(shape) * dtype.itemsize
            places[name] = slice(end, end + size)
            end += -(-size // _ALIGNMENT) * _ALIGNMENT
        self._places = places
        self._host, self._device = capturer.memory(end)
        self.host, self.device = (
            {
                name: whole[places[name]].view(dtype).view(shape)
                for name, (shape, dtype) in layout.items()
            }
            for whole in (self._host, self._device)
        )

    def between(self, first: str, last: str) -> "Pack":
        """Return the pack of two of the tensors and those between, in the same memory."""
        names = list(self._places)
        names = names[names.index(first) : names.index(last) + 1]
        start, stop = self._places[first].start, self._places[last].stop
        part = object.__new__(Pack)
        part._places = {
            name: slice(self._places[name].start - start, self._places[name].stop - start)
            for name in names
        }
        part._host, part._device = self._host[start:stop], self._device[start:stop]
        part.host = {name: self.host[name] for name in names}
        part.device = {name: self.device[name] for name in names}
        return part

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Change the host's tensors to these, all or none.

        Raises:
            ValueError: One has another shape.
        """
        for name, tensor in tensors.items():
            if self.host[name].shape != tensor.shape:
                raise ValueError(
                    f"{name} must have shape {tuple(self.host[name].shape)}, "
                    f"got {tuple(tensor.shape)}"
                )
        for name, tensor in tensors.items():
            self.host[name].copy_(tensor)

    def holds(self, tensors: Mapping[str, Tensor]) -> bool:
        """Return whether the host's tensors are these."""
        named = ((self.host[name], tensor) for name, tensor in tensors.items())
        return all(torch.equal(own, tensor.to(own)) for own, tensor in named)

    def upload(self) -> None:
        """Let the device's tensors become the host's."""
        self._device.copy_(self._host, non_blocking=True)

    def download(self) -> None:
        """Let the host's tensors become the device's; they are after the next wait."""
        self._host.copy_(self._device, non_blocking=True)
