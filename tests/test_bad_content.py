"""What a damaged or hostile file holds is refused in one line that names the file and the field."""

import json
import shutil
import sys
import tarfile
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors import safe_open
from safetensors.torch import save_file

from engine.select import _load_times
from envs.play.headless import parse_actions
from envs.play.replay.recorded import load_state
from envs.stage.controller import ACTIONS
from envs.world.conditioners import load_conditioner, make_conditioner
from envs.world.env import WorldEnv
from envs.world.state import WorldState
from midas_world.checkpoint import load_tensors
from midas_world.commands import cli
from midas_world.config import ActionConfig, ProjectConfig, load_config, load_preset
from midas_world.data.episodes import EpisodeError, load_episode
from midas_world.data.shard_index import ShardError, open_shards
from midas_world.data.shards import Losses, read_samples
from midas_world.sessions.session import SessionError, load_session
from midas_world.teachers.actions import configured_actions
from midas_world.teachers.project import KeyMapFile
from midas_world.types import CheckpointError
from midas_world.world import World, load_world
from tests.sessions import record_steps
from tests.shard_data import save_all

WEIGHTS = "weights.safetensors"


@pytest.fixture
def world(tiny_folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny world that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "world")


def resave(path: Path, change) -> None:
    """Change a file's tensors and write it as others do, without our checksum."""
    tensors = load_tensors(path)
    with safe_open(path, framework="pt") as file:
        metadata = {key: v for key, v in file.metadata().items() if key != "crc32"}
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def compressed(tensors) -> str:
    return next(name for name in sorted(tensors) if tensors[name].dtype == torch.int8)


def plain(tensors) -> str:
    return next(n for n in sorted(tensors) if tensors[n].dtype == torch.float32 and ":" not in n)


def _not_finite(value):
    def change(tensors):
        tensors[plain(tensors)].view(-1)[-1] = value

    return change


def _without_scale(tensors):
    del tensors[compressed(tensors) + ":scale"]


def _one_scale(tensors):
    name = compressed(tensors) + ":scale"
    tensors[name] = tensors[name][:1].clone()


def _scale_not_finite(tensors):
    tensors[compressed(tensors) + ":scale"][0] = float("inf")


def _whole_numbers(kind):
    def change(tensors):
        name = plain(tensors)
        tensors[name] = tensors[name].to(kind)

    return change


