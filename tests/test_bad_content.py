"""What a damaged or hostile file holds is refused in one line that names the file and the field."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from engine.select import _load_times
from envs.play.headless import parse_actions
from envs.play.replay.recorded import load_state
from envs.stage.controller import ACTIONS
from envs.world.conditioners import load_conditioner, make_conditioner
from midas_world.config import ActionConfig, ProjectConfig, load_config
from midas_world.sessions.session import SessionError, load_session
from midas_world.teachers.actions import configured_actions
from midas_world.teachers.project import KeyMapFile
from midas_world.world import World
from tests.sessions import change_header, change_record, record_steps


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
        (1, "conditions", {"smell": 3}, "no key conditions.smell"),
        (1, "conditions", {"pose": ARRAY | {"shape": [1, 1]}}, "pose must be finite numbers in"),
        (1, "conditions", {"pose": ARRAY | {"__array__": "AADAfw=="}}, "pose must be finite"),
        (1, "conditions", {"pose": ARRAY | {"dtype": "O"}}, "line 2"),
        (1, "conditions", {"pose": ARRAY | {"dtype": "zz"}}, "line 2"),
        (1, "conditions", {"pose": {"__array__": "AAAA"}}, "'dtype' is missing"),
        (1, "action", 99, "action at frame 1 must be 0 to 14"),
        (1, "action", "left", "action at frame 1 must be 0 to 14"),
        (1, "action", None, "action at frame 1 must be 0 to 14"),
        (1, "wings", 2, "no key wings"),
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
    change_record(session, number, **{field: value})
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
        ("wings", 2, "no key wings"),
    ],
)
def test_a_header_of_wrong_types_is_refused(session, field, value, words):
    change_header(session, **{field: value})
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
        ("actions: {idle: [1]}", "actions.idle must be values by name"),
        ("actions: [idle]", "actions must be values by name"),
        ("actions: {idle: {keys: {a: 1}}}", "actions.idle.keys must be a list"),
        ("actions: {idle: {keys: left}}", "actions.idle.keys must be a list"),
        ("actions: {idle: {value: 1e400}}", "actions.idle.value must be finite"),
        ("actions: {idle: {value: [.nan]}}", "actions.idle.value must be finite"),
        ("actions: {idle: {value: " + "9" * 5000 + "}}", ".*limit"),
        ("actions: {idle: {value: " + "[" * 500 + "]" * 500 + "}}", ".*(nested too deeply|depth)"),
        ("actions: &a {idle: {value: *a}}", ".*(recursive|alias|file.yaml)"),
        ("world: [1]", "world must be values by name"),
        ("world: {head: {widths: 5}}", "world.head.widths must be a list"),
        ("world: {scenery: [layers]}", "world.scenery must be values by name"),
        ("world: {scenery: {layers: 3}}", "world.scenery.layers must be values by name"),
        ("world: {fps: [20]}", "world.fps must be a whole number"),
        ("world: {fps: {a: 1}}", "world.fps must be a whole number"),
        ("world: {conditions: {limbs: [1, 2]}}", "world.conditions.limbs must be a list"),
        ("data: {policies: [random]}", "data.policies must be values by name"),
    ],
)
def test_a_key_map_or_config_of_wrong_types_is_refused(tmp_path, text, words):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"file.yaml: {words}"):
        load_config(KeyMapFile if text.startswith("actions") else ProjectConfig, path)


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("voices", np.zeros(1, np.int64)),
        ("scene", np.full(4, 99)),
        ("levels", np.zeros(99)),  # fewer are of an older recording
        ("counters", np.zeros(2, np.int64)),
    ],
)
def test_a_conditioner_s_state_of_another_kind_is_refused(tiny_world: World, name, value):
    conditioner = make_conditioner(tiny_world)
    conditioner.reset(rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="conditioner's state cannot be used"):
        load_conditioner(conditioner, conditioner.state() | {name: value})
