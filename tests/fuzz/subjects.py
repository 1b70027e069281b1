"""What is opened: for each kind of file, a good one, and what a user does with it."""

import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import onnx
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from onnx import TensorProto, helper, numpy_helper

import envs  # noqa: F401 - registers the ids
from engine.on_onnx.files import is_intact, seal
from engine.on_onnx.outlines import fill_outline, outline_of
from engine.on_tensorrt.plan import TrtPlan
from engine.select import _load_times
from envs.play.headless import read_actions
from envs.play.replay.recorded import Tape, make_recorded
from envs.play.replay.resimulate import resimulate
from envs.stage.controller import ACTIONS
from envs.world.env import WorldEnv
from envs.world.state import WorldState
from midas_world import world
from midas_world.config import ProjectConfig, load_config, load_preset, save_config
from midas_world.data.episodes import load_episode
from midas_world.data.packing import pack
from midas_world.data.shard_index import open_shards
from midas_world.data.shards import Losses, read_samples
from midas_world.importing.opening import ImportRequest
from midas_world.importing.plan import plan_import
from midas_world.importing.writing import write_plan
from midas_world.sessions.session import load_session
from midas_world.teachers.actions import configured_actions
from midas_world.teachers.project import KeyMapFile
from midas_world.world import load_world
from tests.fakes import make_tiny_world
from tests.recordings import TABLES, make_lerobot, make_minari
from tests.sessions import record_steps
from tests.shard_data import save_all


class SilentlyWrongError(Exception):
    """Something was taken for good that is not."""


def remember_configs() -> None:
    """Let this process read a world's configs of equal bytes once: most changes are elsewhere."""
    known: dict[tuple[type, bytes], Any] = {}

    def load(cls: type, path: Path) -> Any:
        key = cls, path.read_bytes()
        if key not in known:
            known[key] = load_config(cls, path)
        return known[key]

    world.load_config = load


@dataclass(frozen=True)
class Subject:
    """A kind of file or folder.

    Attributes:
        make: Writes a good one into a folder that is there.
        use: Does with it what users do.
    """

    make: Callable[[Path], object]
    use: Callable[[Path], object]


def _use_world(folder: Path) -> None:
    env = WorldEnv(load_world(folder), backend="torch:float32", horizon=4)
    env.reset(seed=0)
    env.step(0)
    state = env.save_state().tensors["rollout.latents"]
    if not state.isfinite().all():
        raise SilentlyWrongError("latents are not finite")


@functools.cache
def _tiny_env() -> WorldEnv:
    """Return a game for states, made once: its world is another subject."""
    with tempfile.TemporaryDirectory() as folder:
        tiny = load_world(make_tiny_world(Path(folder) / "world"))
        return WorldEnv(tiny, backend="torch:float32")


def _make_state(folder: Path) -> None:
    env = _tiny_env()
    env.reset(seed=0)
    env.save_state().save(folder / "state.safetensors")


def _use_state(folder: Path) -> None:
    env = _tiny_env()
    env.reset(seed=0)
    try:
        env.restore_state(WorldState.load(folder / "state.safetensors"))
    except ValueError:
        env.step(0)  # a state that was refused ends no game
        raise
    with contextlib.suppress(ResetNeeded):  # one that says that the game is over does
        env.step(0)
    if not env.save_state().tensors["rollout.latents"].isfinite().all():
        raise SilentlyWrongError("latents are not finite")


def _make_session(folder: Path) -> None:
    record_steps(folder / "session", 5)
    for file in (folder / "session").iterdir():
        file.rename(folder / file.name)
    (folder / "session").rmdir()
    header = json.loads((folder / "header.json").read_text())
    changed = {"env_id": "CartPole-v1", "action_space": {"kind": "Discrete", "n": 15, "start": 0}}
    (folder / "header.json").write_text(json.dumps(header | changed))


def _use_session(folder: Path) -> None:
    session = load_session(folder)
    if not session.num_frames:
        return
    tape = Tape(session)
    tape.view(len(tape) - 1)
    resimulate(tape, make_recorded(session))


def _use_episode(folder: Path) -> None:
    (path,) = [path for path in folder.iterdir() if path.is_dir()]
    episode = load_episode(path)
    if not (episode.frames[..., 0] == 1).all() or list(episode.actions[:3]) != [1, 2, 3]:
        raise SilentlyWrongError("frames or actions are others")


