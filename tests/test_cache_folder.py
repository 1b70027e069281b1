"""Where nothing can be kept, or what was kept is damaged, play goes on all the same."""

import logging
import pwd
from pathlib import Path

import onnx
import pygame
import pytest

import play
from engine import make_engine
from engine.on_onnx import export
from engine.on_onnx.export import can_start, export_graphs
from engine.on_onnx.files import outlines_folder
from envs.play.game.background_build import begin_build
from envs.play.game.game_thread import GameThread
from envs.play.window.window import Window
from midas_world import user_folders as module
from midas_world.types import BackendUnavailableError
from midas_world.user_folders import cache_folder, settings_folder
from midas_world.world import World
from tests.disk import full_disk


@pytest.fixture(autouse=True)
def no_folder_yet():
    module._temporary_folder.cache_clear()
    export._damaged_outlines.clear()


def test_a_folder_that_cannot_be_written_gives_way_to_a_temporary_one(
    tmp_path, monkeypatch, caplog
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MIDAS_WORLD_CACHE", str(tmp_path / "file" / "cache"))
    folder = cache_folder()
    assert cache_folder() == folder
    (folder / "a").write_text("there is room")
    assert folder.name.startswith("midas-world-")
    (warning,) = caplog.messages
    assert "cache cannot be used: Not a directory" in warning
    assert "MIDAS_WORLD_CACHE names another" in warning


def test_a_read_only_folder_is_used_only_for_what_is_in_it(tmp_path, monkeypatch):
    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(module.tempfile, "TemporaryFile", refuse)
    monkeypatch.setenv("MIDAS_WORLD_CACHE", str(tmp_path))
    assert cache_folder() != tmp_path
    (tmp_path / "onnx").mkdir()
    assert cache_folder() == tmp_path


@pytest.fixture(params=["newest", "oldest"])
def no_home(request, monkeypatch, here):
    """A user that no passwd file knows, without HOME."""
    for name in ("HOME", "MIDAS_WORLD_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_):
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    if request.param == "oldest":
        for kind in ("cache", "config"):
            place = Path(f"~/.{kind}")
            name = f"user_{kind}_path"
            monkeypatch.setattr(module.platformdirs, name, lambda *_, at=place, **__: at)


@pytest.mark.usefixtures("no_home")
def test_without_a_home_all_is_kept_in_a_temporary_folder(tmp_path, caplog):
    folder = cache_folder()
    assert folder.is_dir()
    assert settings_folder() == folder
    (warning,) = caplog.messages
    assert "could not determine the home directory" in warning
    assert "what is made now is not kept" in warning


@pytest.mark.usefixtures("no_home")
def test_without_a_home_the_window_plays(tmp_path, monkeypatch):
    once = Window.run_once

    def run_once(window: Window, session: GameThread) -> bool:
        if session.view is not None:
            window._settings.change(volume=3)
            pygame.event.post(pygame.Event(pygame.QUIT))
        return once(window, session)

    monkeypatch.setattr(Window, "run_once", run_once)
    assert play.main(["--teacher"]) == 0
    assert not list(tmp_path.iterdir())


def test_faster_engines_are_prepared_in_the_folder_of_this_process(
    tiny_world: World, tmp_path, monkeypatch
):
    monkeypatch.setenv("MIDAS_WORLD_CACHE", str(tmp_path / "cache"))
    asked = []
    path = "envs.play.game.background_build.BackgroundBuild"
    monkeypatch.setattr(path, lambda _, arguments: asked.append(arguments))
    engine = make_engine(tiny_world, backend="torch:float32", device="cpu")
    begin_build(tiny_world, engine, num_denoise_steps=None)
    ((_, _, _, folder),) = asked
    assert folder == tmp_path / "cache"


# A full disk


def test_on_a_full_disk_torch_plays(outlined: World, tmp_path, caplog):
    with full_disk(1000):
        engine = make_engine(outlined, device="cpu", folder=tmp_path)
    assert engine.spec.backend == "torch"
    assert "MIDAS_WORLD_CACHE names another" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]
    with full_disk(1000), pytest.raises(BackendUnavailableError, match="MIDAS_WORLD_CACHE"):
        make_engine(outlined, backend="onnx", folder=tmp_path)


# Damaged files


def decoder(world: World, folder: Path) -> Path:
    return export_graphs(world, names=["decoder"], folder=folder)["decoder"]


def starts(world: World, folder: Path) -> bool:
    steps = world.config.world.head.num_denoise_steps
    return can_start(world, num_denoise_steps=steps, folder=folder)


def head_outline(world: World) -> Path:
    (outline,) = (path for path in outlines_folder(world).iterdir() if "head" in path.name)
    return outline


def cut(data: bytes) -> bytes:
    return b""


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("damage", [cut, flip])
def test_a_damaged_graph_is_thrown_away_and_made_again(outlined, tmp_path, caplog, damage):
    path = decoder(outlined, tmp_path)
    whole = path.read_bytes()
    assert not caplog.messages
    path.write_bytes(damage(whole))
    assert decoder(outlined, tmp_path).read_bytes() == whole
    assert f"{path} is damaged; it is made again" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip,
        lambda data: data[:-9],
        lambda data: data.replace(b'{"name"', b'{"nome"'),
        lambda data: b"\xff" * 99,
    ],
)
def test_a_damaged_outline_is_as_if_absent_and_told_once(
    own_outlined, tmp_path, monkeypatch, caplog, damage
):
    world, outline = own_outlined, head_outline(own_outlined)
    assert starts(world, tmp_path)
    outline.write_bytes(damage(outline.read_bytes()))
    exported: list[str] = []
    monkeypatch.setattr(export, "_make", lambda name, *_, **__: exported.append(name))
    with caplog.at_level(logging.WARNING):
        assert not starts(world, tmp_path)
        assert not starts(world, tmp_path)
        export_graphs(world, names=["head"], folder=tmp_path)
    assert exported == ["head"]
    (warning,) = caplog.messages
    assert f"{outline} is damaged, or no outline" in warning


def test_outlines_of_damage_that_no_checksum_tells_are_refused_when_filled(
    own_outlined, tmp_path, monkeypatch
):
    """As those are that others wrote, or older versions."""
    outline = head_outline(own_outlined)
    model = onnx.load(outline)
    kept = [item for item in model.metadata_props if not item.key.endswith("sha256")]
    del model.metadata_props[:]
    for item in kept:
        if item.key.endswith("weights"):
            item.value = item.value.replace('"name": "', '"name": "un')
        model.metadata_props.append(item)
    outline.write_bytes(model.SerializeToString())
    exported: list[str] = []
    monkeypatch.setattr(export, "_make", lambda name, *_, **__: exported.append(name))
    export_graphs(own_outlined, names=["head"], folder=tmp_path)
    assert exported == ["head"]
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_a_torch_that_cannot_export_is_told(tiny_world: World, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Graph break due to unsupported builtin\nand a page more")

    monkeypatch.setattr("torch.export.export", refuse)
    words = r"cannot export the decoder graph to ONNX \(Graph break due to unsupported builtin\)"
    with pytest.raises(BackendUnavailableError, match=words):
        export_graphs(tiny_world, names=["decoder"], folder=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
