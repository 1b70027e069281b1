from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded

import envs  # noqa: F401 - registers the ids
from envs.stage.controller import ACTIONS
from envs.stage.env import StageEnv
from envs.stage.scene import Scene
from envs.stage.words import scene_from_text
from envs.world.conditioners import WordsConditioner, make_conditioner, takes_words
from envs.world.env import WorldEnv
from midas_world.config import DataConfig
from midas_world.evaluate.rollouts import Undying
from midas_world.types import BackendUnavailableError, CheckpointError, StepConditions
from midas_world.world import KeyMap, World
from tests.fakes import FakeEngine

RUN = ACTIONS.index("run_right")
FRAME = np.zeros((1, 48, 80, 3), np.uint8)


@pytest.fixture
def env(tiny_world: World, engine):
    env = WorldEnv(tiny_world, engine=engine)
    yield env
    env.close()


@pytest.fixture
def fake_env(tiny_world: World, fake) -> WorldEnv:
    return WorldEnv(tiny_world, engine=fake, horizon=5)


def play(env: WorldEnv, seed: int | None, actions: list[int], **options):
    frame, _ = env.reset(seed=seed, options=options)
    frames = [frame] + [env.step(action)[0] for action in actions]
    return np.stack(frames)


def test_a_reset_without_seed_goes_on_in_the_random_stream(env):
    runs = []
    for _ in range(2):
        env.reset(seed=3)
        runs.append([play(env, None, [0, 1]) for _ in range(3)])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert len({run.tobytes() for run in runs[0]}) > 1


def test_words_find_the_start_state_that_they_describe(env):
    for words, index in (("the beach", 0), ("NIGHT city in rain", 1), ("snowy forest", 2)):
        assert env.reset(options={"start_state": words})[1]["start_state"] == index


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"promt": "x"}, "did you mean 'prompt'"),
        ({"start": 1}, "did you mean 'start_state'"),
        ({"start_state": 3}, "must be 0 to 2, got 3"),
        ({"start_state": -1}, "must be 0 to 2, got -1"),
        ({"start_state": 1.5}, "got float"),
        ({"start_state": "volcano"}, "no start state speaks of 'volcano'; there are: beach"),
        ({"start_state": {"frame": 1}}, "did you mean 'frames'"),
        ({"start_state": {"frames": np.zeros((48, 80, 3), np.uint8)}}, r"\(F, H, W, 3\)"),
        ({"start_state": {"frames": np.zeros((2, 48, 80, 3), np.uint8)}}, "needs conditions"),
        ({"start_state": {"frames": np.zeros((1, 9, 9, 3), np.uint8)}}, "frames must be uint8"),
        (
            {"start_state": {"frames": FRAME, "conditioner_state": {"nothing": np.zeros(1)}}},
            "lacks",
        ),
        (
            {"start_state": {"frames": FRAME, "things": np.zeros((2, 4))}},
            r"things must have shape \(O, 6\), as info has them, got \(2, 4\)",
        ),
        (
            {"start_state": {"frames": FRAME, "things": np.full((1, 6), 7.0)}},
            "things must be of classes below 7, got 7",
        ),
        ({"prompt": 3}, "prompt must be a str"),
        ({"prompt": "x" * 600}, "at most 512 bytes"),
        ({"prompt": "a dragon"}, "not understood: dragon"),
    ],
)
def test_wrong_options_say_what_is_wrong(env, options, message):
    with pytest.raises(ValueError, match=message):
        env.reset(seed=0, options=options)


def test_a_prompt_changes_the_words(env):
    env.reset(seed=0, options={"prompt": "a dessert at night, a dragon", "start_state": 0})
    scene = scene_from_text(env.step(RUN)[4]["text"], Scene())
    assert (scene.place, scene.time_of_day) == ("desert", "night")
    env.set_prompt("at the\0beach\ud800")
    assert scene_from_text(env.step(RUN)[4]["text"], Scene()).place == "beach"
    before = env.step(RUN)[4]["text"]
    for refused in ("a dragon", "", "wave hello"):
        if refused:
            with pytest.raises(ValueError, match="Known are: meadow"):
                env.set_prompt(refused)
        assert env.step(RUN)[4]["text"] == before


