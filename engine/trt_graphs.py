"""A world's sampler and decoder as ONNX of the plan's precision, ready for TensorRT's parser.

TensorRT takes every dtype from the graph ("strongly typed"), so a precision is a way to export, not
a switch of the builder. The weights are cast in torch, where engine/onnx_export.py then finds a
world like any other; inputs, outputs, noise levels and the sum over denoise steps stay float32.

Shapes: B batch, N tokens per frame, C latent channels, D width of the backbone.
"""

import copy
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.onnx_export import export_graphs
from engine.rollout import Rollout
from engine.torch_engine import TorchEngine
from engine.trt_plan import TrtPlan
from midas_world.types import BackendUnavailableError
from midas_world.world import World

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise BackendUnavailableError(
        'building for TensorRT needs onnx: pip install "midas-world[rtx]", or [tensorrt]'
    ) from error

_Module = TypeVar("_Module", bound=nn.Module)

_DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float16,  # what is not a product of the head's blocks
}
_FP8 = torch.float8_e4m3fn
_FP8_MAX = 448.0
# Steps that the ranges of activations are measured on, and room above what they reached: fp8 is a
# floating-point type, so room costs no precision.
_CALIBRATION_STEPS = 8
_HEADROOM = 2.0


def plan_graph(world: World, plan: TrtPlan, *, num_denoise_steps: int, folder: Path) -> bytes:
    """Return the ONNX graph that a plan's engine file is built from.

    Args:
        world: Whose weights; not changed.
        plan: What to build.
        num_denoise_steps: Of the sampler.
        folder: Exported graphs are kept below it.

    Raises:
        ValueError: fp8 is asked for and the world has no start states to measure ranges on.
        BackendUnavailableError: A package that writes ONNX is not installed.
    """
    # This file is not among the sources that the exporter's own folder is named by.
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
    (path,) = export_graphs(
        cast_world(world, plan),
        num_denoise_steps=num_denoise_steps,
        names=[plan.graph],
        folder=folder / digest,
    ).values()
    model = onnx.load(path)
    _swap_last_cast(model.graph)
    if plan.precision == "fp8":
        _mark_fp8(model.graph)
    return model.SerializeToString()


def cast_world(world: World, plan: TrtPlan) -> World:
    """Return a world whose head or decoder computes in a plan's precision; the rest is shared."""
    dtype = _DTYPES[plan.precision]
    if plan.precision == "fp32":
        return world
    if plan.graph == "decoder":
        decoder = _CastDecoder(world.autoencoder.decoder, dtype)
        return replace(world, autoencoder=_with_part(world.autoencoder, "decoder", decoder))
    head = copy.deepcopy(world.model.head).to(dtype)
    # What is told of a noise level follows from float32, however the rest computes.
    head.sigma.float()
    head.modulation.float()
    if plan.precision == "fp8":
        for name, largest in _activation_ranges(world).items():
            parent, _, child = name.rpartition(".")
            owner = head.get_submodule(parent)
            setattr(owner, child, Fp8Linear(getattr(owner, child), largest * _HEADROOM))
    return replace(world, model=_with_part(world.model, "head", head))


