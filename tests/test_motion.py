"""Moved copies: operators fitted to an autoencoder, and how far they travel."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from midas_world.config import MotionConfig
from midas_world.model.motion import Motion

STEP = 4


def smooth_pictures(count: int, height: int, width: int, *, seed: int = 0) -> Tensor:
    """Return random smooth pictures, (B, 3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, height // 4 + 2, width // 4 + 2, generator=generator)
    fine = functional.interpolate(coarse, scale_factor=4.0, mode="bicubic")
    return fine[:, :, :height, :width]


def encode(frames: Tensor) -> Tensor:
    """Stand in for an encoder: pixels to channels."""
    return functional.pixel_unshuffle(frames, STEP)


def fitted(config: MotionConfig, *, size: tuple[int, int] = (32, 48)) -> Motion:
    motion = Motion(config, channels=3 * STEP**2, downsampling=STEP, loop=64)
    motion.fit(encode, smooth_pictures(24, *size))
    return motion


def moved_error(motion: Motion, copy: int, travel: Tensor, shift: tuple[int, int]) -> float:
    """Return the error of a moved copy, as a share of that of staying, inside of the picture."""
    dx, dy = shift
    frames = smooth_pictures(4, 48, 64, seed=1)
    last, following = frames[:, :, 8:40, 8:56], frames[:, :, 8 + dy : 40 + dy, 8 + dx : 56 + dx]
    latents, target = encode(last.contiguous()), encode(following.contiguous())
    made = motion(latents, travel.expand(4, -1))[:, copy]
    inner = slice(2, -2), slice(2, -2)
    errors = [(x - target)[:, :, *inner].square().mean().item() for x in (made, latents)]
    return errors[0] / errors[1]


@pytest.mark.parametrize("travel", [-3, -1, 2])
def test_copies_travel_with_the_camera(travel):
    motion = fitted(MotionConfig(parallax=(1.0, 0.5), reach=3))
    travels = torch.tensor([[float(travel), 0.0]])
    assert moved_error(motion, 0, travels, (travel, 0)) < 0.1
    assert moved_error(motion, 1, travels.flip(1), (travel, 0)) < 0.1


@pytest.mark.parametrize("copy", range(4))
def test_without_a_camera_copies_move_by_fixed_shifts(copy):
    config = MotionConfig(shifts=((2, 0), (-2, 0), (0, 3), (0, -3)))
    motion = fitted(config)
    assert motion.shifts == list(config.shifts)
    assert moved_error(motion, copy, torch.zeros(1, 0), config.shifts[copy]) < 0.1


def test_small_pictures_leave_something_to_fit_by():
    motion = fitted(MotionConfig(parallax=(1.0,), reach=8), size=(16, 32))
    assert motion.operators.isfinite().all()
    assert motion.operators.abs().amax(dim=(1, 2)).min() > 0.01


def test_travel_is_whole_pixels_at_each_parallax_and_wraps_at_the_loop():
    config = MotionConfig(parallax=(1.0, 0.5))
    motion = Motion(config, channels=1, downsampling=4, loop=64)
    now, before = torch.tensor([12.0, 1.0, 62.0, 5.0]), torch.tensor([8.0, 62.0, 2.0, 4.0])
    travel = motion.travel(now, before)
    assert travel[:, 0].tolist() == [4.0, 3.0, -4.0, 1.0]
    # Half a pixel is rounded up in each place by itself: from 2 to 3 (2.5).
    assert travel[:, 1].tolist() == [2.0, 2.0, -2.0, 1.0]