def test_an_episode_can_go_on_from_the_teacher(env):
    teacher = StageEnv()
    _, info = teacher.reset(seed=4, options={"scene_changes": False})
    conditions = []
    for _ in range(5):
        _, _, _, _, info = teacher.step(RUN)
        conditions.append(StepConditions(pose=info["pose"], text=info["text"], audio=info["audio"]))
    frames = np.random.default_rng(0).integers(0, 256, (5, 48, 80, 3), dtype=np.uint8)
    start = {
        "frames": frames,
        "conditions": conditions,
        "conditioner_state": info["conditioner_state"],
    }
    _, begun = env.reset(seed=0, options={"start_state": start})
    assert begun["start_state"] == -1
    np.testing.assert_array_equal(begun["pose"], info["pose"])
    for action in (RUN, RUN, 5, 0, 14):
        ours, theirs = env.step(action)[4], teacher.step(action)[4]
        for name in ("pose", "audio"):
            np.testing.assert_array_equal(ours[name], theirs[name])
        assert ours["text"] == theirs["text"]


def test_things_of_given_frames_are_told_in_the_next_step(fake_env):
    things = np.full((3, 6), -1, np.float32)
    things[0, :3], things[1, :3] = (4, 47.5, 30), (6, 81, 30)  # of which the second is outside
    fake_env.reset(seed=0, options={"start_state": {"frames": FRAME, "things": things}})
    fake_env.step(0)
    codes = fake_env.engine.told[-1][0]
    assert codes[codes[:, 0] >= 0].tolist() == [[4.0, 7.5]]
    assert [4.0, 7.5] in fake_env.things().tolist()


def test_a_threshold_of_0_pays_what_is_expected_in_forks_too(tiny_world, fake):
    env = WorldEnv(tiny_world, engine=fake, reward_threshold=0.0)
    env.reset(seed=0)
    fake.rewards = [0.4, -0.3, 0.2]
    rewards = [env.step(0)[1] for _ in range(2)]
    assert rewards == [pytest.approx(0.4), pytest.approx(-0.3)]
    futures = env.fork(2)
    np.testing.assert_allclose(futures.step(np.zeros(2, int))[1], 0.2, atol=1e-6)


def test_episodes_terminate_by_probability_and_truncate_at_the_horizon(fake_env):
    fake_env.reset(seed=0)
    fake_env.engine.terminations = [0.4, 0.6]
    assert fake_env.step(0)[2:4] == (False, False)
    _, _, terminated, truncated, info = fake_env.step(RUN)
    assert (terminated, truncated) == (True, False)
    assert info["termination_probability"] == pytest.approx(0.6)
    assert info["action_name"] == "run_right"
    assert info["step"] == 2
    with pytest.raises(ResetNeeded):
        fake_env.step(0)
    fake_env.reset()
    assert [fake_env.step(0)[3] for _ in range(5)] == [False] * 4 + [True]
    with pytest.raises(ResetNeeded):
        fake_env.step(0)


def test_hits_cost_lives_and_the_last_one_ends_the_episode(tiny_world, fake):
    env = WorldEnv(tiny_world, engine=fake)
    info = env.reset(seed=0)[1]
    assert (info["cost"], info["lives"]) == (0.0, 3)
    fake.costs = [0.5, 0.51, 0.2, 0.9]
    told = [env.step(RUN) for _ in range(4)]
    assert [step[4]["cost"] for step in told] == [0.0, 1.0, 0.0, 1.0]
    assert [step[4]["lives"] for step in told] == [3, 2, 2, 1]
    assert not any(step[2] for step in told)
    fake.costs = [1.0]
    _, _, terminated, truncated, info = env.step(RUN)
    assert (terminated, truncated) == (True, False)
    assert (info["cost"], info["lives"]) == (1.0, 0)
    with pytest.raises(ResetNeeded):
        env.step(0)
    info = env.reset()[1]
    assert (info["cost"], info["lives"]) == (0.0, 3)


