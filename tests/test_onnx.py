import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from engine import backends, make_engine, select
from engine.on_onnx import export as onnx_export
from engine.on_onnx import runtime as onnx_runtime
from engine.on_onnx.engine import OnnxEngine
from engine.on_onnx.export import export_graphs
from engine.on_onnx.files import OPSET, float32_path, graph_paths, graphs_folder
from engine.on_onnx.graphs import GRAPHS, make_graph
from engine.on_onnx.runtime import GraphRunner, _first_outputs, quantize
from midas_world.commands import cli
from midas_world.types import BackendUnavailableError
from midas_world.world import World


@pytest.fixture(scope="module")
def paths(tiny_world: World, kept_graphs: Path) -> dict[str, Path]:
    """Return the float32 files."""
    made = export_graphs(tiny_world, folder=kept_graphs)
    return {name: float32_path(path) for name, path in made.items()}


@pytest.fixture
def path(name: str, paths: dict[str, Path]) -> Path:
    """Return the float32 file of a graph."""
    return paths[name]


@pytest.fixture
def folder(tiny_world: World, kept_graphs: Path, paths: dict[str, Path], tmp_path: Path) -> Path:
    """Return a cache folder of a test's own, with the tiny world's graphs in it."""
    target = graphs_folder(tiny_world, folder=tmp_path / "onnx")
    target.mkdir(parents=True)
    for file in graphs_folder(tiny_world, folder=kept_graphs).iterdir():
        if file.is_file():
            (target / file.name).hardlink_to(file)
    return tmp_path


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_are_valid_named_and_open_in_the_batch(name: str, tiny_world: World, path: Path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    graph = make_graph(name, tiny_world, num_denoise_steps=1, batch_size=2)
    assert [item.name for item in model.graph.input] == list(graph.inputs)
    assert [item.name for item in model.graph.output] == list(graph.outputs)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert batch
    for item in model.graph.input:
        dims = [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim]
        axis = graph.batch_axes.get(item.name)
        expected = list(graph.inputs[item.name].shape)
        if axis is not None:
            expected[axis] = batch
        assert dims == expected


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_give_what_their_modules_give(name, batch_size, tiny_world, path):
    graph = make_graph(name, tiny_world, num_denoise_steps=1, batch_size=batch_size)
    generator = torch.Generator().manual_seed(batch_size)
    inputs = {
        key: torch.randn(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.randint(0, 2, value.shape, generator=generator).to(value.dtype)
        for key, value in graph.inputs.items()
    }
    expected = {key: value.numpy() for key, value in graph.run(inputs).items()}
    actual = {key: np.zeros_like(value, order="C") for key, value in expected.items()}
    GraphRunner(path, num_threads=1).run(
        {key: value.numpy() for key, value in inputs.items()}, actual
    )
    for key, value in expected.items():
        if value.dtype == np.uint8:  # a rounding on the edge falls to either side
            assert np.abs(value.astype(int) - actual[key]).max() <= 1
        else:
            np.testing.assert_allclose(actual[key], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_narrow", [False, True], ids=["wide", "narrow"])
def test_int8_graphs_use_int8(tiny_world: World, kept_graphs: Path, is_narrow: bool):
    files = export_graphs(tiny_world, folder=kept_graphs, is_narrow=is_narrow)
    words = "int8-narrow" if is_narrow else "int8"
    names = [path.name for path in files.values()]
    assert names == ["backbone.onnx", "head-k1.onnx", f"decoder-{words}.onnx"]
    graph = onnx.load(files["decoder"]).graph
    assert {"Conv", "QuantizeLinear"} <= {node.op_type for node in graph.node}
    arrays = [numpy_helper.to_array(item) for item in graph.initializer]
    levels = [item.astype(int) for item in arrays if item.dtype == np.int8 and item.ndim > 1]
    # Sums of 16 bits would saturate.
    assert max(np.abs(item).max() for item in levels) == (64 if is_narrow else 127)


def test_graphs_are_int8_as_far_as_what_they_make_allows(tiny_world, paths, tmp_path, monkeypatch):
    samples = onnx_export.calibration(tiny_world, 1)[::4]
    exact = _first_outputs(paths["decoder"], samples)
    counts, distances = [], []
    for least_psnr in (0.0, 1000.0):
        target = tmp_path / f"{least_psnr}.onnx"
        monkeypatch.setattr(onnx_runtime, "LEAST_PSNR", least_psnr)
        quantize(paths["decoder"], target, samples, precise=(), is_narrow=False)
        nodes = [node.op_type for node in onnx.load(target).graph.node]
        counts.append(nodes.count("QuantizeLinear"))
        distances.append(np.abs(_first_outputs(target, samples) - exact).mean())
    assert counts[0] > counts[1] == 0
    assert distances[0] > distances[1] == 0.0


def test_int8_frames_are_close_and_a_game_does_not_feel_the_others(tiny_world, paths, kept_graphs):
    (path,) = export_graphs(tiny_world, names=["decoder"], folder=kept_graphs).values()
    samples = onnx_export.calibration(tiny_world, 1)
    exact, made = (_first_outputs(file, samples) for file in (paths["decoder"], path))
    error = np.sqrt(np.mean(np.square(made - exact)))
    assert 0 < error < 0.05 * exact.std()
    batch = {key: np.concatenate([sample[key] for sample in samples]) for key in samples[0]}
    # Of uint8, of which one on the edge may be rounded either way.
    np.testing.assert_allclose(_first_outputs(path, [batch]), made, atol=1.0)


def test_calibration_needs_no_start_states(tiny_world: World):
    bare = replace(tiny_world, start_states=())
    samples = onnx_export.calibration(bare, 1)
    assert len(samples) > 2
    assert samples[0]["latents"].std() > 0.1


def test_another_weight_or_version_is_another_folder(tiny_folder, tmp_path, monkeypatch):
    from midas_world.world import load_world

    world = load_world(tiny_folder)
    before = graphs_folder(world, folder=tmp_path)
    assert graphs_folder(load_world(tiny_folder), folder=tmp_path) == before
    world.model.places[0, 0] += 1.0
    assert graphs_folder(world, folder=tmp_path) != before
    monkeypatch.setattr("engine.on_onnx.files.GRAPHS_VERSION", 0)
    assert graphs_folder(load_world(tiny_folder), folder=tmp_path) != before


def test_no_denoise_steps_are_refused(tiny_world: World, tmp_path: Path):
    with pytest.raises(ValueError, match="num_denoise_steps must be at least 1, got 0"):
        OnnxEngine(tiny_world, num_denoise_steps=0, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_auto_takes_torch_while_no_graphs_are_there(tiny_world, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "native_dtypes", lambda _: (torch.float32,))
    engine = make_engine(tiny_world, folder=tmp_path)
    assert engine.spec.backend == "torch"
    assert engine.spec.reason.startswith("only torch is ready here")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("milliseconds", "winner"), [((5.0, 9.0), "torch float32"), ((9.0, 5.0), "onnx")]
)
def test_auto_measures_once_and_remembers(milliseconds, winner, tiny_world, folder, monkeypatch):
    measured: list[str] = []

    def fake(candidates, world) -> dict[str, float]:
        assert world is tiny_world
        measured.extend(make().spec.backend for make in candidates.values())
        return {name: ms / 1000.0 for name, ms in zip(candidates, milliseconds, strict=True)}

    monkeypatch.setattr(select, "measure_in_turns", fake)
    monkeypatch.setattr(backends, "native_dtypes", lambda _: (torch.float32,))
    for _ in range(2):
        engine = make_engine(tiny_world, device="cpu", folder=folder)
        assert engine.spec.backend == winner.partition(" ")[0]
        assert f"the fastest here: {winner} 5.0 ms" in engine.spec.reason
        assert measured == ["torch", "onnx"]
    (choice,) = (folder / "choices").iterdir()
    assert json.loads(choice.read_text())["milliseconds"] == {
        "torch float32": pytest.approx(milliseconds[0]),
        "onnx": pytest.approx(milliseconds[1]),
    }
    # What cannot be read is measured again.
    choice.write_text("{")
    make_engine(tiny_world, device="cpu", num_denoise_steps=1, folder=folder)
    assert len(measured) == 4


def test_a_named_backend_without_its_packages_says_what_to_install(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        backends.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else True
    )
    with pytest.raises(BackendUnavailableError, match=r"pip install onnxruntime$"):
        make_engine(tiny_world, "onnx", folder=tmp_path)
    assert make_engine(tiny_world, folder=tmp_path).spec.backend == "torch"


def test_onnx_refuses_a_gpu(tiny_world: World, tmp_path: Path):
    with pytest.raises(BackendUnavailableError, match="runs on the CPU, not on 'cuda'"):
        make_engine(tiny_world, "onnx", device="cuda", folder=tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to build for")
def test_the_command_makes_what_auto_then_measures(tiny_world, folder, monkeypatch, capsys, caplog):
    monkeypatch.setenv("MIDAS_WORLD_CACHE", str(folder))
    graphs = graphs_folder(tiny_world)
    graph_paths(graphs, num_denoise_steps=1)["decoder"].unlink()
    with caplog.at_level(logging.INFO):
        make_engine(tiny_world)
    assert "onnx could run, too, after `midas-world build`" in caplog.text
    words = ["build", "--world", str(tiny_world.folder)]
    for num_built in (1, 0):
        assert cli.main(words) == 0
        shown = capsys.readouterr()
        assert (shown.out + shown.err).count(": built, ") == num_built
        assert (shown.out + shown.err).count(": up to date, ") == len(GRAPHS) - num_built
    caplog.clear()
    with caplog.at_level(logging.INFO):
        engine = make_engine(tiny_world)
    assert "onnx" in engine.spec.reason
    assert "midas-world build" not in caplog.text
