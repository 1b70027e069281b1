import csv
import dataclasses
import os
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from midas_world.autoencoder import Autoencoder
from midas_world.checkpoint import load_tensors, select
from midas_world.config import ProjectConfig, load_config, load_preset
from midas_world.episodes import Episode, EpisodeMetadata, VideoOptions, save_episode
from midas_world.train.autoencoder import (
    AutoencoderLoss,
    load_autoencoder,
    psnr_of,
    reconstruct,
    train_autoencoder,
)
from midas_world.train.data import character_weight, open_frames
from midas_world.train.dynamics import DynamicsLoss, dream, train_dynamics
from midas_world.train.latents import open_latents
from midas_world.train.loop import Trainer, schedule, seeded_weights, step_generator
from midas_world.train.optimizer import Muon, make_optimizers, orthogonalize
from midas_world.train.strips import save_strip
from midas_world.train_config import OptimizerConfig
from midas_world.types import CheckpointError
from midas_world.world_model import WorldModel

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
STATE = "train_state.safetensors"


def make_episode(seed: int, *, num_steps: int = 30) -> Episode:
    """Return an episode in which a bright square walks with the action before a striped wall."""
    rng = np.random.default_rng(seed)
    count = num_steps + 1
    actions = rng.integers(0, 3, num_steps)
    x = np.clip(40 + np.cumsum(np.concatenate(([0], 3 * (actions - 1)))), 8, 72)
    frames = np.zeros((count, 48, 80, 3), np.uint8)
    frames[:, :, ::8] = rng.integers(60, 200, 3)
    for frame, place in zip(frames, x, strict=True):
        frame[16:32, place - 6 : place + 6] = (250, 200, 40)
    pose = np.zeros((count, 48), np.float32)
    pose[:, 0] = x / 40 - 1
    keypoints = np.tile(np.array([0.0, 24.0], np.float32), (count, 15, 1))
    keypoints[:, :, 0] = x[:, None]
    ends = np.zeros(num_steps, bool)
    ends[-1] = True
    return Episode(
        frames=frames,
        actions=actions,
        rewards=(actions == 2).astype(np.float32),
        terminated=ends,
        truncated=np.zeros(num_steps, bool),
        pose=pose,
        text=("standing", *(("left", "still", "right")[action] for action in actions)),
        audio=rng.random((count, 40), dtype=np.float32),
        extras={"keypoints": keypoints},
        metadata=EpisodeMetadata(env_id="test", seed=seed, policy="random", fps=20.0),
    )


@cache
def tiny(*overrides: str) -> ProjectConfig:
    # bfloat16 is slow on CPUs without it; what is tested here does not depend on it.
    base = ["train_autoencoder.optimizer.bf16=false", "train_dynamics.optimizer.bf16=false"]
    return load_preset("tiny", [*base, *overrides])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two training episodes and one held out."""
    folder = tmp_path_factory.mktemp("data")
    for name, seeds in (("train", (1, 2)), ("validation", (3,))):
        for seed in seeds:
            path = folder / name / f"episode-{seed:08d}"
            save_episode(make_episode(seed), path, video=VideoOptions(codec="raw"))
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of both stages, trained a little."""
    folder = tmp_path_factory.mktemp("run")
    config = tiny(
        "train_autoencoder.optimizer.train_steps=60",
        "train_autoencoder.evaluate_every=60",
        "train_dynamics.optimizer.train_steps=40",
        "train_dynamics.evaluate_every=40",
    )
    train_autoencoder(config, data, folder / "autoencoder", device=CPU)
    train_dynamics(
        config, data, folder / "dynamics", autoencoder=folder / "autoencoder", device=CPU
    )
    return folder


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def autoencoder_loss(autoencoder: Autoencoder, data: Path) -> float:
    store = open_frames(data / "train")
    batch = {
        "frames": torch.from_numpy(store.gather(np.arange(0, 62, 7))),
        "keypoints": torch.from_numpy(store.keypoints[::7].copy()),
        "noise": torch.zeros(1, 8, 3, 5),
    }
    with torch.no_grad():
        return float(AutoencoderLoss(autoencoder, tiny().train_autoencoder)(**batch)["loss"])


