"""TensorRT: plans, graphs, and engine files built for real, without a GPU."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import make_engine
from engine.on_tensorrt.plan import (
    DEFAULT_PLANS,
    load_plan,
    load_plans,
    parse_capability,
    shipped_plans,
)
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
from midas_world.types import BackendUnavailableError
from midas_world.world import World, load_world
from tests.fakes import randomize

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from engine.on_tensorrt import build as trt_build  # noqa: E402
from engine.on_tensorrt import graphs as trt_graphs  # noqa: E402
from engine.on_tensorrt.build import Target, engine_path, is_built, provide_engine  # noqa: E402
from engine.on_tensorrt.graphs import plan_graph  # noqa: E402
from engine.on_tensorrt.runtime import Built, EngineBuildError, build_engine  # noqa: E402

PLANS = shipped_plans()
CAPABILITIES = (80, 89, 120)


class Graphs(dict[str, bytes]):
    """A world's graph of every plan, with one denoise step, exported when first asked for."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __missing__(self, name: str) -> bytes:
        self[name] = plan_graph(self.world, load_plan(name), num_denoise_steps=1)
        return self[name]


@pytest.fixture(scope="module")
def graphs(tiny_world: World) -> Graphs:
    return Graphs(tiny_world)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    pytest.importorskip("tensorrt_rtx")
    return Target(flavour="tensorrt-rtx", capability=89, folder=tmp_path)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, graphs: Graphs) -> None:
    """Take graphs that are exported already."""
    names = {plan: name for name, plan in load_plans(PLANS).items()}
    monkeypatch.setattr(trt_build, "plan_graph", lambda _, plan, **__: graphs[names[plan]])


def provide(world: World, target: Target, name: str = "decoder-fp16"):
    return provide_engine(world, name, load_plan(name), target, num_denoise_steps=1)


