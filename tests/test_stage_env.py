import time
from itertools import pairwise

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from envs.stage.controller import ACTIONS
from envs.stage.env import StageEnv
from envs.stage.game import MAX_HEARTS, GameObject, Kind, StageGame
from envs.stage.scene import Scene
from envs.stage.skeleton import GROUND_Y
from envs.stage.speech import NUM_MELS
from envs.stage.words import scene_from_text

IDLE, RUN_RIGHT, TALK = (ACTIONS.index(name) for name in ("idle", "run_right", "talk"))


def put(env: StageEnv, *objects: GameObject) -> None:
    """Let nothing but `objects` lie around the character."""
    env._game._segments = dict.fromkeys(range(-100, 100), ())
    env._game._segments[0] = objects


def begun(*objects: GameObject, scale: int = 1, **options) -> StageEnv:
    """Return a game that begins at 0, where nothing but `objects` lies around the character."""
    env = StageEnv(scale=scale)
    env.reset(seed=0, options={"x": 0} | options)
    put(env, *objects)
    return env


def test_info_has_the_conditions_and_what_is_drawn():
    env = StageEnv()
    _, first = env.reset(seed=0, options={"scene": {"place": "beach"}, "x": 300, "facing": 1})
    _, _, _, _, info = env.step(RUN_RIGHT)
    shapes = {"pose": (39,), "audio": (40,), "keypoints": (15, 2)}
    shapes |= {"objects": (16, 4), "things": (16, 6), "regions": (2, 4), "eyes": (4,)}
    for name, shape in shapes.items():
        assert info[name].shape == first[name].shape == shape
        assert info[name].dtype == np.float32
    assert info["scene"]["place"] == "beach"
    assert info["action_name"] == "run_right"
    assert first["hearts"] == first["lives"] == MAX_HEARTS
    drawn = (info["pose"][:30].reshape(15, 2) + 1.0) * (160.0, 96.0)
    np.testing.assert_allclose(drawn, info["keypoints"], atol=1e-3)


@pytest.mark.parametrize("scale", [1, 2])
def test_things_lie_where_they_are_drawn(scale):
    things = (
        GameObject(Kind.COIN, -90.0, 120.0, 0),
        GameObject(Kind.COIN, -60.0, 80.0, 0),
        GameObject(Kind.COIN, 60.0, 40.0, 0),
        GameObject(Kind.FIRE, -130.0, GROUND_Y, 1),
        *(GameObject(Kind.ROCK, 50.0 + 40 * variant, GROUND_Y, variant) for variant in range(3)),
    )
    pictures, infos = [], []
    for is_there in (True, False):
        options = {"scene": Scene(), "facing": 1, "things": is_there, "scene_changes": False}
        env = begun(*things, scale=scale, **options)
        for _ in range(3):
            frame, _, _, _, info = env.step(IDLE)
        pictures.append(frame.astype(int))
        infos.append(info)
    info = infos[0]
    # A fire's glow reaches farther, but faintly.
    differs = np.abs(pictures[0] - pictures[1]).max(axis=2) > 48
    listed = info["things"][info["things"][:, 0] >= 0]
    assert listed[:, 0].tolist() == [0, 1, 2, 6, 3, 4, 5]
    assert len({(kind, number) for kind, *_, number in listed}) == len(things)
    for _, x, y, half_width, half_height, _ in listed:
        top, bottom = round(y - half_height), round(y + half_height)
        left, right = round(x - half_width), round(x + half_width)
        rows, columns = np.nonzero(differs[top:bottom, left:right])
        # It fills its box but for a margin.
        assert np.ptp(rows) > 1.2 * half_height
        assert np.ptp(columns) > 1.0 * half_width
        assert abs(rows.mean() - half_height) < 0.4 * half_height
        assert abs(columns.mean() - half_width) < 0.4 * half_width
        differs[top:bottom, left:right] = False
    assert not differs.any()


def test_regions_are_the_hearts_and_the_portrait_of_one_who_talks():
    env = begun(scale=2)
    silent, talking = env.step(IDLE)[4]["regions"], env.step(TALK)[4]["regions"]
    np.testing.assert_array_equal(silent, [[72, 30, 60, 18], [0, 0, 0, 0]])
    np.testing.assert_array_equal(talking, [[72, 30, 60, 18], [64, 320, 60, 60]])
    for _ in range(10):
        env.set_voices(None, np.ones(NUM_MELS))
        listening = env.step(IDLE)[4]["regions"]
    np.testing.assert_array_equal(listening, talking)


@pytest.mark.parametrize("facing", [1, -1])
def test_eyes_in_the_portrait_of_one_who_listens_turn_where_info_says(facing):
    env = begun(facing=facing)
    assert not env.step(IDLE)[4]["eyes"].any()
    portraits = {}
    for _ in range(20):
        env.set_voices(None, np.ones(NUM_MELS))
        frame, *_, info = env.step(IDLE)
        portraits[info["gaze"]] = frame[130:190, 2:62]
    first, *_, last = (portraits[gaze] for gaze in sorted(portraits) if gaze > 0.1)
    x, y, half_width, half_height = info["eyes"]
    rows, columns = np.nonzero((first != last).any(axis=-1))
    assert len(rows) > 10
    assert np.abs(columns + 2.5 - x).max() < half_width
    assert np.abs(rows + 130.5 - y).max() < half_height


