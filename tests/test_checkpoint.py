import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from midas_world.checkpoint import (
    compress,
    expand,
    load_metadata,
    load_tensors,
    load_weights,
    save_tensors,
    tensors_hash,
)
from midas_world.types import CheckpointError


def make_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "layer.weight": torch.randn(3, 4, generator=generator),
        "layer.bias": torch.randn(3, generator=generator).bfloat16(),
        "count": torch.tensor(7),
    }


def test_tensors_and_metadata_come_back_exactly(tmp_path: Path):
    path = tmp_path / "deep" / "file.safetensors"
    tensors = make_tensors()
    save_tensors(tensors, path, metadata={"made": "here"})
    loaded = load_tensors(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert load_metadata(path) == {"made": "here"}
    assert [file.name for file in path.parent.iterdir()] == ["file.safetensors"]


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such modes")
def test_files_are_readable_as_other_files_are(tmp_path: Path):
    (tmp_path / "other").touch()
    save_tensors({"a": torch.zeros(2)}, tmp_path / "weights.safetensors")
    mode = (tmp_path / "weights.safetensors").stat().st_mode
    assert mode == (tmp_path / "other").stat().st_mode


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "file.safetensors"
    save_tensors(make_tensors(), path)
    before = path.read_bytes()
    shared = torch.zeros(4)
    with pytest.raises(RuntimeError):  # safetensors refuses two names of one storage
        save_tensors({"a": shared, "b": shared}, path)
    assert path.read_bytes() == before


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no weights at .*absent"):
        load_tensors(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="absent"):
        load_metadata(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_file_is_a_checkpoint_error(tmp_path: Path, share):
    path = tmp_path / "cut.safetensors"
    save_tensors(make_tensors(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="truncated or corrupt"):
        load_tensors(path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool])
def test_a_flipped_bit_is_a_checkpoint_error(tmp_path: Path, dtype):
    path = tmp_path / "weights.safetensors"
    save_tensors({"weight": torch.ones(3, 5).to(dtype), "count": torch.tensor(2)}, path)
    load_tensors(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"weights.safetensors is corrupt: its values"):
        load_tensors(path)


def test_weights_of_others_have_no_checksum_and_load(tmp_path: Path):
    save_file({"weight": torch.ones(3)}, tmp_path / "model.safetensors")
    loaded = load_tensors(tmp_path / "model.safetensors")
    torch.testing.assert_close(loaded["weight"], torch.ones(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("0.bias"), r"missing key 0\.bias"),
        (lambda t: t.update({"9.bias": torch.zeros(1)}), r"unknown key 9\.bias"),
        (
            lambda t: t.update({"0.weight": torch.zeros(3, 5)}),
            r"weight has shape \(3, 5\), not \(3",
        ),
        (lambda t: t.update({"0.weight": torch.zeros(12)}), r"0\.weight has shape"),
    ],
)
def test_weights_that_do_not_fit_change_nothing(change, message):
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    others = {name: tensor + 1 for name, tensor in before.items()}
    change(others)
    words = rf"run-7 does not fit its config: .*{message}.*1 in all"
    with pytest.raises(CheckpointError, match=words):
        load_weights(module, others, source="run-7")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_hash_changes_with_any_name_shape_or_value():
    tensors = make_tensors()
    first = tensors_hash(tensors)
    assert first == tensors_hash(dict(reversed(make_tensors().items())))
    others = [
        tensors | {"count": torch.tensor(8)},
        tensors | {"layer.weight": tensors["layer.weight"].view(4, 3)},
        {name.upper(): tensor for name, tensor in tensors.items()},
    ]
    assert len({first, *map(tensors_hash, others)}) == 4
    assert len(first) == 16


def test_compressed_weights_come_back_within_half_a_scale():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 72, generator=generator) * torch.logspace(-3, 1, 64)[:, None]
    bias, zero = torch.randn(64, generator=generator), torch.zeros(64, 64)
    packed = compress({"weight": weight, "bias": bias, "zero": zero})
    assert packed["weight"].dtype == torch.int8
    back = expand(packed)
    assert list(back) == ["weight", "bias", "zero"]
    half = weight.flatten(1).abs().amax(dim=1) / 254
    assert ((back["weight"] - weight).flatten(1).abs().amax(dim=1) <= half * 1.01).all()
    assert torch.equal(back["bias"], bias)
    assert torch.equal(back["zero"], zero)
    again = compress(back)
    assert all(torch.equal(again[name], packed[name]) for name in packed)


def test_convolutions_and_tables_become_half_as_large_and_come_back_as_float32():
    table = torch.randn(3, 2, 40, 30, generator=torch.Generator().manual_seed(0))
    packed = compress({"layer.weight": table})
    assert packed["layer.weight"].dtype == torch.float16
    back = expand(packed)["layer.weight"]
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, table, rtol=1e-3, atol=1e-3)