def _strange_scale(tensors):
    tensors[plain(tensors) + ":scale"] = torch.ones(3)


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (_not_finite(float("nan")), plain, "not finite"),
        (_not_finite(float("inf")), plain, "not finite"),
        (_without_scale, compressed, "needs .* scales, there are none"),
        (_one_scale, compressed, r"needs .* scales, there are \(1,\)"),
        (_scale_not_finite, compressed, "not finite"),
        (_whole_numbers(torch.int64), plain, "is of torch.int64, not torch.float32"),
        (_whole_numbers(torch.bool), plain, "is of torch.bool, not torch.float32"),
        (_whole_numbers(torch.int8), plain, "needs .* scales, there are none"),
        (_strange_scale, plain, "scales no tensor of int8"),
    ],
)
def test_weights_without_a_checksum_are_checked(world, change, name, words):
    tensor = name(load_tensors(world / WEIGHTS)).partition(".")[2]
    resave(world / WEIGHTS, change)
    with pytest.raises(CheckpointError, match=f"{WEIGHTS}.*{tensor}.*{words}"):
        load_world(world)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("backbone.mlp_width=1000000000", "mlp_width must be 1 to 65536"),
        ("backbone.num_layers=1000000000", "num_layers must be 1 to 128"),
        ("backbone.context_frames=1000000000", "are too many"),
        ("conditions.text_buckets=1000000000", "text_buckets must be 1 to"),
        ("conditions.pose_size=1000000000", "pose_size must be 0 to"),
        ("conditions.camera.loop=1000000000", "loop must be 1 to"),
        ("autoencoder.encoder_depths=[1000000000,1]", "encoder_depths must be 0 to 128"),
        ("autoencoder.latent_channels=1000000000", "latent_channels must be 1 to"),
        ("head.widths=[8,1000000000]", "widths must be 1 to"),
        ("motion.reach=1000000000", "reach must be 0 to 256"),
        ("entries.columns=1000000000", "columns must be 1 to"),
        ("scenery.layers.ground.slots=1000000000", "slots must be 1 to"),
        ("scenery.width=1000000000", "width must be 0 to"),
        ("scenery.windows.character.widths=[8,1000000000]", "widths must be 1 to"),
        ("height=65520", "height times width must be at most"),
        ("reward_bins=1000000000", "reward_bins must be 2 to"),
        ("noise_buckets=1000000000", "noise_buckets must be 1 to"),
        ("backbone.num_heads=-4", "num_heads must be 1 to"),
        ("backbone.num_kv_heads=0", "num_kv_heads must be 1 to"),
        ("reward_limit=.inf", "reward_limit must be finite"),
        ("head.temperature=.nan", "temperature must be at least 0, got nan"),
        ("motion.parallax=[.nan]", "parallax must be finite"),
    ],
)
def test_sizes_have_limits(override, words):
    base = ["world.autoencoder.widths=[16,16]"] if "encoder_depths" in override else []
    with pytest.raises(ValueError, match=words):
        load_preset("tiny", [*base, f"world.{override}"])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mlp_width: ", "mlp_width: 65536 #"),
        ("num_layers: ", "num_layers: 128 #"),
        ("text_buckets: ", "text_buckets: 16777216 #"),
        ("word_width: ", "word_width: 65536 #"),
        ("num_heads: ", "num_heads: 4096 #"),
        ("vector_width: ", "vector_width: 65536 #"),
    ],
)
def test_sizes_are_compared_with_the_file_before_anything_is_built(world, monkeypatch, old, new):
    path = world / "config.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    devices = []
    real = torch.nn.Linear.__init__

    def note(self, *args, **kwargs):
        devices.append(torch.get_default_device().type)
        real(self, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Linear, "__init__", note)
    with pytest.raises(CheckpointError, match="does not fit its config"):
        load_world(world)
    assert set(devices) == {"meta"}


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("latents", lambda t: t[:, :-1].clone(), r"latents must be \(15, 32\)"),
        ("pose", lambda t: t[:, :-1].clone(), r"pose must be \(38,\) float32"),
        ("pose", lambda t: t.double(), r"pose must be .* float64"),
        ("pose", lambda t: t + torch.inf, "pose is not finite"),
        ("audio", lambda t: t * torch.nan, "audio is not finite"),
        ("conditioner.levels", lambda t: t * torch.nan, "levels is not finite"),
    ],
)
def test_start_states_fit_their_world(world, name, change, words):
    def change_one(tensors):
        full = f"0001.{name}"
        tensors[full] = change(tensors[full])

    resave(world / "start_states.safetensors", change_one)
    with pytest.raises(CheckpointError, match=f"start state 1: {words}"):
        load_world(world)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_state_that_is_not_finite_is_refused(tiny_world: World, tmp_path, value):
    env = WorldEnv(tiny_world, backend="torch")
    env.reset(seed=0)
    env.step(2)
    state = env.save_state()
    state.save(tmp_path / "good.safetensors")
    env.restore_state(WorldState.load(tmp_path / "good.safetensors"))
    floats = [name for name, tensor in state.tensors.items() if tensor.is_floating_point()]
    assert any(name.endswith("pose") for name in floats)
    for name in floats:
        if value != value and name in ("pose", "audio"):  # where it means that there is none
            continue
        tensors = {key: tensor.clone() for key, tensor in state.tensors.items()}
        if not tensors[name].numel():
            continue
        tensors[name].view(-1)[0] = value
        WorldState(tensors=tensors, world=state.world).save(tmp_path / "bad.safetensors")
        with pytest.raises(CheckpointError, match=f"bad.safetensors: {name} is not finite"):
            WorldState.load(tmp_path / "bad.safetensors")


def test_a_damaged_state_of_any_other_env_is_refused(tmp_path):
    path = tmp_path / "state-000001.safetensors"
    for content in (b"", b"no state", b"\xff" * 99):
        path.write_bytes(content)
        with pytest.raises(SessionError, match=f"{path.name} is truncated or corrupt"):
            load_state(path, is_world=False)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recorded") / "session"
    record_steps(folder, 4)
    return folder


@pytest.fixture
def session(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / "session")


def change_line(folder: Path, number: int, **values) -> None:
    """Change a line of a log, under a right checksum; "a.b" is b of a."""
    lines = (folder / "steps.log").read_bytes().splitlines()
    words = json.loads(lines[number].partition(b" ")[2])
    for key, value in values.items():
        *parents, last = key.split("__")
        inner = words
        for name in parents:
            inner = inner[name]
        inner[last] = value
    text = json.dumps(words).encode()
    lines[number] = b"%08x %s" % (zlib.crc32(text), text)
    (folder / "steps.log").write_bytes(b"\n".join(lines) + b"\n")


