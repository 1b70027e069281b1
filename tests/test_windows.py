"""Windows: where they lie, what they change and what they leave."""

import pytest
import torch
from torch import Tensor

from midas_world.config import WindowConfig
from midas_world.model.windows import Window

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


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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


def test_a_window_of_one_place_follows_nothing():
    window = make_window(WindowConfig(size=(2, 2), at=(4, 0), widths=(8, 8)))
    assert window.corner(torch.rand(3, 2, generator=torch.Generator())).tolist() == [[4, 0]] * 3


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


def test_maps_are_asked_for_at_the_middles_of_the_windows_places():
    window = make_window()
    points = window.points(torch.tensor([[1, 4], [0, 8]]))
    assert points.shape == (2, 2, 8)
    # Pixel 3.5 is the middle of a latent of 8 px; row by row, x before y.
    assert points[0, :, 0].tolist() == [4 * 8 + 3.5, 8 + 3.5]
    assert points[0, :, 1].tolist() == [5 * 8 + 3.5, 8 + 3.5]
    assert points[0, :, 7].tolist() == [5 * 8 + 3.5, 4 * 8 + 3.5]
    assert points[1, :, 2].tolist() == [8 * 8 + 3.5, 8 + 3.5]


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


def test_a_window_of_one_place_asks_for_no_maps():
    window = make_window(WindowConfig(size=(2, 2), at=(4, 0), widths=(8, 8)))
    painted = randn(1, CHANNELS, *GRID)

    def maps(_: Tensor) -> Tensor:
        raise AssertionError("it follows nothing")

    made = window(painted, randn(1, 5), torch.tensor([[0.5, 0.5]]), maps)
    changed = (made != painted).any(dim=1)[0]
    assert changed[4:6, :2].all()
    assert changed.sum() == 4


def test_rows_of_a_batch_are_their_own_games():
    window = make_window()
    given = (randn(2, CHANNELS, *GRID), randn(2, 5), torch.tensor([[0.1, 0.9], [0.8, 0.2]]))
    together = window(*given, from_middle)
    for row in range(2):
        alone = window(*(tensor[row : row + 1] for tensor in given), from_middle)
        torch.testing.assert_close(alone[0], together[row])


def test_odd_windows_are_refused():
    with pytest.raises(ValueError, match="size must be even and positive, got"):
        WindowConfig(size=(3, 2))