def test_an_undying_world_goes_on_where_it_is_with_all_lives(tiny_world, fake):
    never = np.zeros(1, bool)
    env = Undying(WorldEnv(tiny_world, engine=fake, end=lambda _: never), 3)
    env.reset(seed=0)
    fake.costs = [1.0] * 4
    infos = [env.step(RUN)[-1] for _ in range(4)]
    assert [(info["step"], info["lives"]) for info in infos] == [(1, 2), (2, 1), (3, 0), (4, 2)]
    shares = [tally[0, 0].item() for tally in fake.tallies[-4:]]
    assert shares == pytest.approx([1.0, 2 / 3, 1 / 3, 1.0])


def test_hits_end_nothing_in_a_world_without_lives(tiny_world):
    config = tiny_world.config
    config = replace(config, world=replace(config.world, lives=0))
    engine = FakeEngine(config.world)
    engine.costs = [1.0] * 4
    env = WorldEnv(replace(tiny_world, config=config), engine=engine)
    assert "lives" not in env.reset(seed=0)[1]
    for _ in range(4):
        _, _, terminated, _, info = env.step(RUN)
        assert (terminated, info["cost"]) == (False, 1.0)
        assert "lives" not in info


def test_there_is_no_state_before_a_reset(fake_env):
    with pytest.raises(ResetNeeded):
        fake_env.save_state()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"render_mode": "ansi"}, ValueError, "render_mode"),
        ({"horizon": 0}, ValueError, "horizon must be at least 1"),
        ({"backend": "tensorrt"}, BackendUnavailableError, "(?i)tensorrt"),
        ({"world": "nowhere"}, CheckpointError, "no world"),
        ({"observation": "pixel"}, ValueError, "unknown observation .*did you mean 'pixels'"),
        ({"action": "key"}, ValueError, "unknown action .*did you mean 'keys'"),
        ({"outcomes": "mean"}, ValueError, "must be one of threshold, expected, sample, got mean"),
        ({"cost_threshold": 1.5}, ValueError, "cost_threshold must be from 0 to 1"),
        ({"reward_threshold": -1.0}, ValueError, "reward_threshold must be at least 0, got -1"),
        ({"frame_skip": 0}, ValueError, "frame_skip must be at least 1"),
        ({"actions": ["fly"]}, ValueError, "unknown action 'fly'"),
        ({"actions": ["idle"], "action": "keys"}, ValueError, "goes with action='discrete'"),
        ({"task": "coin"}, ValueError, "task must be None or one of coins, care, goal"),
        ({"horizn": 3}, TypeError, "horizn"),
    ],
)
def test_arguments_that_cannot_be_used_are_named(tiny_world, arguments, error, words):
    with pytest.raises(error, match=words):
        WorldEnv(**{"world": tiny_world} | arguments)


def test_human_mode_opens_a_window_and_closes_twice(tiny_world, fake):
    import pygame

    env = WorldEnv(tiny_world, engine=fake, render_mode="human")
    frame, _ = env.reset(seed=0)
    window = env._window._window
    surface = window.get_surface()
    assert surface.get_size() == (240, 144)
    assert surface.get_at((120, 72))[:3] == tuple(frame[24, 40])
    env.step(0)
    env.close()
    with pytest.raises(pygame.error, match="Invalid window"):
        window.get_surface()
    env.close()


def test_worlds_of_other_teachers_are_steered_by_words(tiny_world):
    keymap = KeyMap(actions=("noop", "turn_left"), keys={"turn_left": ["left"]})
    config = replace(tiny_world.config, data=DataConfig(env_id="CarRacing-v3"))
    conditioner = make_conditioner(replace(tiny_world, config=config, keymap=keymap))
    assert isinstance(conditioner, WordsConditioner)
    first = conditioner.reset(rng=np.random.default_rng(0))
    assert (first.text, first.pose, first.audio) == ("noop", None, None)
    conditioner.set_prompt("an icy road")
    assert conditioner.step(1).text == "an icy road, turn left"
    other = WordsConditioner(keymap.actions)
    other.load_state(conditioner.state())
    assert other.step(0).text == "an icy road, noop"