ARRAY = {"__array__": "AAAAAA==", "dtype": "<f4", "shape": [1]}


@pytest.mark.parametrize(
    ("number", "field", "value", "words"),
    [
        (1, "frame", "1", "frame must be a whole number"),
        (1, "frame", 1.5, "frame must be a whole number"),
        (1, "frame", True, "frame must be a whole number"),
        (1, "frame", 10**30, "frame must be a whole number"),
        (1, "frame", 3, "frame must be 1, got 3"),
        (1, "frame", None, "frame is missing"),
        (1, "frame_hash", 5, "frame_hash must be a text"),
        (1, "kind", "jump", "kind must be one of"),
        (1, "wall_time", "now", "wall_time must be a number"),
        (1, "reward", [1.0], "reward must be a number"),
        (1, "terminated", 1, "terminated must be true or false"),
        (1, "episode_step", -1, "episode_step must be at least 0"),
        (1, "episode_step", {}, "episode_step must be a whole number"),
        (1, "conditions", [], "conditions|values by name"),
        (1, "conditions", {"pose": [1, 2]}, "pose must be an array"),
        (1, "conditions", {"text": 3}, "text must be a text"),
        (1, "conditions", {"smell": 3}, "there is no 'smell'"),
        (1, "conditions", {"pose": ARRAY | {"shape": [1, 1]}}, "pose must be finite numbers in"),
        (1, "conditions", {"pose": ARRAY | {"__array__": "AADAfw=="}}, "pose must be finite"),
        (1, "conditions", {"pose": ARRAY | {"dtype": "O"}}, "line 2"),
        (1, "conditions", {"pose": ARRAY | {"dtype": "zz"}}, "line 2"),
        (1, "conditions", {"pose": {"__array__": "AAAA"}}, "'dtype' is missing"),
        (1, "action", 99, "action at frame 1 must be 0 to 14"),
        (1, "action", "left", "action at frame 1 must be 0 to 14"),
        (1, "action", None, "action at frame 1 must be 0 to 14"),
        (1, "wings", 2, "there is no 'wings'"),
        (0, "begin", 3, "begin must be values by name"),
        (0, "begin__seed", "five", "seed must be a whole number"),
        (0, "begin__actions", 7, "actions must be a list"),
        (0, "begin__prompts", [["a", 1]], "prompts must be a whole number"),
        (0, "begin__prompts", [[1]], "prompts must have 2 entries"),
        (0, "begin__prompt", 7, "prompt must be a text"),
        (0, "begin__options", [1], "options must be values by name"),
        (0, "begin__teacher_start", {"x": "far"}, "teacher_start.x must be an array"),
    ],
)
def test_a_log_of_wrong_types_is_refused(session, number, field, value, words):
    change_line(session, number, **{field: value})
    with pytest.raises(SessionError, match=f"steps.log.*({words})") as caught:
        load_session(session)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("fps", "fast", "fps must be a number"),
        ("fps", float("inf"), "fps must be positive"),
        ("frame_size", [24], "frame_size must have 2 entries"),
        ("frame_size", [24, 10**9], "frame_size must be"),
        ("frame_size", 24, "frame_size must be a list"),
        ("action_names", [1, 2], "action_names must be a text"),
        ("action_space", {"kind": "Discrete", "n": "many"}, "action_space must have"),
        ("action_space", [], "action_space must be values by name"),
        ("seed", "5", "seed must be a whole number"),
        ("world", "stage", "world must be values by name"),
        ("env_id", None, "env_id must be a text"),
        ("env_kwargs", [], "env_kwargs must be values by name"),
        ("backend", 7, "backend must be values by name"),
        ("versions", {"numpy": 2}, "versions.numpy must be a text"),
        ("horizon", 1.5, "horizon must be a whole number"),
        ("wings", 2, "there is no 'wings'"),
    ],
)
def test_a_header_of_wrong_types_is_refused(session, field, value, words):
    path = session / "header.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(SessionError, match=f"header.json: {words}"):
        load_session(session)


