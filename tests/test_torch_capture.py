"""Tensors that move side by side between host and device."""

import pytest
import torch

from engine.on_torch.capture import Pack
from tests.graphs import StandIn


def test_a_pack_moves_all_its_tensors_at_once():
    layout = {
        "bits": ((3,), torch.bool),
        "none": ((2, 0), torch.float32),
        "numbers": ((2, 2), torch.int64),
    }
    pack = Pack(StandIn(), layout)
    given = {
        "bits": torch.tensor([True, False, True]),
        "none": torch.zeros(2, 0),
        "numbers": torch.arange(4).view(2, 2),
    }
    pack.fill(given)
    assert not pack.device["numbers"].any()
    pack.upload()
    for name, tensor in given.items():
        assert torch.equal(pack.device[name], tensor)
    pack.device["numbers"].neg_()
    pack.download()
    assert torch.equal(pack.host["numbers"], -given["numbers"])


def test_a_part_of_a_pack_moves_alone_in_the_same_memory():
    sizes = dict.fromkeys("abcd", ((3,), torch.float32))
    pack = Pack(StandIn(), sizes)
    part = pack.between("b", "c")
    assert list(part.host) == ["b", "c"]
    pack.fill({name: torch.full((3,), float(ord(name))) for name in "abcd"})
    assert part.holds({"b": torch.full((3,), 98.0)})
    assert not part.holds({"b": torch.full((3,), 98.0), "c": torch.zeros(3)})
    part.upload()
    assert [tensor[0] for tensor in pack.device.values()] == [0, 98, 99, 0]
    with pytest.raises(ValueError, match=r"c must have shape \(3,\), got \(2,\)"):
        part.fill({"b": torch.zeros(3), "c": torch.zeros(2)})
    assert part.holds({"b": torch.full((3,), 98.0)})
    last = part.between("c", "c")
    last.device["c"].zero_()
    last.download()
    assert [tensor[0] for tensor in pack.host.values()] == [97, 98, 0, 100]
