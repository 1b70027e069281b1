"""Words are taught what they look like before the dynamics are."""

import copy
from pathlib import Path

import pytest
import torch

from midas_world.model.world_model import WorldModel
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.latents import LatentStore, open_latents
from midas_world.train.words import fit_words
from tests.training import CPU, tiny


@pytest.fixture(scope="module")
def store(data: Path, trained: Path) -> LatentStore:
    coder = load_autoencoder(trained / "autoencoder", tiny())
    return open_latents(data / "train", coder, tiny().world, device=CPU)


def test_words_learn_to_tell_pictures_apart(store: LatentStore):
    words = WorldModel(tiny().world).conditions.words
    other = copy.deepcopy(words)
    explained = fit_words(words, store, train_steps=40, seed=1)
    # Nothing is explained by means alone.
    assert 0.05 < explained < 1.0
    averages = words(store.conditions.text[0][::4])
    assert averages.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.01)
    assert not words.weight[0].any()
    assert fit_words(other, store, train_steps=40, seed=1) == explained
    assert torch.equal(other.weight, words.weight)
