import math

import numpy as np
import pytest

from midas_world.evaluate.probes.pictures import cut, train_mouth_probe
from midas_world.evaluate.probes.training import ProbeConfig
from midas_world.evaluate.sections.voice import as_action, best_lag, follows
from midas_world.types import StepConditions


def voice(length: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=length)


def test_half_as_wide_is_half_the_slope_and_full_correlation():
    correlation, slope = follows(0.2 + 0.5 * voice(), voice())
    assert correlation == pytest.approx(1.0)
    assert slope == pytest.approx(0.5)
    assert follows(np.full(60, 0.3), voice())[0] == 0.0
    assert math.isnan(follows(voice(), np.full(60, 0.3))[0])


@pytest.mark.parametrize("late", [-2, 0, 3])
def test_the_lag_is_how_late_the_mouth_is(late):
    real = [voice(seed=seed) for seed in range(3)]
    assert best_lag([np.roll(item, late) for item in real], real) == late


def test_absent_conditions_are_left_out_of_an_action():
    step = StepConditions(pose=np.zeros(2, np.float32), text="a")
    assert set(as_action(step)) == {"pose", "text"}


def test_a_region_is_cut_around_its_middle():
    frames = np.zeros((2, 40, 60, 3), np.uint8)
    frames[:, 10:20, 30:50] = 9
    view = cut(frames, np.array([40, 15, 10, 5], np.float32))
    assert view.shape == (2, 10, 20, 3)
    assert (view == 9).all()


def test_a_mouth_probe_learns_how_far_a_mouth_is_open():
    rng = np.random.default_rng(0)
    openings = rng.uniform(size=260)
    views = np.full((260, 32, 32, 3), (220, 180, 150), np.uint8)
    rows, columns = np.mgrid[:32, :32]
    for view, opening in zip(views, openings, strict=True):
        x, y = rng.uniform(13, 19), rng.uniform(18, 22)
        inside = ((columns - x) / 7) ** 2 + ((rows - y) / (1 + 6 * opening)) ** 2 < 1
        view[inside] = (150, 30, 40)
    config = ProbeConfig(first_seed=0, width=12, train_steps=200, batch_size=16)
    probe = train_mouth_probe(views[:220], openings[:220], config)
    correlation, slope = follows(probe.read(views[220:]), openings[220:])
    assert correlation > 0.95
    assert 0.8 < slope < 1.2
