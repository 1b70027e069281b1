"""Entry codes: the map that tells one, what becomes of it, and the prior that predicts it."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from midas_world.config import ConditionsConfig, EntriesConfig
from midas_world.model.entries import FATE_SIZE, EntryMaps, EntryPrior, Fates
from midas_world.train.loop import seeded_weights

GRID, STEP = (3, 10), 8
CONFIG = EntriesConfig(num_classes=4, phases=2, channels=2, columns=3)
NONE = EntriesConfig()


def make_maps(config: EntriesConfig = CONFIG) -> EntryMaps:
    return EntryMaps(config, grid=GRID, downsampling=STEP).requires_grad_(requires_grad=False)


def told(*codes: tuple[int, float]) -> Tensor:
    """Return the codes of one game, (1, J, 2)."""
    return torch.tensor(codes, dtype=torch.float32)[None]


def show(maps: EntryMaps, *codes: tuple[int, float], clock: float = 0.0) -> Tensor:
    """Return the map of one game's codes, (channels, h, w)."""
    return maps(told(*codes), torch.tensor([clock]))[0]


def picture(maps: EntryMaps, kind: int, *, phase: int, pixel: int) -> Tensor:
    """Return the learned picture of a class, (channels, h, columns)."""
    row = maps.table.unflatten(0, (-1, CONFIG.phases, STEP))[kind, phase, pixel]
    return row.reshape(CONFIG.channels, GRID[0], CONFIG.columns)


@pytest.mark.parametrize(("clock", "phase"), [(0.0, 0), (0.49, 0), (0.5, 1), (0.99, 1)])
@pytest.mark.parametrize("pixel", range(STEP))
def test_a_code_puts_its_own_picture_in_the_columns_around_its_place(pixel, clock, phase):
    maps = make_maps()
    # Column 6 begins 8 px right of the picture's middle.
    shown = show(maps, (2, 8.0 + pixel), clock=clock)
    assert torch.equal(shown[:, :, 5:8], picture(maps, 2, phase=phase, pixel=pixel))
    assert not shown[:, :, :5].any()
    assert not shown[:, :, 8:].any()


def test_a_place_counts_by_whole_px_and_left_of_the_middle_like_right_of_it():
    maps = make_maps()
    assert torch.equal(show(maps, (1, -11.0))[:, :, 2:5], picture(maps, 1, phase=0, pixel=5))
    for nearly in (-11.2, -10.8, -11.0004):
        assert torch.equal(show(maps, (1, nearly)), show(maps, (1, -11.0)))
    assert not torch.equal(show(maps, (1, -10.0)), show(maps, (1, -11.0)))


LAYOUT = ConditionsConfig(pose_size=3)


def given(entries: Tensor, *, seed: int = 0, since: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Return codes (B, J, 2) with random poses and a tally."""
    poses = torch.rand(len(entries), 3, generator=torch.Generator().manual_seed(seed))
    return entries, poses, torch.tensor([1.0, since, 0.0]).expand(len(entries), 3)


def make_fates() -> Fates:
    return Fates(CONFIG, LAYOUT, half_width=40.0)


def test_fates_learn_that_a_class_near_the_middle_is_gone():
    fates, generator = make_fates(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(fates.parameters(), lr=3e-3)

    def sample(count: int) -> tuple[Tensor, Tensor]:
        kinds = torch.randint(-1, 4, (count, 6), generator=generator).float()
        places = 80 * torch.rand(count, 6, generator=generator) - 40
        gone = (kinds == 2) & (places.abs() < 8)
        return torch.stack((kinds, places), dim=-1), gone

    for _ in range(150):
        entries, gone = sample(128)
        loss = binary_cross_entropy_with_logits(fates(*given(entries)).gone, gone.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    entries, gone = sample(1000)
    with torch.no_grad():
        found = fates(*given(entries, seed=1)).gone > 0
    assert (found == gone).float().mean() > 0.98
    assert found[gone].float().mean() > 0.9


def test_what_fates_tell_does_not_hang_on_the_order_of_codes_but_on_pose_and_tally():
    fates = make_fates().requires_grad_(requires_grad=False)
    entries = told((1, 4.0), (-1, -1.0), (3, -30.0))
    fate = fates(*given(entries))
    assert fate.gone.shape == (1, 3)
    assert fate.told.shape == (1, FATE_SIZE)
    turned = fates(*given(entries.flip(1)))
    torch.testing.assert_close(turned.gone, fate.gone.flip(1))
    torch.testing.assert_close(turned.told, fate.told)
    for other in (given(entries, seed=1), given(entries, since=0.1)):
        assert (fates(*other).told - fate.told).abs().max() > 1e-3
    absent = given(torch.cat((entries, told((-1, 7.0))), dim=1))
    torch.testing.assert_close(fates(*absent).told, fate.told)  # an empty place tells nothing
    assert (fates(*absent).gone[0, [1, 3]] == -20).all()


def test_without_classes_there_is_nothing_to_tell():
    maps = make_maps(NONE)
    assert maps(torch.full((2, 6, 2), -1.0), torch.zeros(2)).shape == (2, 0, *GRID)
    assert maps.num_channels == 0
    fate = Fates(NONE, LAYOUT, half_width=40.0)(*given(torch.full((2, 6, 2), -1.0)))
    assert fate.gone.shape == (2, 6)
    assert (fate.gone <= 0).all()
    assert not fate.told.any()
    prior = EntryPrior(NONE, width=6, token_grid=(2, 5), half_width=40.0)
    assert prior(torch.zeros(2, 10, 6), torch.full((2, 6, 2), -1.0)).shape == (2, 2, 1)


def make_prior() -> EntryPrior:
    with seeded_weights(0):
        return EntryPrior(CONFIG, width=6, token_grid=(2, 5), half_width=40.0)


def test_the_prior_learns_that_two_of_a_class_never_lie_close_together():
    prior, hidden = make_prior(), torch.zeros(64, 10, 6)
    optimizer = torch.optim.Adam(prior.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    edge = 40.0 + CONFIG.outside

    def batch() -> tuple[Tensor, Tensor]:
        """Return one code of class 1 for each game, and what then comes, 1 or nothing, (B, 2)."""
        place = torch.rand(64, 1, generator=generator) * 100 - 50
        entries = torch.stack((torch.ones(64, 1), place), dim=-1)
        way = torch.cat((edge + place, edge - place), dim=1)
        return entries, torch.where(way > 30.0, 1, CONFIG.num_classes)

    for _ in range(300):
        entries, coming = batch()
        logits = prior(hidden, entries)
        cross_entropy(logits.flatten(0, 1), coming.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    entries, coming = batch()
    found = prior(hidden, entries).argmax(dim=-1)
    assert (found == coming).float().mean() > 0.95


def test_what_the_prior_says_hangs_on_classes_and_places_but_not_on_the_order_of_codes():
    prior = make_prior().requires_grad_(requires_grad=False)
    hidden = torch.randn(1, 10, 6, generator=torch.Generator().manual_seed(1))
    codes = told((0, -20.0), (3, 35.0), (-1, 7.0))
    said = prior(hidden, codes)
    torch.testing.assert_close(prior(hidden, codes.flip(1)), said)
    torch.testing.assert_close(prior(hidden, codes[:, :2]), said)
    for other in (told((1, -20.0), (3, 35.0)), told((0, -12.0), (3, 35.0)), told((0, -20.0))):
        assert (prior(hidden, other) - said).abs().max() > 1e-3