class Fp8Linear(nn.Module):
    """A linear layer whose input and weight are rounded to fp8, each with one scale.

    The scales stand behind the product, so that an exported graph has nothing between a
    dequantisation and the product, which is what TensorRT looks for.
    """

    def __init__(self, linear: nn.Module, largest_input: float) -> None:
        super().__init__()
        assert isinstance(linear, nn.Linear)
        weight = linear.weight.detach().float()
        weight_scale = float(weight.abs().max().clamp_min(1e-12)) / _FP8_MAX
        self.input_scale = max(largest_input, 1e-12) / _FP8_MAX
        self.output_scale = self.input_scale * weight_scale
        self.weight = nn.Parameter((weight / weight_scale).to(linear.weight.dtype))
        self.bias = nn.Parameter(linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        # In float32: the sum of products of numbers up to 448 leaves the range of fp16.
        rounded = _round_fp8((x.float() / self.input_scale).clamp(-_FP8_MAX, _FP8_MAX))
        product = functional.linear(rounded, _round_fp8(self.weight.float()))
        return (product * self.output_scale).to(x.dtype) + self.bias


class _CastDecoder(nn.Module):
    """The decoder in another dtype, between float32 inputs and outputs."""

    def __init__(self, decoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.decoder = copy.deepcopy(decoder).to(dtype)

    def forward(self, latents: Tensor) -> Tensor:
        """As `Decoder.forward`."""
        return self.decoder(latents.to(self.dtype)).float()


class _OpenEngine(TorchEngine):
    """A torch engine whose head can be watched."""

    @property
    def head(self) -> nn.Module:
        """What runs."""
        assert isinstance(self._head, nn.Module)
        return self._head


def _activation_ranges(world: World) -> dict[str, float]:
    """Return the largest absolute input of each linear layer of the head's blocks, in real play."""
    if not world.start_states:
        raise ValueError("fp8 measures its ranges on start states, and this world has none")
    engine = _OpenEngine(world, device="cpu", dtype=torch.float32)
    ranges: dict[str, float] = {}

    def watch(name: str, module: nn.Module) -> None:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            ranges[name] = max(ranges.get(name, 0.0), float(inputs[0].abs().max()))

        module.register_forward_pre_hook(note)

    for name, module in engine.head.named_modules():
        if name.startswith("blocks.") and isinstance(module, nn.Linear):
            watch(name, module)
    starts = world.start_states[:_CALIBRATION_STEPS]
    rollout = Rollout(engine, len(starts))
    rollout.reset(starts, seeds=list(range(len(starts))))
    for _ in range(_CALIBRATION_STEPS):
        rollout.step([start.conditions[-1] for start in starts])
    return ranges


def _round_fp8(x: Tensor) -> Tensor:
    return x.to(_FP8).to(x.dtype)


def _with_part(module: _Module, name: str, part: nn.Module) -> _Module:
    """Return a copy that shares all weights but one part's."""
    other = copy.copy(module)
    other._modules = dict(module._modules)
    setattr(other, name, part)
    return other


def _swap_last_cast(graph: onnx.GraphProto) -> None:
    """Move a cast to uint8 behind the transposition it feeds: TensorRT takes uint8 at the end only.

    The two commute, so no result changes.
    """
    makers = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        last = makers[output.name]
        cast = makers.get(last.input[0])
        if last.op_type != "Transpose" or cast is None or cast.op_type != "Cast":
            continue
        if helper.get_node_attr_value(cast, "to") != TensorProto.UINT8:
            continue
        between = f"{output.name}_as_float"
        last.input[0], last.output[0] = cast.input[0], between
        cast.input[0], cast.output[0] = between, output.name
        nodes = [node for node in graph.node if node is not cast]
        nodes.insert(nodes.index(last) + 1, cast)
        rest = [copy.deepcopy(node) for node in nodes]
        del graph.node[:]
        graph.node.extend(rest)
        del graph.value_info[:]  # tells the old type of what the transposition makes


def _mark_fp8(graph: onnx.GraphProto) -> None:
    """Turn casts to fp8 and back into quantisation pairs, and the products' weights into fp8.

    The exporter has rounded the weights already, so that storing them in fp8 is exact.
    """
    makers = {name: node for node in graph.node for name in node.output}
    weights = {item.name: item for item in graph.initializer}
    zero = helper.make_tensor("fp8_zero", TensorProto.FLOAT8E4M3FN, [], b"\0", raw=True)
    one = helper.make_tensor("fp8_one", TensorProto.FLOAT, [], [1.0])
    graph.initializer.extend([zero, one])
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "Cast":
            source = makers.get(node.input[0])
            if helper.get_node_attr_value(node, "to") == TensorProto.FLOAT8E4M3FN:
                node = helper.make_node(
                    "QuantizeLinear", [node.input[0], one.name, zero.name], node.output, node.name
                )
            elif source is not None and _is_fp8_cast(source):
                node = helper.make_node(
                    "DequantizeLinear", [node.input[0], one.name, zero.name], node.output, node.name
                )
        elif node.op_type == "MatMul":
            source = makers.get(node.input[0])
            before = source and source.op_type == "Cast" and makers.get(source.input[0])
            if before and _is_fp8_cast(before):
                weight = weights[node.input[1]]
                name = f"{weight.name}_fp8"
                if name not in weights:
                    values = torch.tensor(numpy_helper.to_array(weight)).to(_FP8)
                    raw = values.view(torch.uint8).numpy().tobytes()
                    weights[name] = helper.make_tensor(
                        name, TensorProto.FLOAT8E4M3FN, weight.dims, raw, raw=True
                    )
                    graph.initializer.append(weights[name])
                    nodes.append(
                        helper.make_node(
                            "DequantizeLinear", [name, one.name, zero.name], [f"{name}_float"]
                        )
                    )
                node.input[1] = f"{name}_float"
        nodes.append(node)
    kept = [copy.deepcopy(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    left = [copy.deepcopy(item) for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)


def _is_fp8_cast(node: onnx.NodeProto) -> bool:
    to = TensorProto.FLOAT8E4M3FN
    return node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == to
