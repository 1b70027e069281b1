import numpy as np
import pytest

from envs.stage.controller import ACTIONS, JUMP_STEPS, PoseController
from envs.stage.skeleton import ANKLE_HEIGHT, GROUND_Y, KEYPOINTS

ANKLES = [KEYPOINTS.index("ankle_l"), KEYPOINTS.index("ankle_r")]


def play(controller: PoseController, *names: str) -> np.ndarray:
    keypoints = []
    for name in names:
        controller.step(ACTIONS.index(name))
        keypoints.append(controller.keypoints())
    return np.array(keypoints)


def random_actions(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    names: list[str] = []
    while len(names) < count:
        names += [ACTIONS[int(rng.integers(len(ACTIONS)))]] * int(rng.integers(1, 12))
    return names[:count]


@pytest.mark.parametrize("seed", range(6))
def test_future_after_load_state_is_bit_equal(seed):
    original, copy = PoseController(), PoseController()
    play(copy, *random_actions(seed + 200, 60))
    play(original, *random_actions(seed, 40 + 7 * seed))
    saved = original.state()
    copy.load_state(saved)
    np.testing.assert_array_equal(copy.state(), saved)
    names = random_actions(seed + 100, 120)
    np.testing.assert_array_equal(play(original, *names), play(copy, *names))
    np.testing.assert_array_equal(original.state(), copy.state())


def test_keypoints_stay_in_the_frame_above_ground_and_do_not_pop():
    keypoints = play(PoseController(), *random_actions(2, 4000))
    assert keypoints.shape == (4000, 15, 2)
    assert keypoints.dtype == np.float32
    assert keypoints[..., 0].min() >= 100
    assert keypoints[..., 0].max() <= 220
    assert keypoints[..., 1].min() >= 16
    soles = keypoints[:, ANKLES, 1] + ANKLE_HEIGHT
    assert soles.max() <= GROUND_Y + 2.0
    moved = np.linalg.norm(np.diff(keypoints, axis=0), axis=-1).max(axis=0)
    trunk = [KEYPOINTS.index(name) for name in ("head", "neck", "pelvis", "hip_l", "hip_r")]
    assert moved[trunk].max() < 20.0
    # A punch thrown while turning around is the fastest that a joint ever moves.
    assert moved.max() < 43.0


@pytest.mark.parametrize(
    ("name", "speed"), [("walk_left", -3), ("walk_right", 3), ("run_left", -6), ("run_right", 6)]
)
def test_steady_speed(name, speed):
    controller = PoseController()
    play(controller, *[name] * 10)
    start = controller.x
    play(controller, *[name] * 20)
    assert controller.x - start == pytest.approx(20 * speed)
    assert controller.facing == np.sign(speed) == controller.turn


@pytest.mark.parametrize("name", ["walk_right", "run_right"])
def test_stance_foot_stays_where_it_is_on_the_ground(name):
    controller = PoseController()
    play(controller, *[name] * 12)
    for _ in range(40):
        before, x = controller.keypoints()[ANKLES], controller.x
        after = play(controller, name)[0][ANKLES]
        grounded = (np.minimum(before[:, 1], after[:, 1]) > GROUND_Y - ANKLE_HEIGHT - 0.4).nonzero()
        drift = after[grounded, 0] + controller.x - x - before[grounded, 0]
        np.testing.assert_allclose(drift, 0.0, atol=1.2)


def test_jump_rises_to_its_peak_and_lands():
    controller = PoseController()
    heights = []
    for name in ["jump"] + ["idle"] * (JUMP_STEPS + 2):
        play(controller, name)
        heights.append(controller.height)
    assert 42.0 <= max(heights) <= 45.0
    assert sum(height > 0.0 for height in heights) == JUMP_STEPS - 1
    assert not controller.airborne
    assert controller.height == 0.0


def test_leap_goes_farther_than_jump_and_the_air_keeps_speed():
    distances = []
    for name in ("jump", "jump_right", "leap_right"):
        controller = PoseController()
        play(controller, name)
        while controller.airborne:
            play(controller, "walk_left")
            assert controller.facing == 1
        distances.append(controller.x)
    assert distances[0] == 0.0
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.parametrize("name", ["punch", "kick"])
def test_attack_plays_out_and_hits_for_a_few_steps(name):
    controller = PoseController()
    attacks = []
    for action in [name] + ["idle"] * 12:
        play(controller, action)
        attacks.append(controller.attack)
    assert attacks.count(name) == 3
    assert attacks[0] is None
    assert attacks[-1] is None
