"""The third stage: the decoder alone learns, on what the world predicts."""

from dataclasses import replace

import pytest
import torch

from midas_world.checkpoint import load_part, load_tensors
from midas_world.train.autoencoder import decode_latents, load_autoencoder
from midas_world.train.decoder import train_decoder
from tests.training import CPU, STATE, tiny

STEPS = 60
LONG = (
    f"train_decoder.optimizer.train_steps={STEPS}",
    f"train_decoder.evaluate_every={STEPS}",
    "train_decoder.optimizer.muon_learning_rate=0.02",
)


def run(data, trained, folder, *overrides, stop_at=None):
    """Train the decoder of the trained stages, and return its folder."""
    stages = {name: trained / name for name in ("autoencoder", "dynamics")}
    return train_decoder(tiny(*overrides), data, folder, **stages, device=CPU, stop_at=stop_at)


@pytest.fixture(scope="module")
def decoder(data, trained, tmp_path_factory):
    """Return the folder of a run that was not stopped."""
    return run(data, trained, tmp_path_factory.mktemp("decoder"), *LONG)


def test_the_decoder_alone_learns(trained, decoder):
    before, after = (
        load_part(trained / "autoencoder", "autoencoder"),
        load_tensors(decoder / "weights.safetensors"),
    )
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert {name.split(".")[0] for name in changed} == {"decoder"}


def test_rollouts_are_shown_better_than_before(store, trained, decoder):
    own = load_tensors(decoder / "rollouts.safetensors")
    errors = []
    for folder in (trained / "autoencoder", decoder):
        coder = load_autoencoder(folder, tiny())
        truth = torch.from_numpy(store.frames.gather(own["rows"].numpy())).float()
        shown = decode_latents(coder, own["latents"].float(), device=CPU).float()
        errors.append((shown - truth).square().mean())
    assert errors[1] < 0.9 * errors[0]


def test_a_stopped_run_goes_on_to_the_same_bits(data, trained, decoder, tmp_path):
    run(data, trained, tmp_path, *LONG, stop_at=7)
    rollouts = (tmp_path / "rollouts.safetensors").stat().st_mtime_ns
    run(data, trained, tmp_path, *LONG)
    assert (tmp_path / "rollouts.safetensors").stat().st_mtime_ns == rollouts
    whole, halves = load_tensors(decoder / STATE), load_tensors(tmp_path / STATE)
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_a_preset_without_this_stage_says_so(data, trained, tmp_path):
    stages = {name: trained / name for name in ("autoencoder", "dynamics")}
    with pytest.raises(ValueError, match="train_decoder"):
        train_decoder(replace(tiny(), train_decoder=None), data, tmp_path, **stages, device=CPU)