def _make_shards(folder: Path) -> None:
    save_all(folder / "data" / "train", range(1, 4))
    save_all(folder / "data" / "validation", (9,))
    pack(folder / "data", str(folder / "shards"))
    for path in sorted((folder / "data").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def _use_shards(folder: Path) -> None:
    url = str(folder / "shards" / "train")
    shards, losses = open_shards(url), Losses()
    names = [s.name for shard in shards.shards for s in read_samples(url, shard, losses)]
    if len(names) != len(set(names)):
        raise SilentlyWrongError("an episode came twice")


def _use_recording(path: Path, **options) -> None:
    output = path.parent / "imported"
    shutil.rmtree(output, ignore_errors=True)
    request = ImportRequest(sources=[path], to=output, preset="tiny", **options)
    plan = plan_import(request)
    assert str(plan)
    try:
        write_plan(plan)
    except ValueError:
        if output.exists():
            raise SilentlyWrongError("half an import was left") from None
        raise


def _use_keymap(folder: Path) -> None:
    actions = load_config(KeyMapFile, folder / "keys.yaml").actions
    configured_actions(actions, spaces.Discrete(3))


_WEIGHTS = {"w": torch.arange(4096.0).reshape(64, 64)}


def _make_graph(path: Path) -> None:
    """Write a graph of one layer, whose weight an outline leaves out."""
    value = functools.partial(helper.make_tensor_value_info, elem_type=TensorProto.FLOAT)
    weight = numpy_helper.from_array(_WEIGHTS["w"].numpy(), "weight")
    node = helper.make_node("MatMul", ["x", "weight"], ["y"])
    ends = [value("x", shape=[1, 64])], [value("y", shape=[1, 64])]
    model = helper.make_model(helper.make_graph([node], "head", *ends, initializer=[weight]))
    path.write_bytes(model.SerializeToString())


def _make_cache(folder: Path) -> None:
    times = {"milliseconds": {"torch float32": 12.5, "onnx": 9.0}}
    (folder / "choice.json").write_text(json.dumps(times))
    _make_graph(folder / "head.onnx")
    seal(folder / "head.onnx")


def _use_cache(folder: Path) -> None:
    times = _load_times(folder / "choice.json", ["torch float32", "onnx"])
    if not all(np.isfinite(value) and value > 0 for value in times.values()):
        raise SilentlyWrongError(f"times {times}")
    graph = folder / "head.onnx"
    if is_intact(graph):
        _make_graph(folder / "good.onnx")
        if graph.read_bytes() != (folder / "good.onnx").read_bytes():
            raise SilentlyWrongError("a graph is another")


def _make_outlines(folder: Path) -> None:
    """Write one with its checksum and one without, as others may."""
    _make_graph(folder / "graph")
    (folder / "own.onnx").write_bytes(outline_of(folder / "graph", _WEIGHTS, made_of="x"))
    model = onnx.load(folder / "own.onnx")
    del model.metadata_props[-1]
    (folder / "other.onnx").write_bytes(model.SerializeToString())
    (folder / "graph").unlink()


def _use_outlines(folder: Path) -> None:
    for name in ("own", "other"):
        fill_outline(folder / f"{name}.onnx", folder / "filled.onnx", _WEIGHTS)
    fill_outline(folder / "own.onnx", folder / "filled.onnx", _WEIGHTS)
    (filled,) = onnx.load(folder / "filled.onnx").graph.initializer
    if not np.array_equal(numpy_helper.to_array(filled), _WEIGHTS["w"]):
        raise SilentlyWrongError("a weight is another")


def _use_prompt(folder: Path) -> None:
    env = gymnasium.make("midas/StageTeacher-v0", horizon=3).unwrapped
    env.reset(seed=0)
    env.set_prompt((folder / "prompt.txt").read_text(encoding="utf-8"))  # pyright: ignore
    env.step(0)
    env.close()


KEYS = "actions:\n  idle: {value: 0}\n  go: {value: 1, keys: [up, left]}\n  turn: {value: 2}\n"
LINES = "walk_right x 20\nkick, jump  # twice\nidle*2\ntalk x2\n"

SUBJECTS = {
    "world": Subject(lambda f: make_tiny_world(f), _use_world),
    "state": Subject(_make_state, _use_state),
    "session": Subject(_make_session, _use_session),
    "episode": Subject(lambda f: save_all(f, [1]), _use_episode),
    "shards": Subject(_make_shards, _use_shards),
    "plan": Subject(
        lambda f: save_config(TrtPlan(precision="fp16", max_batch=8), f / "plan.yaml"),
        lambda f: load_config(TrtPlan, f / "plan.yaml"),
    ),
    "preset": Subject(
        lambda f: save_config(load_preset("tiny"), f / "my.yaml"),
        lambda f: load_config(ProjectConfig, f / "my.yaml"),
    ),
    "key map": Subject(lambda f: (f / "keys.yaml").write_text(KEYS), _use_keymap),
    "lerobot": Subject(lambda f: make_lerobot(f, 20), lambda f: _use_recording(f / "lerobot")),
    "minari": Subject(
        lambda f: make_minari(f, 20), lambda f: _use_recording(f / "session-v0", source_fps=20.0)
    ),
    "arrow": Subject(
        lambda f: TABLES["arrow"](f), lambda f: _use_recording(f / "arrow", source_fps=20.0)
    ),
    "cache": Subject(_make_cache, _use_cache),
    "outline": Subject(_make_outlines, _use_outlines),
    "actions": Subject(
        lambda f: (f / "actions.txt").write_text(LINES),
        lambda f: read_actions(f / "actions.txt", ACTIONS),
    ),
    "prompt": Subject(
        lambda f: (f / "prompt.txt").write_text("a rainy night in the snow forest, green coat"),
        _use_prompt,
    ),
}
torch.set_num_threads(1)
