"""Entry codes: the map that tells one, the prior that foretells it, the reader that finds it."""

import pytest
import torch
from torch import Tensor

from midas_world.config import EntriesConfig
from midas_world.model.entries import EntryMaps, EntryPrior, ThingReader

GRID, STEP = (3, 10), 8
CONFIG = EntriesConfig(num_classes=4, channels=2, columns=3)
NONE = EntriesConfig()


def make_maps(config: EntriesConfig = CONFIG) -> EntryMaps:
    return EntryMaps(config, grid=GRID, downsampling=STEP).requires_grad_(requires_grad=False)


def told(*codes: tuple[int, float]) -> Tensor:
    """Return the codes of one game, (1, J, 2)."""
    return torch.tensor(codes, dtype=torch.float32)[None]


def test_a_code_puts_its_classes_picture_at_its_place():
    maps = make_maps()
    # The middle of column 6 is 12 px right of the picture's middle.
    shown = maps(told((2, 12.0)))[0]
    torch.testing.assert_close(shown[:, :, 5:8], maps.table[2])
    assert not shown[:, :, :5].any()
    assert not shown[:, :, 8:].any()


def test_maps_move_with_their_codes():
    maps = make_maps()
    first, second = maps(told((1, -4.0))), maps(told((1, 4.0)))
    torch.testing.assert_close(first[..., :-1], second[..., 1:])
    torch.testing.assert_close(maps(told((1, -2.0))), torch.lerp(first, second, 0.25))


def test_codes_add_up_and_absent_ones_are_nothing():
    maps = make_maps()
    together = maps(told((1, -20.0), (3, 8.0), (-1, -1.0), (-1, 5.0)))
    apart = maps(told((1, -20.0))) + maps(told((3, 8.0)))
    torch.testing.assert_close(together, apart)
    assert not maps(told((-1, 3.0), (-1, -1.0))).any()


@pytest.mark.parametrize("place", [-57.0, 57.0])
def test_a_code_outside_of_the_picture_reaches_in_by_its_pictures_width(place):
    maps = make_maps()
    assert not maps(told((0, place))).any()
    assert maps(told((0, place * 0.75))).any()


def test_the_prior_tells_of_each_side_from_its_edge():
    prior = EntryPrior(CONFIG, width=6, token_grid=(2, 5))
    hidden = torch.randn(3, 10, 6, generator=torch.Generator().manual_seed(0))
    logits = prior(hidden)
    assert logits.shape == (3, 2, 5)
    assert prior(hidden[:, None].expand(-1, 4, -1, -1)).shape == (3, 4, 2, 5)
    # What swaps edges, means being the same, moves both.
    grid = hidden.unflatten(1, (2, 5))
    swapped = prior(grid.flip(2).flatten(1, 2))
    assert (swapped - logits).abs().max() > 1e-3


def test_a_reader_sees_each_class_everywhere():
    reader = ThingReader(CONFIG, latent_channels=5)
    assert reader(torch.randn(2, 5, *GRID)).shape == (2, 4, *GRID)


def test_without_classes_there_is_nothing_to_tell_or_read():
    maps = make_maps(NONE)
    assert maps(torch.full((2, 6, 2), -1.0)).shape == (2, 0, *GRID)
    assert maps.num_channels == 0
    reader = ThingReader(NONE, latent_channels=5)
    assert reader(torch.zeros(2, 5, *GRID)).shape == (2, 0, *GRID)
    assert not reader.state_dict()
    prior = EntryPrior(NONE, width=6, token_grid=(2, 5))
    assert prior(torch.zeros(2, 10, 6)).shape == (2, 2, 1)
