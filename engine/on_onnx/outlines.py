"""Outlines: graphs without their weights, which a world's folder holds so that it starts at once.

To export a world takes a minute, in which torch would play it, on most CPUs slower. But of a graph,
all that is not a weight is a few kilobytes, the scales of int8 among them. So a world may come with
outlines: ONNX files whose large tensors have given way to words that say how each follows from the
world's weights. To fill them in takes a second.

Knows tensors and where they are found; which graphs there are, and when an outline may be used, is
the exporter's business.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from midas_world.types import MidasWorldError

# Tensors up to this stay in an outline, whatever they follow from.
_INLINE_BYTES = 2048
# An outline with more in it than this would be no outline: weights were not found.
_MOST_BYTES = 2**19
_MADE_OF, _WEIGHTS = "midas-world.made_of", "midas-world.weights"
_DIGEST = "midas-world.sha256"
# What is raised by words and tensors that are not what an outline holds.
_DAMAGES = (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError)


class OutlineError(MidasWorldError):
    """A file is no outline, or a damaged one; the message names it."""


@dataclass(frozen=True)
class _Source:
    """How a tensor follows from a weight.

    Attributes:
        name: Of the weight.
        axes: The order that its axes come in.
        scale: The tensor of scales (out,) that int8 levels are in units of; "" if it is no levels.
        largest: Of the levels.
    """

    name: str
    axes: tuple[int, ...]
    scale: str = ""
    largest: int = 0

    def take(self, weights: Mapping[str, Tensor], scales: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the tensor."""
        array = weights[self.name].detach().numpy().transpose(self.axes)
        if not self.scale:
            return array
        scale = scales[self.scale].reshape(-1, *[1] * (array.ndim - 1))
        levels = (array.astype(np.float32) / scale).round()
        return np.clip(levels, -self.largest, self.largest).astype(np.int8)


def outline_of(graph: Path, weights: Mapping[str, Tensor], *, made_of: str) -> bytes:
    """Return the outline of a graph, as the contents of a file.

    Raises:
        ValueError: Too much of the graph follows from none of the weights.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(graph)
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    scales = {
        node.input[0]: node.input[1]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    found: dict[str, dict[str, Any]] = {}
    for item in model.graph.initializer:
        if arrays[item.name].nbytes > _INLINE_BYTES:
            source = _find(arrays[item.name], weights, arrays, scales.get(item.name, ""))
            if source is not None:
                found[item.name] = asdict(source)
                item.ClearField("raw_data")
    for node in model.graph.node:
        # Where in our code each comes from, which is most of what is left.
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    helper.set_model_props(model, {_MADE_OF: made_of, _WEIGHTS: json.dumps(found)})
    contents = model.SerializeToString()
    contents += _seal_of(contents)
    if len(contents) > _MOST_BYTES:
        raise ValueError(
            f"the outline of {graph.name} would be {len(contents) // 1024} KiB: "
            "its tensors follow from the weights in ways that outlines cannot tell"
        )
    return contents


def read_made_of(path: Path) -> str:
    """Return what an outline was made of.

    Raises:
        OutlineError: The file is damaged, or no outline.
    """
    return _read(path)[0]


def fill_outline(path: Path, target: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the graph of an outline.

    Raises:
        OutlineError: The file is damaged, or no outline.
    """
    import onnx
    from onnx import numpy_helper

    _, sources, model = _read(path)
    items = {item.name: item for item in model.graph.initializer}
    try:
        inline = {name: numpy_helper.to_array(items[name]) for name in items.keys() - sources}
        for name, source in sources.items():
            array = source.take(weights, inline)
            if array.shape != tuple(items[name].dims):
                raise ValueError(f"{name} has another shape than {source.name}")
            items[name].raw_data = array.tobytes()
        del model.metadata_props[:]
        onnx.checker.check_model(model, full_check=True)
    except (*_DAMAGES, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise OutlineError(f"{path} is damaged: {error!r}") from error
    onnx.save(model, target)


def _read(path: Path) -> tuple[str, dict[str, _Source], Any]:
    """Return what an outline was made of, the sources of its tensors, and its model."""
    import onnx
    from google.protobuf.message import DecodeError

    data = path.read_bytes()
    try:
        model = onnx.load_model_from_string(data)
        props = {item.key: item.value for item in model.metadata_props}
        seal = _seal_of(data[: len(data) - len(_seal_of(b""))])
        if _DIGEST in props and not data.endswith(seal):
            raise ValueError("its checksum is another")
        if any(item.data_location == onnx.TensorProto.EXTERNAL for item in _tensors(model)):
            raise ValueError("a tensor lies in another file")
        words = json.loads(props[_WEIGHTS])
        return props[_MADE_OF], {name: _Source(**given) for name, given in words.items()}, model
    except (*_DAMAGES, DecodeError) as error:
        raise OutlineError(f"{path} is damaged, or no outline: {error!r}") from error


def _tensors(message: Any) -> Iterator[Any]:
    """Yield every tensor in a message of ONNX, wherever it lies."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(inner)


def _seal_of(contents: bytes) -> bytes:
    """Return what is to follow an outline's contents: one property more, their hash."""
    import onnx

    model = onnx.ModelProto()
    digest = hashlib.sha256(contents).hexdigest()
    model.metadata_props.append(onnx.StringStringEntryProto(key=_DIGEST, value=digest))
    return model.SerializeToString()


def _find(
    array: np.ndarray, weights: Mapping[str, Tensor], scales: Mapping[str, np.ndarray], scale: str
) -> _Source | None:
    """Return how an array follows from a weight; None if from none."""
    largest = int(np.abs(array.astype(np.int16)).max()) if array.dtype == np.int8 else 0
    for name, tensor in weights.items():
        if sorted(tensor.shape) != sorted(array.shape):
            continue
        for axes in itertools.permutations(range(tensor.ndim)):
            if tuple(tensor.shape[axis] for axis in axes) != array.shape:
                continue
            source = _Source(name, axes, scale if largest else "", largest)
            taken = source.take(weights, scales)
            if taken.dtype == array.dtype and np.array_equal(taken, array):
                return source
    return None
