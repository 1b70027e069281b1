"""The one file that knows ONNX Runtime: sessions that run on given memory, and int8 graphs.

Two kinds of int8. Products of the backbone and the sampler keep eight-bit weights with a scale per
output, and quantise each row of their input by itself while running, in blocks (MatMulNBits) or
whole (MatMulIntegerToFloat): so a game of a batch does not feel the others. Convolutions of the
decoder quantise their input by ranges that were measured on real frames, so nothing depends on the
batch either.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf
from torch import Tensor

from midas_world.types import CheckpointError

# Input entries that share one scale in MatMulNBits, the usual number first.
BLOCK_SIZES = 64, 128
_ZERO = 128
# What rounds rows to levels of 1 / 127 of their largest entry.
_ROUNDING_CONSTANTS = (
    (np.array(1.0 / 127.0, np.float32), "row.step"),
    (np.array(_ZERO, np.uint8), "row.zero"),
    (np.array([-1], np.int64), "row.axis"),
    (np.array(1e-12, np.float32), "row.least"),
)
# That tell how much int8 costs.
_JUDGED_FRAMES = 8

_log = logging.getLogger(__name__)


class Session:
    """A graph ready to run on arrays that the caller owns.

    Args:
        path: An ONNX file.
        num_threads: That work on one call.

    Raises:
        ValueError: num_threads is below 1.
        CheckpointError: The file is corrupt.
    """

    def __init__(self, path: Path, *, num_threads: int) -> None:
        if num_threads < 1:
            raise ValueError(f"num_threads must be at least 1, got {num_threads}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Waiting threads of one graph must not take the cores of the next one.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except (Fail, InvalidGraph, InvalidProtobuf) as error:
            raise CheckpointError(f"{path} is corrupt: {error}") from error
        self._binding = self._session.io_binding()

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Fill the outputs; nothing is copied, so all arrays must be contiguous.

        Args:
            inputs: Every input of the graph.
            outputs: Every output of the graph, of its shape; they are overwritten.
        """
        binding = self._binding
        for name, array in inputs.items():
            assert array.flags.c_contiguous, name
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            assert array.flags.c_contiguous, name
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(binding)


def quantize_matmuls(
    source: Path,
    target: Path,
    *,
    least_weight: int,
    stacked_by_row: bool = False,
    block_size: int = BLOCK_SIZES[0],
) -> None:
    """Write a graph whose products with large weights are eight-bit.

    A weight becomes round(weight / scale), scale = max |column| / 127. Shipped worlds are stored
    that way, so their weights stay exactly as they are; only the products' inputs are rounded.

    Args:
        source: A float32 graph.
        target: The file to write.
        least_weight: Weights with fewer entries stay as they are.
        stacked_by_row: Whether inputs of stacks of layers, whose weights have the same shapes, have
            one scale a row instead of one a block: less precise, and nearly twice as fast, on a CPU
            that adds eight-bit products in 32 bits (VNNI).
        block_size: Input entries that share one scale otherwise; of BLOCK_SIZES.
    """
    import onnx
    from onnx import helper, numpy_helper

    folded = target.with_name("folded.onnx")
    _fold_constants(source, folded)
    model = onnx.load(folded)
    folded.unlink()
    graph = model.graph
    weights = {
        item.name: item
        for item in graph.initializer
        if len(item.dims) == 2 and np.prod(item.dims) >= least_weight
    }
    used = {node.input[1] for node in graph.node if _is_product(node)} & weights.keys()
    used_elsewhere = {
        name
        for node in graph.node
        for place, name in enumerate(node.input)
        if not (_is_product(node) and place == 1)
    }
    shapes = Counter(tuple(weights[name].dims) for name in used)
    packed: dict[str, tuple[str, str]] = {}
    rounded: dict[str, tuple[str, str]] = {}
    nodes = []
    for node in graph.node:
        weight = weights.get(node.input[1]) if _is_product(node) else None
        if weight is None:
            nodes.append(node)
            continue
        by_row = stacked_by_row and shapes[tuple(weight.dims)] > 1
        # Of a Gemm, it lies as in torch: (columns, rows).
        is_turned = node.op_type == "Gemm"
        rows, columns = reversed(weight.dims) if is_turned else weight.dims
        if weight.name not in packed:
            values = numpy_helper.to_array(weight)
            values = values.T if is_turned else values
            levels, scales = pack_rows(values) if by_row else pack(values, block_size)
            packed[weight.name] = (f"{weight.name}.levels", f"{weight.name}.scales")
            for name, array in zip(packed[weight.name], (levels, scales), strict=True):
                graph.initializer.append(numpy_helper.from_array(array, name))
        levels, scales = packed[weight.name]
        given, (made,) = node.input[0], node.output
        if not by_row:
            nodes.append(
                helper.make_node(
                    "MatMulNBits",
                    [given, levels, scales],
                    [made],
                    name=node.name,
                    domain="com.microsoft",
                    K=rows,
                    N=columns,
                    bits=8,
                    block_size=block_size,
                    accuracy_level=4,  # the input is eight-bit, too
                )
            )
            continue
        if given not in rounded:
            rounded[given] = (f"{given}.levels", f"{given}.largest")
            nodes.extend(_rounding(given, *rounded[given]))
        given_levels, largest = rounded[given]
        product = [given_levels, levels, "row.step", scales, "row.zero"]
        shares = f"{made}.shares"  # of the largest entry of each row
        nodes.append(
            helper.make_node(
                "MatMulIntegerToFloat", product, [shares], name=node.name, domain="com.microsoft"
            )
        )
        nodes.append(helper.make_node("Mul", [shares, largest], [made]))
    if rounded:
        graph.initializer.extend(numpy_helper.from_array(*item) for item in _ROUNDING_CONSTANTS)
    del graph.node[:]
    graph.node.extend(nodes)
    kept = [item for item in graph.initializer if item.name not in packed.keys() - used_elsewhere]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    if all(item.domain != "com.microsoft" for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, target)


