"""Measuring worlds: times and their parts, frames against float32's, the command, both reports."""

import json
import math
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine import TorchEngine
from engine.bench import run
from engine.bench.quality import conditions_of, measure_quality, quality_result
from engine.bench.run import BenchConfig, bench
from engine.bench.subject import Subject, preset_subject
from engine.bench.timing import time_parts
from midas_world.commands import cli
from midas_world.config import load_preset
from midas_world.types import BackendUnavailableError
from midas_world.world import World
from tests.fakes import FakeEngine, make_start_state

CPU = torch.device("cpu")
PARTS = ["backbone", "head", "decoder"]


def subject_of(world: World) -> Subject:
    return Subject(name="tiny", config=world.config.world, weights="", make=lambda _: world)


def test_the_command_measures_speed_and_quality_and_writes_both_files(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(
        run, "make_engine", lambda world, *_, **__: TorchEngine(world, dtype=torch.bfloat16)
    )
    words = ["bench", "--world", str(tiny_folder), "--batches", "2", "1", "--steps", "2"]
    words += ["--quality", "2", "--device", "cpu", "--output", str(tmp_path)]
    assert cli.main(words) == 0
    report = json.loads((tmp_path / "bench.json").read_text())
    [result] = report["results"]
    assert report["subject"]["weights"] == "of the world 'tiny'"
    assert [row["batch_size"] for row in result["batches"]] == [1, 2]
    for row in result["batches"]:
        assert row["frames_per_s"] == pytest.approx(1e3 * row["batch_size"] / row["median_ms"])
        assert row["peak_mib"] > 10
    medians = {row["part"]: row["median_ms"] for row in result["parts"]}
    assert list(medians) == [*PARTS, "the rest", "whole step"]
    *parts, whole = medians.values()
    assert sum(parts) == pytest.approx(whole) == result["batches"][0]["median_ms"]
    quality = result["quality"]
    assert (quality["num_steps"], quality["num_games"]) == (2, 3)
    assert all(25 < quality[name] < 90 for name in ("decoder", "rollout", "last_step"))
    markdown = (tmp_path / "bench.md").read_text()
    assert markdown.strip() == capsys.readouterr().out.strip()
    for row, key in (
        ("decoder: frames of equal latents", "decoder"),
        ("rollout: mean of steps 1 to 2", "rollout"),
        ("rollout: step 2", "last_step"),
    ):
        assert f"| {row} | {quality[key]:.1f} |" in markdown
    assert "torch float32 on cpu, 1 denoise steps, over 3 start states" in markdown


def test_parts_are_those_of_a_step_and_leave_the_engine_as_it_was(
    tiny_world: World, kept_graphs: Path
):
    engines = [TorchEngine(tiny_world, device="cpu")]
    if pytest.importorskip("onnxruntime") and pytest.importorskip("onnxscript"):
        from engine.on_onnx.engine import OnnxEngine

        engines.append(OnnxEngine(tiny_world, num_threads=1, folder=kept_graphs))
    for engine in engines:
        own = dict(vars(engine)), [dict(vars(s)) for s in getattr(engine, "_sessions", {}).values()]
        times = time_parts(engine, tiny_world.start_states[0], batch_size=2, num_steps=3)
        assert list(times) == PARTS
        assert all(len(part) == 3 and min(part) > 0 for part in times.values())
        after = [dict(vars(s)) for s in getattr(engine, "_sessions", {}).values()]
        assert own == (vars(engine), after)


def test_what_is_too_large_for_a_cpu_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "MAX_CPU_PARAMETERS", 1000)

    def make(_: torch.device) -> World:
        raise AssertionError("its weights must not be made")

    config = load_preset("tiny").world
    subject = Subject(name="large", config=config, weights="random", make=make)
    report = bench(subject, BenchConfig(device="cpu"), tmp_path)
    assert report["results"][0]["status"] == "unavailable"
    assert "parameters need a GPU" in (tmp_path / "bench.md").read_text()
    counts = report["subject"]["part_parameters"]
    assert all(counts.values())