def test_training_the_autoencoder_lowers_the_loss_on_fixed_frames(data, trained):
    with seeded_weights(0):
        untrained = Autoencoder(tiny().world.autoencoder)
    before = autoencoder_loss(untrained, data)
    after = autoencoder_loss(load_autoencoder(trained / "autoencoder", tiny()), data)
    assert after < 0.6 * before


def test_training_the_dynamics_lowers_the_loss_on_a_fixed_batch(data, trained):
    coder = load_autoencoder(trained / "autoencoder", tiny())
    store = open_latents(data / "train", coder, tiny().world.conditions, device=CPU)
    batch = store.gather(torch.tensor([0, 5, 10, 35, 40]), 7)

    def loss(model: WorldModel) -> float:
        module = DynamicsLoss(model, tiny().train_dynamics)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            rows = torch.zeros(5, dtype=torch.int64)
            losses = module(**batch, rows=rows, num_own=0, generator=generator)
            return float(losses["loss"])

    model = WorldModel(tiny().world)
    tensors = load_tensors(trained / "dynamics" / "weights.safetensors")
    with seeded_weights(0):
        untrained = WorldModel(tiny().world)
    untrained.change_std.copy_(tensors["change_std"])
    model.load_state_dict(tensors)
    assert loss(model) < 0.85 * loss(untrained)


