import math

import gymnasium
import numpy as np
import pytest

from midas_world.evaluate.metrics import best_lag, centred, follows
from midas_world.evaluate.probes.pictures import cut, train_number_probe
from midas_world.evaluate.probes.training import ProbeConfig
from midas_world.evaluate.sections.gestures import summarise
from midas_world.evaluate.voices import LiveTeacher, Moved
from midas_world.types import StepConditions


def voice(length: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=length)


def test_half_as_wide_is_half_the_slope_and_full_correlation():
    correlation, slope = follows(0.2 + 0.5 * voice(), voice())
    assert correlation == pytest.approx(1.0)
    assert slope == pytest.approx(0.5)
    assert follows(np.full(60, 0.3), voice())[0] == 0.0
    assert math.isnan(follows(voice(), np.full(60, 0.3))[0])


def test_a_sentence_about_its_own_mean_follows_no_other_one():
    """A mouth that never moves, but is open further in louder sentences, follows no voice."""
    real = [voice(seed=seed) + seed for seed in range(3)]
    still = [np.full(60, float(seed)) + 1e-3 * voice(seed=seed + 9) for seed in range(3)]
    assert follows(np.concatenate(still), np.concatenate(real))[0] > 0.9
    assert abs(follows(centred(still), centred(real))[0]) < 0.2


@pytest.mark.parametrize("late", [-2, 0, 3])
def test_the_lag_is_how_late_the_mouth_is(late):
    real = [voice(seed=seed) for seed in range(3)]
    assert best_lag([np.roll(item, late) for item in real], real) == late


def test_absent_conditions_are_left_out_of_an_action():
    step = StepConditions(pose=np.zeros(2, np.float32), text="a")
    assert set(step.given()) == {"pose", "text"}


def test_a_region_is_cut_around_its_middle():
    frames = np.zeros((2, 40, 60, 3), np.uint8)
    frames[:, 10:20, 30:50] = 9
    view = cut(frames, np.array([40, 15, 10, 5], np.float32))
    assert view.shape == (2, 10, 20, 3)
    assert (view == 9).all()


def test_a_number_probe_learns_how_far_a_mouth_is_open():
    rng = np.random.default_rng(0)
    openings = rng.uniform(size=260)
    views = np.full((260, 32, 32, 3), (220, 180, 150), np.uint8)
    rows, columns = np.mgrid[:32, :32]
    for view, opening in zip(views, openings, strict=True):
        x, y = rng.uniform(13, 19), rng.uniform(18, 22)
        inside = ((columns - x) / 7) ** 2 + ((rows - y) / (1 + 6 * opening)) ** 2 < 1
        view[inside] = (150, 30, 40)
    config = ProbeConfig(first_seed=0, width=12, train_steps=200, batch_size=16)
    probe = train_number_probe(views[:220], openings[:220], config)
    correlation, slope = follows(probe(views[220:]), openings[220:])
    assert correlation > 0.95
    assert 0.8 < slope < 1.2


def test_a_number_probe_reads_eyes_that_turn_by_a_pixel_off_a_small_view():
    rng = np.random.default_rng(0)
    gaze, rows, columns = rng.uniform(size=400), *np.mgrid[:20, :20]
    views = np.full((400, 20, 20, 3), 180.0)
    for view, turn in zip(views, gaze, strict=True):
        x, y = rng.uniform(8, 12, 2)
        for left, radius, tone in ((0.0, 3.0, 255.0), (2.0 * turn, 1.7, 30.0)):
            covered = np.clip(radius + 0.5 - np.hypot(columns - x - left, rows - y), 0.0, 1.0)
            view += covered[..., None] * (tone - view)
    config = ProbeConfig(first_seed=0, width=16, train_steps=300, batch_size=16)
    views = views.astype(np.uint8)
    probe = train_number_probe(views[:360], gaze[:360], config)
    assert follows(probe(views[360:]), gaze[360:])[0] > 0.9


class ListeningEnv(gymnasium.Env):
    """Notes under which voices each step was."""

    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        self.heard = []
        self._voices = (None, None)

    def set_voices(self, own, other):
        self._voices = (own, other)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        self.heard.append(self._voices)
        self._voices = (None, None)
        return 0, 0.0, False, False, {}


def test_a_live_teacher_says_a_sentence_from_a_step_on_and_is_silent_then():
    inner = ListeningEnv()
    sentence = np.arange(1.0, 7.0).reshape(3, 2)
    teacher = LiveTeacher(inner, "other", sentence, first=2)
    for _ in range(2):
        inner.heard.clear()
        teacher.reset()
        for _ in range(7):
            teacher.step(0)
        assert [own for own, _ in inner.heard] == [None] * 7
        assert [None if other is None else other.tolist() for _, other in inner.heard] == [
            *(None, None),
            *sentence.tolist(),
            *([0.0, 0.0], [0.0, 0.0]),
        ]


def test_only_what_moves_most_is_compared_and_each_about_its_own_height():
    rng = np.random.default_rng(0)
    hands = 30.0 * rng.uniform(size=(40, 2)) + (100.0, 20.0)
    still = np.full((40, 1), 60.0) + rng.normal(0.0, 0.1, (40, 1))
    real = np.concatenate((still, hands), axis=1)
    wrong = np.concatenate((hands[:, :1], still, still), axis=1)
    half = real.mean(axis=0) + 0.5 * (real - real.mean(axis=0))
    late, quiet = np.roll(half, 2, axis=0), np.zeros_like(real)
    moved = Moved(teacher=real, probe=half, world=late, silent=wrong, quiet=quiet)
    correlation, slope, lag, control, own, own_slope = summarise([moved], 2)
    assert lag == 2
    assert abs(correlation) < 0.4
    assert abs(slope) < 0.2
    assert abs(control) < 0.3
    assert own == pytest.approx(1.0)
    assert own_slope == pytest.approx(0.5)


def test_what_a_body_does_in_silence_is_no_following_of_a_voice():
    rng = np.random.default_rng(0)
    breath = 4.0 * np.sin(np.arange(40) / 5)[:, None]
    nods = rng.uniform(size=(40, 1))
    noise = rng.normal(0.0, 0.1, (40, 1))
    heard, silent = nods + breath, breath + noise
    for quiet, expected in ((0.0 * breath, 1.0), (breath, 0.0)):
        moved = Moved(teacher=heard, probe=heard, world=heard, silent=silent, quiet=quiet)
        assert summarise([moved], 1)[3] == pytest.approx(expected, abs=0.2)
