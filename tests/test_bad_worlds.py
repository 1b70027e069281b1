"""What is wrong with a world or a saved state, weights or sizes, is told by its name."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from envs.world.env import WorldEnv
from envs.world.state import WorldState
from midas_world.checkpoint import load_tensors
from midas_world.types import CheckpointError
from midas_world.world import World, load_world

WEIGHTS = "weights.safetensors"


def resave(path: Path, change) -> None:
    """Change a file's tensors and write it as others do, without our checksum."""
    tensors = load_tensors(path)
    with safe_open(path, framework="pt") as file:
        metadata = {key: v for key, v in file.metadata().items() if key != "crc32"}
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def compressed(tensors) -> str:
    return next(name for name in sorted(tensors) if tensors[name].dtype == torch.int8)


def plain(tensors) -> str:
    return next(n for n in sorted(tensors) if tensors[n].dtype == torch.float32 and ":" not in n)


def scale_of(name: str) -> str:
    return f"{name}:scale"


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (plain, lambda t, name: t[name].view(-1)[-1].fill_(torch.nan), "not finite"),
        (plain, lambda t, name: t[name].view(-1)[-1].fill_(torch.inf), "not finite"),
        (compressed, lambda t, name: t.pop(scale_of(name)), "needs .* scales, there are none"),
        (
            compressed,
            lambda t, name: t.update({scale_of(name): t[scale_of(name)][:1].clone()}),
            r"needs .* scales, there are \(1,\)",
        ),
        (compressed, lambda t, name: t[scale_of(name)][0].fill_(torch.inf), "not finite"),
        (plain, lambda t, name: t.update({name: t[name].long()}), "is of torch.int64, not torch"),
        (plain, lambda t, name: t.update({name: t[name].bool()}), "is of torch.bool, not torch"),
        (plain, lambda t, name: t.update({name: t[name].char()}), "scales, there are none"),
        (plain, lambda t, name: t.update({scale_of(name): torch.ones(3)}), "no tensor of int8"),
    ],
)
def test_weights_without_a_checksum_are_checked(own_world, kind, change, words):
    name = kind(load_tensors(own_world / WEIGHTS))
    resave(own_world / WEIGHTS, lambda tensors: change(tensors, name))
    told = name.partition(".")[2]
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}.*{told}.*{words}"):
        load_world(own_world)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mlp_width: ", "mlp_width: 65536 #"),
        ("num_layers: ", "num_layers: 128 #"),
        ("text_buckets: ", "text_buckets: 16777216 #"),
        ("word_width: ", "word_width: 65536 #"),
        ("num_heads: ", "num_heads: 4096 #"),
        ("vector_width: ", "vector_width: 65536 #"),
    ],
)
def test_sizes_are_compared_with_the_file_before_anything_is_built(
    own_world, monkeypatch, old, new
):
    path = own_world / "config.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    devices = []
    real = torch.nn.Linear.__init__

    def note(self, *args, **kwargs):
        devices.append(torch.empty(0).device.type)
        real(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Linear, "__init__", note)
    with pytest.raises(CheckpointError, match="does not fit its config"):
        load_world(own_world)
    assert set(devices) == {"meta"}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("latents", lambda t: t[:, :-1].clone(), r"latents must be \(15, 32\)"),
        ("pose", lambda t: t[:, :-1].clone(), r"pose must be \(39,\) float32"),
        ("pose", lambda t: t.double(), r"pose must be .* float64"),
        ("pose", lambda t: t + torch.inf, "pose is not finite"),
        ("audio", lambda t: t * torch.nan, "audio is not finite"),
        ("conditioner.levels", lambda t: t * torch.nan, "levels is not finite"),
    ],
)
def test_start_states_fit_their_world(own_world, name, change, words):
    def change_one(tensors):
        full = f"0001.{name}"
        tensors[full] = change(tensors[full])

    resave(own_world / "start_states.safetensors", change_one)
    with pytest.raises(CheckpointError, match=f"start state 1: {words}"):
        load_world(own_world)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_state_that_is_not_finite_is_refused(tiny_world: World, tmp_path, value):
    env = WorldEnv(tiny_world, backend="torch")
    env.reset(seed=0)
    env.step(2)
    state = env.save_state()
    state.save(tmp_path / "good.safetensors")
    env.restore_state(WorldState.load(tmp_path / "good.safetensors"))
    floats = [name for name, tensor in state.tensors.items() if tensor.is_floating_point()]
    assert any(name.endswith("pose") for name in floats)
    for name in floats:
        if value != value and name in ("pose", "audio"):  # where it means that there is none
            continue
        tensors = {key: tensor.clone() for key, tensor in state.tensors.items()}
        if not tensors[name].numel():
            continue
        tensors[name].view(-1)[0] = value
        WorldState(tensors=tensors, world=state.world).save(tmp_path / "bad.safetensors")
        with pytest.raises(CheckpointError, match=f"bad.safetensors: {name} is not finite"):
            WorldState.load(tmp_path / "bad.safetensors")
