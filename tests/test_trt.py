"""TensorRT: plans, graphs, engine files built without a GPU, and the engine that runs them.

The engine's own logic runs on a stand-in for TensorRT's part; what needs a GPU is marked gpu.
"""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from engine import make_engine
from engine.on_tensorrt import build as trt_build
from engine.on_tensorrt import engine as trt_engine
from engine.on_tensorrt import graphs as trt_graphs
from engine.on_tensorrt import plan as trt_plan
from engine.on_tensorrt.build import Target, parse_capability, provide_engine
from engine.on_tensorrt.graphs import plan_graph
from engine.on_tensorrt.plan import PLAN_GRAPHS, TrtPlan, load_plan
from engine.on_tensorrt.runtime import build_engine
from engine.on_torch.engine import TorchEngine
from midas_world.commands import cli
from midas_world.config import (
    CameraConfig,
    EntriesConfig,
    MotionConfig,
    SceneryConfig,
    load_preset,
)
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.head import Guidance
from midas_world.model.world_model import WorldModel
from midas_world.types import BackendUnavailableError, StepConditions
from midas_world.world import World, load_world
from tests.fakes import randomize

CAPABILITIES = (80, 89, 120)


class Graphs(dict[tuple[str, str], bytes]):
    """A world's graphs by name and precision, with one denoise step, each exported once."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __missing__(self, key: tuple[str, str]) -> bytes:
        self[key] = plan_graph(self.world, *key, num_denoise_steps=1)
        return self[key]


@pytest.fixture(scope="module")
def graphs(tiny_world: World) -> Graphs:
    return Graphs(tiny_world)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    pytest.importorskip("tensorrt_rtx")
    return Target(backend="rtx", capability=89, folder=tmp_path)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let engine files be words, and return the graphs that they were built of so far."""
    built: list[str] = []
    monkeypatch.setattr(trt_build, "plan_graph", lambda _, graph, *__, **___: graph.encode())
    monkeypatch.setattr(
        trt_build,
        "build_engine",
        lambda graph, *_, **__: built.append(graph.decode()) or 5000 * b"x",
    )
    return built


def provide(world: World, target: Target) -> Path:
    return provide_engine(world, "decoder", target, num_denoise_steps=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("precison: fp16\nmax_batch: 1", "no key precison; did you mean precision"),
        ("precision: fp4\nmax_batch: 1", "fp4"),
        ("precision: fp16\nmax_batch: 0", "max_batch must be at least 1, got 0"),
        ("- head", "must hold keys and values"),
    ],
)
def test_bad_plans_say_what_is_wrong(text: str, message: str, tmp_path: Path, monkeypatch):
    (tmp_path / "head.yaml").write_text(text)
    monkeypatch.setattr(trt_plan, "PLANS_FOLDER", tmp_path)
    with pytest.raises(ValueError, match=message):
        load_plan("head")


@pytest.mark.parametrize(
    ("text", "capability"), [("sm89", 89), ("8.9", 89), ("SM_120", 120), ("12.0", 120)]
)
def test_capabilities_are_read_both_ways(text: str, capability: int):
    assert parse_capability(text) == capability
    with pytest.raises(ValueError, match=r"such as sm89 or 8\.9, got 'ada'"):
        parse_capability("ada")


@pytest.mark.parametrize("graph", PLAN_GRAPHS)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_every_plan_builds_without_a_gpu(graph: str, capability: int, graphs: Graphs):
    pytest.importorskip("tensorrt_rtx")
    plan = load_plan(graph)
    contents = graphs[graph, plan.precision]
    assert build_engine(contents, plan, backend="rtx", capability=capability)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])  # of fp32 they are as they were
@pytest.mark.parametrize("graph", PLAN_GRAPHS)
def test_weights_are_of_the_precision_and_what_goes_in_and_out_is_float32(
    graph: str, precision: str, graphs: Graphs, tiny_world: World
):
    config, kinds = tiny_world.config.world, onnx.TensorProto
    model = onnx.load_from_string(graphs[graph, precision]).graph
    wanted = {"fp16": kinds.FLOAT16, "bf16": kinds.BFLOAT16}
    sizes: Counter[int] = Counter()
    for item in model.initializer:
        sizes[item.data_type] += int(np.prod(item.dims))
    assert sizes.most_common(1)[0][0] == wanted[precision]
    told = {
        item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim][1:]
        for item in (*model.input, *model.output)
    }
    latents = [config.autoencoder.latent_channels, *config.grid]
    if graph == "decoder":
        assert told == {"latents": latents, "pixels": [3, config.height, config.width]}
    else:
        assert list(told) == [*Guidance._fields, "noise", "next_latents"]
        assert told["last"] == told["noise"] == told["next_latents"] == latents
        assert told["copies"] == [config.num_copies, *latents]
    types = {item.type.tensor_type.elem_type for item in (*model.input, *model.output)}
    assert types == {kinds.FLOAT}


