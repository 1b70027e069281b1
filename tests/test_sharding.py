"""Two processes that torchrun starts: they share data, and weights where these are split."""

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from midas_world.checkpoint import load_tensors, select
from midas_world.config import load_preset
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.world_model import WorldModel
from midas_world.train.dynamics import DynamicsLoss, train_dynamics
from midas_world.train.loop import Trainer, seeded_weights
from tests.training import CPU, STATE, same, save_data, tiny

WEIGHTS = "weights.safetensors"
STEPS = 3
SETTINGS = [
    # 160 rows, of which each process holds 80: a block of Muon's, 128 rows, crosses the shares.
    "world.backbone.mlp_width=160",
    "world.reward_bins=42",  # 43 rows: shares of 22 and 21
    "train_dynamics.optimizer.bf16=false",
    "train_dynamics.optimizer.muon_learning_rate=0.01",
    "train_dynamics.optimizer.train_steps=3",
    "train_dynamics.fresh_rate=[[0.0,0.3],[1.0,0.3]]",
    "train_dynamics.backbone_after=0.3",
    "train_dynamics.evaluate_every=2",
    "train_dynamics.save_every=2",
    "train_dynamics.scenery.train_steps=1",
    "train_dynamics.windows.train_steps=1",
]

WORKER = """
import json
import shutil
import sys
from pathlib import Path

import torch

from midas_world.checkpoint import save_tensors
from midas_world.config import load_preset
from midas_world.train import autoencoder, dynamics, loop
from midas_world.train.sharding import is_split, local

data, run = map(Path, sys.argv[1:3])
settings, steps = json.loads(sys.argv[3]), int(sys.argv[4])
coder, sizes = run / "autoencoder", {}


class Keeper(loop.Trainer):
    '''Notes what this process holds when its run is over, and how much.'''

    def run(self, *arguments, **options):
        whole = []
        if self.shards:
            model = self.trained.model
            model.head.register_forward_pre_hook(
                lambda *_: whole.append(
                    sum(not is_split(p) for p in model.backbone.layers.parameters())
                )
            )
        super().run(*arguments, **options)
        if not self.shards:  # otherwise only the first one saves
            path = self.folder / f"rank-{self.processes.rank}.safetensors"
            save_tensors(self.module.state_dict(), path)
        weights = list(self.trained.parameters())
        averages = [self.average[name] for name, _ in self.trained.named_parameters()]
        state = [v for o in self.optimizers for s in o.state.values() for v in s.values()]
        held = {"weights": weights, "averages": averages, "state": state}
        sizes[self.folder.name] = {
            name: sum(local(tensor).nbytes for tensor in tensors) for name, tensors in held.items()
        }
        if self.shards:
            assert all(parameter.is_meta for parameter in self.module.parameters())
            assert whole and not any(whole)  # while the head computes, no layer of the backbone
        (run / f"sizes-{self.processes.rank}.json").write_text(json.dumps(sizes))

    def save(self):
        super().save()
        if self.folder.name == "split" and self.train_step < steps and self.processes.is_first:
            shutil.copytree(self.folder, run / "killed")  # as it is when it is killed now


autoencoder.Trainer = dynamics.Trainer = Keeper
options = {"device": torch.device("cpu"), "stop_at": 4}
config = load_preset("tiny", [*settings, "train_autoencoder.freeze_encoder_after=2"])
autoencoder.train_autoencoder(config, data, coder, **options)
options["stop_at"] = steps
for name, sharding in (("copied", "none"), ("split", "full"), ("killed", "full")):
    config = load_preset("tiny", [*settings, f"train_dynamics.sharding={sharding}"])
    dynamics.train_dynamics(config, data, run / name, autoencoder=coder, **options)
torch.distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an autoencoder and three runs with it, all by two processes."""
    folder = tmp_path_factory.mktemp("split")
    data = save_data(folder / "data")  # nothing is cached yet
    (folder / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(folder / "worker.py")]
    command += [str(data), str(folder), json.dumps(SETTINGS), str(STEPS)]
    variables = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    variables |= {"GLOO_SOCKET_IFNAME": "lo", "CUDA_VISIBLE_DEVICES": ""}
    options = {"capture_output": True, "text": True, "timeout": 200}
    done = subprocess.run(command, env=os.environ | variables, **options)
    assert done.returncode == 0, done.stderr[-9000:]
    return folder


def log_of(folder: Path) -> dict[tuple[str, str], float]:
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        (row["train_step"], row["name"]): float(row["value"])
        for row in rows
        if row["name"] != "items_per_s"
    }


