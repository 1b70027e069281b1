"""Scenery, things and fates are taught before the dynamics, and then stay as they are."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from midas_world.model.autoencoder import Autoencoder
from midas_world.model.conditions import stack_conditions
from midas_world.model.world_model import WorldModel
from midas_world.train.latents import LatentStore
from midas_world.train.loop import seeded_weights
from midas_world.train.scenery import (
    PAINTERS,
    Lesson,
    SceneryLoss,
    fate_loss,
    fate_losses,
    fate_rows,
    fit_scenery,
    painted_pictures,
    scenery_psnr,
    scenery_rows,
)
from midas_world.types import StepConditions
from tests.training import CPU, tiny

STEPS = "train_dynamics.scenery.train_steps=60"


@pytest.fixture
def model() -> WorldModel:
    """Return an untrained model."""
    with seeded_weights(0):
        return WorldModel(tiny().world)


# Every channel weighs the same.
EVEN = torch.ones(tiny().world.autoencoder.latent_channels)


@torch.no_grad()
def error_of(model: WorldModel, coder: Autoencoder, store: LatentStore) -> float:
    rows = np.arange(0, 60, 7)
    batch = scenery_rows(store, rows, tiny())
    frames, fates = torch.from_numpy(store.frames.gather(rows)), fate_rows(store, torch.arange(62))
    loss = SceneryLoss(model, coder, tiny().train_dynamics, EVEN)
    return float(loss(**batch, frames=frames, fates=fates)["loss"])


def test_scenery_is_learned_and_a_finished_run_is_taken_as_it_is(model, store, coder, tmp_path):
    fates = copy.deepcopy(model.fates.state_dict())
    head = copy.deepcopy(model.head.state_dict())
    words = model.conditions.words.weight.clone()
    again, before = copy.deepcopy(model), error_of(model, coder, store)
    fit_scenery(Lesson(model, coder, EVEN, store, store, tiny(STEPS), CPU), tmp_path / "whole")
    assert error_of(model, coder, store) < 0.8 * before
    found = scenery_psnr(model, coder, store, tiny(), device=CPU)
    assert found.keys() == {"psnr", "windows_psnr"}
    assert all(5.0 < value < 40.0 for value in found.values())
    assert not torch.equal(model.conditions.words.weight, words)
    for name, value in model.fates.state_dict().items():
        assert not torch.equal(value, fates[name]), name
    assert all(torch.equal(value, head[name]) for name, value in model.head.state_dict().items())
    # The folder's state is the end: a second call takes it as it is.
    fit_scenery(Lesson(again, coder, EVEN, store, store, tiny(STEPS), CPU), tmp_path / "whole")
    for name, value in model.state_dict().items():
        if name.startswith(PAINTERS):
            assert torch.equal(again.state_dict()[name], value), name


def test_fates_and_what_they_bring_are_learned_from_codes_alone(model, store):
    batch = fate_rows(store, torch.arange(62))
    assert torch.equal(batch["gone"], store.gone)
    before = fate_losses(model, **batch)
    assert before.keys() == {"gone", "reward", "cost", "termination"}
    learned = [*model.fates.parameters(), *model.outcome.fates.parameters()]
    optimizer = torch.optim.Adam(learned, lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        torch.stack(list(fate_losses(model, **batch).values())).sum().backward()
        optimizer.step()
    after = fate_losses(model, **batch)
    for name, share in (("gone", 0.1), ("reward", 0.5), ("cost", 0.8), ("termination", 0.3)):
        assert after[name] < share * before[name], (name, float(after[name] / before[name]))


def test_absent_codes_have_no_part_in_the_loss_of_what_is_gone(model):
    model.requires_grad_(requires_grad=False)
    given = stack_conditions([StepConditions()] * 2, tiny().world.conditions, capacity=12)
    given.entries[0, 0, :2] = torch.tensor([(1.0, 4.0), (3.0, -20.0)])
    fate, gone = model.fate(given), torch.zeros(2, 12, dtype=torch.bool)
    gone[0, 1] = True
    expected = functional.softplus(fate.gone[0, 0]) + functional.softplus(-fate.gone[0, 1])
    torch.testing.assert_close(fate_loss(fate, given, gone), expected / 2)
    gone[1, 5] = True  # where no code is
    torch.testing.assert_close(fate_loss(fate, given, gone), expected / 2)


@torch.no_grad()
def test_pictures_are_painted_without_what_is_gone(model, store):
    row = int(store.gone.any(dim=1).nonzero()[0])
    model.eval()
    batch = scenery_rows(store, np.array([row]), tiny())
    told = batch["conditions"].entries[0, 0]
    is_left = (told[:, 0] >= 0) & ~store.gone[row]
    kinds = torch.where(is_left, told[:, 0], -1.0)
    assert torch.equal(batch["entries"][0, :, 0], kinds)
    assert not torch.equal(batch["entries"][0, :, 0], told[:, 0])
    given = batch["conditions"], batch["last_audio"]
    without, _ = painted_pictures(model, *given, batch["entries"])
    with_all, _ = painted_pictures(model, *given, batch["conditions"].entries[:, 0])
    assert (without - with_all).abs().max() > 1e-4
    assert batch["conditions"].tally.shape == (1, 1, 2)


def test_character_and_regions_are_no_scenery_and_things_weigh_more(store):
    row = 12
    config = tiny().train_dynamics
    batch = scenery_rows(store, np.array([row]), tiny())
    weight, whole = batch["is_scenery"], batch["weight"]
    assert weight.shape == whole.shape == (1, 1, *batch["target"].shape[2:])
    step = tiny().world.autoencoder.downsampling
    frames = store.frames
    seen = [thing[1:3] for thing in frames.things[row] if thing[0] >= 0 and 0 <= thing[1] < 80]

    def at(x: float, y: float) -> tuple[float, float]:
        place = (0, 0, int(y // step), int(x // step))
        return float(weight[place]), float(whole[place])

    assert at(*frames.keypoints[row][0]) == (0.0, config.character_weight)
    assert at(*frames.regions[row][0][:2]) == (0.0, config.region_weight)
    assert (config.thing_weight, 1.0) in [at(x, y) for x, y in seen]
    assert set(weight.unique().tolist()) == {0.0, 1.0, config.thing_weight}
    assert weight.mean() > 0.2
