"""The one file that knows pycuda: device memory, the stream and its events, for TensorRT.

pycuda owns them; torch shares its primary context with pycuda, so that tensors of the one are
addresses of the other and nothing is copied between them. All work of a step is put on the one
stream, torch's too.
"""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from midas_world.types import BackendUnavailableError


class Device(Protocol):
    """What a TensorRT engine needs of a GPU."""

    @property
    def torch_device(self) -> torch.device:
        """Where torch's part of a step runs."""
        ...

    @property
    def stream(self) -> int:
        """The stream's handle."""
        ...

    def active(self) -> AbstractContextManager[None]:
        """Make the context current, and the stream torch's, inside a `with`."""
        ...

    def tensor(self, shape: Sequence[int]) -> Tensor:
        """Return a float32 tensor of zeros in device memory."""
        ...

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats the work that a function puts on the stream."""
        ...


class CudaDevice:
    """A GPU by way of pycuda.

    Raises:
        BackendUnavailableError: pycuda is not installed, or torch sees no GPU.
    """

    def __init__(self, index: int = 0, *, extra: str = "tensorrt") -> None:
        try:
            import pycuda.driver as driver  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise BackendUnavailableError(
                f'pycuda cannot be loaded ({error}): pip install "midas-world[{extra}]" (or use '
                "backend='torch')"
            ) from error
        if not torch.cuda.is_available():
            raise BackendUnavailableError("torch sees no NVIDIA GPU here; use backend='torch'")
        self._driver = driver
        self._lock = threading.RLock()
        self.torch_device = torch.device("cuda", index)
        torch.cuda.init()
        driver.init()
        self._context = driver.Device(index).retain_primary_context()
        with self._current():
            self._stream = driver.Stream()
            self._event = driver.Event(driver.event_flags.DISABLE_TIMING)
        self.stream: int = self._stream.handle
        self._torch_stream = torch.cuda.ExternalStream(self.stream, device=self.torch_device)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the context current, and the stream torch's, inside a `with`; one thread at a time.

        What is bound to an engine file lies at fixed addresses.
        """
        with self._lock, self._current(), torch.cuda.stream(self._torch_stream):
            yield

    def tensor(self, shape: Sequence[int]) -> Tensor:
        """Return float32 zeros in memory that pycuda owns; the tensor keeps it alive."""
        tensor = torch.as_tensor(_Allocation(self._driver, shape), device=self.torch_device)
        return tensor.zero_()

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Return the replay of a CUDA graph of what a function puts on the stream.

        On the stream that is torch's own here, so that it lies between torch's work.
        """
        # TensorRT allocates and compiles in the first call of a shape, which no graph may hold.
        enqueue()
        self._event.record(self._stream)
        self._event.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._torch_stream, capture_error_mode="thread_local"):
            enqueue()
        return graph.replay

    @contextmanager
    def _current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()


class _Allocation:
    """Device memory that torch takes over by its address."""

    def __init__(self, driver, shape: Sequence[int]) -> None:
        self.memory = driver.mem_alloc(4 * math.prod(shape))
        self.__cuda_array_interface__ = {
            "shape": tuple(shape),
            "typestr": "<f4",
            "data": (int(self.memory), False),
            "version": 3,
        }