def test_a_backend_that_cannot_run_is_told_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def make_engine(world: World, backend: str, **_):
        if backend == "tensorrt":
            raise BackendUnavailableError("install the extra")
        return FakeEngine(world.config.world)

    monkeypatch.setattr(run, "make_engine", make_engine)
    monkeypatch.delattr(run, "quality_result")  # it was not asked for
    config = BenchConfig(backends=("tensorrt", "onnx"), batch_sizes=(1,), num_steps=1, device="cpu")
    report = bench(preset_subject("tiny"), config, tmp_path)
    assert [result["status"] for result in report["results"]] == ["unavailable", "measured"]
    assert "**Not measured**: install the extra" in (tmp_path / "bench.md").read_text()
    assert [row["part"] for row in report["results"][1]["parts"]] == ["whole step"]


def test_more_games_than_memory_holds_end_the_series(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Full(FakeEngine):
        def new_cache(self, batch_size: int):
            if batch_size > 1:
                raise torch.OutOfMemoryError("no room")
            return super().new_cache(batch_size)

    monkeypatch.setattr(run, "make_engine", lambda world, *_, **__: Full(world.config.world))
    config = BenchConfig(batch_sizes=(1, 2, 4), num_steps=1, device="cpu")
    [result] = bench(subject_of(tiny_world), config, tmp_path)["results"]
    assert [row["reason"] for row in result["batches"]] == ["", "out of GPU memory"]
    assert "| 2 | out of GPU memory |" in (tmp_path / "bench.md").read_text()


def test_a_preset_without_a_world_says_that_its_weights_are_random():
    subject, before = preset_subject("tiny"), torch.get_rng_state()
    assert subject.weights == "random: the preset has no trained world"
    world, again = subject.make(CPU), subject.make(CPU)
    first = world.model.state_dict()
    for name, tensor in again.model.state_dict().items():
        torch.testing.assert_close(tensor, first[name], rtol=0, atol=0)
    # Training starts these at zero.
    assert world.model.head.hidden.weight.abs().min() > 0
    assert len(world.start_states[0].latents) == subject.config.backbone.context_frames
    assert torch.equal(torch.get_rng_state(), before)


def test_a_preset_takes_the_weights_of_the_shipped_world_of_its_sizes(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("engine.bench.subject.WORLDS_FOLDER", tiny_folder.parent)
    assert preset_subject("tiny").weights == "of the world 'tiny'"
    other = load_preset("tiny", ["world.backbone.num_layers=1"])
    monkeypatch.setattr("engine.bench.subject.load_preset", lambda _: other)
    assert "the shipped world 'tiny' has other sizes" in preset_subject("tiny").weights


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "jax"], "auto"),
        (["--batches", "0"], "at least 1, got '0'"),
        (["--steps", "0"], "at least 1, got '0'"),
        (["--quality", "-3"], "expected one argument|at least 0"),
        (["--preset", "papre"], "no preset 'papre'; did you mean 'paper'"),
        (["--world", "stgae"], "no world 'stgae'"),
    ],
)
def test_command_says_what_is_wrong(words, message, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) if words[0] not in ("--preset", "--world") else nullcontext():
        assert cli.main(["bench", *words]) == 2
    assert re.search(message, capsys.readouterr().err)


# Frames against float32's


def test_float32_torch_is_equal_to_itself(tiny_world: World):
    engine = TorchEngine(tiny_world, device="cpu", dtype=torch.float32, num_denoise_steps=2)
    result = quality_result(engine, tiny_world, num_steps=2)
    assert result["reason"] == ""
    assert result["decoder"] == result["rollout"] == result["last_step"] > 100
    # The reference takes as many denoise steps as the engine, not as the world.
    assert result["reference"] == "torch float32 on cpu, 2 denoise steps"


