"""Outlines: graphs without their weights, which a world's folder holds so that it starts at once.

To export a world takes a minute, in which torch would play it, on most CPUs far slower. But of a
graph, all that is not a weight is a few kilobytes. So a world may come with outlines: ONNX files
whose large tensors have given way to words that say how each follows from the world's weights. To
fill them in takes a second.

Knows tensors and where they are found; which graphs there are, and when an outline may be used, is
the exporter's business.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from engine.onnx_runtime import BLOCK_SIZES, pack, pack_rows

# Tensors up to this stay in an outline, whatever they follow from.
_INLINE_BYTES = 64
# An outline with more in it than this would be no outline: weights were not found.
_MOST_BYTES = 2**18
# Along a weight's first axis; the rows of a grid have bases of their own in one weight.
_MOST_PARTS = 16
_MADE_OF, _WEIGHTS = "midas-world.made_of", "midas-world.weights"

# What is taken of a weight: itself, or what `pack` or `pack_rows` make of it.
_Kind = Literal["values", "levels", "scales", "row levels", "row scales"]
_KINDS: dict[type, tuple[_Kind, ...]] = {
    np.uint8: ("levels",),
    np.int8: ("row levels",),
    np.float32: ("values", "scales", "row scales"),
    np.int64: ("values",),
}


@dataclass(frozen=True)
class _Source:
    """How a tensor follows from a weight.

    Attributes:
        name: Of the weight.
        part: Which of `parts` equal ones along the weight's first axis.
        parts: 1 if the weight is taken whole.
        is_transposed: Whether rows become columns.
        kind: What is taken of it.
        block_size: Of levels and scales of `pack`; 0 for other kinds.
    """

    name: str
    part: int
    parts: int
    is_transposed: bool
    kind: _Kind
    block_size: int

    def take(self, weights: Mapping[str, Tensor]) -> np.ndarray:
        """Return the tensor; its entries lie as they should, its shape may be another."""
        array = weights[self.name].detach().numpy()
        if self.parts > 1:
            size = len(array) // self.parts
            array = array[self.part * size : (self.part + 1) * size]
        if self.is_transposed:
            array = array.T
        if self.kind == "values":
            return array
        levels, scales = pack(array, self.block_size) if self.block_size else pack_rows(array)
        return scales if self.kind.endswith("scales") else levels


def outline_of(graph: Path, weights: Mapping[str, Tensor], *, made_of: str) -> bytes:
    """Return the outline of a graph, as the contents of a file.

    Args:
        graph: Its file.
        weights: That the graph's tensors follow from, by name.
        made_of: Tells this outline's world and code from all others.

    Raises:
        ValueError: Too much of the graph follows from none of the weights.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(graph)
    places = _Places(weights)
    found: dict[str, dict[str, Any]] = {}
    for item in model.graph.initializer:
        array = numpy_helper.to_array(item)
        if array.nbytes > _INLINE_BYTES and (place := places.find(array)) is not None:
            found[item.name] = asdict(place)
            item.ClearField("raw_data")
    for node in model.graph.node:
        # Where in our code each comes from, which is most of what is left.
        del node.metadata_props[:]
        node.ClearField("doc_string")
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    helper.set_model_props(model, {_MADE_OF: made_of, _WEIGHTS: json.dumps(found)})
    contents = model.SerializeToString()
    if len(contents) > _MOST_BYTES:
        raise ValueError(
            f"the outline of {graph.name} would be {len(contents) // 1024} KiB: "
            "its tensors follow from the weights in ways that outlines cannot tell"
        )
    return contents


def read_made_of(path: Path) -> str | None:
    """Return what an outline was made of; None if the file is none."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return _props(onnx.load(path)).get(_MADE_OF)
    except DecodeError:
        return None


def fill_outline(path: Path, target: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the graph of an outline.

    Args:
        path: Of the outline.
        target: The file to write.
        weights: By name, those that the outline was made of.
    """
    import onnx

    model = onnx.load(path)
    props = _props(model)
    sources = {name: _Source(**words) for name, words in json.loads(props[_WEIGHTS]).items()}
    for item in model.graph.initializer:
        if (source := sources.get(item.name)) is None:
            continue
        array = source.take(weights)
        assert array.size == np.prod(item.dims), f"{path}: {item.name} is not {source}"
        item.raw_data = array.tobytes()
    del model.metadata_props[:]
    onnx.save(model, target)


def _props(model: Any) -> dict[str, str]:
    return {item.key: item.value for item in model.metadata_props}


class _Places:
    """Where tensors are found in weights: whole or part, transposed or not, packed or not."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights
        self._packed: dict[_Source, np.ndarray] = {}

    def find(self, array: np.ndarray) -> _Source | None:
        """Return where an array is found, entry by entry; None if nowhere."""
        for source in self._candidates(array):
            taken = self._packed.get(source)
            if taken is None:
                taken = source.take(self._weights)
                if source.kind != "values":
                    self._packed[source] = taken
            if taken.dtype == array.dtype and np.array_equal(taken.ravel(), array.ravel()):
                return source
        return None

    def _candidates(self, array: np.ndarray) -> Iterator[_Source]:
        """Yield the sources of arrays of this type and size."""
        for name, tensor in self._weights.items():
            shape = tuple(tensor.shape)
            for parts in range(1, min(_MOST_PARTS, shape[0] if shape else 0) + 1):
                if shape[0] % parts:
                    continue
                size = shape[0] // parts, *shape[1:]
                for is_transposed in (False, True) if len(shape) == 2 else (False,):
                    for kind, block_size in _forms(array.dtype.type):
                        lies = size[::-1] if is_transposed else size
                        if _num_entries(lies, kind, block_size) == array.size:
                            for part in range(parts):
                                yield _Source(name, part, parts, is_transposed, kind, block_size)


def _forms(dtype: type) -> Iterator[tuple[_Kind, int]]:
    for kind in _KINDS.get(dtype, ()):
        for block_size in BLOCK_SIZES if kind in ("levels", "scales") else (0,):
            yield kind, block_size


def _num_entries(shape: Sequence[int], kind: _Kind, block_size: int) -> int:
    """Return how many entries there are of a kind, of a part of this shape."""
    if kind == "values" or len(shape) != 2:
        return math.prod(shape) if kind == "values" else 0
    rows, columns = shape
    if kind == "row scales":
        return columns
    if kind == "row levels":
        return rows * columns
    blocks = -(-rows // block_size)
    return columns * blocks * (block_size if kind == "levels" else 1)