@pytest.mark.parametrize(
    ("changes", "text", "expected"),
    [
        ({"env_id": "CarRacing-v3"}, "turn left", False),
        ({"env_id": "CarRacing-v3"}, None, False),
        ({"env_id": "CarRacing-v3"}, "an icy road, turn left", True),
        ({"env_id": "CarRacing-v3", "conditioner": "mine:make"}, "turn left", True),
        ({"env_id": "envs:midas/StageTeacher-v0"}, "turn left", True),
    ],
)
def test_words_mean_something_where_a_world_learned_from_some(tiny_world, changes, text, expected):
    start = tiny_world.start_states[0]
    start = replace(start, conditions=(StepConditions(text=text),) * len(start.conditions))
    world = replace(
        tiny_world,
        config=replace(tiny_world.config, data=DataConfig(**changes)),
        keymap=KeyMap(actions=("noop", "turn_left"), keys={}),
        start_states=(start,),
    )
    assert takes_words(world) is expected


def test_held_keys_mean_actions_by_the_key_map(tiny_world, fake):
    env = WorldEnv(tiny_world, engine=fake, action="keys", horizon=99)
    assert env.key_names == (
        *("space", "left shift", "left", "right"),
        *("k", "j", "h", "e", "down"),
    )
    assert env.action_space == gym.spaces.MultiBinary(9)
    env.reset(seed=0)
    for held, name in (
        ((), "idle"),
        (("left shift", "right"), "run_right"),
        (("left shift",), "idle"),
        (("space", "left shift", "left"), "leap_left"),
        (("space", "e"), "jump"),
        (("left", "right"), "walk_left"),
    ):
        action = np.array([key in held for key in env.key_names], np.int8)
        info = env.step(action)[4]
        assert info["action_name"] == name == ACTIONS[env.keymap.action_of(set(held))]
    for action in (np.zeros(8, np.int8), np.full(9, 2), 3):
        with pytest.raises(InvalidAction, match="9 zeros or ones, for space, left shift"):
            env.step(action)


def test_conditions_go_straight_to_the_network(tiny_world, fake):
    given = []
    step = fake.step
    fake.step = lambda *args: given.append(args[2]) or step(*args)
    env = WorldEnv(tiny_world, engine=fake, action="conditions", observation="dict")
    env.reset(seed=0)
    action = {
        "pose": np.linspace(-1, 1, 39, dtype=np.float32),
        "text": "a person waves",
        "audio": np.linspace(0, 1, 40, dtype=np.float32),
    }
    seen, _, _, _, info = env.step(action)
    np.testing.assert_array_equal(given[0].pose[0, 0], action["pose"])
    np.testing.assert_array_equal(given[0].audio[0, 0], action["audio"])
    assert given[0].present.all()
    assert info["text"] == "a person waves"
    assert "action_name" not in info
    np.testing.assert_array_equal(seen["pose"], action["pose"])
    seen = env.step({"text": ""})[0]
    assert not given[1].present.any()
    assert not seen["pose"].any()
    for wrong, message in (
        ({"pose": np.zeros(3, np.float32)}, "action 'pose' must be in Box"),
        ({"text": "naïve"}, "action 'text' must be in Text"),
        ({"poses": 1}, "may have .*pose.*; got 'poses'"),
        (0, "must be a dict of conditions, got int"),
    ):
        with pytest.raises(InvalidAction, match=message):
            env.step(wrong)
    with pytest.raises(ValueError, match="no prompt"):
        env.set_prompt("a beach")
    with pytest.raises(ValueError, match="no prompt"):
        env.reset(options={"prompt": "a beach"})
