import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import make_engine
from engine.backends import Request
from engine.cache_folder import cache_folder
from midas_world import cli
from midas_world.types import BackendUnavailableError, CheckpointError
from midas_world.world import World

onnx = pytest.importorskip("onnx")
numpy_helper = pytest.importorskip("onnx.numpy_helper")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from engine import backends, onnx_export, select  # noqa: E402
from engine.onnx_engine import OnnxEngine  # noqa: E402
from engine.onnx_export import export_graphs  # noqa: E402
from engine.onnx_files import OPSET, graph_paths, graphs_folder  # noqa: E402
from engine.onnx_graphs import GRAPHS, graph_names, make_graph  # noqa: E402
from engine.onnx_runtime import (  # noqa: E402
    Session,
    _outputs,
    pack,
    pack_rows,
    quantize_convs,
    quantize_matmuls,
)
from engine.prepare import prepare  # noqa: E402


@pytest.fixture(scope="module")
def paths(tiny_world: World, kept_graphs: Path) -> dict[str, Path]:
    export_graphs(tiny_world, precision="int8", folder=kept_graphs)
    return export_graphs(tiny_world, folder=kept_graphs)


@pytest.fixture
def graph_world(name: str, tiny_world: World, refined_world: World) -> World:
    """Return a world that has the graph."""
    return refined_world if name == "refiner" else tiny_world


