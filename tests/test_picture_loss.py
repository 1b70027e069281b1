"""The autoencoder's loss against the same loss composed of PyTorch's operations."""

import pytest
import torch

from midas_world.train.picture_loss import PictureLoss, local_energy, picture_losses


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


def test_energy_is_the_root_mean_square_of_lumas_gradients() -> None:
    """Of a ramp to the right; rows of the last cells have no neighbour at their end."""
    ramp = (0.1 * torch.arange(64.0)).expand(1, 3, 32, 64)
    energy = local_energy(ramp)
    assert energy.shape == (1, 1, 1, 2)
    expected = torch.tensor([0.01, 0.01 * 31 / 32]).add(1e-4).sqrt()
    torch.testing.assert_close(energy[0, 0, 0], expected)


def test_where_details_lie_does_not_matter_to_the_energy() -> None:
    """A picture beside itself moved by 2 px: its error is large, its energy right."""
    target = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    made, weight = target.roll(2, dims=3), torch.ones(1, 1, 8, 8)
    error, energy = picture_losses(made, target, weight, squared_weight=0.0, gradient_weight=0.0)
    assert error > 0.3
    assert energy < 0.02
    blurred = target.mean(dim=(2, 3), keepdim=True).expand_as(target)
    assert picture_losses(blurred, target, weight, squared_weight=0.0, gradient_weight=0.0)[1] > 0.2


def test_a_blur_of_a_dim_picture_costs_as_much_energy_as_of_a_bright_one() -> None:
    bright = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    weight, ones = torch.ones(1, 1, 8, 8), {"squared_weight": 0.0, "gradient_weight": 0.0}
    shares = []
    for contrast in (1.0, 0.3):
        target = contrast * bright
        made = 0.5 * target  # half of every gradient
        shares.append(picture_losses(made, target, weight, **ones)[1].item())
    assert shares[0] == pytest.approx(0.5, abs=0.01)
    assert shares[1] == pytest.approx(shares[0], abs=0.02)
