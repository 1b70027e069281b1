"""Measuring worlds: times of the parts, the command, what cannot run, and both reports."""

import json
from pathlib import Path

import pytest
import torch

from engine import TorchEngine
from engine.bench import run, timing
from engine.bench.report import write_report
from engine.bench.run import BenchConfig, bench
from engine.bench.subject import Subject, preset_subject, random_world, world_subject
from midas_world.commands import cli
from midas_world.config import load_preset
from midas_world.machine import num_cores
from midas_world.types import BackendUnavailableError, CheckpointError
from midas_world.world import World
from tests.fakes import FakeEngine

CPU = torch.device("cpu")
PARTS = ["copies", "conditions", "backbone", "guidance", "head", "outcome", "decoder"]


def subject_of(world: World) -> Subject:
    return Subject(name="tiny", config=world.config.world, weights="", make=lambda _: world)


def test_timing_parts_leaves_the_engine_as_it_was(tiny_world: World):
    engine = TorchEngine(tiny_world, device="cpu")
    own = dict(vars(engine)), dict(vars(engine._model.backbone))
    start = tiny_world.start_states[0]
    times = timing.time_parts(engine, start, batch_size=2, num_steps=3)
    assert list(times) == PARTS
    assert {len(values) for values in times.values()} == {3}
    assert own == (vars(engine), vars(engine._model.backbone))


def test_a_stopwatch_adds_up_parts_of_one_name(monkeypatch: pytest.MonkeyPatch):
    ticks = iter((1.0, 1.5, 3.5, 3.75, 10.0, 11.0))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
    mark = timing.Stopwatch(CPU)
    for part in ("", "copies", "head", "copies"):
        mark(part)
    assert mark.take() == {"copies": 750.0, "head": 2000.0}
    mark("")
    mark("head")
    assert mark.take() == {"head": 1000.0}