@pytest.mark.parametrize("text", ["[" * 100_000, '"x"', "[]", "\udcff", "9" * 5000])
def test_json_of_another_shape_is_refused(session, text):
    for name in ("header.json", "end.json"):
        kept = (session / name).read_bytes()
        (session / name).write_bytes(text.encode(errors="surrogateescape"))
        if name == "end.json":
            assert not load_session(session).is_closed
        else:
            with pytest.raises(SessionError, match=name):
                load_session(session)
        (session / name).write_bytes(kept)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("actions: {idle: [1]}", "actions.idle must hold keys and values"),
        ("actions: [idle]", "actions must hold keys and values"),
        ("actions: {idle: {keys: {a: 1}}}", "actions.idle.keys must be a list"),
        ("actions: {idle: {keys: left}}", "actions.idle.keys must be a list"),
        ("actions: {idle: {value: 1e400}}", "actions.idle.value must be finite"),
        ("actions: {idle: {value: [.nan]}}", "actions.idle.value must be finite"),
        ("actions: {idle: {value: " + "9" * 5000 + "}}", "limit"),
        ("actions: {idle: {value: " + "[" * 500 + "]" * 500 + "}}", "nested too deeply|depth"),
        ("actions: &a {idle: {value: *a}}", "recursive|alias|keys.yaml"),
    ],
)
def test_a_key_map_of_wrong_types_is_refused(tmp_path, text, words):
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"keys.yaml: .*({words})"):
        load_config(KeyMapFile, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("world: [1]", "world must hold keys and values"),
        ("world: {head: {widths: 5}}", "world.head.widths must be a list"),
        ("world: {scenery: [layers]}", "world.scenery must hold keys and values"),
        ("world: {scenery: {layers: 3}}", "world.scenery.layers must hold keys and values"),
        ("world: {fps: [20]}", "world.fps must be a single value"),
        ("world: {fps: {a: 1}}", "world.fps must be a single value"),
        ("world: {conditions: {limbs: [1, 2]}}", "world.conditions.limbs must be a list"),
        ("data: {policies: [random]}", "data.policies must hold keys and values"),
    ],
)
def test_a_config_whose_parts_are_of_another_kind_names_the_field(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"config.yaml: {words}"):
        load_config(ProjectConfig, path)


def test_actions_that_overflow_are_named():
    actions = {"idle": ActionConfig(value=10**400)}
    for space in (spaces.Discrete(3), spaces.Box(-1, 1, (1,)), spaces.MultiBinary(1)):
        with pytest.raises(ValueError, match="key map: idle is 10"):
            configured_actions(actions, space)


@pytest.mark.parametrize("value", [10**400, float("inf"), "x", [1], None, -1])
def test_a_measurement_that_is_none_is_made_again(tmp_path, value):
    path = tmp_path / "choice.json"
    path.write_text(json.dumps({"milliseconds": {"torch": value}}))
    assert _load_times(path, ["torch"]) == {}
    assert not path.exists()


def change_index(url: str, change) -> None:
    path = Path(url) / "train" / "index.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.fixture
def packed(shards: str, tmp_path: Path) -> str:
    return str(shutil.copytree(shards, tmp_path / "shards"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["shards"][0].update(name="../../etc/passwd"), "name must be a plain one"),
        (lambda v: v["shards"][0].update(name="x::http://y/z"), "name must be a plain one"),
        (lambda v: v["shards"][0].update(num_episodes="2"), "num_episodes must be a whole number"),
        (lambda v: v["shards"][0].update(num_episodes=-1), "num_episodes must be at least 0"),
        (lambda v: v["shards"].append(v["shards"][0]), "no episodes after those of the shard bef"),
        (lambda v: v["shards"][1].update(last=""), "no episodes after those of the shard before"),
        (lambda v: v.update(shards=3), "not iterable"),
        (lambda v: v.update(frame_size=["a", 2]), "invalid literal"),
    ],
)
def test_an_index_of_shards_is_checked(packed, change, words):
    change_index(packed, change)
    with pytest.raises(ShardError, match=f"index.json is no index of shards: .*{words}"):
        open_shards(f"{packed}/train")


def _sparse(tar, tarinfo):
    """Add a member of 10^12 bytes, nearly all of them a hole, in GNU's old layout."""
    header = bytearray(tarinfo.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:410] = b"%011o\0%011o\0" % (0, 512)
    header[483:495] = b"\x80" + (10**12).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    tar.fileobj.write(bytes(header) + b"x" * 512)


def _link(tar, tarinfo):
    tarinfo.type, tarinfo.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar.addfile(tarinfo)


@pytest.mark.parametrize("add", [_sparse, _link])
def test_a_member_that_is_no_file_ends_a_shard(packed, caplog, add):
    folder = open_shards(f"{packed}/train")
    path = Path(packed) / "train" / folder.shards[0].name
    with tarfile.open(path, "w") as tar:
        tarinfo = tarfile.TarInfo("episode-00000001.header.json")
        tarinfo.size = 512 if add is _sparse else 0
        add(tar, tarinfo)
    losses = Losses()
    assert list(read_samples(folder.url, folder.shards[0], losses)) == []
    assert losses.num_episodes == 2
    assert "is no file of an episode" in caplog.text


