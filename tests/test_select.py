"""How a backend and its precision are chosen: by measuring once, and remembering."""

import itertools
from functools import partial
from pathlib import Path

import pytest
import torch

from engine import backends, make_engine, select
from engine.backends import Request
from engine.select import measure_steps
from engine.torch_engine import TorchEngine
from midas_world.types import BackendUnavailableError
from midas_world.world import World


@pytest.mark.parametrize("takes_turns", [True, False])
def test_measuring_plays_the_engines(tiny_world: World, takes_turns: bool):
    class Counting(TorchEngine):
        def step(self, *given):
            order.append(self.spec.dtype)
            return super().step(*given)

    order: list[str] = []
    makers = {
        name: partial(Counting, tiny_world, device="cpu", dtype=getattr(torch, name))
        for name in ("float32", "bfloat16")
    }
    times = measure_steps(makers, tiny_world, takes_turns=takes_turns)
    assert list(times) == ["float32", "bfloat16"]
    assert all(0.0 < time < 10.0 for time in times.values())
    rounds = [name for name, _ in itertools.groupby(order)]
    assert rounds == ["float32", "bfloat16"] * (5 if takes_turns else 1)


def test_torch_takes_the_precision_that_is_fastest_and_remembers(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(backends, "native_dtypes", lambda _: (torch.bfloat16, torch.float32))
    rounds = []

    def fake(candidates, world, *, takes_turns: bool) -> dict[str, float]:
        rounds.append(list(candidates))
        return {"torch bfloat16": 0.004, "torch float32": 0.003}

    monkeypatch.setattr(select, "measure_steps", fake)
    for _ in range(2):
        engine = make_engine(tiny_world, "torch", device="cpu", folder=tmp_path)
        assert (engine.spec.backend, engine.spec.dtype) == ("torch", "float32")
        assert "torch float32 3.0 ms, torch bfloat16 4.0 ms" in engine.spec.reason
    assert rounds == [["torch bfloat16", "torch float32"]]


def test_a_choice_that_cannot_be_kept_is_told(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
):
    monkeypatch.setattr(backends, "native_dtypes", lambda _: (torch.bfloat16, torch.float32))
    (tmp_path / "choices").write_text("a file where a folder should be")
    engine = make_engine(tiny_world, "torch", device="cpu", folder=tmp_path)
    assert engine.spec.backend == "torch"
    assert "the choice is not remembered" in caplog.text


def test_request_knows_the_cpu(tiny_world: World, tmp_path: Path):
    sizes = {"world": tiny_world, "num_denoise_steps": None, "folder": tmp_path}
    assert Request(device="cpu", **sizes).is_cpu
    assert not Request(device="cuda:0", **sizes).is_cpu


def test_what_was_compiled_once_joins_what_auto_measures(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(TorchEngine, "_compile", lambda engine: None)  # it takes half a minute
    monkeypatch.setattr(backends, "native_dtypes", lambda _: (torch.float32,))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    rounds = []

    def fake(candidates, world, *, takes_turns: bool) -> dict[str, float]:
        rounds.append(list(candidates))
        return {"torch float32": 0.004, "torch-compile": 0.003}

    monkeypatch.setattr(select, "measure_steps", fake)
    asked = {"device": "cpu", "folder": tmp_path}
    assert make_engine(tiny_world, **asked).spec.backend == "torch"
    assert make_engine(tiny_world, "torch-compile", **asked).spec.backend == "torch-compile"
    assert rounds == []
    assert make_engine(tiny_world, **asked).spec.backend == "torch-compile"
    assert rounds == [["torch float32", "torch-compile"]]
    # Another number of denoise steps is another program.
    assert make_engine(tiny_world, num_denoise_steps=3, **asked).spec.backend == "torch"


def test_without_a_compiler_torch_compile_says_so(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def decode(engine, latents):
        raise RuntimeError("no compiler\nand a long trace")

    monkeypatch.setattr(TorchEngine, "_compile", lambda engine: None)
    monkeypatch.setattr(TorchEngine, "decode", decode)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    with pytest.raises(BackendUnavailableError, match=r"\(no compiler\); use backend='torch'"):
        make_engine(tiny_world, "torch-compile", device="cpu", folder=tmp_path)
    assert not list(tmp_path.rglob("*.ready"))