def _rounding(given: str, levels: str, largest: str) -> list[Any]:
    """Return nodes that make uint8 levels of a tensor, and the largest magnitude of each row."""
    from onnx import helper

    magnitudes, highest, shares = (f"{given}.{name}" for name in ("magnitudes", "highest", "share"))
    return [
        helper.make_node("Abs", [given], [magnitudes]),
        helper.make_node("ReduceMax", [magnitudes, "row.axis"], [highest]),
        helper.make_node("Max", [highest, "row.least"], [largest]),
        helper.make_node("Div", [given, largest], [shares]),
        helper.make_node("QuantizeLinear", [shares, "row.step", "row.zero"], [levels]),
    ]


def _is_product(node: Any) -> bool:
    """Return whether a node is x @ weight, or x @ weight.T and nothing more."""
    if node.op_type == "Gemm":
        given = {item.name: item.f or item.i for item in node.attribute}
        usual = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0} | given
        return len(node.input) == 2 and (usual["alpha"], usual["transA"], usual["transB"]) == (
            1.0,
            0,
            1,
        )
    return node.op_type == "MatMul"


def pack(weight: np.ndarray, block_size: int = BLOCK_SIZES[0]) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels (columns, blocks, block) uint8 and scales (columns, blocks) of a weight."""
    levels, scale = pack_rows(weight)
    blocks = -(-len(weight) // block_size)
    padded = np.full((blocks * block_size, weight.shape[1]), _ZERO, np.uint8)
    padded[: len(weight)] = levels.astype(np.int16) + _ZERO
    scales = np.repeat(scale[:, None], blocks, axis=1)
    return np.ascontiguousarray(padded.T.reshape(-1, blocks, block_size)), scales


def pack_rows(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the levels (rows, columns) int8 and scales (columns,) of a weight."""
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-12) / 127.0
    return np.ascontiguousarray(np.rint(weight / scale).astype(np.int8)), scale.astype(np.float32)


def quantize_convs(
    source: Path,
    target: Path,
    samples: Sequence[Mapping[str, Tensor]],
    *,
    num_precise: int,
    least_psnr: float,
    reduce_range: bool,
) -> None:
    """Write a graph whose convolutions are eight-bit, as far as its frames allow.

    Args:
        source: A float32 graph that makes frames.
        target: The file to write.
        samples: Inputs on which the ranges of what the convolutions take and give are measured.
        num_precise: So many convolutions at the end stay float32; twice as many, and so on, where
            frames otherwise came out worse than asked.
        least_psnr: Of frames against the float32 graph's, in dB.
        reduce_range: Keep weights to seven bits.
    """
    import onnx

    # Players, whose graphs are ready, need not wait for it.
    from midas_world.evaluate.metrics import psnr

    judged = samples[:_JUDGED_FRAMES]
    with _quiet_root_logger():
        from onnxruntime.quantization import (
            CalibrationDataReader,
            CalibrationMethod,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        class Samples(CalibrationDataReader):
            def __init__(self) -> None:
                self.left = iter(samples)

            def get_next(self) -> dict[str, np.ndarray]:
                # The end of the samples is told by an empty one.
                return {name: array.numpy() for name, array in next(self.left, {}).items()}

        convs = [node.name for node in onnx.load(source).graph.node if node.op_type == "Conv"]
        expected = _outputs(source, judged)
        while True:
            quantize_static(
                source,
                target,
                Samples(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_exclude=convs[max(0, len(convs) - num_precise) :],
                per_channel=True,
                reduce_range=reduce_range,
                # Unsigned inputs and signed weights are what VNNI multiplies.
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
            reached = float(psnr(_outputs(target, judged), expected).mean())
            if reached >= least_psnr or num_precise >= len(convs):
                return
            _log.info("int8 frames reach %.1f dB: more of the decoder stays float32", reached)
            num_precise *= 2


def _outputs(path: Path, samples: Sequence[Mapping[str, Tensor]]) -> np.ndarray:
    """Return what a graph of one output makes of samples, one behind another."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = [{name: array.numpy() for name, array in sample.items()} for sample in samples]
    return np.concatenate([np.asarray(session.run(None, arrays)[0]) for arrays in given])


def _fold_constants(source: Path, target: Path) -> None:
    """Write a graph with what depends on weights alone computed, transposed weights above all."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep the quantiser, which logs on the root logger, from setting up logging or speaking."""
    root, handler = logging.getLogger(), logging.NullHandler()
    is_disabled = root.disabled
    root.addHandler(handler)
    root.disabled = True
    try:
        yield
    finally:
        root.disabled = is_disabled
        root.removeHandler(handler)
