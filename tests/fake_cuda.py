"""A CUDA device that is pretended, for PyTorch without CUDA: it tells what work asks of it.

Its tensors have shapes, dtypes and no memory (PyTorch's fake tensors); those on the CPU are real.
What kernels do inside, and which attention a GPU would choose, it does not know.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from engine.on_torch.engine import TorchEngine
from engine.on_torch.graphs import StepGraphs
from midas_world.config import ProjectConfig
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.world_model import WorldModel
from midas_world.world import KeyMap, World

CUDA = torch.device("cuda:0")

_aten = torch.ops.aten
_INDEXING = (_aten.index, _aten.index_put, _aten.index_put_)
# What they give, or how much of it, depends on numbers: the host waits for those.
_STOPPING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class UncapturableError(AssertionError):
    """A CUDA graph would refuse this, or hold for ever what the CPU said once."""


class FakeCuda(TorchDispatchMode):
    """The device, while inside of its `with`.

    Attributes:
        uploads: Bytes of each copy from the CPU.
        downloads: Bytes of each copy to it.
        launches: Names of the operations outside of `capturing`, copies among them.
        num_captured: Graphs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fakes = FakeTensorMode(allow_non_fake_inputs=True)
        self.uploads: list[int] = []
        self.downloads: list[int] = []
        self.launches: list[str] = []
        self.num_captured = 0
        self._is_capturing = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let tensors be on the device inside a `with`."""
        with ExitStack() as stack:
            for mode in (self.fakes, self, _Bindings()):
                stack.enter_context(mode)
            yield

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Refuse what a CUDA graph would refuse, inside a `with`."""
        self._is_capturing = True
        try:
            yield
        finally:
            self._is_capturing = False

    def place(self, module: nn.Module) -> None:
        """Move a module from the meta device to this one."""
        for part in module.modules():
            for name, tensor in part._parameters.items():
                if tensor is not None and tensor.is_meta:
                    part._parameters[name] = nn.Parameter(self._fake(tensor), requires_grad=False)
            for name, tensor in part._buffers.items():
                if tensor is not None and tensor.is_meta:
                    part._buffers[name] = self._fake(tensor)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        target = kwargs.get("device")
        kinds = {tensor.device.type for tensor in tensors}
        if target is not None:
            kinds.add(torch.device(target).type)
        kinds = kinds or {"cpu"}
        if self._is_capturing:
            _check(func, args, kinds)
        if kinds == {"cpu"}:
            with _disable_current_modes():
                return func(*args, **kwargs)
        with self:
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        if not self._is_capturing:
            self.launches.append(func.overloadpacket.__name__)
        if func is _aten.copy_.default and args[0].device != args[1].device:
            moved = self.uploads if args[0].device == CUDA else self.downloads
            moved.append(args[0].numel() * args[0].itemsize)
            return args[0]
        return func(*args, **kwargs)

    def _fake(self, tensor: Tensor) -> Tensor:
        return FakeTensor(self.fakes, tensor.detach(), CUDA)


class FakeCapturer:
    """Capture on the pretended device: the work is done once and checked, and never repeated."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda

    def memory(self, num_bytes: int) -> tuple[Tensor, Tensor]:
        host = torch.zeros(num_bytes, dtype=torch.uint8)
        return host, torch.zeros(num_bytes, dtype=torch.uint8, device=CUDA)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        with self._cuda.capturing():
            work()
        self._cuda.num_captured += 1
        return lambda: None

    def mark(self) -> Callable[[], None]:
        return lambda: None


def engine_on(cuda: FakeCuda, config: ProjectConfig, dtype: torch.dtype) -> TorchEngine:
    """Return an engine whose networks are on the pretended device, with graphs; no weights."""
    with _disable_current_modes():
        engine = TorchEngine(_world_without_weights(config), device="meta", dtype=dtype)
    for module in (engine._model, engine._sampler, engine._autoencoder):
        cuda.place(module)
    engine._device = CUDA
    engine._spec = replace(engine.spec, device=str(CUDA))
    engine._graphs = StepGraphs(FakeCapturer(cuda), engine.spec)
    return engine


def _world_without_weights(config: ProjectConfig) -> World:
    with torch.device("meta"):
        model, autoencoder = WorldModel(config.world), Autoencoder(config.world.autoencoder)
    return World(
        folder=Path("none"),
        config=config,
        autoencoder=autoencoder.eval(),
        model=model.eval(),
        start_states=(),
        keymap=KeyMap(actions=("none",), keys={}),
    )


def _check(func: Any, args: tuple, kinds: set[str]) -> None:
    """Check that an operation can be captured.

    Stricter than CUDA: of the CPU's numbers a graph could take single ones, but not follow them.
    """
    if kinds != {"cuda"}:
        raise UncapturableError(f"{func} has to do with tensors of the CPU")
    if func.overloadpacket in _INDEXING:
        indices = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            raise UncapturableError(f"{func} by a mask has to know how many are true")
    elif _STOPPING.intersection(func.tags):
        raise UncapturableError(f"{func} waits for numbers of the device")


class _Bindings(TorchFunctionMode):
    """Does in Python what PyTorch's bindings do only where the device's own code is linked."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if args and isinstance(args[0], FakeTensor):
            if func is Tensor.__getitem__:
                return _index(*args)
            if func in _WAITING:
                raise UncapturableError(f"{func.__name__} waits for numbers of the device")
            if func in _OPERATIONS:
                return _OPERATIONS[func](*args, **kwargs)
        elif func is Tensor.tolist:
            with _disable_current_modes():
                return func(*args)
        return func(*args, **kwargs)


_OPERATIONS = {
    Tensor.__invert__: _aten.bitwise_not,
    Tensor.copy_: _aten.copy_,
    Tensor.contiguous: _aten.contiguous,
}
_WAITING = {
    Tensor.__bool__,
    Tensor.__float__,
    Tensor.__int__,
    Tensor.item,
    Tensor.nonzero,
    Tensor.tolist,
    torch.nonzero,
}


def _index(x: Tensor, index: Any) -> Tensor:
    """Return x[index]."""
    index = index if isinstance(index, tuple) else (index,)
    rest = x.dim() - sum(part is not None and part is not ... for part in index)
    dim, tensors = 0, []
    for part in index:
        if part is ...:
            dim += rest
            tensors += [None] * rest
            continue
        if isinstance(part, int) and not isinstance(part, bool):
            x = x.select(dim, part)
            continue
        if part is None:
            x = x.unsqueeze(dim)
        elif isinstance(part, slice):
            x = _aten.slice(x, dim, part.start, part.stop, part.step or 1)
        elif not isinstance(part, Tensor):
            raise UncapturableError(f"an index that is a {type(part)} becomes a tensor on the CPU")
        dim += 1
        tensors.append(part if isinstance(part, Tensor) else None)
    return x if all(part is None for part in tensors) else _aten.index(x, tensors)
