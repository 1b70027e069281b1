import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from midas_world import world as world_module
from midas_world.checkpoint import WEIGHTS_NAME, expand, load_tensors, save_tensors
from midas_world.config import load_preset
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.world_model import WorldModel
from midas_world.types import CheckpointError, StepConditions
from midas_world.world import (
    KeyMap,
    StartState,
    find_world,
    load_start_states,
    load_world,
    save_start_states,
    save_world,
    things_in_view,
)

KEYMAP = KeyMap(
    actions=("idle", "left", "run_left"),
    keys={"run_left": ["left", "left shift"], "left": ["left"]},
)


def make_start_state(seed: int = 0, *, frames: int = 3) -> StartState:
    rng = np.random.default_rng(seed)
    poses, audio = rng.normal(size=(frames, 39)), rng.random((frames, 40))
    conditions = [
        StepConditions(pose=pose, text=f"walking in the snow, frame {index}: schön", audio=heard)
        for index, (pose, heard) in enumerate(
            zip(poses.astype("f4"), audio.astype("f4"), strict=True)
        )
    ]
    # Not every modality is there in every frame.
    conditions[0] = StepConditions(pose=conditions[0].pose)
    conditions[-1] = dataclasses.replace(conditions[-1], audio=None)
    return StartState(
        latents=torch.from_numpy(rng.normal(size=(frames, 15, 32)).astype(np.float32)),
        conditions=tuple(conditions),
        things=np.array([(3, 12.5), (0, -30.0)], np.float32)[:seed],
        conditioner_state={
            "step": np.array(17),
            "x": np.array([1.5, -2.25]),
            "words": np.frombuffer("schön".encode(), np.uint8),
            "flags": np.array([True, False]),
        },
        description="snow forest, night",
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = load_preset("tiny")
    autoencoder, model = Autoencoder(config.world.autoencoder), WorldModel(config.world)
    with torch.no_grad():
        autoencoder.latent_mean.add_(0.123456789)
        model.change_std.mul_(0.987654321)
        model.motion.operators.mul_(0.987654321)
    path = tmp_path_factory.mktemp("worlds") / "tiny"
    save_world(
        path,
        config=config,
        autoencoder=autoencoder,
        model=model,
        start_states=[make_start_state(seed) for seed in range(2)],
        keymap=KEYMAP,
    )
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the world that a test may damage."""
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_world_comes_back_as_it_was_saved(folder: Path):
    world = load_world(folder)
    assert world.config == load_preset("tiny")
    assert world.keymap == KEYMAP
    assert world.folder == folder
    assert len(world.start_states) == 2
    tensors = expand(load_tensors(folder / "weights.safetensors"))
    for prefix, module in (("autoencoder.", world.autoencoder), ("model.", world.model)):
        assert not module.training
        for name, tensor in module.state_dict().items():
            assert tensor.dtype == torch.float32
            assert not tensor.requires_grad
            assert torch.equal(tensor, tensors[prefix + name].float()), name
    # Standardisation and moving keep full precision.
    assert world.autoencoder.latent_mean[0].item() == np.float32(0.123456789)
    assert world.model.change_std[0].item() == np.float32(0.987654321)
    assert world.model.motion.operators.max().item() == np.float32(0.987654321)


def test_saving_what_was_loaded_gives_the_same_weights(folder: Path, tmp_path: Path):
    world = load_world(folder)
    save_world(
        tmp_path / "again",
        config=world.config,
        autoencoder=world.autoencoder,
        model=world.model,
        start_states=world.start_states,
        keymap=world.keymap,
    )
    for name in ("weights.safetensors", "config.yaml", "keymap.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    first = load_tensors(folder / "start_states.safetensors")
    second = load_tensors(tmp_path / "again" / "start_states.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_start_states_come_back_with_what_is_absent_and_how_the_conditioner_stood(tmp_path: Path):
    states = [make_start_state(0, frames=4), make_start_state(1)]
    save_start_states(states, tmp_path / "states.safetensors")
    found = load_start_states(tmp_path / "states.safetensors")
    for state, loaded in zip(states, found, strict=True):
        torch.testing.assert_close(loaded.latents, state.latents, rtol=1e-3, atol=1e-3)
        assert loaded.description == state.description
        assert loaded.things.dtype == np.float32
        np.testing.assert_array_equal(loaded.things, state.things)
        for before, after in zip(state.conditions, loaded.conditions, strict=True):
            assert after.text == before.text
            np.testing.assert_equal(after.pose, before.pose)
            np.testing.assert_equal(after.audio, before.audio)
        assert loaded.conditioner_state.keys() == state.conditioner_state.keys()
        for name, value in state.conditioner_state.items():
            assert loaded.conditioner_state[name].dtype == value.dtype
            assert loaded.conditioner_state[name].shape == value.shape
            np.testing.assert_array_equal(loaded.conditioner_state[name], value)


@pytest.mark.parametrize(
    ("things", "message"),
    [
        (np.zeros((2, 3), np.float32), r"things must be \(2, 2\) float32, got \(2, 3\)"),
        (np.array([(7, 0)], np.float32), "start state 0: no classes of this world's"),
        (np.array([(-1, 0)], np.float32), "start state 0: no classes of this world's"),
        (np.array([(1, np.nan)], np.float32), "things is not finite"),
    ],
)
def test_things_that_no_code_can_tell_are_a_checkpoint_error(copy: Path, things, message):
    state = dataclasses.replace(make_start_state(), things=things)
    save_start_states([state], copy / "start_states.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_world(copy)


def test_things_in_view_are_told_from_the_middle():
    listed = np.full((5, 6), -1.0, np.float32)
    listed[0, :3], listed[2, :3], listed[3, :3] = (2, 79, 30), (0, 0.5, 30), (6, 80, 30)
    np.testing.assert_array_equal(things_in_view(listed, width=80), [[2, 39], [0, -39.5]])
    assert things_in_view(np.zeros((0, 6), np.float32), width=80).shape == (0, 2)


def test_sizes_of_strangers_worlds_alone_are_checked_before_they_are_built(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The check makes torch load its compiler: two seconds of CPU time at every start."""
    checked = []
    monkeypatch.setattr(world_module, "check_header", lambda path, own: checked.append(path))
    load_world(folder)
    assert checked == [folder / WEIGHTS_NAME]
    shutil.copytree(folder, tmp_path / "ours")
    monkeypatch.setattr(world_module, "WORLDS_FOLDER", tmp_path)
    monkeypatch.setattr(world_module, "WORLD_PLACES", (tmp_path,))
    load_world("ours")
    load_world(tmp_path / "ours")
    assert checked == [folder / WEIGHTS_NAME]


def test_an_unknown_world_names_those_there_are():
    with pytest.raises(CheckpointError, match=r"no world 'atlantis'.*shipped"):
        find_world("atlantis")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("weights.safetensors", None),
        ("weights.safetensors", "no tensors"),
        ("start_states.safetensors", None),
        ("start_states.safetensors", "no tensors"),
        ("keymap.yaml", None),
        ("keymap.yaml", "actions: [idle]\nkeys: {fly: [space]}"),
        ("keymap.yaml", "- idle"),
        ("config.yaml", None),
        ("config.yaml", "world: {height: ["),
        ("config.yaml", "unknown: 3"),
    ],
)
def test_a_missing_or_broken_file_is_a_checkpoint_error_that_names_the_folder(copy, name, text):
    if text is None:
        (copy / name).unlink()
    else:
        (copy / name).write_text(text)
    with pytest.raises(CheckpointError, match="copy"):
        load_world(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.places"), "missing key model.places"),
        (lambda t: t.update({"model.extra": torch.zeros(1)}), "unknown key model.extra"),
        (lambda t: t.update({"extra": torch.zeros(1)}), "unknown key extra"),
        (lambda t: t.update({"autoencoder.latent_std": torch.zeros(3)}), "latent_std has shape"),
    ],
)
def test_weights_that_do_not_fit_are_a_checkpoint_error(copy: Path, change, message):
    tensors = load_tensors(copy / "weights.safetensors")
    change(tensors)
    save_tensors(tensors, copy / "weights.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_world(copy)


def test_start_states_without_latents_are_a_checkpoint_error(copy: Path):
    path = copy / "start_states.safetensors"
    tensors = load_tensors(path)
    save_tensors(tensors, path)  # the words are lost
    with pytest.raises(CheckpointError, match="start_states"):
        load_world(copy)
    save_start_states([make_start_state()], path)
    metadata = {"start_states": '[{"description": "", "texts": ["a"], "present": {}}]'}
    save_tensors({"0000.latents": torch.zeros(1, 15, 32)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="not all of them: KeyError 'pose'"):
        load_world(copy)
