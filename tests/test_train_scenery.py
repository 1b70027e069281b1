"""The scenery memory is taught before the dynamics, and then stays as it is."""

import copy
from pathlib import Path

import pytest
import torch

from midas_world.model.autoencoder import Autoencoder
from midas_world.model.world_model import WorldModel
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.latents import LatentStore, open_latents
from midas_world.train.loop import seeded_weights
from midas_world.train.scenery import SceneryLoss, fit_scenery, scenery_psnr, scenery_rows
from tests.training import CPU, tiny

STEPS = "train_dynamics.scenery.train_steps=60"


@pytest.fixture(scope="module")
def coder(trained: Path) -> Autoencoder:
    return load_autoencoder(trained / "autoencoder", tiny()).requires_grad_(requires_grad=False)


@pytest.fixture(scope="module")
def store(data: Path, coder: Autoencoder) -> LatentStore:
    return open_latents(data / "train", coder, tiny().world, device=CPU)


@torch.no_grad()
def error_of(model: WorldModel, store: LatentStore) -> float:
    batch = scenery_rows(store, torch.arange(0, 60, 7).numpy(), tiny().train_dynamics)
    return float(SceneryLoss(model)(**batch)["loss"])


def test_scenery_is_learned_and_a_finished_run_is_taken_as_it_is(store, coder, tmp_path):
    with seeded_weights(0):
        model = WorldModel(tiny().world)
    head = copy.deepcopy(model.head.state_dict())
    words = model.conditions.words.weight.clone()
    again, before = copy.deepcopy(model), error_of(model, store)
    fit_scenery(model, coder, store, store, tiny(STEPS), tmp_path / "whole", device=CPU)
    assert error_of(model, store) < 0.8 * before
    found = scenery_psnr(model, coder, store, tiny().train_dynamics, device=CPU)
    assert found.keys() == {"psnr", "windows_psnr"}
    assert all(5.0 < value < 40.0 for value in found.values())
    assert not torch.equal(model.conditions.words.weight, words)
    assert all(torch.equal(value, head[name]) for name, value in model.head.state_dict().items())
    # The folder's state is the end: a second call takes it as it is.
    fit_scenery(again, coder, store, store, tiny(STEPS), tmp_path / "whole", device=CPU)
    for name, value in model.state_dict().items():
        if name.startswith(("scenery.", "windows.", "conditions.")):
            assert torch.equal(again.state_dict()[name], value), name


def test_character_things_and_regions_are_no_scenery(store):
    row = 12
    batch = scenery_rows(store, torch.tensor([row]).numpy(), tiny().train_dynamics)
    weight = batch["is_scenery"]
    assert weight.shape == (1, 1, *batch["target"].shape[2:])
    step = tiny().world.autoencoder.downsampling
    frames = store.frames
    seen = [thing[1:3] for thing in frames.things[row] if thing[0] >= 0 and 0 <= thing[1] < 80]
    for x, y in (*seen, frames.keypoints[row][0], frames.regions[row][0][:2]):
        assert weight[0, 0, int(y // step), int(x // step)] == 0
    assert weight.mean() > 0.2
