"""Windows: where they lie, what they change and what they leave."""

import pytest
import torch
from torch import Tensor

from midas_world.config import WindowConfig
from midas_world.model.windows import Window
from tests.fakes import randn

GRID, CHANNELS, STEP = (6, 10), 3, 8
CONFIG = WindowConfig(size=(4, 2), widths=(8, 8))


def make_window(config: WindowConfig = CONFIG) -> Window:
    sizes = {"latent_channels": CHANNELS, "vector_size": 5, "downsampling": STEP}
    maps = 2 if config.at is None else 0
    return Window(config, **sizes, map_channels=maps, grid=GRID).requires_grad_(requires_grad=False)


def from_middle(points: Tensor) -> Tensor:
    """Return maps of points (B, 2, S) px, (B, S, 2): how far they lie from the picture's middle."""
    middle = torch.tensor([GRID[1] * STEP / 2, GRID[0] * STEP / 2])
    return (points.transpose(1, 2) - middle) / 16


@pytest.mark.parametrize(
    ("middle", "corner"),
    [
        ((0.5, 0.5), (1, 4)),
        ((0.0, 0.0), (0, 0)),  # a window stays in the picture
        ((1.3, 1.0), (2, 8)),
        ((0.45, 0.5), (1, 4)),  # 4.5 columns: from 3.5, rounded up
        ((0.44, 0.58), (1, 3)),
    ],
)
def test_a_window_lies_around_what_it_follows(middle, corner):
    assert make_window().corner(torch.tensor([middle])).tolist() == [list(corner)]


def test_what_was_cut_is_pasted_where_it_was():
    window, latents = make_window(), randn(2, CHANNELS, *GRID)
    corner = torch.tensor([[0, 3], [2, 8]])
    cut = window.cut(latents, corner)
    for own, whole, (row, column) in zip(cut, latents, corner.tolist(), strict=True):
        assert torch.equal(own, whole[:, row : row + 4, column : column + 2])
    assert torch.equal(window.paste(latents, cut, corner), latents)
    other = window.paste(latents, cut + 1.0, corner)
    for own, whole, (row, column) in zip(other, latents, corner.tolist(), strict=True):
        expected = whole.clone()
        expected[:, row : row + 4, column : column + 2] += 1.0
        assert torch.equal(own, expected)


def test_only_the_window_is_painted_and_by_maps_vector_and_background():
    window = make_window()
    painted, vector = randn(1, CHANNELS, *GRID), randn(1, 5, seed=2)
    middle = torch.tensor([[0.5, 0.5]])
    made = window(painted, vector, middle, from_middle)
    changed = (made != painted).any(dim=1)[0]
    assert changed[1:5, 4:6].all()
    assert changed.sum() == 8
    for block in (*window.encoder, *window.middle, *window.decoder):
        block.modulation.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(3))
    made = window(painted, vector, middle, from_middle)
    assert not torch.allclose(window(painted, -vector, middle, from_middle), made)
    turned = window(painted, vector, middle, lambda points: -from_middle(points))
    assert not torch.allclose(turned, made)
    added = (window(-painted, vector, middle, from_middle) + painted)[..., 1:5, 4:6]
    assert not torch.allclose(added, (made - painted)[..., 1:5, 4:6])


def test_odd_windows_are_refused():
    with pytest.raises(ValueError, match="size must be even and positive, got"):
        WindowConfig(size=(3, 2))