@pytest.fixture
def path(name: str, graph_world: World, kept_graphs: Path) -> Path:
    """Return the float32 file of a graph."""
    return export_graphs(graph_world, names=[name], folder=kept_graphs)[name]


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
def test_graphs_are_valid_named_and_open_in_the_batch(name: str, graph_world: World, path: Path):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]
    graph = make_graph(name, graph_world, num_denoise_steps=2, batch_size=2)
    assert [item.name for item in model.graph.input] == list(graph.inputs)
    assert [item.name for item in model.graph.output] == list(graph.outputs)
    for item in model.graph.input:
        dims = [dim.dim_param or dim.dim_value for dim in item.type.tensor_type.shape.dim]
        axis = graph.batch_axes.get(item.name)
        expected = list(graph.inputs[item.name].shape)
        if axis is not None:
            expected[axis] = "batch"
        assert dims == expected


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_give_what_their_modules_give(
    name: str, batch_size: int, graph_world: World, path: Path
):
    graph = make_graph(name, graph_world, num_denoise_steps=2, batch_size=batch_size)
    generator = torch.Generator().manual_seed(batch_size)
    inputs = {
        key: torch.randn(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.randint(0, 2, value.shape, generator=generator).to(value.dtype)
        for key, value in graph.inputs.items()
    }
    with torch.no_grad():
        results = graph.module(*inputs.values())
    results = results if isinstance(results, tuple) else (results,)
    expected = {key: value.numpy() for key, value in zip(graph.outputs, results, strict=True)}
    actual = {key: np.zeros_like(value, order="C") for key, value in expected.items()}
    Session(path, num_threads=1).run({key: value.numpy() for key, value in inputs.items()}, actual)
    for key, value in expected.items():
        if value.dtype == np.uint8:  # a rounding on the edge falls to either side
            assert np.abs(value.astype(int) - actual[key]).max() <= 1
        else:
            np.testing.assert_allclose(actual[key], value, rtol=1e-4, atol=1e-4)


def test_static_graphs_have_the_batch_size_asked_for(tiny_world: World, tmp_path: Path):
    (path,) = export_graphs(tiny_world, batch_size=4, names=["outcome"], folder=tmp_path).values()
    (hidden,) = onnx.load(path).graph.input
    dims = [dim.dim_value for dim in hidden.type.tensor_type.shape.dim]
    assert dims == [4, 15, tiny_world.config.world.hidden_width]
    # Nothing half written stays behind.
    assert [file.name for file in path.parent.iterdir()] == ["outcome-b4.onnx"]


@pytest.mark.parametrize("is_narrow", [False, True], ids=["wide", "narrow"])
def test_int8_graphs_use_int8(tiny_world: World, kept_graphs: Path, is_narrow: bool):
    names = {"backbone", "sampler", "conditions", "decoder"}
    files = export_graphs(
        tiny_world, precision="int8", names=names, folder=kept_graphs, is_narrow=is_narrow
    )
    kinds = {name: [node.op_type for node in onnx.load(files[name]).graph.node] for name in names}
    # Sums of 16 bits would saturate where inputs have one scale a row.
    stacks = "MatMulNBits" if is_narrow else "MatMulIntegerToFloat"
    assert kinds["backbone"].count(stacks) >= 2 * 5
    assert kinds["sampler"].count(stacks) >= 2
    assert kinds["decoder"].count("QuantizeLinear") > 0
    assert "Conv" in kinds["decoder"]
    named = {name for name, path in files.items() if "int8-narrow" in path.name}
    assert named == ({"backbone", "sampler", "decoder"} if is_narrow else set())
    levels = [numpy_helper.to_array(item) for item in onnx.load(files["decoder"]).graph.initializer]
    largest = max(np.abs(item.astype(int)).max() for item in levels if item.dtype == np.int8)
    assert largest == (64 if is_narrow else 127)


def test_the_decoder_is_int8_as_far_as_its_frames_allow(
    tiny_world: World, paths: dict[str, Path], tmp_path: Path
):
    samples = onnx_export._calibration(tiny_world)
    kinds = {"num_precise": 1, "reduce_range": False}
    counts, distances = [], []
    for least_psnr in (0.0, 44.7, 1000.0):
        target = tmp_path / f"{least_psnr}.onnx"
        quantize_convs(paths["decoder"], target, samples, least_psnr=least_psnr, **kinds)
        nodes = [node.op_type for node in onnx.load(target).graph.node]
        counts.append(nodes.count("QuantizeLinear"))
        made, exact = (_outputs(path, samples).astype(int) for path in (target, paths["decoder"]))
        distances.append(np.abs(made - exact).mean())
    assert counts[0] > counts[1] > counts[2] == 0
    assert distances[0] > distances[1] > distances[2] == 0.0


def test_stored_int8_weights_stay_exactly_as_they_are():
    rng = np.random.default_rng(0)
    levels = rng.integers(-127, 128, (96, 5))
    levels[0] = 127
    scale = rng.uniform(0.001, 0.1, 5).astype(np.float32)
    packed, scales = pack((levels * scale).astype(np.float32))
    unpacked = (packed.astype(int) - 128).reshape(5, -1)
    np.testing.assert_array_equal(unpacked[:, :96], levels.T)
    np.testing.assert_array_equal(unpacked[:, 96:], 0)
    np.testing.assert_allclose(scales, np.repeat(scale[:, None], 2, axis=1), rtol=1e-6)
    packed, scales = pack_rows((levels * scale).astype(np.float32))
    np.testing.assert_array_equal(packed, levels)
    np.testing.assert_allclose(scales, scale, rtol=1e-6)


@pytest.mark.parametrize(
    "kinds", [{}, {"block_size": 128}, {"stacked_by_row": True}], ids=["blocks", "large", "rows"]
)
def test_int8_products_are_close(
    kinds: dict, paths: dict[str, Path], tmp_path: Path, tiny_world: World
):
    target = tmp_path / "sampler.onnx"
    quantize_matmuls(paths["sampler"], target, least_weight=1024, **kinds)
    products = {node.op_type for node in onnx.load(target).graph.node if "MatMul" in node.op_type}
    assert ("MatMulIntegerToFloat" in products) == ("stacked_by_row" in kinds)
    assert "MatMulNBits" in products  # what goes into the stack and comes out of it
    graph = make_graph("sampler", tiny_world, num_denoise_steps=2, batch_size=2)
    generator = torch.Generator().manual_seed(0)
    inputs = {k: torch.randn(v.shape, generator=generator) for k, v in graph.inputs.items()}
    arrays = {key: value.numpy() for key, value in inputs.items()}
    made = {"next_latents": np.zeros_like(arrays["latents"])}
    session = Session(target, num_threads=1)
    session.run(arrays, made)
    with torch.no_grad():
        exact = graph.module(*inputs.values()).numpy()
    error = np.sqrt(np.mean(np.square(made["next_latents"] - exact)))
    assert 0 < error < 0.05 * exact.std()
    # A game does not feel the others.
    alone = {"next_latents": np.zeros_like(arrays["latents"][1:])}
    session.run({key: 1.0 * value[1:] for key, value in arrays.items()}, alone)
    np.testing.assert_allclose(alone["next_latents"][0], made["next_latents"][1], atol=1e-5)


def test_another_weight_code_or_start_state_is_another_folder(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from midas_world.world import load_world

    world = load_world(tiny_folder)
    before = graphs_folder(world, folder=tmp_path)
    assert graphs_folder(load_world(tiny_folder), folder=tmp_path) == before
    world.model.places[0, 0] += 1.0
    assert graphs_folder(world, folder=tmp_path) != before
    monkeypatch.setattr("engine.onnx_files.OPSET", OPSET + 1)
    assert graphs_folder(load_world(tiny_folder), folder=tmp_path) != before


def test_wrong_names_are_refused(tiny_world: World, tmp_path: Path):
    with pytest.raises(ValueError, match="precision must be one of float32, int8, got 'fp4'"):
        export_graphs(tiny_world, precision="fp4", folder=tmp_path)
    with pytest.raises(ValueError, match=r"graphs are .*; got \['head'\]"):
        export_graphs(tiny_world, names=["head"], folder=tmp_path)
    with pytest.raises(ValueError, match="num_denoise_steps must be at least 1, got 0"):
        OnnxEngine(tiny_world, num_denoise_steps=0, folder=tmp_path)
    with pytest.raises(ValueError, match="num_threads must be at least 1, got 0"):
        OnnxEngine(tiny_world, num_threads=0, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_corrupt_graphs_are_made_again(
    tiny_world: World, folder: Path, caplog: pytest.LogCaptureFixture
):
    graphs = graphs_folder(tiny_world, folder=folder / "onnx")
    (graphs / "outcome.onnx").unlink()  # a link to a file that other tests use
    (graphs / "outcome.onnx").write_bytes(b"not a graph")
    with pytest.raises(CheckpointError, match=r"outcome\.onnx is corrupt"):
        Session(graphs / "outcome.onnx", num_threads=1)
    engine = OnnxEngine(tiny_world, num_threads=1, folder=folder / "onnx")
    assert "exporting it again" in caplog.text
    frames = engine.decode(torch.zeros(1, *engine.spec.latent_shape))
    assert frames.shape == (1, 48, 80, 3)


def test_auto_takes_torch_while_no_graphs_are_there(
    tiny_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(backends, "native_dtypes", lambda _: (torch.float32,))
    engine = make_engine(tiny_world, folder=tmp_path)
    assert engine.spec.backend == "torch"
    assert engine.spec.reason.startswith("only torch is ready here")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("milliseconds", "winner"), [((5.0, 9.0), "torch float32"), ((9.0, 5.0), "onnx")]
)
def test_auto_measures_once_and_remembers(
    milliseconds: tuple[float, float],
    winner: str,
    tiny_world: World,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
):
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
    make_engine(tiny_world, device="cpu", num_denoise_steps=2, folder=folder)
    assert len(measured) == 4


def test_prepared_graphs_join_what_auto_measures(
    tiny_world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    request = Request(world=tiny_world, device="cpu", num_denoise_steps=None, folder=folder)
    graphs = graphs_folder(tiny_world, folder=folder / "onnx")
    sizes = {"config": tiny_world.config.world, "precision": "int8", "num_denoise_steps": 2}
    missing = graph_paths(graphs, **sizes)["outcome"]
    missing.unlink()
    assert not backends.BACKENDS["onnx"].is_ready(request)
    told: list[tuple[str, float]] = []
    prepare(
        tiny_world,
        ["onnx"],
        num_denoise_steps=request.denoise_steps,
        on_progress=lambda *words: told.append(words),
        folder=folder,
    )
    assert missing.is_file()
    names = graph_names(tiny_world.config.world)
    assert [name for name, _ in told] == [f"onnx {name}" for name in names]
    shares = [number / len(names) for number in range(len(names))]
    assert [share for _, share in told] == pytest.approx(shares)
    measured: list[str] = []

    def fake(candidates, world) -> dict[str, float]:
        measured.extend(candidates)
        return dict.fromkeys(candidates, 0.01) | {"onnx": 0.001}

    monkeypatch.setattr(select, "measure_in_turns", fake)
    assert make_engine(tiny_world, device="cpu", folder=folder).spec.backend == "onnx"
    assert measured[-1] == "onnx"


def test_what_a_killed_export_left_is_removed_a_day_later(tmp_path: Path):
    for name, age_s in (("old", 2 * 24 * 3600), ("new", 60)):
        left = tmp_path / f".tmp-{name}"
        left.mkdir()
        (left / "half.onnx").touch()
        then = time.time() - age_s
        os.utime(left, (then, then))
    with onnx_export._replacing(tmp_path / "graph.onnx") as temporary:
        temporary.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-new", "graph.onnx"]


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


def test_make_engine_runs_onnx(tiny_world: World, folder: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        engine = make_engine(tiny_world, "onnx", folder=folder)
    assert (engine.spec.backend, engine.spec.dtype) == ("onnx", "int8")
    assert engine.spec.reason == "as asked"
    assert "runs on onnx int8 on cpu" in caplog.text


def test_more_denoise_steps_are_another_sampler(tiny_world: World, tmp_path: Path):
    given = {"config": tiny_world.config.world, "precision": "float32"}
    names = {
        steps: graph_paths(tmp_path, num_denoise_steps=steps, **given)["sampler"].name
        for steps in (1, 2)
    }
    assert names == {1: "sampler-k1.onnx", 2: "sampler-k2.onnx"}


@pytest.mark.parametrize(
    ("platform", "variable", "value", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "/a/cache", "/a/cache/midas-world"),
        ("win32", "LOCALAPPDATA", "/a/local", "/a/local/midas-world/Cache"),
        ("darwin", "HOME", "/home/a", "/home/a/Library/Caches/midas-world"),
    ],
)
def test_cache_folder_follows_the_platform(
    platform: str, variable: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MIDAS_WORLD_CACHE")
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv(variable, value)
    assert cache_folder() == Path(expected)
    monkeypatch.setenv("MIDAS_WORLD_CACHE", "/scratch/worlds")
    assert cache_folder() == Path("/scratch/worlds")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to build for")
def test_the_command_makes_what_auto_then_measures(
    tiny_world: World, tmp_path: Path, monkeypatch, capsys, caplog
):
    monkeypatch.setenv("MIDAS_WORLD_CACHE", str(tmp_path))
    with caplog.at_level(logging.INFO):
        make_engine(tiny_world)
    assert "onnx could run, too, after `midas-world build`" in caplog.text
    words = ["build", "--world", str(tiny_world.folder)]
    for done in ("built", "up to date"):
        assert cli.main(words) == 0
        shown = capsys.readouterr()
        assert (shown.out + shown.err).count(f": {done}, ") == len(
            graph_names(tiny_world.config.world)
        )
    caplog.clear()
    with caplog.at_level(logging.INFO):
        engine = make_engine(tiny_world)
    assert "onnx" in engine.spec.reason
    assert "midas-world build" not in caplog.text


@pytest.mark.parametrize("words", [("--plan", "decoder-fp16"), ("--compute-capability", "sm89")])
def test_graphs_are_made_of_no_plans(tiny_folder: Path, words: tuple[str, str], capsys):
    given = ["build", "--world", str(tiny_folder), "--flavour", "onnx", *words]
    assert cli.main(given) == 2
    assert "are TensorRT's" in capsys.readouterr().err
