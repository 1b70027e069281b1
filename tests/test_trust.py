"""What others made - worlds, sessions, presets, shards - never runs code of theirs by itself."""

import logging
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import onnx
import pytest

import envs  # noqa: F401 - registers the ids
import play
from engine.on_onnx.outlines import OutlineError, fill_outline
from envs.play.game.opening import open_world
from envs.play.replay.recorded import make_recorded, open_recorded
from midas_world.commands import cli
from midas_world.config import DataConfig, ProjectConfig, load_config, load_preset, save_config
from midas_world.sessions.export.minari_dataset import export_minari
from midas_world.sessions.session import SessionError, load_session
from midas_world.trust import UntrustedError, check_data, check_env, import_named
from midas_world.types import CheckpointError
from midas_world.world import load_world
from tests.sessions import change_header, change_record, record_env, record_steps

STAGE = "envs:midas/Stage-v0"
# What a stranger's module does when it is imported, and what else it has to offer.
EVIL = """
from pathlib import Path
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv
from envs.stage.conditioner import StageConditioner
(Path(__file__).parent / "ran").touch()
gymnasium.register("Evil-v0", entry_point=CartPoleEnv)
def make(keymap):
    return StageConditioner()
"""


class Stranger:
    """A folder below sys.path, as `worlds` and `recordings` of a clone are, with a module in it."""

    def __init__(self, root: Path, name: str):
        self.folder = root / name
        self.folder.mkdir()
        self.inside = f"{name}.evil"
        self.beside = f"beside_{name}"
        (self.folder / "evil.py").write_text(EVIL)
        (root / f"{self.beside}.py").write_text(EVIL)

    @property
    def has_run(self) -> bool:
        return (self.folder / "ran").exists() or (self.folder.parent / "ran").exists()


@pytest.fixture
def root(here, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(here))
    return here


@pytest.fixture
def stranger(root, request) -> Iterator[Stranger]:
    made = Stranger(root, f"opened{abs(hash(request.node.name))}")
    yield made
    for name in (made.inside, made.beside, made.folder.name):
        sys.modules.pop(name, None)
    gym.registry.pop("Evil-v0", None)


def world_of(stranger: Stranger, tiny_folder: Path, **data) -> Path:
    """Make the stranger's folder a world whose config says so."""
    shutil.copytree(tiny_folder, stranger.folder, dirs_exist_ok=True)
    path = stranger.folder / "config.yaml"
    config = load_config(ProjectConfig, path)
    save_config(replace(config, data=replace(config.data, **data)), path)
    return stranger.folder


def session_of(stranger: Stranger, **header) -> Path:
    """Make the stranger's folder a session whose header says so."""
    record_steps(stranger.folder / "session", 3)
    for file in (stranger.folder / "session").iterdir():
        file.rename(stranger.folder / file.name)
    change_header(stranger.folder, **header)
    return stranger.folder


WAYS_TO_PLAY = {
    "make": lambda world: gym.make(STAGE, world=world, backend="torch"),
    "make_vec": lambda world: gym.make_vec(STAGE, num_envs=1, world=world, backend="torch"),
    "open": lambda world: open_world(world, backend="torch"),
}


@pytest.mark.parametrize("way", WAYS_TO_PLAY)
@pytest.mark.parametrize("place", ["inside", "beside"])
def test_a_world_that_names_a_conditioner_runs_none(stranger, tiny_folder, way, place):
    module = getattr(stranger, place)
    world = world_of(stranger, tiny_folder, conditioner=f"{module}:make")
    with pytest.raises(UntrustedError, match=f"names the module '{module}' .*conditioner.*trust"):
        WAYS_TO_PLAY[way](str(world))
    assert not stranger.has_run


def test_a_conditioner_runs_where_the_caller_trusts_it_and_never_from_inside(stranger, tiny_folder):
    world = world_of(stranger, tiny_folder, conditioner=f"{stranger.inside}:make")
    with pytest.raises(UntrustedError, match="lies in that folder"):
        gym.make(STAGE, world=str(world), backend="torch", trust=True)
    assert not stranger.has_run
    world_of(stranger, tiny_folder, conditioner=f"{stranger.beside}:make")
    env = gym.make(STAGE, world=str(world), backend="torch", trust=True)
    assert stranger.has_run
    env.reset(seed=0)