def test_a_run_leaves_checkpoint_config_log_and_strips(trained):
    for stage, measure in (("autoencoder", "eval/psnr"), ("dynamics", "eval/psnr_1")):
        folder = trained / stage
        config = load_config(ProjectConfig, folder / "config.yaml")
        assert config.world == tiny().world
        with (folder / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        names = {row["name"] for row in rows}
        assert {"loss", "grad_norm", "items_per_s", "lr", measure} <= names
        assert all(np.isfinite(float(row["value"])) for row in rows)
        assert len(list((folder / "strips").glob("*.png"))) == 1
        assert list((folder / "tensorboard").iterdir())
        assert not list(folder.glob(".tmp-*"))


STAGES = {
    "autoencoder": [
        "train_autoencoder.optimizer.muon_learning_rate=0.01",
        "train_autoencoder.freeze_encoder_after=4",
    ],
    "dynamics": [
        "train_dynamics.optimizer.muon_learning_rate=0.01",
        "train_dynamics.self_context_rate=0.5",
        "train_dynamics.self_context_after=2",
        "train_dynamics.self_context_carries=true",
        "train_dynamics.scene_switch_rate=0.5",
    ],
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("stops", [(3,), (4, 5)])
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(data, trained, tmp_path, stage, stops):
    config = tiny(*STAGES[stage])

    def run(folder: Path, stop_at: int) -> None:
        if stage == "autoencoder":
            train_autoencoder(config, data, folder, device=CPU, stop_at=stop_at)
        else:
            coder = trained / "autoencoder"
            train_dynamics(config, data, folder, autoencoder=coder, device=CPU, stop_at=stop_at)

    run(tmp_path / "whole", 6)
    for stop in (*stops, 6):
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


def test_own_rollouts_go_on_along_their_episode(data, trained, tmp_path):
    overrides = ("train_dynamics.self_context_rate=1.0", "train_dynamics.self_context_carries=true")
    config = tiny(*overrides)
    store = open_frames(data / "train")
    length = config.train_dynamics.sequence_frames
    stands = []
    for stop in (1, 2, 3, 4):
        coder = trained / "autoencoder"
        train_dynamics(config, data, tmp_path, autoencoder=coder, device=CPU, stop_at=stop)
        state = load_tensors(tmp_path / STATE)
        stands.append(state["module.own_rows"])
        assert state["module.own_latents"].any()
    went_on = 0
    for before, after in pairwise(stands):
        moved = after - before == length - 1
        room = (
            store.starts[np.searchsorted(store.starts, before.numpy(), side="right")]
            - before.numpy()
        )
        assert torch.equal(moved, torch.from_numpy(room > length))
        went_on += int(moved.sum())
    assert went_on


def test_a_finished_run_stays_as_it_is(data, tmp_path):
    config = tiny("train_autoencoder.optimizer.train_steps=2")
    train_autoencoder(config, data, tmp_path, device=CPU)
    before = load_tensors(tmp_path / STATE)
    train_autoencoder(config, data, tmp_path, device=CPU)
    assert same(before, load_tensors(tmp_path / STATE))


def test_a_state_of_another_config_is_a_checkpoint_error(data, tmp_path):
    train_autoencoder(tiny(), data, tmp_path, device=CPU, stop_at=1)
    other = tiny("world.autoencoder.widths=[8,16,32]")
    with pytest.raises(CheckpointError, match=r"train_state\.safetensors does not fit"):
        train_autoencoder(other, data, tmp_path, device=CPU)


def test_another_seed_gives_other_weights(data, tmp_path):
    for seed in (1, 2):
        train_autoencoder(tiny(f"seed={seed}"), data, tmp_path / str(seed), device=CPU, stop_at=1)
    first, second = (load_tensors(tmp_path / name / STATE) for name in ("1", "2"))
    name = "module.autoencoder.encoder.conv_in.weight"
    assert not torch.equal(first[name], second[name])


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


WORKER = """
import sys
from pathlib import Path

import torch

from midas_world.checkpoint import save_tensors
from midas_world.config import load_preset
from midas_world.train import autoencoder, dynamics, loop


class Keeper(loop.Trainer):
    '''Keeps each process's weights, which otherwise only the first one saves.'''

    def run(self, *arguments, **options):
        super().run(*arguments, **options)
        path = self.folder / f"rank-{self.processes.rank}.safetensors"
        save_tensors(self.module.state_dict(), path)


autoencoder.Trainer = dynamics.Trainer = Keeper
data, run = map(Path, sys.argv[1:])
config = load_preset("tiny", ["train_autoencoder.freeze_encoder_after=2"])
options = {"device": torch.device("cpu"), "stop_at": 4}
autoencoder.train_autoencoder(config, data, run / "autoencoder", **options)
coder = run / "autoencoder"
dynamics.train_dynamics(config, data, run / "dynamics", autoencoder=coder, **options)
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_share_data_caches_and_end_with_equal_weights(tmp_path):
    for name, seeds in (("train", (1, 2)), ("validation", (3,))):
        for seed in seeds:
            path = tmp_path / "data" / name / f"episode-{seed:08d}"
            save_episode(make_episode(seed), path, video=VideoOptions(codec="raw"))
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "CUDA_VISIBLE_DEVICES": "",
    }
    result = subprocess.run(
        [*launch, str(worker), str(tmp_path / "data"), str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    for stage in ("autoencoder", "dynamics"):
        folder = tmp_path / "run" / stage
        first, second = (load_tensors(folder / f"rank-{rank}.safetensors") for rank in (0, 1))
        assert same(first, second)
        assert all(tensor.isfinite().all() for tensor in first.values())
        assert (folder / "weights.safetensors").is_file()


def test_frames_are_decoded_once_and_found_again(data):
    store = open_frames(data / "train")
    assert store.num_frames == 62
    assert store.starts.tolist() == [0, 31, 62]
    first, second = make_episode(1).frames, make_episode(2).frames
    assert np.array_equal(store.frames[1], second)
    gathered = store.gather(np.array([0, 61, 30, 31]))
    assert np.array_equal(gathered, np.stack((first[0], second[30], first[30], second[0])))
    assert np.array_equal(store.keypoints[:31], make_episode(1).extras["keypoints"])
    assert store.episodes == tuple(sorted((data / "train").glob("episode-*")))
    cached = {file: file.stat().st_mtime_ns for file in (data / "train").rglob("*.npy")}
    assert len(cached) == 2
    open_frames(data / "train")
    assert {file: file.stat().st_mtime_ns for file in (data / "train").rglob("*.npy")} == cached
    with pytest.raises(ValueError, match=r"wants frames of 192x320, .*00000001 has 48x80"):
        store.check_size(192, 320)


def test_a_damaged_episode_is_passed_over_with_a_warning(tmp_path, caplog):
    for seed in (1, 2):
        save_episode(
            make_episode(seed, num_steps=4), tmp_path / f"e{seed}", video=VideoOptions(codec="raw")
        )
    (tmp_path / "e1" / "steps.safetensors").write_bytes(b"broken")
    store = open_frames(tmp_path)
    assert store.episodes == (tmp_path / "e2",)
    assert store.num_frames == 5
    assert "skipped" in caplog.text


def test_a_folder_without_episodes_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no episodes in"):
        open_frames(tmp_path)


def test_latents_line_up_with_conditions_rewards_and_ends(data, trained):
    coder = load_autoencoder(trained / "autoencoder", tiny())
    store = open_latents(data / "train", coder, tiny().world.conditions, device=CPU)
    first, second = make_episode(1), make_episode(2)
    assert store.latents.shape == (62, 15, 8)
    assert store.sequence_starts(31).tolist() == [0, 31]
    assert len(store.sequence_starts(30)) == 4
    with pytest.raises(ValueError, match="no episode has 32 frames"):
        store.sequence_starts(32)
    batch = store.gather(torch.tensor([2, 31]), 5)
    assert batch["latents"].shape == (2, 5, 15, 8)
    assert torch.equal(batch["latents"][0], store.latents[2:7].float())
    # Frame 3's conditions stand beside the reward of the action that led to it.
    assert batch["reward"].tolist() == [
        first.rewards[2:6].tolist(),
        second.rewards[0:4].tolist(),
    ]
    assert torch.equal(batch["conditions"].pose[0], torch.from_numpy(first.pose[3:7]))
    assert torch.equal(batch["conditions"].audio[1], torch.from_numpy(second.audio[1:5]))
    assert batch["conditions"].present.all()
    assert store.terminated.nonzero().flatten().tolist() == [30, 61]


def test_latents_are_encoded_anew_for_another_encoder_or_other_statistics(data, trained):
    coder = load_autoencoder(trained / "autoencoder", tiny())

    def caches() -> int:
        open_latents(data / "validation", coder, tiny().world.conditions, device=CPU)
        return len(list((data / "validation" / ".cache").glob("latents-*")))

    count = caches()
    with torch.no_grad():
        coder.decoder.conv_in.bias.add_(1.0)
        assert caches() == count  # the decoder has no say
        coder.latent_mean.add_(1.0)
        assert caches() == count + 1
        coder.encoder.conv_in.bias.add_(1.0)
        assert caches() == count + 2


def test_dreams_follow_their_seed_and_begin_after_the_context(data, trained):
    coder = load_autoencoder(trained / "autoencoder", tiny())
    store = open_latents(data / "validation", coder, tiny().world.conditions, device=CPU)
    model = WorldModel(tiny().world).eval()
    model.load_state_dict(load_tensors(trained / "dynamics" / "weights.safetensors"))
    batch = store.gather(torch.tensor([0, 4]), 10)
    made = dream(model, batch, context=4, device=CPU, seed=1)
    assert made.shape == (2, 6, 15, 8)
    assert torch.equal(made, dream(model, batch, context=4, device=CPU, seed=1))
    assert not torch.equal(made, dream(model, batch, context=4, device=CPU, seed=2))
    # What lies after the context is not looked at.
    blind = {**batch, "latents": batch["latents"].clone()}
    blind["latents"][:, 4:] = 0.0
    assert torch.equal(made, dream(model, blind, context=4, device=CPU, seed=1))


def test_reconstruction_gives_frames_of_the_same_kind(trained):
    coder = load_autoencoder(trained / "autoencoder", tiny())
    frames = torch.from_numpy(make_episode(3).frames[:20])
    decoded = reconstruct(coder, frames, device=CPU, bf16=False)
    assert decoded.shape == frames.shape
    assert decoded.dtype == torch.uint8


def test_psnr_is_that_of_pictures_from_minus_1_to_1():
    assert psnr_of(torch.tensor(4.0)).item() == pytest.approx(0.0)
    assert psnr_of(torch.tensor(0.04)).item() == pytest.approx(20.0)


def test_the_character_weight_is_1_on_keypoints_and_0_far_away():
    keypoints = torch.tensor([[[20.0, 24.0], [60.0, 24.0]]])
    weight = character_weight(keypoints, 48, 80)
    assert weight.shape == (1, 1, 48, 80)
    assert weight[0, 0, 24, 20] > 0.9
    assert weight[0, 0, 24, 60] > 0.9
    assert weight[0, 0, 0, 0] < 0.05
    assert weight.max() <= 1.0
    assert not character_weight(torch.zeros(2, 0, 2), 48, 80).any()
    assert character_weight(torch.full((1, 15, 2), 30.0), 48, 80)[0, 0, 30, 30] > 0.9


OPTIMIZER = OptimizerConfig(learning_rate=0.5, train_steps=100, batch_size=1, warmup_steps=10)


def test_the_learning_rate_warms_up_and_then_falls_to_its_end():
    shares = [schedule(OPTIMIZER, step) for step in range(101)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[10] == pytest.approx(1.0)
    assert shares[100] == pytest.approx(OPTIMIZER.final_learning_rate)
    assert all(a < b for a, b in pairwise(shares[:10]))
    assert all(a > b for a, b in pairwise(shares[10:]))
    assert schedule(OPTIMIZER, 1000) == pytest.approx(OPTIMIZER.final_learning_rate)


def test_every_step_and_process_draws_its_own_numbers():
    keys = [(seed, step, rank) for seed in (0, 1) for step in (0, 1, 7) for rank in (0, 1)]
    draws = {
        key: torch.rand(4, generator=step_generator(key[0], key[1], rank=key[2])) for key in keys
    }
    assert len({tuple(draw.tolist()) for draw in draws.values()}) == len(keys)
    again = torch.rand(4, generator=step_generator(1, 7, rank=1))
    assert torch.equal(again, draws[1, 7, 1])


def test_seeded_weights_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    layers = []
    for seed in (3, 3, 4):
        with seeded_weights(seed):
            layers.append(nn.Linear(4, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(layers[0].weight, layers[1].weight)
    assert not torch.equal(layers[0].weight, layers[2].weight)


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6), (1, 9)])
def test_orthogonalize_brings_singular_values_near_1(shape):
    matrix = 5 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalize(matrix))
    # The quintic of Jordan et al. trades exactness for speed: it aims at 0.7 to 1.2.
    assert values.max() < 1.3
    if shape[0] != shape[1]:  # a square one has values near 0, which take more rounds
        assert values.min() > 0.6


def test_orthogonalize_keeps_the_singular_vectors():
    matrix = torch.randn(5, 9, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ orthogonalize(matrix) @ right.T
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), rtol=0, atol=1e-4)
    assert (inner.diagonal() > 0).all()


def test_the_optimizers_hold_every_weight_once():
    model = WorldModel(tiny().world)
    for rate in (0.0, 0.02):
        config = dataclasses.replace(OPTIMIZER, muon_learning_rate=rate)
        optimizers = make_optimizers(model, config)
        held = [p for o in optimizers for group in o.param_groups for p in group["params"]]
        assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))
        assert [isinstance(o, Muon) for o in optimizers] == ([False, True] if rate else [False])
    inner = {id(p) for group in optimizers[1].param_groups for p in group["params"]}
    assert id(model.backbone.layers[0].self_attn.q_proj.weight) in inner
    assert id(model.head.output.weight) not in inner
    assert id(model.latent_in.weight) not in inner


class Slope(nn.Module):
    """A line through nothing whose slope is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.slope * x - 3 * x).square().mean()}


