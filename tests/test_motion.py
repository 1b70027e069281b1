"""Moved copies: operators fitted to an autoencoder, and how far they travel."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from midas_world.config import MotionConfig, load_preset
from midas_world.model.motion import Flow, Motion

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


def moved_error(move: Callable[[Tensor], Tensor], shift: tuple[int, int]) -> float:
    """Return the error of moved latents, as a share of that of staying, inside of the picture."""
    dx, dy = shift
    frames = smooth_pictures(4, 48, 64, seed=1)
    last, following = frames[:, :, 8:40, 8:56], frames[:, :, 8 + dy : 40 + dy, 8 + dx : 56 + dx]
    latents, target = encode(last.contiguous()), encode(following.contiguous())
    inner = slice(2, -2), slice(2, -2)
    errors = [(x - target)[:, :, *inner].square().mean().item() for x in (move(latents), latents)]
    return errors[0] / errors[1]


def copied(motion: Motion, copy: int, travel: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what makes one copy, (B, c, h, w)."""
    return lambda latents: motion(latents, travel.expand(len(latents), -1))[:, copy]


@pytest.mark.parametrize("travel", [-3, -1, 2])
def test_copies_travel_with_the_camera(travel):
    motion = fitted(MotionConfig(parallax=(1.0, 0.5), reach=3))
    travels = torch.tensor([[float(travel), 0.0]])
    assert moved_error(copied(motion, 0, travels), (travel, 0)) < 0.1
    assert moved_error(copied(motion, 1, travels.flip(1)), (travel, 0)) < 0.1


class Unshuffling(nn.Module):
    """Stands in for an autoencoder that loses nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def encode(self, frames: Tensor) -> Tensor:
        return encode(frames)

    def decode(self, latents: Tensor) -> Tensor:
        return functional.pixel_shuffle(latents, STEP)


def flow_of(reach: int) -> Flow:
    flow = Flow(reach, load_preset("tiny").world.autoencoder)
    flow.coder = Unshuffling()
    return flow


def gates_for(flow: Flow, shift: tuple[int, int], size: torch.Size) -> Tensor:
    """Return the gates of one shift everywhere."""
    gates = torch.zeros(size[0], 2 * flow.count, *size[2:])
    dx, dy = shift
    gates[:, [flow.reach + dx, flow.count + flow.reach + dy]] = 40.0
    return gates


@pytest.mark.parametrize("shift", [(0, 0), (3, 0), (0, -2), (-3, 2), (1, 3)])
def test_a_flow_moves_places_as_their_gates_say(shift):
    flow = flow_of(3)
    frames = smooth_pictures(2, 32, 48).clamp(-1, 1)
    latents = encode(frames)
    gates = gates_for(flow, shift, latents.shape)
    dx, dy = shift
    moved = flow.coder.decode(flow(latents, gates))
    inner = slice(4, 28), slice(4, 44)
    wanted = frames.roll((-dy, -dx), dims=(2, 3))
    torch.testing.assert_close(moved[:, :, *inner], wanted[:, :, *inner], rtol=0, atol=1e-5)
    # Each place has gates of its own.
    still = gates_for(flow, (0, 0), latents.shape)
    mixed = flow(latents, torch.cat((gates[..., :6], still[..., 6:]), dim=3))
    torch.testing.assert_close(mixed[..., :5], flow(latents, gates)[..., :5])
    torch.testing.assert_close(mixed[..., 7:], flow(latents, still)[..., 7:])


def test_a_flow_keeps_fine_detail_that_moves_by_parts_of_a_pixel():
    flow = flow_of(3)
    waves = (torch.arange(48.0) * (2.0 * torch.pi / 5.0)).sin().mul(0.8)
    latents = encode(waves.expand(1, 3, 32, 48).contiguous())
    there, back = (
        torch.maximum(gates_for(flow, (0, 0), latents.shape), gates_for(flow, way, latents.shape))
        for way in ((1, 0), (-1, 0))
    )
    moved = latents
    for _ in range(3):
        moved = flow(flow(moved, there), back)
    inner = flow.coder.decode(moved)[..., 12:-12]
    # Six linear interpolations leave (cos(pi / 5))^6 = 28 % of a wave of 5 px.
    assert float(inner.abs().max()) > 0.6


def test_a_flow_learns_by_what_it_moves_and_its_autoencoder_does_not():
    flow = Flow(2, load_preset("tiny").world.autoencoder)
    latents = torch.randn(1, load_preset("tiny").world.autoencoder.latent_channels, 4, 6)
    gates = torch.zeros(1, 2 * flow.count, 4, 6, requires_grad=True)
    flow(latents, gates).square().sum().backward()
    assert (gates.grad.abs().amax(dim=(2, 3)) > 0).all()
    assert all(weight.grad is None for weight in flow.parameters())


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
