import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from midas_world.checkpoint import load_tensors, select
from midas_world.config import ProjectConfig, load_config
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.world_model import WorldModel
from midas_world.train.autoencoder import AutoencoderLoss, train_autoencoder
from midas_world.train.data import open_frames
from midas_world.train.dynamics import DynamicsLoss, fit_to_autoencoder, train_dynamics
from midas_world.train.loop import TrainingError, seeded_weights, step_generator
from midas_world.train.pool import Pool
from midas_world.types import CheckpointError
from tests.fakes import randomize
from tests.training import CPU, STATE, same, tiny


def autoencoder_loss(autoencoder: Autoencoder, data: Path) -> float:
    store = open_frames(data / "train")
    frames = torch.from_numpy(store.gather(np.arange(0, 62, 7)))
    batch = {
        "frames": frames,
        "weight": torch.ones(len(frames), 1, *frames.shape[1:3]),
        "noise": torch.zeros(1, 8, 6, 10),
        "level": torch.zeros(1),
    }
    with torch.no_grad():
        return float(AutoencoderLoss(autoencoder, tiny().train_autoencoder)(**batch)["loss"])


def test_training_the_autoencoder_lowers_the_loss_on_fixed_frames(data, coder):
    with seeded_weights(0):
        untrained = Autoencoder(tiny().world.autoencoder)
    before = autoencoder_loss(untrained, data)
    after = autoencoder_loss(coder, data)
    assert after < 0.6 * before


def test_training_the_dynamics_lowers_the_loss_on_a_fixed_batch(store, coder, trained):
    # Fates learn from all steps alike: weighted by what happens, an even chance would do as well.
    config = tiny("train_dynamics.optimizer.batch_size=48", "train_dynamics.happening_weight=1.0")
    batch = Pool(store, config.world, config.train_dynamics).batch(step_generator(0, 0), 0.0)

    def losses(model: WorldModel) -> dict[str, Tensor]:
        module = DynamicsLoss(model.eval(), coder, config.train_dynamics)
        fit_to_autoencoder(module, store, coder)
        with torch.no_grad():
            made = module(**batch, generator=step_generator(0, 0), progress=1.0)
        return {name: value for name, value in made.items() if not value.ndim}

    with seeded_weights(0):
        untrained, model = WorldModel(config.world), WorldModel(config.world)
    model.load_state_dict(load_tensors(trained / "dynamics" / "weights.safetensors"))
    # Held to the last frame that stays: an untrained painting is flat, without an edge to miss.
    channels = config.world.autoencoder.latent_channels
    bias = untrained.head.output.bias.data
    bias[channels:], bias[channels] = 0.0, 1.0
    before, after = losses(untrained), losses(model)
    share = {name: float(after[name] / before[name]) for name in before}
    for name in ("latents", "pixels", "entries", "reward", "cost", "termination"):
        assert share[name] < 1.0, str(share)
    assert after["loss"] < 0.97 * before["loss"]


def test_what_follows_from_the_autoencoder_is_saved_with_the_weights(store, coder, trained):
    tensors = load_tensors(trained / "dynamics" / "weights.safetensors")
    module = DynamicsLoss(WorldModel(tiny().world), coder, tiny().train_dynamics)
    untouched = module.model.motion.operators.clone()
    fit_to_autoencoder(module, store, coder)
    for name, expected in (
        ("motion.operators", module.model.motion.operators),
        ("motion.biases", module.model.motion.biases),
        ("change_std", module.model.change_std),
    ):
        torch.testing.assert_close(tensors[name], expected, msg=name)
    assert not torch.allclose(tensors["motion.operators"], untouched)
    assert module.channel_weight.mean() == pytest.approx(1.0)


@pytest.mark.parametrize("head", ["regression", "flow"])
def test_the_dynamics_losses_reach_every_weight(store, coder, head):
    noise = ("world.head.num_denoise_steps=2", "world.head.temperature=1.0")
    config = tiny(*(noise if head == "flow" else ()), "train_dynamics.drawn_rate=0.0")
    model = WorldModel(config.world)
    randomize(model, 0)
    module = DynamicsLoss(model, coder, config.train_dynamics)
    batch = Pool(store, config.world, config.train_dynamics).batch(step_generator(0, 0), 0.0)
    losses = module(**batch, generator=step_generator(0, 0), progress=1.0)
    assert {"pixels", "gone", "entries", "reward", "cost", "termination"} <= losses.keys()
    losses["loss"].backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not without
    assert losses["made"].shape == batch["target"].shape
    assert not losses["made"].requires_grad
    # Of what chance brings the frame that a sequence goes on with is told, unless it is drawn.
    drawing = DynamicsLoss(model, coder, replace(config.train_dynamics, drawn_rate=1.0))
    for loss, is_told in ((module, head == "flow"), (drawing, False)):
        first, second = (
            loss(**batch | {"target": target}, generator=step_generator(0, 0), progress=1.0)["made"]
            for target in (batch["target"], batch["target"].flip(0))
        )
        assert torch.equal(first, second) != is_told