def test_an_episode_that_comes_twice_counts_once(packed, caplog):
    folder = open_shards(f"{packed}/train")
    shard = folder.shards[0]
    path = Path(packed) / "train" / shard.name
    with tarfile.open(path) as tar:
        members = [(m, part.read()) for m in tar if (part := tar.extractfile(m)) is not None]
    first = members[: len(members) // 2]
    with tarfile.open(path, "w") as tar:
        for member, content in [*members, *first]:
            tar.addfile(member, BytesIO(content))
    samples = list(read_samples(folder.url, shard, Losses()))
    assert len(samples) == len({sample.name for sample in samples}) == 2
    with tarfile.open(path, "w") as tar:
        for member, content in [*first, *first]:
            tar.addfile(member, BytesIO(content))
    assert len(list(read_samples(folder.url, shard, losses := Losses()))) == 1
    assert losses.num_episodes == 1
    tar = path.read_bytes()
    path.write_bytes(tar.replace(b"episode-", b"../isode"))
    assert list(read_samples(folder.url, shard, Losses())) == []


def test_a_file_system_that_is_not_installed_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert cli.main(["shards", "check", "s3://bucket/data"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "s3fs" in said[0]
    assert cli.main(["shards", "check", "nosuch://bucket/data"]) == 2
    assert "nosuch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_steps": 10**12}, "num_steps and frame_size must be positive"),
        ({"num_steps": 10**6}, "num_steps is 1000000, there are 8 actions"),
        ({"num_steps": "8"}, "num_steps and frame_size must be positive"),
        ({"frame_size": [10**6, 10**6]}, "frame_size must be below"),
        ({"frame_size": [48]}, "num_steps and frame_size"),
        ({"metadata": {"env_id": 3}}, "must be a text|is missing"),
        ({"metadata": []}, "must be values by name"),
        ({"files": []}, "fit"),
        ({"texts": 7}, "fit"),
        ({"video": 7}, "fit"),
    ],
)
def test_an_episode_s_header_is_checked(tmp_path, change, words):
    (path,) = save_all(tmp_path, [1])
    file = path / "header.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(EpisodeError, match=words):
        load_episode(path)
    with pytest.raises(EpisodeError):
        load_episode(path, frames=False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("walk_left x 1000000000", "'1000000000' in 'walk_left x 1000000000' is no number"),
        ("walk_left x " + "9" * 5000, "is no number of steps"),
        ("idle x 1000000\n" * 3, "line 2: '1000000' .* in all"),
        ("idle" + " " * 200_000 + "y", "no action 'idle y'"),
        ("x" * 2_000_000, "no action 'xxx"),
        ("* " * 200_000, "is no number|no action"),
        (" x" * 200_000, "is no number|no action"),
    ],
)
def test_actions_have_a_limit_and_are_read_in_linear_time(text, words):
    started = time.perf_counter()
    with pytest.raises(ValueError, match=words) as caught:
        parse_actions(text, ACTIONS)
    assert time.perf_counter() - started < 2
    assert len(str(caught.value)) < 1000


def test_options_that_cannot_be_are_one_line(recorded, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    film = [str(recorded), "--to", "mp4", "--output", str(tmp_path / "a.mp4")]
    for command, words in (
        (["collect", "--env", ""], "an env's id is such as"),
        (["dream", ""], "an env's id is such as"),
        (["collect", "--env", "CartPole-v1", "--policy", "json:dumps"], "must return a policy"),
        (["collect", "--env", "CartPole-v1", "--policy", "json:decoder"], "not callable"),
        (["export", *film, "--scale", "100000"], "--scale 100000 makes pictures of"),
    ):
        assert cli.main(command) == 2
        said = capsys.readouterr().err.splitlines()
        assert words in said[-1]
        assert not [line for line in said if "Traceback" in line]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("voices", np.zeros(1, np.int64)),
        ("scene", np.full(4, 99)),
        ("levels", np.zeros(3)),
        ("counters", np.zeros(2, np.int64)),
    ],
)
def test_a_conditioner_s_state_of_another_kind_is_refused(tiny_world: World, name, value):
    conditioner = make_conditioner(tiny_world)
    conditioner.reset(rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="conditioner's state cannot be used"):
        load_conditioner(conditioner, conditioner.state() | {name: value})
