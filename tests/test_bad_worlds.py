"""What is wrong with a world or a saved state, weights or sizes, is told by its name."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from envs.world.env import WorldEnv
from envs.world.state import WorldState
from midas_world.checkpoint import load_tensors
from midas_world.config import load_preset
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
    ("override", "words"),
    [
        ("backbone.mlp_width=1000000000", "mlp_width must be 1 to 65536"),
        ("backbone.num_layers=1000000000", "num_layers must be 1 to 128"),
        ("backbone.context_frames=1000000000", "are too many"),
        ("conditions.text_buckets=1000000000", "text_buckets must be 1 to"),
        ("conditions.pose_size=1000000000", "pose_size must be 0 to"),
        ("conditions.camera.loop=1000000000", "loop must be 1 to"),
        ("autoencoder.encoder_depths=[1000000000,1]", "encoder_depths must be 0 to 128"),
        ("autoencoder.latent_channels=1000000000", "latent_channels must be 1 to"),
        ("head.widths=[8,1000000000]", "widths must be 1 to"),
        ("motion.reach=1000000000", "reach must be 0 to 256"),
        ("entries.columns=1000000000", "columns must be 1 to"),
        ("scenery.layers.ground.slots=1000000000", "slots must be 1 to"),
        ("scenery.width=1000000000", "width must be 0 to"),
        ("scenery.windows.character.widths=[8,1000000000]", "widths must be 1 to"),
        ("height=65520", "height times width must be at most"),
        ("reward_bins=1000000000", "reward_bins must be 2 to"),
        ("noise_buckets=1000000000", "noise_buckets must be 1 to"),
        ("backbone.num_heads=-4", "num_heads must be 1 to"),
        ("backbone.num_kv_heads=0", "num_kv_heads must be 1 to"),
        ("reward_limit=.inf", "reward_limit must be finite"),
        ("head.temperature=.nan", "temperature must be at least 0, got nan"),
        ("motion.parallax=[.nan]", "parallax must be finite"),
    ],
)
def test_sizes_have_limits(override, words):
    base = ["world.autoencoder.widths=[16,16]"] if "encoder_depths" in override else []
    with pytest.raises(ValueError, match=words):
        load_preset("tiny", [*base, f"world.{override}"])


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
