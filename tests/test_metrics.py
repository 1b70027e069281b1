"""What an evaluation measures of pictures and of counts."""

import math

import numpy as np

from midas_world.evaluate.metrics import mean_by_step, mean_of, sharpness
from midas_world.psnr import psnr


def flat_frame(value: int) -> np.ndarray:
    return np.full((1, 32, 40, 3), value, np.uint8)


def test_psnr_of_known_errors():
    black, grey = flat_frame(0), flat_frame(10)
    np.testing.assert_allclose(psnr(black, grey), 20 * math.log10(255 / 10), atol=1e-4)
    assert psnr(grey, grey)[0] > 100


def test_sharpness_of_an_edge_halves_when_it_is_blurred_over_two_pixels():
    edge = np.zeros((1, 32, 40, 3), np.uint8)
    edge[:, :, 20:] = 200
    blurred = edge.copy()
    blurred[:, :, 20] = 100
    np.testing.assert_allclose(sharpness(edge), (200 / 255) ** 2 / 39, rtol=1e-9)
    np.testing.assert_allclose(sharpness(blurred), 0.5 * sharpness(edge), rtol=1e-9)


def test_means_pass_over_what_is_missing():
    means = mean_by_step([np.array([1.0, 3.0]), np.array([3.0])], 3)
    np.testing.assert_array_equal(means, [2.0, 3.0, np.nan])
    assert mean_of([1.0, math.nan]) == 1.0
    assert math.isnan(mean_of([]))
