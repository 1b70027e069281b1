"""How a backend and its precision are chosen: by measuring once, and remembering."""

import itertools
from functools import partial

import pytest
import torch

from engine import backends, make_engine, select
from engine.on_torch.engine import TorchEngine
from engine.select import TURNS, measure_in_turns, measure_one_by_one
from midas_world.world import World


@pytest.fixture(autouse=True)
def two_precisions(monkeypatch):
    """Let this machine compute in both."""
    monkeypatch.setattr(backends, "native_dtypes", lambda _: (torch.bfloat16, torch.float32))


@pytest.mark.parametrize(
    ("measure", "num_rounds"), [(measure_in_turns, TURNS + 1), (measure_one_by_one, 1)]
)
def test_measuring_plays_the_engines(tiny_world: World, measure, num_rounds: int):
    class Counting(TorchEngine):
        def step(self, *given):
            order.append(self.spec.dtype)
            return super().step(*given)

    order: list[str] = []
    makers = {
        name: partial(Counting, tiny_world, device="cpu", dtype=getattr(torch, name))
        for name in ("float32", "bfloat16")
    }
    times = measure(makers, tiny_world)
    assert list(times) == ["float32", "bfloat16"]
    assert all(0.0 < time < 10.0 for time in times.values())
    assert [name for name, _ in itertools.groupby(order)] == list(makers) * num_rounds


def test_torch_takes_the_precision_that_is_fastest_and_remembers(tiny_world, tmp_path, monkeypatch):
    rounds = []

    def fake(candidates, world) -> dict[str, float]:
        rounds.append(list(candidates))
        return {"torch bfloat16": 0.004, "torch float32": 0.003}

    monkeypatch.setattr(select, "measure_in_turns", fake)
    for _ in range(2):
        engine = make_engine(tiny_world, "torch", device="cpu", folder=tmp_path)
        assert (engine.spec.backend, engine.spec.dtype) == ("torch", "float32")
        assert "torch float32 3.0 ms, torch bfloat16 4.0 ms" in engine.spec.reason
    assert rounds == [["torch bfloat16", "torch float32"]]
    # A precision that is named is not a question.
    named = make_engine(tiny_world, "torch:bfloat16", device="cpu", folder=tmp_path)
    assert (named.spec.dtype, named.spec.reason) == ("bfloat16", "as asked")
    assert len(rounds) == 1


@pytest.mark.parametrize("backend", ["torch:float8", "auto:float32", "onnx:float32"])
def test_a_precision_that_cannot_be_named_is_told(tiny_world: World, backend: str):
    with pytest.raises(ValueError, match=rf"one of bfloat16, float32; got {backend}"):
        make_engine(tiny_world, backend)


def test_of_several_processes_the_first_to_measure_has_the_word(tiny_world, tmp_path, monkeypatch):
    slow, fast = {"torch bfloat16": 0.004}, {"torch float32": 0.003}

    def first(candidates, world) -> dict[str, float]:
        return slow | fast

    def second(candidates, world) -> dict[str, float]:
        # While this one measures, the other one makes its choice.
        monkeypatch.setattr(select, "measure_in_turns", first)
        assert make_engine(tiny_world, "torch", folder=tmp_path).spec.dtype == "float32"
        return {"torch bfloat16": 0.001, "torch float32": 0.003}

    monkeypatch.setattr(select, "measure_in_turns", second)
    assert make_engine(tiny_world, "torch", folder=tmp_path).spec.dtype == "float32"


def test_a_choice_that_cannot_be_kept_is_told(tiny_world, tmp_path, monkeypatch, caplog):
    (tmp_path / "choices").write_text("a file where a folder should be")
    engine = make_engine(tiny_world, "torch", device="cpu", folder=tmp_path)
    assert engine.spec.backend == "torch"
    assert "not kept" in caplog.text
    assert str(tmp_path / "choices") in caplog.text
