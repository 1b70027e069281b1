import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midas_world.model.layers import RMSNorm, apply_rope, rope_tables, sinusoidal_embedding
from tests.fakes import randn


def test_rms_norm_gives_unit_rms_times_its_weight():
    norm = RMSNorm(16)
    x = 7.0 * randn(3, 5, 16)
    rms = norm(x).square().mean(dim=-1).sqrt()
    torch.testing.assert_close(rms, torch.ones(3, 5), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        norm.weight.copy_(torch.arange(16.0))
    expected = x / x.square().mean(dim=-1, keepdim=True).sqrt() * torch.arange(16.0)
    torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)


def test_rms_norm_keeps_half_precision_and_computes_in_float32():
    norm = RMSNorm(8).to(torch.bfloat16)
    # Squares of these overflow float16 and lose everything in bfloat16 sums.
    x = torch.full((1, 8), 300.0, dtype=torch.bfloat16)
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x).float(), torch.ones(1, 8), rtol=1e-2, atol=1e-2)


@settings(deadline=None, max_examples=25)
@given(first=st.integers(0, 500), second=st.integers(0, 500), shift=st.integers(0, 500))
def test_rope_scores_depend_on_the_distance_alone(first, second, shift):
    q, k = randn(1, 16, seed=1), randn(1, 16, seed=2)

    def score(place_q: int, place_k: int) -> torch.Tensor:
        rotated_q = apply_rope(q, *rope_tables(torch.tensor([place_q]), 16))
        rotated_k = apply_rope(k, *rope_tables(torch.tensor([place_k]), 16))
        return (rotated_q * rotated_k).sum()

    torch.testing.assert_close(
        score(first, second), score(first + shift, second + shift), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("width", [16, 256])
def test_sinusoidal_embedding_tells_near_values_apart(width):
    values = torch.linspace(0, 1, 101)
    embedded = sinusoidal_embedding(values, width)
    assert embedded.shape == (101, width)
    assert embedded.abs().max() <= 1.0
    distance = torch.cdist(embedded, embedded) + 10 * torch.eye(101)
    assert distance.min() > 0.2
