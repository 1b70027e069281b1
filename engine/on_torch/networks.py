"""A world's networks as the torch engine plays them: copies, in its dtype and on its device.

The large networks are cast once - the backbone, the head's convolutions, the decoder. Conditions,
copies, gates, outcome heads and the latents between steps stay float32: a pose in bfloat16
would be off by half a pixel, and what moves every step would blur.
"""

import copy

import torch
from torch import Tensor, nn

from midas_world.model.autoencoder import Autoencoder
from midas_world.model.diffusion import euler_sample, sigma_schedule
from midas_world.model.head import DiffusionHead, FilmBlock, Guidance
from midas_world.model.world_model import WorldModel


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


class Sampler(nn.Module):
    """`WorldModel.sample` with its noise levels laid out before, as graphs and compilers need it.

    Raises:
        ValueError: num_denoise_steps is below 1.
    """

    change_std: Tensor

    def __init__(self, model: WorldModel, num_denoise_steps: int) -> None:
        super().__init__()
        self.head, self.sigmas = model.head, sigma_schedule(num_denoise_steps)
        self.register_buffer("change_std", model.change_std[:, None, None], persistent=False)

    def forward(self, guidance: Guidance, noise: Tensor) -> Tensor:
        """Return the next frame's latents, (B, c, h, w) float32, of noise (B, c, h, w)."""

        def predict(x: Tensor, sigma: Tensor) -> Tensor:
            return (self.head(x, sigma, guidance) - guidance.last) / self.change_std

        return guidance.last + self.change_std * euler_sample(predict, noise, self.sigmas)


def model_for_play(model: WorldModel, dtype: torch.dtype, device: torch.device) -> WorldModel:
    """Return a copy whose large networks are in a dtype; everything around them stays float32."""
    model = copy.deepcopy(model)
    model.backbone.to(dtype)
    _cast_head(model.head, dtype)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            _channels_last(layer)
    return model.to(device)


def autoencoder_for_play(
    autoencoder: Autoencoder, dtype: torch.dtype, device: torch.device
) -> Autoencoder:
    """Return a copy that decodes in a dtype."""
    made = copy.deepcopy(autoencoder).to(device)
    _channels_last(made.decoder.to(dtype))
    return made


def _cast_head(head: DiffusionHead, dtype: torch.dtype) -> None:
    """Change a head so that its convolutions are in a dtype and its vector stays float32."""

    def cast_given(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.to(dtype) for tensor in given)

    def cast_made(_: nn.Module, __: tuple[Tensor, ...], made: Tensor) -> Tensor:
        return made.to(dtype)

    for layer in head.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(dtype)
        elif isinstance(layer, FilmBlock) and dtype != torch.float32:
            layer.modulation.register_forward_hook(cast_made)
    if head.flow is not None:
        head.flow.coder.encoder.to(dtype)
        head.flow.coder.decoder.to(dtype)
    head.places.data = head.places.data.to(dtype=dtype, memory_format=torch.channels_last)
    if dtype != torch.float32:
        head.input.register_forward_pre_hook(cast_given)


def _channels_last(module: nn.Module) -> None:
    module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