def distance(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    assert first.keys() == second.keys()
    names = [name for name, tensor in first.items() if tensor.is_floating_point()]
    return float(sum((first[n] - second[n]).square().sum() for n in names) ** 0.5)


@pytest.mark.slow  # two processes load torch and train four times
def test_two_processes_share_data_caches_and_end_with_equal_weights(runs):
    for stage in ("autoencoder", "copied"):
        first, second = (load_tensors(runs / stage / f"rank-{rank}.safetensors") for rank in (0, 1))
        assert same(first, second)
        assert all(tensor.isfinite().all() for tensor in first.values())
        assert (runs / stage / WEIGHTS).is_file()


@pytest.mark.slow  # two processes load torch and train four times
def test_split_weights_are_trained_as_whole_ones_are(runs):
    copied, split = (load_tensors(runs / name / STATE) for name in ("copied", "split"))
    assert copied.keys() == split.keys()
    assert int(split["train_step"]) == STEPS
    config = load_preset("tiny", SETTINGS)
    coder = Autoencoder(config.world.autoencoder)
    with seeded_weights(config.seed):
        module = DynamicsLoss(WorldModel(config.world), coder, config.train_dynamics)
    start = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    start |= {f"average.{name}": tensor for name, tensor in module.state_dict().items()}
    for part in ("module.", "average.", "optimizer.momentum.", "optimizer.exp_avg."):
        found, expected = select(split, part), select(copied, part)
        begun = select(start, part) or {n: torch.zeros_like(t) for n, t in expected.items()}
        # Gradients differ by the rounding of their norm alone, which is summed share by share; but
        # both optimizers divide by a gradient's own size and so let next to nothing count, and the
        # pooled maximum may pass to another token. They end 2e-5 of the way apart here; it would
        # be 4e-2 if Muon were to see each share by itself.
        assert distance(found, expected) < 1e-2 * distance(begun, expected), part
    first, second = (log_of(runs / name) for name in ("copied", "split"))
    assert second == pytest.approx(first, rel=1e-2, nan_ok=True)
    # What was evaluated and is played is the average.
    weights = load_tensors(runs / "split" / WEIGHTS)
    assert same(weights, select(split, "average.model."))


@pytest.mark.slow  # two processes load torch and train four times
def test_each_process_holds_half(runs):
    for rank in (0, 1):
        sizes = json.loads((runs / f"sizes-{rank}.json").read_text())
        for name, whole in sizes["copied"].items():
            # Odd numbers of rows, and counts of steps, do not halve.
            assert 0.49 < sizes["split"][name] / whole < 0.51, (rank, name)


@pytest.mark.slow  # two processes load torch and train four times
def test_a_split_run_that_was_killed_goes_on_to_the_same_bits(runs):
    losses = {step for step, name in log_of(runs / "killed") if name == "loss"}
    assert losses == {str(STEPS)}  # it went on from what was saved before
    for name in (STATE, WEIGHTS):
        assert same(load_tensors(runs / "split" / name), load_tensors(runs / "killed" / name))


@pytest.mark.slow  # two processes load torch and train four times
def test_one_process_alone_takes_over_the_state_of_two(runs, tmp_path):
    state = load_tensors(runs / "split" / STATE)
    (tmp_path / STATE).write_bytes((runs / "split" / STATE).read_bytes())
    config = load_preset("tiny", SETTINGS)
    coder = Autoencoder(config.world.autoencoder)
    module = DynamicsLoss(WorldModel(config.world), coder, config.train_dynamics)
    optimizer = config.train_dynamics.optimizer
    trainer = Trainer(module, optimizer, tmp_path, seed=0, device=CPU)
    assert trainer.resume()
    (tmp_path / STATE).unlink()
    trainer.save()
    learned = {name: tensor for name, tensor in state.items() if not name.startswith("kept.")}
    assert same(load_tensors(tmp_path / STATE), learned)


def test_one_process_has_nothing_to_split_and_says_so(data, trained, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="midas_world")
    for sharding in ("none", "full"):
        steps = (f"train_dynamics.{part}.train_steps=1" for part in ("scenery", "windows"))
        config = tiny(f"train_dynamics.sharding={sharding}", *steps)
        coder = trained / "autoencoder"
        folder = tmp_path / sharding
        train_dynamics(config, data, folder, autoencoder=coder, device=CPU, stop_at=1)
        assert ("one process alone has nothing to shard" in caplog.text) == (sharding == "full")
    assert same(load_tensors(tmp_path / "none" / STATE), load_tensors(tmp_path / "full" / STATE))
