"""How unsure a world is of the frame it makes: the spread of the head over noise.

At sigma = 1 the input holds nothing of the data, so a head that has learned its world well says
the same frame, the mean of all that may come, whatever the noise is. Where the hidden states are
unlike those it was trained on, its answer leans on the noise, and the spread grows. One head pass
over a few draws tells; evaluate/uncertainty_section.py measures what it is worth.

Shapes: S draws, B games, N tokens per frame, C latent channels, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

MIN_DRAWS = 2
"""Fewer have no spread."""

_SEED = 20_250_828


def uncertainty_noise(num_draws: int, latent_shape: tuple[int, int]) -> Tensor:
    """Return the noise of the draws, (S, N, C) float32 standard normal, always the same.

    The same draws at every step and in every game make two spreads comparable, and leave a game's
    own random stream alone.

    Args:
        num_draws: S.
        latent_shape: (N, C).

    Raises:
        ValueError: num_draws is below `MIN_DRAWS`.
    """
    if num_draws < MIN_DRAWS:
        raise ValueError(f"draws of uncertainty must be at least {MIN_DRAWS}, got {num_draws}")
    generator = torch.Generator().manual_seed(_SEED)
    return torch.randn(num_draws, *latent_shape, generator=generator)


def head_spread(
    head: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    hidden: Tensor,
    context: Tensor,
    extra_noise: Tensor,
) -> Tensor:
    """Return how far the head's predictions from several noises lie apart, (B,) float32.

    It is the standard deviation over draws of the change predicted at sigma = 1, root mean square
    over tokens and channels. The head predicts in units of the model's change_std, so 1 is the
    usual change from one frame to the next.

    Args:
        head: As `DiffusionHead` is called.
        hidden: (B, N, Z) as the head wants it.
        context: (B, N, C) the last frame's latent tokens.
        extra_noise: (S, B, N, C) standard normal; S at least `MIN_DRAWS`.

    Raises:
        ValueError: extra_noise has another shape.
    """
    num_draws = extra_noise.shape[0]
    if num_draws < MIN_DRAWS or extra_noise.shape[1:] != context.shape:
        raise ValueError(
            f"extra_noise must have shape (S, {', '.join(map(str, context.shape))}) with S at "
            f"least {MIN_DRAWS}, got {tuple(extra_noise.shape)}"
        )
    noise = extra_noise.flatten(0, 1).to(context.dtype)
    sigma = torch.ones(len(noise), device=noise.device)
    repeats = (num_draws, 1, 1)
    predicted = head(noise, sigma, hidden.repeat(repeats), context.repeat(repeats))
    drawn = predicted.float().unflatten(0, (num_draws, -1))
    return drawn.var(dim=0).mean(dim=(1, 2)).sqrt()