@pytest.mark.parametrize(("steps", "has_camera"), [(2, True), (1, False)])
def test_graphs_make_what_torch_makes(steps: int, has_camera: bool):
    config = load_preset("tiny").world
    if not has_camera:  # then there are no moved copies
        conditions = replace(config.conditions, camera=CameraConfig())
        none = {"scenery": SceneryConfig(), "entries": EntriesConfig()}
        config = replace(config, conditions=conditions, motion=MotionConfig(flow=2), **none)
    model, autoencoder = WorldModel(config), Autoencoder(config.autoencoder)
    generator = torch.Generator().manual_seed(0)
    randomize(model.head, 1)
    randomize(autoencoder, 2)
    guidance, noise = trt_graphs._example(model.eval())
    given = {
        name: torch.randn((3, *tensor.shape[1:]), generator=generator)
        for name, tensor in trt_graphs.head_inputs(guidance, noise).items()
    }
    graphs = [(trt_graphs.HeadGraph(model, torch.float32, steps), given)]
    if has_camera:  # both would be the same
        decoder = trt_graphs.DecoderGraph(autoencoder.eval(), torch.float32)
        graphs.append((decoder, {"latents": given["last"]}))
    for graph, inputs in graphs:
        contents = trt_graphs._export(graph, inputs, "made")
        onnx.checker.check_model(onnx.load_from_string(contents), full_check=True)
        session = onnxruntime.InferenceSession(contents)
        (made,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(made), graph(inputs))


def test_a_graph_that_tensorrt_cannot_read_is_said():
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BackendUnavailableError, match="cannot parse a graph"):
        build_engine(b"nonsense", load_plan("decoder"), backend="rtx", capability=89)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1000], lambda data: b"y" + data[1:], lambda data: b""]
)
def test_engine_files_are_kept_and_damaged_ones_are_built_again(
    damage, tiny_world: World, target: Target, builds, caplog
):
    path = provide(tiny_world, target)
    whole = path.read_bytes()
    assert provide(tiny_world, target) == path
    assert builds == ["decoder"]
    path.write_bytes(damage(whole))
    assert provide(tiny_world, target).read_bytes() == whole
    assert builds == ["decoder"] * 2
    assert "is damaged; it is made again" in caplog.text


def test_another_plan_version_gpu_or_world_is_another_file(
    tiny_world: World, tiny_folder: Path, target: Target, builds, monkeypatch
):
    other = load_world(tiny_folder)
    other.model.places[0, 0] += 1.0
    paths = {provide(tiny_world, target), provide(other, target)}
    paths.add(provide(tiny_world, replace(target, capability=80)))
    monkeypatch.setattr(trt_build, "load_plan", lambda _: TrtPlan(precision="fp16", max_batch=3))
    paths.add(provide(tiny_world, target))
    monkeypatch.setattr("tensorrt_rtx.__version__", "0.1")
    paths.add(provide(tiny_world, target))
    assert len(paths) == len(builds) == 5


def test_a_build_that_fails_leaves_no_file(tiny_world: World, target: Target, builds, monkeypatch):
    def fail(*_, **__):
        raise BackendUnavailableError("no")

    monkeypatch.setattr(trt_build, "build_engine", fail)
    with pytest.raises(BackendUnavailableError):
        provide(tiny_world, target)
    assert not list(target.folder.rglob("*"))


def test_the_command_builds_for_gpus_that_are_named(tiny_world, target, builds, capsys):
    words = ["build", "--world", str(tiny_world.folder), "--folder", str(target.folder)]
    for told in ("built", "up to date"):
        assert cli.main([*words, "--compute-capability", "sm75", "--backend", "rtx"]) == 0
        shown = capsys.readouterr()
        for graph in PLAN_GRAPHS:
            assert f"{graph}-rtx-sm75-" in shown.out + shown.err
        assert (shown.out + shown.err).count(f".engine: {told}") == len(PLAN_GRAPHS)
    assert cli.main([*words, "--compute-capability", "sm90"]) == 2
    assert "'rtx' knows sm75, sm80, " in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert cli.main([*words, "--backend", "rtx"]) == 2
        assert "name the compute capability" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["tensorrt", "rtx"])
