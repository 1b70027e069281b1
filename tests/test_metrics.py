"""What an evaluation measures of pictures and of counts."""

import math

import numpy as np
import pytest
from PIL import Image

from midas_world.evaluate.metrics import (
    Detection,
    jpeg_of_size,
    mean_by_step,
    mean_of,
    sharpness,
    ssim,
)
from midas_world.evaluate.probes.training import halve
from midas_world.psnr import psnr


def noise_frames(count: int = 1, *, seed: int = 0, height: int = 32, width: int = 40) -> np.ndarray:
    shape = (count, height, width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def flat_frame(value: int) -> np.ndarray:
    return np.full((1, 32, 40, 3), value, np.uint8)


def test_psnr_of_known_errors():
    black, grey = flat_frame(0), flat_frame(10)
    np.testing.assert_allclose(psnr(black, grey), 20 * math.log10(255 / 10), atol=1e-4)
    assert psnr(grey, grey)[0] > 100


def test_ssim_of_equal_frames_is_1_and_of_unrelated_ones_near_0():
    frames = noise_frames(2)
    np.testing.assert_allclose(ssim(frames, frames), 1.0, atol=1e-9)
    assert np.all(np.abs(ssim(frames, noise_frames(2, seed=1))) < 0.05)


def test_ssim_of_flat_frames_is_its_light_term():
    # Without structure, eq. 13 leaves (2 a b + c1) / (a^2 + b^2 + c1).
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    np.testing.assert_allclose(ssim(flat_frame(100), flat_frame(150)), expected, rtol=1e-9)


def test_ssim_falls_with_a_shift_and_more_with_a_larger_one():
    rows, columns = np.mgrid[:48, :64]
    wave = (127 + 100 * np.sin(columns / 5) * np.cos(rows / 7)).astype(np.uint8)
    frame = np.repeat(wave[None, :, :, None], 3, axis=-1)
    near, far = (ssim(frame, np.roll(frame, shift, axis=2))[0] for shift in (1, 4))
    assert 1.0 > near > far


def test_measures_refuse_frames_that_do_not_pair_up():
    with pytest.raises(ValueError, match="pair up"):
        psnr(flat_frame(0), flat_frame(0)[:, :-1])
    with pytest.raises(ValueError, match="uint8"):
        psnr(flat_frame(0), flat_frame(0).astype(np.float32))


def test_sharpness_of_an_edge_halves_when_it_is_blurred_over_two_pixels():
    edge = np.zeros((1, 32, 40, 3), np.uint8)
    edge[:, :, 20:] = 200
    blurred = edge.copy()
    blurred[:, :, 20] = 100
    np.testing.assert_allclose(sharpness(edge), (200 / 255) ** 2 / 39, rtol=1e-9)
    np.testing.assert_allclose(sharpness(blurred), 0.5 * sharpness(edge), rtol=1e-9)


def test_jpeg_comes_nearest_to_the_size_asked_for():
    smooth = np.asarray(Image.fromarray(noise_frames()[0]).resize((160, 96)))
    sizes = [jpeg_of_size(smooth, wanted)[1] for wanted in (1500, 3000)]
    assert abs(sizes[0] - 1500) < 200
    assert abs(sizes[1] - 3000) < 200
    small, _ = jpeg_of_size(smooth, 1)
    large, _ = jpeg_of_size(smooth, 10**6)
    assert psnr(smooth[None], large[None]) > psnr(smooth[None], small[None])


def test_shares_of_nothing_are_nan():
    found = Detection(positives=4, predicted=2, hits=1, count=8)
    assert (found.precision, found.recall) == (0.5, 0.25)
    nothing = Detection(positives=0, predicted=0, hits=0, count=3)
    assert math.isnan(nothing.precision)
    assert math.isnan(nothing.recall)


def test_means_pass_over_what_is_missing():
    means = mean_by_step([np.array([1.0, 3.0]), np.array([3.0])], 3)
    np.testing.assert_array_equal(means, [2.0, 3.0, np.nan])
    assert mean_of([1.0, math.nan]) == 1.0
    assert math.isnan(mean_of([]))


def test_halving_averages_four_pixels():
    frame = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(1, 2, 4, 3)
    expected = frame.reshape(1, 1, 2, 2, 2, 3).mean(axis=(2, 4))
    assert np.abs(halve(frame) - expected).max() <= 0.5
