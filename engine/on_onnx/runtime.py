"""The one file that knows ONNX Runtime: sessions that run on given memory, and int8 graphs.

In int8 graphs, convolutions multiply eight-bit levels: weights have a scale per output channel,
inputs and outputs one that was measured on real ones, so that nothing depends on the batch.
Everything else, and what eight bits would spoil, stays float32.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, InvalidProtobuf

from midas_world.psnr import psnr_of
from midas_world.types import BackendUnavailableError

# That tell how much int8 costs.
_NUM_JUDGED = 8
# Of the first output against the float32 graph's, dB.
LEAST_PSNR = 40.0

Arrays = Mapping[str, np.ndarray]

_log = logging.getLogger(__name__)


class GraphRunner:
    """A graph ready to run on arrays that the caller owns.

    Raises:
        BackendUnavailableError: ONNX Runtime does not take the file.
    """

    def __init__(self, path: Path, *, num_threads: int) -> None:
        self._process = os.getpid()
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
            raise BackendUnavailableError(f"{path} cannot be loaded: {error}") from error

    def run(self, inputs: Arrays, outputs: Arrays) -> None:
        """Fill the outputs; nothing is copied, so all arrays must be contiguous.

        Several threads may run one session at once: what is bound is each call's own.

        Args:
            inputs: Every input of the graph.
            outputs: Every output of the graph, of its shape; they are overwritten.

        Raises:
            RuntimeError: The session was made before this process was forked.
        """
        if os.getpid() != self._process:  # it would wait for threads, which a fork leaves behind
            raise RuntimeError(
                "an environment on ONNX Runtime plays in the process that made it, and this one "
                "was forked from that: make the environment here"
            )
        binding = self._session.io_binding()
        for name, array in inputs.items():
            assert array.flags.c_contiguous, name
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            assert array.flags.c_contiguous, name
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(binding)


def quantize(
    source: Path,
    target: Path,
    samples: Sequence[Arrays],
    *,
    precise: Sequence[str],
    is_narrow: bool,
) -> None:
    """Write a graph whose convolutions are eight-bit, as far as what it makes allows.

    Args:
        source: A float32 graph.
        target: The file to write.
        samples: Inputs on which the ranges of what convolutions take and give are measured.
        precise: Parts of the names of weights whose convolutions stay float32; from the end on,
            more and more do, while the first output comes out below LEAST_PSNR.
        is_narrow: Whether weights are of seven bits, for CPUs that add products in 16 bits.
    """
    import onnx

    nodes = [node for node in onnx.load(source).graph.node if node.op_type == "Conv"]
    names = {node.name: any(part in node.input[1] for part in precise) for node in nodes}
    kept = [name for name, is_precise in names.items() if is_precise]
    rest = [name for name, is_precise in names.items() if not is_precise]
    judged = samples[:: -(-len(samples) // _NUM_JUDGED)]
    expected = _first_outputs(source, judged)
    num_precise = 0
    while True:
        excluded = kept + rest[max(0, len(rest) - num_precise) :]
        _quantize_convs(source, target, samples, excluded=excluded, is_narrow=is_narrow)
        error = np.square(_first_outputs(target, judged) - expected).mean()
        reached = float(psnr_of(torch.tensor(error), peak=np.ptp(expected)))
        if reached >= LEAST_PSNR or num_precise >= len(rest):
            return
        _log.info("int8 reaches %.1f dB: more of %s stays float32", reached, source.stem)
        num_precise = max(1, 2 * num_precise)


def _quantize_convs(
    source: Path, target: Path, samples: Sequence[Arrays], *, excluded: list[str], is_narrow: bool
) -> None:
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
                return dict(next(self.left, {}))  # an empty one tells the end

        quantize_static(
            source,
            target,
            Samples(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=excluded,
            per_channel=True,
            reduce_range=is_narrow,
            # Unsigned inputs and signed weights are what VNNI multiplies.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )


def _first_outputs(path: Path, samples: Sequence[Arrays]) -> np.ndarray:
    """Return what a graph makes first of samples, one behind another, float64."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    made = [np.asarray(session.run(None, dict(sample))[0]) for sample in samples]
    return np.concatenate(made).astype(np.float64)


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