def run_slope(folder: Path, *, steps: int = 100, **options) -> Trainer:
    config = dataclasses.replace(OPTIMIZER, train_steps=steps, ema_decay=0.5, bf16=False)
    trainer = Trainer(Slope(), config, folder, seed=0, device=CPU)
    trainer.resume()
    trainer.run(
        lambda generator, _: {"x": torch.randn(8, generator=generator)},
        save_every=50,
        evaluate_every=50,
        evaluate=lambda: {"slope": trainer.module.slope.item()},
        **options,
    )
    return trainer


def test_the_trainer_learns_any_module_and_logs_its_average(tmp_path):
    trainer = run_slope(tmp_path)
    assert trainer.module.slope.item() == pytest.approx(3.0, abs=0.1)
    with (tmp_path / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "eval/slope"]
    assert [row["train_step"] for row in rows] == ["50", "100"]
    average = trainer.average["slope"].item()
    assert float(rows[-1]["value"]) == pytest.approx(average, rel=1e-4)
    assert average != trainer.module.slope.item()


def test_averaged_weights_are_inside_the_module_only_for_the_with(tmp_path):
    trainer = run_slope(tmp_path, steps=5)
    own = trainer.module.slope.item()
    with trainer.averaged():
        assert trainer.module.slope.item() == trainer.average["slope"].item()
        assert not trainer.module.training
    assert trainer.module.slope.item() == own
    assert trainer.module.training


