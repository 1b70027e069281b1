"""A world's networks as the torch engine plays them: copies, in its dtype and on its device.

The large networks are cast once; conditions, outcome heads and the latents between steps stay
float32, because a pose in bfloat16 would be off by half a pixel.
"""

import copy

import torch
from torch import nn

from engine.packed_layers import PackedTransform, pack_layers
from midas_world.autoencoder import Autoencoder
from midas_world.klt import CellTransform
from midas_world.refiner import Refiner
from midas_world.world_model import WorldModel


def native_dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    """Return the dtypes that may be fastest on a device, the likeliest first.

    bfloat16 where the hardware multiplies it (a GPU, AVX512_BF16); float32 on every CPU, where
    small networks can lose by casts more than they gain.
    """
    if device.type == "cuda":
        return (torch.bfloat16,)
    if torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16, torch.float32
    return (torch.float32,)


def model_for_play(
    model: WorldModel, dtype: torch.dtype, device: torch.device, *, is_packed: bool
) -> WorldModel:
    """Return a copy whose large networks are in a dtype; poses and noise levels stay float32.

    Args:
        model: Not changed.
        dtype: Of the large networks.
        device: To run on.
        is_packed: Whether linear layers become those of packed_layers.py, on a CPU.
    """
    model = copy.deepcopy(model)
    renderer = model.conditions.renderer
    if renderer is not None:
        renderer.mlps.to(dtype)
        if renderer.guider is not None:
            renderer.guider.rows.to(dtype)
    if model.transport is not None:
        model.transport.matrices = model.transport.matrices.to(dtype)
    model.backbone.to(dtype)
    model.head.to(dtype)
    model.head.sigma.float()
    model.head.modulation.float()
    model.to(device)
    if is_packed:
        pack_layers(model)
    return model


def autoencoder_for_play(
    autoencoder: Autoencoder, dtype: torch.dtype, device: torch.device, *, is_packed: bool
) -> Autoencoder:
    """Return a copy that decodes in a dtype; arguments as in `model_for_play`.

    With a packed transform it only decodes: whoever encodes takes the autoencoder itself.
    """
    if is_packed and isinstance(autoencoder.decoder, CellTransform):
        made = copy.copy(autoencoder)
        packed = PackedTransform(autoencoder.decoder, dtype)
        made._modules = {**autoencoder._modules, "decoder": packed}
        return made
    made = copy.deepcopy(autoencoder).to(device)
    made.decoder.to(dtype=dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return made


def refiner_for_play(
    refiner: Refiner | None, dtype: torch.dtype, device: torch.device
) -> Refiner | None:
    """Return a copy whose convolutions are in a dtype; places and what is known stay float32."""
    if refiner is None:
        return None
    refiner = copy.deepcopy(refiner)
    for layer in refiner.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(dtype=dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return refiner.to(device)
