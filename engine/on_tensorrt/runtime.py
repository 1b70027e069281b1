"""The one file that knows TensorRT, in both flavours: `tensorrt` and `tensorrt-rtx`.

Builds engine files' contents from ONNX and runs them at given addresses. The two flavours have one
Python interface; where they differ (RTX builds without a GPU and compiles its last kernels on the
player's machine, with a runtime cache; TensorRT times kernels on the GPU, with a timing cache) it
says so here.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from engine.on_tensorrt.plan import TrtPlan
from midas_world.types import BackendUnavailableError, MidasWorldError

EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}

_log = logging.getLogger(__name__)


class EngineBuildError(MidasWorldError):
    """TensorRT cannot parse or build a graph; the message is TensorRT's own."""


class EngineLoadError(MidasWorldError):
    """TensorRT does not take an engine file's contents on this machine."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """What the builder made.

    Attributes:
        contents: Of the engine file.
        tensors: Inputs and outputs by name: "input" or "output", dtype, and shape with -1 for the
            batch.
        timing_cache: To be given to the next build; empty with TensorRT for RTX.
    """

    contents: bytes
    tensors: dict[str, dict[str, Any]]
    timing_cache: bytes = b""


def load_flavour(flavour: str) -> ModuleType:
    """Return TensorRT's module.

    Raises:
        BackendUnavailableError: It is not installed; the message says which extra to install.
    """
    try:
        if flavour == "tensorrt-rtx":
            import tensorrt_rtx as trt
        else:
            import tensorrt as trt  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        extra = EXTRAS[flavour]
        raise BackendUnavailableError(
            f'{flavour} cannot be loaded ({error}): pip install "midas-world[{extra}]" (or use '
            "backend='torch')"
        ) from error
    return trt


def flavour_version(flavour: str) -> str:
    """Return the installed version; see `load_flavour` for the error."""
    return load_flavour(flavour).__version__


def build_engine(
    graph: bytes,
    plan: TrtPlan,
    *,
    flavour: str,
    capability: int,
    timing_cache: bytes = b"",
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Built:
    """Return what TensorRT builds of a graph.

    Args:
        graph: ONNX whose inputs have the batch as their first axis, open.
        plan: How to build it.
        flavour: Which TensorRT.
        capability: Of the GPU it is for. TensorRT builds for the GPU at hand alone, whose this
            must be; TensorRT for RTX builds for any, without one.
        timing_cache: Of an earlier build, or empty; only TensorRT uses it.
        on_progress: Called with a phase's name, its steps done and its steps in all.

    Raises:
        EngineBuildError: TensorRT cannot parse or build it.
        BackendUnavailableError: The flavour is not installed.
    """
    trt = load_flavour(flavour)
    logger = _make_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        words = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise EngineBuildError(f"{flavour} cannot parse the {plan.graph} graph: {words}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, plan.workspace_mib << 20)
    config.builder_optimization_level = plan.builder_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    cache = None
    if flavour == "tensorrt-rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), 0)
    else:
        cache = config.create_timing_cache(timing_cache)
        config.set_timing_cache(cache, ignore_mismatch=False)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        sizes = [(count, *rest) for count in (plan.batch.min, plan.batch.opt, plan.batch.max)]
        profile.set_shape(tensor.name, *sizes)
    config.add_optimization_profile(profile)
    if on_progress is not None:
        config.progress_monitor = _make_monitor(trt, on_progress)
    contents = builder.build_serialized_network(network, config)
    if contents is None:
        raise EngineBuildError(
            f"{flavour} cannot build the {plan.graph} graph in {plan.precision} for "
            f"sm{capability}: {logger.last_error or 'it does not say why'}"
        )
    return Built(
        contents=bytes(contents),
        tensors=_describe(network),
        timing_cache=bytes(cache.serialize()) if cache is not None else b"",
    )


class LoadedEngine:
    """An engine file's contents on the GPU, to be bound to addresses.

    The primary context must be current in every call.

    Args:
        contents: Of an engine file.
        flavour: Which TensorRT built it.
        runtime_cache: Kernels that TensorRT for RTX compiled here before, or empty.

    Raises:
        EngineLoadError: TensorRT does not take it.
        BackendUnavailableError: The flavour is not installed.
    """

    def __init__(self, contents: bytes, *, flavour: str, runtime_cache: bytes = b"") -> None:
        trt = load_flavour(flavour)
        self._logger = _make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(contents)
        if self._engine is None:
            raise EngineLoadError(f"{flavour} does not load it: {self._logger.last_error}")
        self._config = self._cache = None
        if flavour == "tensorrt-rtx":
            self._config = self._engine.create_runtime_config()
            # Kernels of a shape are compiled before the first call returns, not while playing.
            strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            self._config.dynamic_shapes_kernel_specialization_strategy = strategy
            self._cache = self._config.create_runtime_cache()
            if runtime_cache and not self._cache.deserialize(runtime_cache):
                _log.warning("the runtime cache is of another version; compiling kernels again")
            self._config.set_runtime_cache(self._cache)

    def bind(self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]) -> "Bound":
        """Return a context of its own with fixed shapes, as one CUDA graph needs it.

        Args:
            addresses: On the device, of every input and output.
            shapes: Of every input.
        """
        engine = self._engine
        context = (
            engine.create_execution_context()
            if self._config is None
            else engine.create_execution_context(self._config)
        )
        if context is None:
            raise EngineLoadError(f"there is no execution context: {self._logger.last_error}")
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise EngineLoadError(f"the engine file takes no {name} of shape {shape}")
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise EngineLoadError(f"the engine file has no tensor {name}")
        return Bound(context, self._logger)

    def runtime_cache(self) -> bytes:
        """Return the kernels compiled so far, to be given to the next load; may be empty."""
        return b"" if self._cache is None else bytes(self._cache.serialize())


class Bound:
    """An engine with its shapes and addresses."""

    def __init__(self, context: Any, logger: Any) -> None:
        self._context, self._logger = context, logger

    def enqueue(self, stream: int) -> None:
        """Put the work on a stream, given by its handle.

        Raises:
            EngineLoadError: TensorRT refuses.
        """
        if not self._context.execute_async_v3(stream):
            raise EngineLoadError(f"the engine file does not run: {self._logger.last_error}")


def _describe(network: Any) -> dict[str, dict[str, Any]]:
    tensors = {}
    for kind, count, get in (
        ("input", network.num_inputs, network.get_input),
        ("output", network.num_outputs, network.get_output),
    ):
        for index in range(count):
            tensor = get(index)
            dtype = tensor.dtype.name.lower()
            tensors[tensor.name] = {"kind": kind, "dtype": dtype, "shape": list(tensor.shape)}
    return tensors


def _make_logger(trt: ModuleType) -> Any:
    """Return TensorRT's logger that passes on to ours and keeps the last error."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                # An error reaches the user as an exception, which says it once.
                self.last_error = message
                _log.debug("%s", message)
            elif severity == trt.ILogger.WARNING:
                _log.debug("%s", message)

    return Logger()


def _make_monitor(trt: ModuleType, on_progress: Callable[[str, int, int], None]) -> Any:
    """Return TensorRT's progress monitor that tells of the outermost phases."""

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.phases: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.phases[phase_name] = num_steps
                on_progress(phase_name, 0, num_steps)

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self.phases:
                total = self.phases.pop(phase_name)
                on_progress(phase_name, total, total)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.phases:
                on_progress(phase_name, step + 1, self.phases[phase_name])
            return True

    return Monitor()