def test_closeness_is_the_mean_of_frames(tiny_world: World):
    class WrongAtTimes(FakeEngine):
        """Grey, but for so many levels in its frames, one after another."""

        levels = iter([1, 1, 8, 2, 4, 2, 4, 2, 2])

        def decode(self, latents: Tensor) -> np.ndarray:
            level = next(self.levels) if self is tested else 0
            return np.full((len(latents), *self.spec.frame_shape), 100 + level, np.uint8)

    config = tiny_world.config.world
    tested, reference = WrongAtTimes(config), WrongAtTimes(config)
    found = measure_quality(tested, reference, tiny_world.start_states, num_steps=2)

    def mean(*levels: float) -> object:
        values = [20 * math.log10(255 / level) for level in levels]
        return pytest.approx(sum(values) / len(values), abs=1e-4)

    # Per game: one frame of the decoder alone, then those of its steps.
    assert found == {
        "num_games": 3,
        "decoder": mean(1, 2, 4),
        "rollout": mean(1, 8, 4, 2, 2, 2),
        "last_step": mean(8, 2, 2),
    }
    with pytest.raises(ValueError, match="needs a start state"):
        measure_quality(tested, reference, [], num_steps=1)


def test_each_engine_feeds_on_its_own_latents_with_the_same_noise(tiny_world: World):
    class Watched(FakeEngine):
        def __init__(self, config, *, shift: float) -> None:
            super().__init__(config)
            self.shift = shift
            self.given: list[tuple[Tensor, Tensor, Tensor]] = []
            self.made: list[Tensor] = []

        def step(self, cache, latents, conditions, noise):
            self.given.append((latents.clone(), conditions.pose.clone(), noise.clone()))
            made = super().step(cache, latents, conditions, noise)
            self.made.append(made.latents + self.shift)
            return made._replace(latents=self.made[-1])

        def decode(self, latents: Tensor) -> np.ndarray:
            whole.add((self.shift, torch.backends.cudnn.allow_tf32))
            return super().decode(latents)

    whole: set[tuple[float, bool]] = set()
    config = tiny_world.config.world
    config = replace(config, head=replace(config.head, temperature=1.0))
    tested, reference = Watched(config, shift=0.5), Watched(config, shift=0.0)
    measure_quality(tested, reference, tiny_world.start_states[:1], num_steps=3)
    for engine in (tested, reference):
        assert torch.equal(engine.given[0][0], tiny_world.start_states[0].latents[-1:].float())
        for made, (latents, *_) in zip(engine.made, engine.given[1:], strict=False):
            assert torch.equal(latents, made)
    assert not torch.equal(tested.given[1][0], reference.given[1][0])
    for (_, pose, noise), (_, other_pose, other_noise) in zip(
        tested.given, reference.given, strict=True
    ):
        assert torch.equal(pose, other_pose)
        assert torch.equal(noise, other_noise)
    assert not torch.equal(tested.given[0][2], tested.given[1][2])
    assert whole == {(0.5, True), (0.0, False)}  # the reference alone keeps float32 whole


def test_conditions_go_back_and_forth_over_a_start_state():
    start = make_start_state(load_preset("tiny").world, 0)
    first, second, third = start.conditions
    assert conditions_of(start, 6) == [second, first, second, third, second, first]
    alone = replace(start, latents=start.latents[-1:], conditions=(third,))
    assert conditions_of(alone, 2) == [third, third]


def test_a_reference_that_memory_does_not_hold_is_told(tiny_world: World):
    class Full(FakeEngine):
        def decode(self, latents: Tensor) -> np.ndarray:
            raise torch.OutOfMemoryError("no room")

    result = quality_result(Full(tiny_world.config.world), tiny_world, num_steps=1)
    assert result == {"reason": "the GPU's memory does not hold float32 torch beside the engine"}


@pytest.mark.gpu
def test_a_gpu_times_parts_and_tells_its_memory(tmp_path: Path):
    config = BenchConfig(batch_sizes=(1,), num_steps=2, device="cuda")
    [result] = bench(preset_subject("tiny"), config, tmp_path)["results"]
    assert result["batches"][0]["gpu_peak_mib"] > 0
    times = {row["part"]: row["median_ms"] for row in result["parts"]}
    assert all(times[part] > 0 for part in PARTS)
