"""The one file that knows TensorRT, in both flavours: `tensorrt` and, for RTX, `tensorrt_rtx`.

Builds engine files' contents from ONNX and runs them on torch's tensors. The two have one Python
interface; where they differ (RTX builds without a GPU and compiles its last kernels on the player's
machine, which are kept beside the engine file) it says so here.
"""

import importlib
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from engine.on_tensorrt.plan import TrtPlan
from midas_world.files import write_whole
from midas_world.types import BackendUnavailableError
from midas_world.user_folders import or_not_kept

# By backend; each is an extra of the same name.
MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}

_log = logging.getLogger(__name__)


def load_tensorrt(backend: str) -> ModuleType:
    """Return TensorRT's module.

    Raises:
        BackendUnavailableError: It is not installed; the message says which extra to install.
    """
    try:
        return importlib.import_module(MODULES[backend])
    except ImportError as error:
        raise BackendUnavailableError(
            f"backend {backend!r} cannot be loaded ({error}): "
            f"pip install \"midas-world[{backend}]\" (or use backend='torch')"
        ) from error


def build_engine(graph: bytes, plan: TrtPlan, *, backend: str, capability: int) -> bytes:
    """Return what TensorRT builds of a graph, the contents of an engine file.

    Args:
        graph: ONNX whose inputs have the batch as their first axis, open.
        plan: How to build it.
        backend: Which TensorRT.
        capability: Of the GPU it is for. TensorRT builds for the GPU at hand alone, whose this
            must be; TensorRT for RTX builds for any, without one.

    Raises:
        BackendUnavailableError: It is not installed, or cannot parse or build the graph.
    """
    trt = load_tensorrt(backend)
    logger = _make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        words = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise BackendUnavailableError(f"{backend} cannot parse a graph: {words}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if backend == "rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), 0)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        profile.set_shape(tensor.name, (1, *rest), (1, *rest), (plan.max_batch, *rest))
    config.add_optimization_profile(profile)
    contents = builder.build_serialized_network(network, config)
    if contents is None:
        raise BackendUnavailableError(
            f"{backend} cannot build a graph in {plan.precision} for sm{capability}: "
            f"{logger.last_error or 'it does not say why'}"
        )
    return bytes(contents)


class EngineRunner:
    """An engine file on the GPU.

    Args:
        path: Of the file.
        backend: Which TensorRT built it.

    Raises:
        BackendUnavailableError: TensorRT is not installed, or does not take the file.
    """

    def __init__(self, path: Path, *, backend: str) -> None:
        trt = load_tensorrt(backend)
        self._logger, self._path = _make_logger(trt), path
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise self._error("does not load")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        mode = trt.TensorIOMode.OUTPUT
        (self._output,) = (n for n in names if self._engine.get_tensor_mode(n) == mode)
        self._kernels, self._known = None, set[int]()
        if backend == "rtx":
            config = self._engine.create_runtime_config()
            # Kernels of a shape are compiled before the first call returns, not while playing.
            strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = strategy
            self._kernels = config.create_runtime_cache()
            if self._kernels_path.is_file():
                self._kernels.deserialize(self._kernels_path.read_bytes())
            config.set_runtime_cache(self._kernels)
            self._context = self._engine.create_execution_context(config)
        else:
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise self._error("cannot be run")
        self._lock, self._stream = threading.Lock(), torch.cuda.Stream()

    def run(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the output, (B, ...), of all inputs by name, (B, ...); float32, on the GPU.

        Raises:
            BackendUnavailableError: TensorRT refuses.
        """
        given = {name: tensor.float().contiguous() for name, tensor in inputs.items()}
        batch = len(next(iter(given.values())))
        with self._lock:
            for name, tensor in given.items():
                self._context.set_input_shape(name, tuple(tensor.shape))
                self._context.set_tensor_address(name, tensor.data_ptr())
            shape = tuple(self._context.get_tensor_shape(self._output))
            made = torch.empty(shape, device="cuda")
            self._context.set_tensor_address(self._output, made.data_ptr())
            # A stream of its own, between torch's work: on the default one TensorRT waits.
            usual = torch.cuda.current_stream()
            self._stream.wait_stream(usual)
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise self._error("does not run")
            usual.wait_stream(self._stream)
            if self._kernels is not None and batch not in self._known:
                self._known.add(batch)
                with or_not_kept():
                    write_whole(self._kernels_path, bytes(self._kernels.serialize()))
        return made

    @property
    def _kernels_path(self) -> Path:
        return self._path.with_suffix(".kernels")

    def _error(self, words: str) -> BackendUnavailableError:
        return BackendUnavailableError(f"{self._path} {words}: {self._logger.last_error}")


def _make_logger(trt: ModuleType) -> Any:
    """Return TensorRT's logger that keeps the last error, which reaches the user once."""

    class Logger(trt.ILogger):
        last_error = ""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.last_error = message
            _log.debug("%s", message)

    return Logger()