def test_shipped_plans_are_what_their_names_say():
    assert set(DEFAULT_PLANS) <= set(PLANS)
    for name in PLANS:
        plan = load_plan(name)
        assert name == f"{plan.graph}-{plan.precision}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("graph: head\nprecison: fp16", "no key precison; did you mean precision"),
        ("graph: head\nbatch: {mx: 3}", "no key batch.mx; did you mean batch.max"),
        ("graph: sampler", "graph must be head or decoder, got 'sampler'"),
        ("graph: head\nprecision: fp4", "fp4"),
        ("graph: head\nbatch: {min: 4, opt: 2, max: 8}", "1 <= min <= opt <= max, got 4, 2, 8"),
        ("graph: head\nbuilder_level: 6", "builder_level must be from 0 to 5, got 6"),
        ("graph: head\nworkspace_mib: 0", "workspace_mib must be at least 1"),
        ("- head", "must hold keys and values"),
    ],
)
def test_bad_plans_say_what_is_wrong(text: str, message: str, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        load_plan(path)


def test_unknown_plans_name_the_nearest():
    with pytest.raises(ValueError, match="no plan 'head-fp61'; did you mean 'head-fp16'"):
        load_plan("head-fp61")


def test_capabilities_are_read_both_ways():
    assert [parse_capability(text) for text in ("sm89", "8.9", "SM_120", "12.0")] == [
        89,
        89,
        120,
        120,
    ]


def test_plans_object_to_gpus_that_cannot():
    assert not load_plan("head-bf16").objection("tensorrt-rtx", 80)
    assert "needs sm80" in load_plan("head-bf16").objection("tensorrt-rtx", 75)
    assert "use flavour tensorrt" in load_plan("head-fp16").objection("tensorrt-rtx", 90)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("name", PLANS)
def test_every_plan_builds_without_a_gpu(
    name: str, capability: int, graphs: Graphs, tiny_world: World
):
    pytest.importorskip("tensorrt_rtx")
    plan, config = load_plan(name), tiny_world.config.world
    heard: list[tuple[str, int, int]] = []
    built = build_engine(
        graphs[name],
        plan,
        flavour="tensorrt-rtx",
        capability=capability,
        on_progress=lambda *step: heard.append(step),
    )
    told = {key: (item["kind"], item["shape"]) for key, item in built.tensors.items()}
    latents = [-1, config.autoencoder.latent_channels, *config.grid]
    if plan.graph == "decoder":
        pixels = [-1, 3, config.height, config.width]
        assert told == {"latents": ("input", latents), "pixels": ("output", pixels)}
    else:
        assert told.pop("next_latents") == ("output", latents)
        assert list(told) == [*Guidance._fields, "noise"]
        assert told["last"] == told["noise"] == ("input", latents)
        assert told["copies"] == ("input", [-1, config.num_copies, *latents[1:]])
    assert {item["dtype"] for item in built.tensors.values()} == {"float"}
    assert heard[-1][1] == heard[-1][2] > 0


@pytest.mark.parametrize("name", PLANS)
def test_weights_are_stored_in_the_plans_precision(name: str, graphs: Graphs):
    model = onnx.load_from_string(graphs[name])
    kinds = onnx.TensorProto
    wanted = {"fp32": kinds.FLOAT, "fp16": kinds.FLOAT16, "bf16": kinds.BFLOAT16}
    sizes: dict[int, int] = {}
    for item in model.graph.initializer:
        sizes[item.data_type] = sizes.get(item.data_type, 0) + int(np.prod(item.dims))
    assert max(sizes, key=sizes.__getitem__) == wanted[load_plan(name).precision]


@pytest.mark.parametrize(("steps", "has_camera"), [(1, True), (2, True), (1, False)])
def test_graphs_make_what_torch_makes(steps: int, has_camera: bool):
    runtime = pytest.importorskip("onnxruntime")
    config = load_preset("tiny").world
    if not has_camera:  # then there are no moved copies
        config = replace(
            config,
            conditions=replace(config.conditions, camera=CameraConfig()),
            motion=MotionConfig(),
            scenery=SceneryConfig(),
            entries=EntriesConfig(),
        )
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
    if steps == 2:  # all three would be the same
        decoder = trt_graphs.DecoderGraph(autoencoder.eval(), torch.float32)
        graphs.append((decoder, {"latents": given["last"]}))
    for graph, inputs in graphs:
        contents = trt_graphs._export(graph, inputs, "made")
        session = runtime.InferenceSession(contents)
        (made,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(made), graph(inputs))


def test_a_graph_that_tensorrt_cannot_read_is_said():
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(EngineBuildError, match="cannot parse the decoder graph"):
        build_engine(b"nonsense", load_plan("decoder-fp16"), flavour="tensorrt-rtx", capability=89)


@pytest.mark.usefixtures("quick")
def test_engine_files_are_kept_whole(tiny_world: World, target: Target):
    plans = load_plans(["decoder-fp16"])
    assert not is_built(tiny_world, plans, target, steps=1)
    first = provide(tiny_world, target)
    again = provide(tiny_world, target)
    assert (first.is_new, again.is_new) == (True, False)
    assert again.contents == first.contents
    assert again.tensors == first.tensors
    assert is_built(tiny_world, plans, target, steps=1)
    assert [file.name for file in first.path.parent.iterdir()] == [first.path.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1000], "corrupt"),
        (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "corrupt"),
        (lambda data: b"", "corrupt or foreign"),
        (lambda data: b"ftrt" + data, "corrupt or foreign"),
        (lambda data: data.replace(b'{"key"', b'{"kye"', 1), "head cannot be read"),
        (lambda data: data.replace(b'"version": "', b'"version": "0.', 1), "stale: its version"),
        (lambda data: data.replace(b'"builder_level": 3', b'"builder_level": 2', 1), "its plan"),
        (lambda data: data.replace(b'"compute capability": 89', b'"compute capability": 80', 1),
         "its compute capability is 80, now 89"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("quick")
def test_files_that_are_not_right_are_said_and_built_again(
    change, message: str, tiny_world: World, target: Target, monkeypatch, caplog
):
    built = Built(contents=b"x" * 5000, tensors={})
    calls = []
    monkeypatch.setattr(trt_build, "build_engine", lambda *_, **__: calls.append(1) or built)
    path = provide(tiny_world, target).path
    data = path.read_bytes()
    path.write_bytes(change(data))
    assert path.read_bytes() != data
    with caplog.at_level(logging.WARNING):
        assert provide(tiny_world, target).is_new
    assert message in caplog.text
    assert "building it again" in caplog.text
    assert path.read_bytes() == data
    assert len(calls) == 2


@pytest.mark.usefixtures("quick")
def test_a_build_that_fails_leaves_no_file(tiny_world: World, target: Target, monkeypatch):
    def fail(*_, **__):
        raise EngineBuildError("no")

    monkeypatch.setattr(trt_build, "build_engine", fail)
    with pytest.raises(EngineBuildError):
        provide(tiny_world, target)
    assert not engine_path(tiny_world, "decoder-fp16", target).exists()


@pytest.mark.usefixtures("quick")
def test_the_command_builds_and_says_what_it_left_out(
    tiny_world: World, target: Target, capsys, caplog
):
    words = ["build", "--world", str(tiny_world.folder), "--folder", str(target.folder)]
    words += ["--compute-capability", "sm75", "--plan", "head-bf16", "--plan", "decoder-fp16"]
    with caplog.at_level(logging.INFO):
        assert cli.main(words) == 0
    assert "head-bf16 is left out: bf16 needs sm80" in caplog.text
    shown = capsys.readouterr()
    assert "decoder-fp16-tensorrt-rtx-sm75.engine: built" in shown.out + shown.err
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    assert "up to date" in shown.out + shown.err
    assert cli.main([*words[:-4], "--plan", "head-bf16"]) == 2
    assert "none of the plans" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to build for")
def test_the_command_without_a_gpu_wants_a_name(tiny_folder: Path, capsys):
    pytest.importorskip("tensorrt_rtx")
    assert cli.main(["build", "--world", str(tiny_folder), "--flavour", "tensorrt-rtx"]) == 2
    assert "name the compute capability" in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["tensorrt", "rtx"])
def test_backends_without_their_packages_name_the_extra(backend: str, tiny_world: World):
    try:
        import pycuda  # noqa: F401
    except ImportError:
        with pytest.raises(BackendUnavailableError, match=rf"midas-world\[{backend}\]"):
            make_engine(tiny_world, backend)
    else:
        pytest.skip("the packages are installed")


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFAULT_PLANS)
def test_shipped_worlds_plans_build(name: str):
    if not os.environ.get("MIDAS_TEST_LARGE"):
        pytest.skip("exporting the shipped world takes minutes: set MIDAS_TEST_LARGE=1")
    pytest.importorskip("tensorrt_rtx")
    world, plan = load_world("stage"), load_plan(name)
    graph = plan_graph(world, plan, num_denoise_steps=2)
    for capability in CAPABILITIES:
        assert build_engine(graph, plan, flavour="tensorrt-rtx", capability=capability).contents
