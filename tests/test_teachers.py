from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from envs.world.conditioners import make_conditioner
from midas_world.config import ActionConfig, DataConfig, TeacherConfig
from midas_world.teachers.actions import MAX_COMBINATIONS, keys_of, name_actions
from midas_world.teachers.env import TeacherEnv, adapt, fit_frame, to_picture
from midas_world.teachers.policies import make_policy
from midas_world.world import KeyMap


class SpaceEnv(gymnasium.Env):
    """Shows the last action as grey, pays 1 a step, and ends after five steps."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 40}  # noqa: RUF012 - as in Env

    def __init__(self, space, *, render_mode="rgb_array", info=None, **members):
        self.action_space = space
        self.observation_space = spaces.Box(-1.0, 1.0, (2,))
        self.render_mode = render_mode
        self.told = info or {}
        self.taken = []
        for name, value in members.items():
            setattr(self, name, value)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.taken = []
        return np.zeros(2, np.float32), dict(self.told)

    def step(self, action):
        assert self.action_space.contains(action), action
        self.taken.append(action)
        ended = len(self.taken) == 5
        return np.zeros(2, np.float32), 1.0, ended, False, dict(self.told)

    def render(self):
        return np.full((40, 60, 3), 10 * len(self.taken), np.uint8)


def teacher(space, config=None, **members) -> TeacherEnv:
    return TeacherEnv(SpaceEnv(space, **members), config or TeacherConfig())


def test_arcade_meanings_become_names_and_keys_with_noop_first():
    meanings = ["FIRE", "NOOP", "UP", "UPRIGHTFIRE", "SwimLeft"]
    actions = name_actions(SpaceEnv(spaces.Discrete(5), get_action_meanings=lambda: meanings))
    names = [action.name for action in actions]
    assert names == ["noop", "fire", "up", "up_right_fire", "swim_left"]
    assert [action.value for action in actions] == [1, 0, 2, 3, 4]
    keys = {action.name: action.keys for action in actions}
    assert keys["noop"] == ()
    assert keys["up_right_fire"] == ("up", "right", "space")
    assert len(set(keys.values())) == 5
    assert next(iter(keys_of(actions))) == "up_right_fire"


def test_numbered_actions_get_numbers_and_keys_and_keep_a_start():
    actions = name_actions(SpaceEnv(spaces.Discrete(3, start=2)))
    named = {action.name: action.value for action in actions}
    assert named == {"action_0": 2, "action_1": 3, "action_2": 4}
    assert len({action.keys for action in actions} - {()}) == 3


@pytest.mark.parametrize(
    ("space", "count", "some"),
    [
        (spaces.MultiBinary(3), 8, {"idle": [0, 0, 0], "button_0_button_2": [1, 0, 1]}),
        (spaces.MultiDiscrete([3, 2]), 6, {"idle": [0, 0], "choice_0_2_choice_1": [2, 1]}),
        (spaces.Box(-2.0, 3.0, (1,)), 3, {"idle": [0], "axis_0_low": [-2], "axis_0_high": [3]}),
        (
            spaces.Box(np.array([-1, 0, 0], np.float32), np.ones(3, np.float32)),
            12,
            {"axis_0_low_axis_1": [-1, 1, 0]},
        ),
        (spaces.Box(-np.inf, np.inf, (2,)), 9, {"axis_0_low_axis_1_high": [-1, 1]}),
        (spaces.Box(-1, 1, (1, 2)), 9, {"axis_0_low_axis_1_high": [[-1, 1]]}),
        (spaces.Box(0, 1, ()), 2, {"axis_0": 1}),
        (spaces.MultiBinary((2, 2)), 16, {"button_1_button_2": [[0, 1], [1, 0]]}),
        (spaces.MultiDiscrete([[2], [3]]), 6, {"choice_0_choice_1_2": [[1], [2]]}),
    ],
)
def test_small_spaces_get_all_combinations(space, count, some):
    actions = {action.name: action.value for action in name_actions(SpaceEnv(space))}
    assert len(actions) == count
    assert next(iter(actions)) == "idle"
    assert all(space.contains(value) for value in actions.values())
    for name, value in some.items():
        np.testing.assert_array_equal(actions[name], value)


@pytest.mark.parametrize(
    "space", [spaces.MultiBinary(20), spaces.Box(-1.0, 1.0, (20,)), spaces.MultiDiscrete([9] * 4)]
)
def test_large_spaces_get_every_single_value_and_few_combinations(space):
    actions = name_actions(SpaceEnv(space))
    changed = [int((action.value != actions[0].value).sum()) for action in actions]
    singles = 20 if isinstance(space, spaces.MultiBinary) else 40
    singles = 32 if isinstance(space, spaces.MultiDiscrete) else singles
    assert changed.count(0) == 1
    assert changed.count(1) == singles
    assert max(changed) <= 2
    assert len(actions) <= max(MAX_COMBINATIONS, singles + 1)
    assert all(space.contains(action.value) for action in actions)
    assert len({action.name for action in actions}) == len(actions)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict({"a": spaces.Discrete(2)}), "Discrete, MultiBinary, MultiDiscrete or Box"),
        (spaces.Discrete(500), "500 actions is more than keys can steer"),
        (spaces.MultiBinary(100), "100 entries is more than keys can steer"),
    ],
)
def test_other_spaces_are_refused_in_words(space, message):
    with pytest.raises(ValueError, match=message):
        teacher(space)


def test_a_key_map_names_actions_and_is_checked_against_the_space():
    space = spaces.Box(-1.0, 1.0, (2,))
    actions = {
        "rest": ActionConfig(value=[0, 0]),
        "up": ActionConfig(value=[0, 1], keys=("up",)),
        "up_left": ActionConfig(value=[-1, 1], keys=("up", "left")),
    }
    env = teacher(space, TeacherConfig(actions=actions))
    assert env.action_names == ("rest", "up", "up_left")
    keymap = KeyMap(actions=env.action_names, keys=env.action_keys)
    assert keymap.action_of({"up", "left"}) == 2
    env.reset(seed=0)
    env.step(2)
    np.testing.assert_array_equal(env._env.unwrapped.taken[0], [-1, 1])
    assert env.actions_config["up"] == ActionConfig(value=[0.0, 1.0], keys=("up",))
    for wrong in ([2, 0], [0, 0, 0], "fast"):
        with pytest.raises(ValueError, match=r"key map: rest is .*not a member"):
            teacher(space, TeacherConfig(actions={"rest": ActionConfig(value=wrong)}))
    numbered = TeacherConfig(actions={"stay": ActionConfig(), "go": ActionConfig(keys=("up",))})
    assert teacher(spaces.Discrete(2), numbered).actions_config["go"].value == 1


def test_repeat_takes_an_action_again_sums_rewards_and_stops_at_the_end():
    env = teacher(spaces.Discrete(2), TeacherConfig(repeat=2))
    assert env.metadata["render_fps"] == 20
    env.reset(seed=0)
    results = [env.step(1) for _ in range(3)]
    assert [reward for _, reward, *_ in results] == [2.0, 2.0, 1.0]
    assert [terminated for _, _, terminated, *_ in results] == [False, False, True]
    assert env._env.unwrapped.taken == [1] * 5
    with pytest.raises(gymnasium.error.InvalidAction, match="0 to 1, got 2"):
        env.step(2)


def test_an_action_steers_a_world_as_it_did_in_training(tiny_world):
    config = TeacherConfig(actions={"stay": ActionConfig(), "go_on": ActionConfig()})
    env = teacher(spaces.Discrete(2), config, info={"text": "a cave"})
    frame, info = env.reset(seed=0)
    project = replace(tiny_world.config, data=DataConfig(env_id="Any-v0", teacher=config))
    keymap = KeyMap(actions=env.action_names, keys={})
    world = make_conditioner(replace(tiny_world, config=project, keymap=keymap))
    world.reset(rng=np.random.default_rng(0))
    world.load_state(info["conditioner_state"])
    for action in (1, 0, 1):
        *_, info = env.step(action)
        expected = world.step(action)
        assert info["text"] == expected.text == f"a cave, {('stay', 'go on')[action]}"
        np.testing.assert_array_equal(info["pose"], expected.pose)
        np.testing.assert_array_equal(info["pose"], np.eye(2, dtype=np.float32)[action])
    assert frame.shape == (40, 60, 3)


def test_pose_and_audio_of_the_env_are_used_where_asked_for():
    told = {"pose": [0.5, 1], "audio": np.ones(3), "scene": {"place": "cave"}, "lives": 3}
    info = teacher(spaces.Discrete(2), info=told).reset(seed=0)[1]
    assert info["pose"].shape == (2,)
    assert "audio" not in info
    env = teacher(spaces.Discrete(2), TeacherConfig(conditions="info"), info=told)
    info = env.reset(seed=0)[1]
    np.testing.assert_array_equal(info["pose"], np.array([0.5, 1.0], np.float32))
    assert info["audio"].dtype == np.float32
    assert info["scene"] == {"place": "cave"}
    assert info["env_info"]["lives"] == 3
    wrong = teacher(spaces.Discrete(2), TeacherConfig(conditions="info"), info={"pose": "up"})
    with pytest.raises(ValueError, match=r"info\['pose'\] of SpaceEnv must be a vector"):
        wrong.reset(seed=0)


class OldReset(SpaceEnv):
    def reset(self, **kwargs):
        return super().reset()[0]


class OldStep(SpaceEnv):
    def step(self, action):
        observation, reward, ended, _, info = super().step(action)
        return observation, reward, ended, info


class NoEnv:
    metadata = {"render_modes": []}  # noqa: RUF012 - as in Env

    def __init__(self, render_mode=None):
        pass


gymnasium.register("Fake/OldStep-v0", lambda **kw: OldStep(spaces.Discrete(2), **kw))
gymnasium.register("Fake/NoEnv-v0", NoEnv)


def test_the_old_api_is_refused_in_words():
    with pytest.raises(ValueError, match=r"old Gym API: reset\(\) returns no"):
        TeacherEnv(OldReset(spaces.Discrete(2)), TeacherConfig())
    with pytest.raises(ValueError, match=r"old Gym API: step\(\) returns 4 values"):
        adapt("Fake/OldStep-v0", {}, TeacherConfig())
    with pytest.raises(ValueError, match=r"inherit from the gymnasium.Env.*or with shimmy"):
        adapt("Fake/NoEnv-v0", {}, TeacherConfig())


@pytest.mark.parametrize(
    ("env_id", "words"),
    [
        ("CartPol-v1", "Did you mean: `CartPole`?"),
        ("NoSuchGame-v0", "An id of a package of its own needs that package's name"),
        ("Nobody/Game-v0", "An id of a package of its own needs that package's name"),
        ("no_such_package:Game-v0", "set PYTHONPATH"),
        ("CartPole-v7", "It provides versioned environments"),
    ],
)
def test_an_unknown_id_is_told_what_would_help_and_no_more(env_id, words):
    with pytest.raises(ValueError, match=r"cannot be made") as caught:
        adapt(env_id, {}, TeacherConfig())
    assert words.lower() in str(caught.value).lower()
    assert "shimmy" not in str(caught.value)


def test_an_env_without_pictures_is_refused_in_words():
    with pytest.raises(ValueError, match="gives no pictures"):
        adapt("CartPole-v1", {}, TeacherConfig(frames="observation"))
    with pytest.raises(ValueError, match=r"gives no \(H, W, 3\)"):
        teacher(spaces.Discrete(2), render=lambda: "a picture")


def test_pictures_are_found_in_any_form():
    grey = np.zeros((20, 30), np.uint8)
    for picture in (grey, grey[..., None], np.zeros((3, 20, 30), np.uint8), {"screen": grey}):
        found = to_picture(picture)
        assert found.shape == (20, 30, 3)
    for other in (np.zeros((20, 30, 3)), np.zeros(8, np.uint8), np.zeros((3, 3, 3), np.uint8), 5):
        assert to_picture(other) is None


def test_a_frame_is_padded_cropped_or_stretched():
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :30] = 200
    padded = fit_frame(wide, (40, 40), fit="pad")
    assert not padded[:10].any()
    assert (padded[20, 5], padded[20, 35]) == (pytest.approx([200] * 3), pytest.approx([0] * 3))
    cropped = fit_frame(wide, (40, 40), fit="crop")
    assert (cropped[:, :15] == 200).all()
    stretched = fit_frame(wide, (40, 40), fit="stretch")
    assert (stretched[:, :15] == 200).all()
    assert (stretched[:, 25:] == 0).all()
    # By whole factors, drawn pixels keep their edges.
    assert set(np.unique(fit_frame(wide, (40, 120), fit="pad"))) == {0, 200}


@pytest.mark.parametrize("name", ["random", "sticky"])
def test_policies_for_any_env_depend_on_their_seed_alone(name):
    space = spaces.Discrete(6, start=1)

    def actions(seed: int) -> list[int]:
        policy = make_policy(name, space)
        policy.reset(np.random.default_rng(seed))
        return [int(policy.act(None, {})) for _ in range(200)]

    assert actions(1) == actions(1)
    assert actions(1) != actions(2)
    played = actions(1)
    assert all(space.contains(action) for action in played)
    share = np.mean(np.diff(played) == 0)
    assert share > 0.7 if name == "sticky" else share < 0.4
    policy = make_policy(name, spaces.MultiBinary(3))
    policy.reset(np.random.default_rng(0))
    assert policy.act(None, {}).shape == (3,)
