"""A world's head and decoder as ONNX of a plan's precision, ready for TensorRT's parser.

TensorRT takes every dtype from the graph ("strongly typed"), so a precision is a way to export, not
a switch of the builder. Networks are cast where they begin; inputs, outputs, the copies that
the head chooses between and the sum over denoise steps stay float32.

Shapes: B batch, c latent channels, h w fine grid, H W pixels.
"""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from engine.on_onnx.export import check_packages, quiet_export
from engine.on_torch.networks import Sampler
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.conditions import stack_conditions
from midas_world.model.head import Guidance
from midas_world.model.world_model import WorldModel
from midas_world.types import StepConditions
from midas_world.world import World

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_OPSET = 22  # the first whose convolutions may be bfloat16
# Layers of the head that are given float32.
_ENTRANCES = ("input", "vector", "hidden")


def plan_graph(world: World, graph: str, precision: str, *, num_denoise_steps: int) -> bytes:
    """Return the ONNX graph that an engine file is built from.

    Raises:
        BackendUnavailableError: A package that writes ONNX is not installed.
    """
    dtype = _DTYPES[precision]
    guidance, noise = _example(world.model)
    if graph == "head":
        module = HeadGraph(world.model, dtype, num_denoise_steps)
        return _export(module, head_inputs(guidance, noise), "next_latents")
    return _export(DecoderGraph(world.autoencoder, dtype), {"latents": noise}, "pixels")


def head_inputs(guidance: Guidance, noise: Tensor) -> dict[str, Tensor]:
    """Return the head's inputs by name; TensorRT takes none that are empty."""
    given = {**guidance._asdict(), "noise": noise}
    return {name: tensor for name, tensor in given.items() if tensor.numel()}


class HeadGraph(nn.Module):
    """All denoise steps of a frame."""

    def __init__(self, model: WorldModel, dtype: torch.dtype, num_denoise_steps: int) -> None:
        super().__init__()
        self.sampler = Sampler(model, num_denoise_steps)
        self.sampler.head = head = copy.deepcopy(model.head).to(dtype)
        for name in _ENTRANCES:
            _cast(head.get_submodule(name), dtype)

    def forward(self, given: Mapping[str, Tensor]) -> Tensor:
        """Return the next frame's latents, (B, c, h, w), of `head_inputs`."""
        nothing = {"copies": given["last"][:, None][:, :0]}
        guidance = Guidance(**{name: {**nothing, **given}[name] for name in Guidance._fields})
        return self.sampler(guidance, given["noise"])


class DecoderGraph(nn.Module):
    """Latents to pixels."""

    def __init__(self, autoencoder: Autoencoder, dtype: torch.dtype) -> None:
        super().__init__()
        self.autoencoder = copy.deepcopy(autoencoder)
        _cast(self.autoencoder.decoder, dtype)

    def forward(self, given: Mapping[str, Tensor]) -> Tensor:
        """Return (B, 3, H, W) float32, about [-1, 1], of "latents" (B, c, h, w)."""
        return self.autoencoder.decode(given["latents"]).float()


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Change a module to a dtype, to which it rounds what it is given."""
    module.to(dtype).register_forward_pre_hook(lambda _, given: tuple(x.to(dtype) for x in given))


@torch.no_grad()
def _example(model: WorldModel) -> tuple[Guidance, Tensor]:
    """Return guidance and noise of a batch of two: one of 1 would be taken for a constant."""
    config, device = model.config, model.change_std.device
    context = torch.zeros(2, config.tokens_per_frame, config.token_channels, device=device)
    conditions = stack_conditions(
        [StepConditions()] * 2, config.conditions, capacity=config.entries.capacity
    ).to(device)
    cache = model.new_cache(2, dtype=model.backbone.norm.weight.dtype, device=device)
    guidance, *_ = model.step_guidance(context, conditions, cache)
    guidance = Guidance(*(tensor.float() for tensor in guidance))
    return guidance, torch.zeros_like(guidance.last)  # not itself: the exporter takes one for two


def _export(module: nn.Module, inputs: Mapping[str, Tensor], output: str) -> bytes:
    check_packages()
    batch = torch.export.Dim("batch", min=1)
    with quiet_export(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            (dict(inputs), {}),  # a dict that comes last would be taken for keywords
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=({name: {0: batch} for name in inputs},),
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto.SerializeToString()
