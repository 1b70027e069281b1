"""What a frame costs: operations and bytes, counted on the networks themselves.

The networks stand on the "meta" device, where tensors have shapes and no memory, so the largest
preset is counted on any machine. Operations of products (matrices, convolutions, attention) are
exact, a multiplication and an addition counting as two; norms and activations are left out. Of
bytes, weights and the KV cache are exact; activations are what goes into and comes out of every
Linear and Conv2d, once.

Shapes: B games, N tokens per frame, C latent channels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from midas_world.autoencoder import Autoencoder, to_grid
from midas_world.conditions import stack_conditions
from midas_world.config import WorldConfig
from midas_world.types import StepConditions
from midas_world.world import make_refiner
from midas_world.world_model import WorldModel

META = torch.device("meta")
# Bytes of a weight, and of an activation or an entry of the cache.
ITEM_BYTES = {"float32": (4, 4), "bfloat16": (2, 2), "float16": (2, 2), "int8": (1, 4)}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a part costs in a dtype: the bytes that pass through memory, and the operations."""

    dtype: str
    flops: int
    weight_bytes: int
    activation_bytes: int
    cache_bytes: int

    @property
    def num_bytes(self) -> int:
        """All bytes."""
        return self.weight_bytes + self.activation_bytes + self.cache_bytes


@dataclass(frozen=True, kw_only=True)
class Count:
    """What a part of a step works through for one game, in numbers and not yet in bytes.

    Attributes:
        flops: Operations of its products.
        num_weights: Read; embedding tables are not, of which a step needs a few rows.
        num_activations: Read and written.
        num_cached: Entries of the KV cache read and written.
        stays_float32: Whether engines keep this part in float32 whatever the rest is in.
    """

    flops: int
    num_weights: int
    num_activations: int
    num_cached: int = 0
    stays_float32: bool = False

    def times(self, number: int) -> "Count":
        """Return the count of doing it so many times, weights read each time."""
        return replace(
            self,
            flops=number * self.flops,
            num_weights=number * self.num_weights,
            num_activations=number * self.num_activations,
            num_cached=number * self.num_cached,
        )

    def cost(self, *, dtype: str, batch_size: int = 1) -> Cost:
        """Return the cost for B games at once, which share what is read of weights.

        Raises:
            ValueError: The dtype is none of ITEM_BYTES.
        """
        dtype = "float32" if self.stays_float32 else dtype
        if dtype not in ITEM_BYTES:
            raise ValueError(f"dtype must be one of {', '.join(ITEM_BYTES)}, got {dtype!r}")
        weight, value = ITEM_BYTES[dtype]
        return Cost(
            dtype=dtype,
            flops=batch_size * self.flops,
            weight_bytes=weight * self.num_weights,
            activation_bytes=batch_size * value * self.num_activations,
            cache_bytes=batch_size * value * self.num_cached,
        )


@torch.no_grad()
def count_call(
    call: Callable[[], object],
    modules: Sequence[nn.Module],
    *,
    parameters: Iterable[Tensor] = (),
    num_cached: int = 0,
    stays_float32: bool = False,
) -> Count:
    """Return the count of a call.

    Args:
        call: Runs the modules for one game.
        modules: All that it runs.
        parameters: That it reads beside those of the modules.
        num_cached: Entries of the KV cache that it reads and writes.
        stays_float32: See `Count`.
    """
    num_activations = 0

    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal num_activations
        num_activations += inputs[0].numel() + output.numel()

    layers = [layer for module in modules for layer in module.modules()]
    watched = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    handles = [layer.register_forward_hook(add) for layer in watched]
    try:
        with FlopCounterMode(display=False) as counter:
            call()
    finally:
        for handle in handles:
            handle.remove()
    return Count(
        flops=counter.get_total_flops(),
        num_weights=sum(weight.numel() for weight in (*_read_weights(layers), *parameters)),
        num_activations=num_activations,
        num_cached=num_cached,
        stays_float32=stays_float32,
    )


def _read_weights(layers: Iterable[nn.Module]) -> Iterator[Tensor]:
    for layer in layers:
        if not isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            yield from layer.parameters(recurse=False)


@dataclass(frozen=True, kw_only=True)
class StepCount:
    """What a frame of one game costs.

    Attributes:
        parts: By part, in the order in which they run.
        num_parameters: Of all networks, encoder and tables too.
        part_parameters: Of those, by network.
    """

    parts: dict[str, Count]
    num_parameters: int
    part_parameters: dict[str, int]


def count_step(config: WorldConfig, *, num_denoise_steps: int | None = None) -> StepCount:
    """Return what a frame of one game costs by a world's config; takes no memory for weights.

    Args:
        config: Of the world.
        num_denoise_steps: K; None takes the config's own number.

    Raises:
        ValueError: num_denoise_steps is below 1.
    """
    steps = config.diffusion.num_denoise_steps if num_denoise_steps is None else num_denoise_steps
    if steps < 1:
        raise ValueError(f"num_denoise_steps must be at least 1, got {steps}")
    with META:
        autoencoder = Autoencoder(config.autoencoder).eval()
        model = WorldModel(config).eval()
        refiner = make_refiner(config)
        latents = torch.empty(1, config.tokens_per_frame, config.autoencoder.latent_channels)
        hidden = torch.empty(1, config.tokens_per_frame, config.hidden_width)
        tokens = torch.empty(1, model.positions_per_frame, config.backbone.width)
        sigma = torch.empty(1)
    conditions = stack_conditions([StepConditions()], config.conditions).to(META)
    cache = model.new_cache(1, dtype=torch.float32, device=META)
    moving = [] if model.transport is None else [model.transport.matrices]
    # Read whole, for the mask hides what is not there yet, and one frame's places written.
    held = cache.keys.numel() + cache.values.numel()
    parts = {
        "conditions": count_call(
            lambda: model.step_tokens(latents, conditions, cache),
            [model.conditions, model.latent_in],
            parameters=[model.places, *moving],
            stays_float32=True,
        ),
        "backbone": count_call(
            lambda: model.backbone.step(tokens, cache),
            [model.backbone],
            num_cached=held + held // config.backbone.context_frames,
        ),
        "head": count_call(lambda: model.head(latents, sigma, hidden, latents), [model.head]).times(
            steps
        ),
        "outcome": count_call(lambda: model.outcome(hidden), [model.outcome], stays_float32=True),
        "decoder": count_call(
            lambda: autoencoder.decode(to_grid(latents, config.grid)), [autoencoder.decoder]
        ),
    }
    networks: dict[str, nn.Module] = {
        "conditions": model.conditions,
        "backbone": model.backbone,
        "head": model.head,
        "decoder": autoencoder.decoder,
    }
    if autoencoder.encoder is not None:
        networks["encoder"] = autoencoder.encoder
    if refiner is not None:
        frames = torch.empty(1, config.height, config.width, 3, dtype=torch.uint8, device=META)
        parts["refiner"] = count_call(lambda: refiner(frames, conditions), [refiner])
        networks["refiner"] = refiner
    return StepCount(
        parts=parts,
        num_parameters=sum(
            _num_parameters(part) for part in (model, autoencoder, refiner) if part is not None
        ),
        part_parameters={name: _num_parameters(part) for name, part in networks.items()},
    )


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
