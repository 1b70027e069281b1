from dataclasses import field, fields, make_dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from engine.backends import BACKENDS, Request
from engine.on_onnx import export as onnx_export
from engine.on_onnx.engine import OnnxEngine
from engine.on_onnx.export import can_start, export_graphs
from engine.on_onnx.files import _declared, _weights_hash, outlines_folder
from engine.on_onnx.outlines import fill_outline, outline_of, read_made_of
from midas_world.commands import cli
from midas_world.config import WorldConfig, load_preset
from midas_world.world import WORLDS_FOLDER, World, load_world

SHIPPED = sorted(path.parent for path in WORLDS_FOLDER.glob("*/config.yaml"))


def same_graphs(one: Path, other: Path) -> bool:
    """Return whether two files hold the same nodes and tensors."""
    first, second = onnx.load(one).graph, onnx.load(other).graph
    for node in (*first.node, *second.node):
        del node.metadata_props[:]
        node.ClearField("doc_string")
    return list(first.node) == list(second.node) and all(
        a.name == b.name
        and np.array_equal(onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b))
        for a, b in zip(first.initializer, second.initializer, strict=True)
    )


def test_filled_outlines_are_the_graphs_that_were_exported(
    outlined: World, kept_graphs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    exported = export_graphs(outlined, folder=kept_graphs)
    monkeypatch.setattr(onnx_export, "_export", None)  # there is nothing to export
    names = [path.stem.partition("-")[0] for path in outlines_folder(outlined).iterdir()]
    filled = export_graphs(outlined, folder=tmp_path, names=names)
    assert filled.keys() == exported.keys()
    for name, path in filled.items():
        assert same_graphs(path, exported[name]), name
        onnx.checker.check_model(path)


def test_a_world_with_outlines_starts_at_once(outlined, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_export", None)
    request = Request(world=outlined, device="cpu", num_denoise_steps=None, folder=tmp_path)
    assert BACKENDS["onnx"].is_ready(request)
    engine = OnnxEngine(outlined, folder=tmp_path / "onnx")
    assert engine.decode(torch.zeros(1, *engine.spec.latent_shape)).any()
    assert not BACKENDS["onnx"].is_ready(replace(request, num_denoise_steps=3))


def test_weights_that_come_to_lie_where_others_lay_are_others():
    """Plans cast copies of one world in turn, and memory that was freed is taken again."""
    model, hashes = torch.nn.Module(), set()
    for value in range(8):
        tensors = {"weight": torch.full((2**20,), float(value))}
        world = SimpleNamespace(model=model, start_states=(), tensors=lambda own=tensors: own)
        hashes.add(_weights_hash(world))
        hashes.add(_weights_hash(world))
        del tensors, world
    assert len(hashes) == 8


def test_outlines_of_another_world_or_code_are_not_used(own_outlined, tmp_path, monkeypatch):
    request = Request(world=own_outlined, device="cpu", num_denoise_steps=None, folder=tmp_path)
    assert BACKENDS["onnx"].is_ready(request)
    with monkeypatch.context() as patch:
        patch.setattr("engine.on_onnx.files.GRAPHS_VERSION", 0)
        assert not BACKENDS["onnx"].is_ready(request)
    own_outlined.model.places[0, 0] += 1.0
    assert not BACKENDS["onnx"].is_ready(request)


def test_a_field_that_a_config_gets_later_leaves_outlines_of_use():
    new = [("new", str, field(default="")), ("more", dict, field(default_factory=dict))]
    later = make_dataclass("Later", new, bases=(WorldConfig,), frozen=True, kw_only=True)
    config = load_preset("tiny").world
    same = {part.name: getattr(config, part.name) for part in fields(config)}
    assert _declared(later(**same)) == _declared(config) != {}
    assert _declared(later(**same, new="x")) != _declared(config)
    assert _declared(replace(config, fps=config.fps + 1)) != _declared(config)


def test_the_command_writes_outlines_in_place_of_older_ones(own_outlined, kept_graphs, capsys):
    folder = own_outlined.folder
    expected = {path.name: path.read_bytes() for path in outlines_folder(own_outlined).iterdir()}
    older = folder / "outlines" / "head-k7-int8.onnx"
    older.write_bytes(b"")
    (folder / "outlines" / "backbone.onnx").unlink()
    words = ["build", "--world", str(folder), "--folder", str(kept_graphs.parent), "--outlines"]
    assert cli.main(words) == 0
    assert f"{len(expected)} outlines" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in older.parent.iterdir()} == expected
    assert cli.main([*words, "--backend", "rtx"]) == 2
    assert "outlines are of ONNX graphs" in capsys.readouterr().err


def test_what_weights_do_not_tell_stays_in_or_is_refused(tmp_path: Path):
    rng = np.random.default_rng(0)
    tensor = rng.standard_normal((6, 70, 30), np.float32)
    weights = {"tensor": torch.from_numpy(tensor)}
    scale = np.abs(tensor).max(axis=(1, 2)) / 127
    arrays = {
        "whole": tensor,
        "turned": np.ascontiguousarray(tensor.transpose(2, 0, 1)),
        "scale": scale,
        "levels": (tensor / scale[:, None, None]).round().astype(np.int8),
        "stranger": rng.standard_normal((6, 70, 30), np.float32),
    }
    path, target = tmp_path / "graph.onnx", tmp_path / "filled.onnx"
    path.write_bytes(graph_of(arrays))
    outline = outline_of(path, weights, made_of="this")
    assert arrays["stranger"].tobytes() in outline
    for name in ("whole", "turned", "levels"):
        assert arrays[name][0].tobytes() not in outline
    (tmp_path / "outline.onnx").write_bytes(outline)
    assert read_made_of(tmp_path / "outline.onnx") == "this"
    fill_outline(tmp_path / "outline.onnx", target, weights)
    assert same_graphs(path, target)
    path.write_bytes(graph_of({"stranger": rng.standard_normal((400, 400), np.float32)}))
    with pytest.raises(ValueError, match=r"the outline of graph\.onnx would be 62\d KiB"):
        outline_of(path, weights, made_of="this")


def graph_of(arrays: dict[str, np.ndarray]) -> bytes:
    """Return a model of tensors, of which some levels have scales."""
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    node = onnx.helper.make_node("DequantizeLinear", ["levels", "scale"], ["made"], axis=0)
    graph = onnx.helper.make_graph([node], "graph", [], [], initializer=tensors)
    return onnx.helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_outlines_are_of_the_world_and_the_code_as_they_are(folder: Path, tmp_path: Path):
    world = load_world(folder)
    if not outlines_folder(world).is_dir():
        pytest.skip("this world comes without outlines: it is exported at its first start")
    steps = world.config.world.head.num_denoise_steps
    assert can_start(world, num_denoise_steps=steps, folder=tmp_path), (
        f"out of date: midas-world build --world {folder.name} --outlines writes them anew"
    )