def test_the_window_s_command_says_it_in_one_line(stranger, tiny_folder, capsys):
    world = world_of(stranger, tiny_folder, conditioner=f"{stranger.inside}:make")
    command = ["--world", str(world), "--headless", "--steps", "1", "--backend", "torch"]
    for words, reason in (([], "only with --trust"), (["--trust"], "lies in that folder")):
        assert play.main([*command, *words]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert stranger.inside in said[0]
        assert reason in said[0]
    assert not stranger.has_run


def test_a_session_that_names_an_env_runs_none(stranger, capsys, caplog):
    session = session_of(stranger, env_id=f"{stranger.inside}:Evil-v0")
    assert play.main(["--replay", str(session), "--resimulate"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"names the module '{stranger.inside}' (env_id), whose code would run" in said[0]
    assert play.main(["--replay", str(session), "--resimulate", "--trust"]) == 2
    assert "lies in that folder" in capsys.readouterr().err
    with caplog.at_level(logging.WARNING):
        export_minari(load_session(session), stranger.folder.parent / "datasets")
    assert f"names the module '{stranger.inside}'" in caplog.text
    assert not stranger.has_run


def test_a_session_s_env_runs_where_the_caller_trusts_it(stranger):
    session = load_session(session_of(stranger, env_id=f"{stranger.beside}:Evil-v0"))
    with pytest.raises(UntrustedError):
        make_recorded(session)
    assert not stranger.has_run
    env: Any = make_recorded(session, trust=True)
    assert env.spec.id == "Evil-v0"
    assert stranger.has_run


@pytest.mark.parametrize("given", ["relative", "absolute", "beside", "inside"])
def test_a_world_that_a_session_brings_is_not_looked_at(stranger, tiny_folder, root, given):
    where = {"beside": root / "bait"}.get(given, stranger.folder / "bait")
    env = gym.make(STAGE, world=str(tiny_folder), backend="torch")
    record_env(env, root / "made", [2], seed=1)
    shutil.copytree(tiny_folder, where)
    session = stranger.folder / "session"
    (root / "made").rename(session)
    names = {"relative": str(where.relative_to(root)), "inside": "bait"}
    change_header(session, world__folder=str(where), world__name=names.get(given, str(where)))
    loaded = load_session(session)
    for call in (open_recorded, make_recorded):
        with pytest.raises(ValueError, match="name the recorded one's folder with --world"):
            call(loaded)
        call(loaded, world=str(tiny_folder))


def test_a_session_cannot_trust_itself(stranger, tiny_folder, root, monkeypatch):
    (root / "shipped").mkdir()
    (root / "shipped" / "stage").symlink_to(tiny_folder)
    monkeypatch.setattr("midas_world.world.WORLDS_FOLDER", root / "shipped")
    world = world_of(stranger, tiny_folder, conditioner=f"{stranger.beside}:make")
    kwargs = {"world": str(world), "trust": True, "backend": "torch"}
    (root / "other").mkdir()
    session = session_of(Stranger(root / "other", "session"), env_id=STAGE, env_kwargs=kwargs)
    change_header(session, env_id="midas/Stage-v0")
    env: Any = make_recorded(load_session(session))
    assert env.unwrapped.world.folder.name == "stage"
    with pytest.raises(UntrustedError, match="trust"):
        check_env(STAGE, {"trust": True}, source=session, field="x", trust=False)
    assert not stranger.has_run


@pytest.mark.parametrize("value", ["/etc/passwd", "../evil", "a:b", "~x", [{"a": "b/c"}], "a\\b"])
def test_an_env_of_a_file_is_made_with_plain_words_alone(value, tmp_path):
    with pytest.raises(UntrustedError, match="no plain word or number"):
        check_env("Any-v0", {"level": value}, source=tmp_path, field="env_id", trust=False)
    check_env("Any-v0", {"level": value}, source=tmp_path, field="env_id", trust=True)
    plain = {"level": "easy.cfg", "n": 3, "on": True, "list": [1, "a b"]}
    check_env("Any-v0", plain, source=tmp_path, field="env_id", trust=False)


@pytest.mark.parametrize("field", ["env_id", "policy_factory"])
def test_measuring_a_world_runs_none_of_its_code(stranger, tiny_folder, field, capsys):
    name = {"env_id": "Evil-v0", "policy_factory": "make"}[field]
    world = world_of(stranger, tiny_folder, **{field: f"{stranger.inside}:{name}"})
    command = ["eval", "--world", str(world), "--quick", "--sections", "autoencoder"]
    assert cli.main(command) == 2
    assert f"'{stranger.inside}' (data.{field})" in capsys.readouterr().err.splitlines()[-1]
    assert not stranger.has_run
    load_world(world)  # as such it can be looked at, and played


@pytest.mark.parametrize("verb", ["collect", "pack"])
def test_a_preset_that_names_a_module_runs_none(stranger, verb, capsys):
    config = load_preset("tiny")
    data = replace(config.data, policy_factory=f"{stranger.beside}:make")
    save_config(replace(config, data=data), stranger.folder / "my.yaml")
    words = ["--world", "x"] if verb == "pack" else []
    assert cli.main([verb, "--preset", str(stranger.folder / "my.yaml"), *words]) == 2
    assert "only with --trust" in capsys.readouterr().err
    assert play.main(["--teacher", str(stranger.folder / "my.yaml"), "--headless"]) == 2
    assert not stranger.has_run


def test_shipped_worlds_and_presets_need_no_trust(tmp_path):
    for name in ("tiny", "stage", "dream", "stage-hd", "paper"):
        check_data(load_preset(name).data, source=tmp_path, trust=False)


@pytest.mark.parametrize("name", ["os:make_policy", "envs.sb3:make_sb3_vec_env", "envs.a:b"])
def test_of_our_own_functions_a_file_may_name_those_that_make_policies_alone(name, tmp_path):
    with pytest.raises(UntrustedError, match="only with --trust"):
        check_data(DataConfig(policy_factory=name), source=tmp_path, trust=False)


def test_a_module_inside_the_folder_is_found_by_any_of_its_names(stranger, root, monkeypatch):
    (stranger.folder / "package").mkdir()
    (stranger.folder / "package" / "__init__.py").write_text(EVIL)
    (stranger.folder / "package" / "inner.py").write_text(EVIL)
    (root / "link").symlink_to(stranger.folder)
    monkeypatch.syspath_prepend(str(stranger.folder))
    for name in (stranger.inside, "evil", "package.inner", "link.evil"):
        with pytest.raises(UntrustedError, match="lies in that folder"):
            import_named(name, source=stranger.folder, field="x", trust=True)
    assert not stranger.has_run
    for name in ("package", "link"):
        sys.modules.pop(name, None)


def test_the_present_folder_is_not_searched_for_modules(root, capsys, monkeypatch):
    (root / "handmade.py").write_text(EVIL)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in (str(root), "")])
    for command in (
        ["collect", "--env", "handmade:Evil-v0"],
        ["collect", "--env", "CartPole-v1", "--policy", "handmade:make"],
        ["dream", "handmade:Evil-v0"],
    ):
        assert cli.main(command) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "No module named 'handmade'" in said
        assert "PYTHONPATH" in said
    assert not (root / "ran").exists()


@pytest.mark.parametrize("text", ["${oc.env:SECRET}", "${seed}", "a ${oc.env:SECRET} b"])
def test_yaml_of_others_is_not_resolved(own_world, tmp_path, monkeypatch, text):
    monkeypatch.setenv("SECRET", "s3cret")
    keymap = own_world / "keymap.yaml"
    keymap.write_text(keymap.read_text().replace("- idle", f"- '{text}'"))
    with pytest.raises(CheckpointError, match=r"keymap.yaml: actions must be a plain value"):
        load_world(own_world)
    preset = tmp_path / "my.yaml"
    preset.write_text(f"data:\n  env_kwargs:\n    deep: [{{a: '{text}'}}]\n")
    with pytest.raises(ValueError, match=r"data.env_kwargs.deep must be a plain value"):
        load_preset(str(preset))


@pytest.mark.parametrize("name", ["/etc/passwd", "../state-000000.safetensors", "header.json", 3])
def test_a_state_is_a_file_of_its_session(tmp_path, name):
    record_steps(tmp_path / "session", 2)
    change_record(tmp_path / "session", 0, begin={"seed": 1, "state": name})
    with pytest.raises(SessionError, match=r"steps.log, line 1: state must be a"):
        load_session(tmp_path / "session")


def test_an_outline_reads_no_other_file(tmp_path):
    (tmp_path / "secret").write_bytes(b"\0" * 16)
    outside = onnx.TensorProto(name="w", dims=[4], data_type=onnx.TensorProto.FLOAT)
    outside.data_location = onnx.TensorProto.EXTERNAL
    outside.external_data.add(key="location", value=str(tmp_path / "secret"))
    constant = onnx.helper.make_node("Constant", [], ["c"], value=outside)
    sparse = onnx.SparseTensorProto(values=outside, dims=[4])
    empty = onnx.helper.make_graph([], "g", [], [])
    function = onnx.helper.make_function("d", "f", [], ["c"], [constant], [])
    for graph, functions in (
        (onnx.helper.make_graph([], "g", [], [], initializer=[outside]), []),
        (onnx.helper.make_graph([], "g", [], [], sparse_initializer=[sparse]), []),
        (onnx.helper.make_graph([constant], "g", [], []), []),
        (empty, [function]),
    ):
        model = onnx.helper.make_model(graph, functions=functions)
        props = {"midas-world.made_of": "x", "midas-world.weights": "{}"}
        onnx.helper.set_model_props(model, props)
        (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(OutlineError, match="a tensor lies in another file"):
            fill_outline(tmp_path / "a.onnx", tmp_path / "b.onnx", {})


def test_export_shows_no_teacher_but_stage(stranger, capsys):
    session = session_of(stranger, teacher=f"{stranger.inside}:Evil-v0")
    output = str(stranger.folder.parent / "a.gif")
    command = ["export", str(session), "--to", "gif", "--teacher", "--output", output]
    assert cli.main(command) == 2
    assert "has no teacher to show beside it" in capsys.readouterr().err
    assert not stranger.has_run