def test_the_command_measures_a_world_and_writes_both_files(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = ["bench", "--world", str(tiny_folder), "--batches", "2", "1", "--steps", "2"]
    assert cli.main([*words, "--device", "cpu", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "bench.json").read_text())
    [result] = report["results"]
    assert report["subject"]["weights"] == "of the world 'tiny'"
    assert [row["batch_size"] for row in result["batches"]] == [1, 2]
    for row in result["batches"]:
        assert row["frames_per_s"] == pytest.approx(
            1e3 * row["batch_size"] / row["time"]["median_ms"]
        )
        assert row["peak_mib"] > 10
    rows = {row["part"]: row for row in result["parts"]}
    assert list(rows) == [*PARTS, "Python and the rest", "whole step"]
    medians = [row["time"]["median_ms"] for row in rows.values()]
    assert sum(medians[:-1]) == pytest.approx(medians[-1])
    assert rows["whole step"]["time"] == result["batches"][0]["time"]
    for word in ("torch", "1 denoise step", "48x80", f"{torch.get_num_threads()} threads"):
        assert word in result["conditions"]
    markdown = (tmp_path / "bench.md").read_text()
    assert markdown.strip() == capsys.readouterr().out.strip()
    assert "| decoder |" in markdown
    assert f"{num_cores()} cores" in markdown


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
    assert report["subject"]["num_parameters"] == sum(counts.values())


def test_a_backend_that_cannot_run_is_told_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def make_engine(world: World, backend: str, **options):
        if backend == "tensorrt":
            raise BackendUnavailableError("install the extra")
        return FakeEngine(world.config.world)

    monkeypatch.setattr(run, "make_engine", make_engine)
    config = BenchConfig(backends=("tensorrt", "onnx"), batch_sizes=(1,), num_steps=1, device="cpu")
    report = bench(preset_subject("tiny"), config, tmp_path)
    assert [result["status"] for result in report["results"]] == ["unavailable", "measured"]
    assert "**Not measured**: install the extra" in (tmp_path / "bench.md").read_text()
    assert [row["part"] for row in report["results"][1]["parts"]] == ["whole step"]


def test_graphs_are_clocked_in_whole_steps(
    tiny_world: World, kept_graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from engine.on_onnx.engine import OnnxEngine

    engine = OnnxEngine(tiny_world, num_threads=1, folder=kept_graphs)
    sessions = engine._sessions
    monkeypatch.setattr(run, "make_engine", lambda *_, **__: engine)
    config = BenchConfig(backends=("onnx",), batch_sizes=(1,), num_steps=3, device="cpu")
    [result] = bench(subject_of(tiny_world), config, tmp_path)["results"]
    assert engine._sessions is sessions
    times = {row["part"]: row["time"]["median_ms"] for row in result["parts"]}
    assert list(times) == [*sessions, "Python and the rest", "whole step"]
    assert all(times[part] > 0 for part in sessions)
    start = tiny_world.start_states[0]
    timed = timing.time_graphs(engine, start, batch_size=2, num_steps=4)
    assert {len(own) for own in timed.values()} == {4}


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
    subject = preset_subject("tiny")
    assert subject.weights == "random: the preset has no trained world"
    world, again = subject.make(CPU), subject.make(CPU)
    first = world.model.state_dict()
    for name, tensor in again.model.state_dict().items():
        torch.testing.assert_close(tensor, first[name], rtol=0, atol=0)
    # Training starts these at zero.
    assert world.model.head.hidden.weight.abs().min() > 0
    assert len(world.start_states[0].latents) == subject.config.backbone.context_frames


def test_random_worlds_leave_the_global_stream_alone():
    before = torch.get_rng_state()
    random_world(load_preset("tiny"), "tiny", CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_preset_takes_the_weights_of_the_shipped_world_of_its_sizes(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("engine.bench.subject.WORLDS_FOLDER", tiny_folder.parent)
    assert preset_subject("tiny").weights == "of the world 'tiny'"
    other = load_preset("tiny", ["world.backbone.num_layers=1"])
    monkeypatch.setattr("engine.bench.subject.load_preset", lambda _: other)
    assert "the shipped world 'tiny' has other sizes" in preset_subject("tiny").weights


def test_unknown_names_are_told_with_the_known_ones(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError, match=r"no preset 'papre'; did you mean 'paper'.*tiny"):
        preset_subject("papre")
    with pytest.raises(CheckpointError, match=r"no world 'stgae'.*stage"):
        world_subject("stgae")
    assert cli.main(["bench", "--preset", "papre"]) == 2
    with pytest.raises(SystemExit):
        cli.main(["bench", "--backend", "jax"])
    message = capsys.readouterr().err
    assert "did you mean 'paper'" in message
    assert all(name in message for name in ("auto", "torch", "onnx", "tensorrt"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_sizes": (0, 1)}, "batches must be at least 1"),
        ({"num_steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_limits_of_the_settings_are_told(values, message):
    with pytest.raises(ValueError, match=message):
        BenchConfig(**values)


def test_a_report_holds_no_number_that_json_has_not(tmp_path: Path):
    write_report(
        {
            "subject": {
                "name": "x",
                "weights": "none",
                "resolution": "1x1",
                "tokens_per_frame": 1,
                "context_frames": 1,
                "num_parameters": 0,
                "part_parameters": {},
                "odd": float("nan"),
            },
            "machine": {},
            "results": [],
        },
        tmp_path,
    )
    assert json.loads((tmp_path / "bench.json").read_text())["subject"]["odd"] is None


@pytest.mark.gpu
def test_a_gpu_times_parts_by_events_and_tells_its_memory(tmp_path: Path):
    config = BenchConfig(batch_sizes=(1,), num_steps=2, device="cuda")
    [result] = bench(preset_subject("tiny"), config, tmp_path)["results"]
    assert result["batches"][0]["gpu_peak_mib"] > 0
    times = {row["part"]: row["time"]["median_ms"] for row in result["parts"]}
    assert all(times[part] > 0 for part in PARTS)
