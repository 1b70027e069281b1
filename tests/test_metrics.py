"""What an evaluation measures of pictures and of counts."""

import math

import numpy as np
from PIL import Image

from midas_world.evaluate.metrics import (
    jpeg_of_size,
    mean_by_step,
    mean_of,
    sharpness,
    ssim,
)
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


def test_means_pass_over_what_is_missing():
    means = mean_by_step([np.array([1.0, 3.0]), np.array([3.0])], 3)
    np.testing.assert_array_equal(means, [2.0, 3.0, np.nan])
    assert mean_of([1.0, math.nan]) == 1.0
    assert math.isnan(mean_of([]))
