"""The autoencoder's loss against the same loss composed of PyTorch's operations."""

import torch

from midas_world.train.picture_loss import PictureLoss


def test_loss_and_gradient_equal_the_composed_ones() -> None:
    """Value, first term and gradient, also with a weight per pixel and a scaled loss."""
    generator = torch.Generator().manual_seed(3)
    error = torch.randn(2, 3, 6, 10, generator=generator, requires_grad=True)
    weight = 1.0 + 6.0 * torch.rand(2, 1, 6, 10, generator=generator)

    absolute = (weight * error.abs()).mean()
    squared = (weight * error.square()).mean()
    slopes = (weight[..., 1:] * error.diff(dim=-1).abs()).mean()
    slopes = slopes + (weight[..., 1:, :] * error.diff(dim=-2).abs()).mean()
    expected = absolute + 2.0 * squared + 0.5 * slopes
    (expected_gradient,) = torch.autograd.grad(3.0 * expected, error)

    loss, first = PictureLoss.apply(error, weight, 2.0, 0.5)
    (gradient,) = torch.autograd.grad(3.0 * loss, error)

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(first, absolute)
    torch.testing.assert_close(gradient, expected_gradient)