def test_before_step_is_told_every_train_step_once(tmp_path):
    seen: list[int] = []
    run_slope(tmp_path, steps=7, before_step=seen.append, stop_at=3)
    run_slope(tmp_path, steps=7, before_step=seen.append)
    assert seen == list(range(7))


def test_a_damaged_state_is_a_checkpoint_error(tmp_path):
    run_slope(tmp_path, steps=2)
    path = tmp_path / STATE
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="train_state"):
        run_slope(tmp_path, steps=4)


def test_strips_hold_every_frame_in_its_place(tmp_path):
    image = pytest.importorskip("matplotlib.image")
    frames = [
        [np.full((4, 6, 3), 10 * row + column, np.uint8) for column in (1, 2)] for row in (1, 2)
    ]
    save_strip(frames, tmp_path / "strips" / "a.png", gap=2)
    sheet = (image.imread(tmp_path / "strips" / "a.png")[..., :3] * 255).round().astype(int)
    assert sheet.shape == (10, 14, 3)
    assert (sheet[:4, :6] == 11).all()
    assert (sheet[6:, 8:] == 22).all()
    assert (sheet[4:6] == 255).all()
    with pytest.raises(ValueError, match="equally long"):
        save_strip([frames[0], frames[1][:1]], tmp_path / "b.png")


def test_an_encoder_frozen_from_the_start_keeps_its_latents(data: Path, tmp_path: Path):
    first = train_autoencoder(tiny(), data, tmp_path / "first", device=CPU, stop_at=2)
    config = tiny("train_autoencoder.freeze_encoder_after=0")
    second = train_autoencoder(
        config, data, tmp_path / "second", device=CPU, init_from=first, stop_at=2
    )
    before = load_tensors(first / "weights.safetensors")
    after = load_tensors(second / "weights.safetensors")
    for name, tensor in after.items():
        if not name.startswith("decoder."):
            assert torch.equal(tensor, before[name]), name
    assert any(not torch.equal(after[name], before[name]) for name in after)