def test_backends_without_their_packages_name_the_extra(backend, tiny_world, monkeypatch):
    monkeypatch.setattr("engine.backends._missing", lambda packages: packages[:1])
    with pytest.raises(BackendUnavailableError, match=rf"midas-world\[{backend}\]"):
        make_engine(tiny_world, backend)


@pytest.mark.slow
@pytest.mark.parametrize("graph", PLAN_GRAPHS)
def test_shipped_worlds_plans_build(graph: str):
    if not os.environ.get("MIDAS_TEST_LARGE"):
        pytest.skip("exporting the shipped world takes minutes: set MIDAS_TEST_LARGE=1")
    pytest.importorskip("tensorrt_rtx")
    world, plan = load_world("stage"), load_plan(graph)
    contents = plan_graph(world, graph, plan.precision, num_denoise_steps=2)
    for capability in CAPABILITIES:
        assert build_engine(contents, plan, backend="rtx", capability=capability)


@pytest.fixture
def stand_in(tiny_world: World, tmp_path: Path, monkeypatch) -> tuple[TorchEngine, list[int]]:
    """Return an engine whose files are torch's modules, and the games of each of its calls."""
    modules = {
        "head": trt_graphs.HeadGraph(tiny_world.model, torch.float32, 1),
        "decoder": trt_graphs.DecoderGraph(tiny_world.autoencoder, torch.float32),
    }
    calls: list[int] = []

    class Runner:
        def __init__(self, path: Path, *, backend: str) -> None:
            self.module = modules[path.name]

        def run(self, inputs):
            calls.append(len(next(iter(inputs.values()))))
            return self.module(inputs)

    monkeypatch.setattr(trt_engine, "EngineRunner", Runner)
    monkeypatch.setattr(trt_engine, "provide_engine", lambda _, graph, *__, **___: Path(graph))
    monkeypatch.setattr(trt_engine, "load_plan", lambda _: TrtPlan(precision="fp32", max_batch=2))
    given = {"num_denoise_steps": 1, "folder": tmp_path, "device": "cpu", "capability": 89}
    return trt_engine.make_tensorrt(tiny_world, "rtx", **given), calls


def one_step(engine, batch: int):
    generator = torch.Generator().manual_seed(batch)
    shape = (batch, *engine.spec.latent_shape)
    pose = np.linspace(-0.5, 0.5, engine.spec.config.conditions.pose_size, dtype=np.float32)
    given = [StepConditions(pose=pose / (row + 1), text="a person runs") for row in range(batch)]
    return (
        torch.randn(shape, generator=generator),
        engine.spec.stack(given),
        torch.randn(shape, generator=generator),
    )


@pytest.mark.parametrize(("batch", "parts"), [(1, [1]), (2, [2]), (5, [2, 2, 1])])
def test_the_engine_makes_torchs_frames_in_as_many_calls_as_games_need(
    batch: int, parts: list[int], stand_in, tiny_world: World
):
    made, calls = stand_in
    plain = TorchEngine(tiny_world, device="cpu", num_denoise_steps=1)
    step = one_step(made, batch)
    results = made.step(made.new_cache(batch), *step)
    expected = plain.step(plain.new_cache(batch), *step)
    for a, b in zip(results, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.1)  # torch may compute in bfloat16
    frames = made.decode(results[0])
    assert calls == [*parts, *parts]
    exact = TorchEngine(tiny_world, device="cpu", dtype=torch.float32).decode(results[0])
    assert np.abs(frames.astype(int) - exact).max() <= 1
    assert made.spec.backend == "rtx"
    torch.testing.assert_close(made.encode(frames), plain.encode(frames))


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["tensorrt", "rtx"])
def test_on_a_gpu_frames_are_torchs(backend: str, tiny_world: World, tmp_path: Path):
    try:
        made = make_engine(tiny_world, backend, folder=tmp_path)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    plain = TorchEngine(tiny_world, device="cpu", dtype=torch.float32)
    cache, (latents, conditions, noise) = made.new_cache(2), one_step(made, 2)
    for _ in range(3):
        latents = made.step(cache, latents, conditions, noise).latents
        frames = made.decode(latents)
        assert np.abs(frames.astype(int) - plain.decode(latents)).mean() < 2
        np.testing.assert_array_equal(frames, made.decode(latents.clone()))