def test_what_turns_and_falls_goes_on_from_a_conditioner_state():
    things = GameObject(Kind.COIN, 60.0, 80.0, 0), GameObject(Kind.FIRE, 100.0, GROUND_Y, 0)
    options = {"facing": 1, "scene_changes": False}
    env, other = begun(*things, scene=Scene(weather="snow"), **options), StageEnv()
    for _ in range(5):
        info = env.step(IDLE)[4]
    options |= {"x": 0, "conditioner_state": info["conditioner_state"]}
    _, first = other.reset(seed=1, options=options)
    assert first["pose"][37] == info["pose"][37] == 5 / 16
    put(other, *things)
    for _ in range(12):
        (frame, *_, info), (expected, *_) = other.step(IDLE), env.step(IDLE)
        np.testing.assert_array_equal(frame, expected)
    assert info["pose"][37] == 1 / 16  # a share of 16 steps


def test_without_things_nothing_is_seen_nothing_pays_and_nothing_hurts():
    env = StageEnv()
    with_things, without = [], []
    for options, found in (({}, with_things), ({"things": False}, without)):
        env.reset(seed=3, options=options)
        for _ in range(80):
            _, reward, terminated, _, info = env.step(RUN_RIGHT)
            found.append((reward, info["cost"], (info["things"][:, 0] >= 0).sum()))
            if terminated:
                break
    assert np.array(with_things).any(axis=0).all()
    assert len(without) == 80
    assert not np.any(without)


def test_a_rock_costs_a_heart_and_only_the_picture_stumbles():
    env = begun(*(GameObject(Kind.ROCK, 60.0 + 150 * i, GROUND_Y, 0) for i in range(2)))
    offsets, hearts, costs = [], [MAX_HEARTS], []
    for _ in range(60):
        info = env.step(RUN_RIGHT)[4]
        intent = (info["pose"][:30].reshape(15, 2) + 1.0) * (160.0, 96.0)
        offsets.append(np.abs(intent - info["keypoints"]).max())
        hearts.append(info["hearts"])
        costs.append(info["cost"])
        assert info["lives"] == info["hearts"]
    np.testing.assert_array_equal(costs, -np.diff(hearts))
    assert sum(costs) == 2
    assert max(offsets) > 5.0
    assert offsets[-1] < 0.01
    assert env.reset()[1]["cost"] == 0.0


def test_no_hearts_terminate_and_a_step_after_that_raises():
    env = begun(GameObject(Kind.FIRE, 0.0, GROUND_Y, 0))
    for _ in range(60):
        _, _, terminated, truncated, info = env.step(IDLE)
        if terminated:
            break
    assert terminated
    assert not truncated
    assert info["hearts"] == 0
    with pytest.raises(ResetNeeded):
        env.step(IDLE)
    env.reset()
    env.step(IDLE)


def test_the_horizon_truncates():
    env = StageEnv(horizon=5)
    env.reset(seed=0)
    assert [env.step(IDLE)[3] for _ in range(5)] == [False] * 4 + [True]
    with pytest.raises(ResetNeeded):
        env.step(IDLE)


def test_wrong_use_is_refused_in_plain_words():
    env = StageEnv(render_mode="rgb_array")
    with pytest.raises(ValueError, match="unknown reset option 'scenes', did you mean 'scene'"):
        env.reset(options={"scenes": {}})
    with pytest.raises(ValueError, match="did you mean 'city'"):
        env.reset(options={"scene": {"place": "citty"}})
    with pytest.raises(ValueError, match="unknown scene field 'planet'"):
        env.reset(options={"scene": {"planet": "mars"}})
    with pytest.raises(ValueError, match="render_mode"):
        StageEnv(render_mode="ansi")
    with pytest.raises(ValueError, match="horizon"):
        StageEnv(horizon=0)


def test_a_prompt_changes_the_scene_and_the_text():
    env = StageEnv()
    env.reset(seed=0, options={"scene": Scene("city", "noon", "clear", "red jacket")})
    before, *_ = env.step(IDLE)
    env.set_prompt("a rainy night in the desert")
    after, _, _, _, info = env.step(IDLE)
    assert list(info["scene"].values()) == ["desert", "night", "rain", "red jacket"]
    assert scene_from_text(info["text"], Scene()) == env.scene
    assert env.understand("rainy, and a dragon").startswith("rain; not understood: dragon")
    with pytest.raises(ValueError, match="not understood: dragon"):
        env.set_prompt("a dragon")
    assert env.step(IDLE)[4]["scene"] == info["scene"]
    assert (before != after).mean() > 0.5


def test_the_scene_changes_in_mid_episode_unless_told_not_to():
    def num_changes(scene_changes: bool) -> int:
        env = StageEnv()
        env._draw = lambda: np.zeros((192, 320, 3), np.uint8)  # what it looks like does not matter
        changes = 0
        for seed in range(4):
            env.reset(seed=seed, options={"scene_changes": scene_changes})
            put(env)
            scenes = [str(env.step(IDLE)[4]["scene"]) for _ in range(300)]
            changes += sum(a != b for a, b in pairwise(scenes))
        return changes

    assert 1 <= num_changes(True) <= 9
    assert num_changes(False) == 0


def test_talking_shows_the_portrait_in_the_bottom_left_cell_only():
    options = {"scene": Scene(), "facing": 1}
    talking, silent = (begun(**options).step(action)[0] for action in (TALK, IDLE))
    differs = (talking != silent).any(axis=2)
    assert differs[130:190, 2:62].mean() > 0.9
    differs[130:190, 2:62] = False
    assert not differs[:, :64].any()


def test_it_is_fast():
    env = StageEnv()
    env.reset(seed=0, options={"scene": Scene(weather="rain"), "scene_changes": False})
    env._game = StageGame(seed=0, start_x=0.0)
    env._game.hearts = 1000
    env.step(RUN_RIGHT)
    start = time.process_time()
    for _ in range(200):
        env.step(RUN_RIGHT)
    rate = 200 / (time.process_time() - start)
    print(f"StageEnv: {rate:.0f} frames/s")
    assert rate > 100