def test_a_run_leaves_checkpoint_config_log_and_strips(trained):
    for stage, measure in (("autoencoder", "eval/psnr"), ("dynamics", "eval/psnr_1")):
        folder = trained / stage
        config = load_config(ProjectConfig, folder / "config.yaml")
        assert config.world == tiny().world
        with (folder / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        names = {row["name"] for row in rows}
        assert {"loss", "grad_norm", "items_per_s", "lr", measure} <= names
        # These are means over what a batch need not have.
        always = [row for row in rows if row["name"] not in ("fresh", "own", "lost")]
        assert all(np.isfinite(float(row["value"])) for row in always)
        assert len(list((folder / "strips").glob("*.png"))) == 1
        assert list((folder / "tensorboard").iterdir())
        assert not list(folder.glob(".tmp-*"))


STAGES = {
    "autoencoder": [
        "train_autoencoder.optimizer.muon_learning_rate=0.01",
        "train_autoencoder.freeze_encoder_after=4",
    ],
    # In six steps all that there is: rollouts, the loss on pixels, the backbone.
    "dynamics": [
        "train_dynamics.optimizer.train_steps=6",
        "train_dynamics.fresh_rate=[[0.0,1.0],[0.2,0.3],[1.0,0.3]]",
    ],
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(data, trained, tmp_path, stage):
    config = tiny(*STAGES[stage])

    def run(folder: Path, stop_at: int) -> None:
        if stage == "autoencoder":
            train_autoencoder(config, data, folder, device=CPU, stop_at=stop_at)
        else:
            coder = trained / "autoencoder"
            train_dynamics(config, data, folder, autoencoder=coder, device=CPU, stop_at=stop_at)

    run(tmp_path / "whole", 6)
    for stop in (3, 4, 5, 6):
        run(tmp_path / "parts", stop)
    whole, parts = (
        load_tensors(tmp_path / "whole" / STATE),
        load_tensors(tmp_path / "parts" / STATE),
    )
    assert int(whole["train_step"]) == 6
    assert any(name.startswith("optimizer.momentum.") for name in whole)
    assert same(whole, parts)
    name = "weights.safetensors"
    assert same(load_tensors(tmp_path / "whole" / name), load_tensors(tmp_path / "parts" / name))


def test_a_finished_run_stays_as_it_is(data, tmp_path):
    config = tiny("train_autoencoder.optimizer.train_steps=2")
    train_autoencoder(config, data, tmp_path, device=CPU)
    before = load_tensors(tmp_path / STATE)
    train_autoencoder(config, data, tmp_path, device=CPU)
    assert same(before, load_tensors(tmp_path / STATE))


def test_training_that_diverges_says_so_and_keeps_the_state_before(data, tmp_path):
    train_autoencoder(tiny(), data, tmp_path, device=CPU, stop_at=2)
    before = load_tensors(tmp_path / STATE)
    rates = ("learning_rate=1e30", "muon_learning_rate=1e30", "warmup_steps=0")
    wild = tiny(*(f"train_autoencoder.optimizer.{rate}" for rate in rates))
    with pytest.raises(TrainingError, match=r"diverged: at train step \d.*lower optimizer"):
        train_autoencoder(wild, data, tmp_path, device=CPU)
    assert same(before, load_tensors(tmp_path / STATE))


def test_a_state_of_another_config_is_a_checkpoint_error(data, tmp_path):
    train_autoencoder(tiny(), data, tmp_path, device=CPU, stop_at=1)
    other = tiny("world.autoencoder.widths=[8,32]")
    with pytest.raises(CheckpointError, match=r"train_state\.safetensors does not fit"):
        train_autoencoder(other, data, tmp_path, device=CPU)


def test_a_frozen_encoder_no_longer_changes_while_the_decoder_learns(data, tmp_path):
    config = tiny("train_autoencoder.freeze_encoder_after=3")
    states = {}
    for step in (3, 4, 8):
        train_autoencoder(config, data, tmp_path, device=CPU, stop_at=step)
        states[step] = load_tensors(tmp_path / STATE)
        weights = load_tensors(tmp_path / "weights.safetensors")
    module, average = select(states[4], "module."), select(states[4], "average.")
    later, later_average = select(states[8], "module."), select(states[8], "average.")
    fixed = [n for n in module if ".encoder." in n or n.endswith(("latent_mean", "latent_std"))]
    assert len(fixed) > 10
    for name in fixed:
        assert torch.equal(module[name], later[name]), name
        assert torch.equal(later_average[name], later[name]), name
        assert torch.equal(weights[name.removeprefix("autoencoder.")], later[name]), name
    # It froze at its average, with statistics measured then.
    before = select(states[3], "average.")
    name = "autoencoder.encoder.conv_in.weight"
    assert torch.equal(module[name], before[name])
    assert (module["autoencoder.latent_std"] != 1).all()
    name = "autoencoder.decoder.conv_out.weight"
    assert not torch.equal(module[name], later[name])
    assert not torch.equal(average[name], later_average[name])
