import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midas_world.config import HeadConfig
from midas_world.model.diffusion import euler_sample, sample_noise, sample_sigma, sigma_schedule
from tests.fakes import randn, seeded

CONFIG = HeadConfig(widths=(8,), depths=(1,), temperature=1.0)


@settings(deadline=None)
@given(steps=st.integers(1, 1000), shift=st.floats(0.01, 100.0))
def test_the_schedule_falls_from_exactly_1_to_exactly_0(steps, shift):
    sigmas = sigma_schedule(steps, shift=shift)
    assert len(sigmas) == steps + 1
    assert sigmas.dtype == torch.float32
    assert sigmas[0] == 1.0
    assert sigmas[-1] == 0.0
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize(("steps", "shift"), [(0, 1.0), (-1, 1.0), (4, 0.0), (4, -2.0)])
def test_a_schedule_without_steps_or_shift_is_an_error(steps, shift):
    with pytest.raises(ValueError, match="num_denoise_steps" if steps < 1 else "shift"):
        sigma_schedule(steps, shift=shift)


@settings(deadline=None)
@given(steps=st.integers(1, 32), shift=st.floats(0.2, 5.0), seed=st.integers(0, 9))
def test_euler_is_exact_on_a_straight_path(steps, shift, seed):
    """With a fixed target the path is a line: every point on it, and its end, are known."""
    data, noise = randn(2, 3, 4, seed=seed), randn(2, 3, 4, seed=seed + 100)

    def predict(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        assert sigma.shape == (2,)
        on_line = (1 - sigma[0]) * data + sigma[0] * noise
        torch.testing.assert_close(x, on_line, rtol=1e-5, atol=1e-5)
        return data

    assert torch.equal(euler_sample(predict, noise, sigma_schedule(steps, shift=shift)), data)


class GaussianData:
    """Data of mean m and deviation s in each channel, for which everything is known.

    With x = (1 - sigma) x0 + sigma n, the best prediction is m + a (x - (1 - sigma) m) with
    a = (1 - sigma) s^2 / ((1 - sigma)^2 s^2 + sigma^2), and the exact flow takes n to m + s n.
    """

    mean = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    std = torch.tensor([0.3, 1.0, 2.0, 0.05], dtype=torch.float64)

    def gain(self, sigma: torch.Tensor) -> torch.Tensor:
        clean = 1 - sigma
        return clean * self.std**2 / (clean**2 * self.std**2 + sigma**2)

    def predict(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sigma = sigma.double()[:, None, None]
        return self.mean + self.gain(sigma) * (x - (1 - sigma) * self.mean)


# Quantiles of the normal distribution: a "batch" whose mean and variance owe nothing to luck.
QUANTILES = torch.special.ndtri((torch.arange(4001, dtype=torch.float64) + 0.5) / 4001)


def test_samples_of_gaussian_data_follow_the_exact_flow():
    data = GaussianData()
    noise = QUANTILES[:, None, None].expand(-1, 1, 4)
    samples = euler_sample(data.predict, noise, sigma_schedule(1000))
    exact = data.mean + data.std * noise
    # Euler is of first order: 1000 steps leave some thousandths of the change.
    torch.testing.assert_close(samples, exact, rtol=0, atol=2e-2)
    torch.testing.assert_close(samples.mean(dim=(0, 1)), data.mean, rtol=0, atol=1e-6)
    variance = samples.var(dim=(0, 1), correction=0)
    grid_variance = QUANTILES.var(correction=0)
    torch.testing.assert_close(variance, data.std**2 * grid_variance, rtol=2e-2, atol=1e-4)


def test_noise_for_play_is_scaled_by_the_temperature():
    half = dataclasses.replace(CONFIG, temperature=0.5)
    whole = sample_noise((3, 4), CONFIG, seeded(0))
    assert torch.equal(whole, randn(3, 4))
    out = torch.empty(3, 4)
    scaled = sample_noise(out.shape, half, seeded(0), out=out)
    assert scaled is out
    torch.testing.assert_close(scaled, 0.5 * whole)
    none = dataclasses.replace(CONFIG, temperature=0.0)
    assert not sample_noise((3, 4), none, torch.Generator()).any()
    assert none.is_regression
    assert not CONFIG.is_regression


def test_training_sigmas_are_the_sigmoid_of_a_normal():
    config = dataclasses.replace(CONFIG, sigma_mean=0.5, sigma_std=2.0)
    generator = seeded(0)
    sigma = sample_sigma(20_000, config, generator, torch.device("cpu"))
    assert ((sigma > 0) & (sigma < 1)).all()
    logits = torch.logit(sigma.double())
    assert logits.mean().item() == pytest.approx(0.5, abs=0.06)
    assert logits.std().item() == pytest.approx(2.0, abs=0.04)
