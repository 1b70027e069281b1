"""How latents move with the camera: held to pictures that are moved by whole pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.torch_engine import TorchEngine
from midas_world.conditions import Conditions
from midas_world.config import TransportConfig, load_preset
from midas_world.klt import CellTransform
from midas_world.transport import Transport
from midas_world.world import World, load_world
from tests.engines import play
from tests.fakes import make_tiny_world
from tests.test_conformance import TOLERANCES
from tests.training import CPU, tiny_that_moves

SIDE, ROWS, COLUMNS = 8, 2, 5
# As many channels as a cell has values: the transform loses nothing.
CHANNELS = 3 * SIDE * SIDE
CONFIG = TransportConfig(wavelength=50.0, parallax=(1.0, 0.5), step=2, reach=3, channels=CHANNELS)


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (256, 3, ROWS * SIDE, COLUMNS * SIDE)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def transform(frames) -> CellTransform:
    transform = CellTransform(ROWS, CHANNELS, SIDE)
    transform.fit(frames)
    return transform


def moved_by(transform, pictures, travel, *, config=CONFIG) -> torch.Tensor:
    """Return pictures (B, P, 3, H, W) that the latents of pictures become after some travel."""
    transport = Transport(config, grid=(ROWS, COLUMNS), channels=CHANNELS)
    transport.fit(transform)
    mean = transform.analyze(torch.zeros_like(pictures[:1]))
    tokens = (transform.analyze(pictures) - mean).flatten(2).transpose(1, 2)
    made = transport(tokens, torch.full((len(pictures),), float(travel)))
    latents = made.transpose(2, 3).unflatten(3, (ROWS, COLUMNS)).flatten(0, 1) + mean
    return transform(latents).unflatten(0, made.shape[:2])


def shifted(pictures, pixels: int) -> torch.Tensor:
    """Return pictures whose camera went to the right; what comes in is 0."""
    out = torch.zeros_like(pictures)
    width = pictures.shape[-1]
    if pixels >= 0:
        out[..., : width - pixels] = pictures[..., pixels:]
    else:
        out[..., -pixels:] = pictures[..., : width + pixels]
    return out


@pytest.mark.parametrize("travel", [0, 4, -4])
def test_whole_shifts_are_exact_for_every_parallax(transform, frames, travel):
    pictures = frames[:4].float() / 127.5 - 1.0
    made = moved_by(transform, pictures, travel)
    wanted = torch.stack((shifted(pictures, travel), shifted(pictures, travel // 2)), dim=1)
    torch.testing.assert_close(made, wanted, atol=2e-3, rtol=0.0)


def test_between_shifts_the_nearest_two_are_mixed(transform, frames):
    pictures = frames[:2].float() / 127.5 - 1.0
    made = moved_by(transform, pictures, 3)[:, 0]
    wanted = 0.5 * (shifted(pictures, 2) + shifted(pictures, 4))
    torch.testing.assert_close(made, wanted, atol=2e-3, rtol=0.0)


@pytest.mark.parametrize("travel", [8, -9, 1000])
def test_after_a_cut_nothing_is_left(transform, frames, travel):
    made = moved_by(transform, frames[:2].float() / 127.5 - 1.0, travel)[:, 0]
    torch.testing.assert_close(made, torch.zeros_like(made), atol=2e-3, rtol=0.0)


def test_channels_that_do_not_move_stay_as_long_as_the_picture_does(transform):
    config = replace(CONFIG, channels=10)
    transport = Transport(config, grid=(ROWS, COLUMNS), channels=CHANNELS)
    transport.fit(transform)
    tokens = torch.randn(1, ROWS * COLUMNS, CHANNELS)
    made = transport(tokens, torch.tensor([2.0]))
    torch.testing.assert_close(made[:, 0, :, 10:], tokens[..., 10:])
    assert not torch.allclose(made[:, 0, :, :10], tokens[..., :10])
    assert not transport(tokens, torch.tensor([20.0])).any()


@pytest.mark.parametrize("travel", [-17.0, -6.0, 0.0, 3.0, 24.0])
@pytest.mark.parametrize("start", [0.0, 21.0, 49.0])
def test_travel_is_read_from_phases(start, travel):
    transport = Transport(CONFIG, grid=(ROWS, COLUMNS), channels=CHANNELS)
    angles = 2 * np.pi * np.array([start, start + travel]) / 50.0
    last, now = torch.tensor(np.stack((np.sin(angles), np.cos(angles)), -1), dtype=torch.float32)
    assert float(transport.travel(now[None], last[None])) == pytest.approx(travel, abs=1e-3)


def test_without_a_pose_the_camera_stands():
    transport = Transport(CONFIG, grid=(ROWS, COLUMNS), channels=CHANNELS)
    nothing, known = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    assert float(transport.travel(nothing, nothing)) == 0.0
    assert float(transport.travel(known, nothing)) == 0.0


@pytest.fixture(scope="module")
def moving_world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("worlds") / "moving"
    return load_world(make_tiny_world(folder, config=tiny_that_moves()))


def test_the_matrices_of_a_loaded_world_are_those_of_its_transform(moving_world):
    transport = moving_world.model.transport
    assert transport is not None
    assert transport.matrices.any()
    before = transport.matrices.clone()
    moving_world.model.fit_transport(moving_world.autoencoder)
    torch.testing.assert_close(transport.matrices, before)


def test_sequences_and_steps_agree_where_things_move(moving_world):
    model, frames = moving_world.model, 6
    world = moving_world.config.world
    generator = torch.Generator().manual_seed(1)
    shape = (2, frames, world.tokens_per_frame, world.autoencoder.latent_channels)
    context = torch.randn(shape, generator=generator)
    angles = torch.cumsum(torch.tensor([0, 3, 6, -6, 2, 0]) * 2 * np.pi / 50.0, dim=0)
    sizes = world.conditions
    pose = torch.randn(2, frames, sizes.pose_size, generator=generator)
    pose[..., -2], pose[..., -1] = angles.sin(), angles.cos()
    conditions = Conditions(
        pose=pose,
        text=torch.zeros(2, frames, sizes.text_length, dtype=torch.int64),
        audio=torch.zeros(2, frames, sizes.audio_size),
        present=torch.tensor([[[True] * 3], [[False] * 3]]).expand(-1, frames, -1),
    )
    level = torch.full((2, frames), world.play_noise)
    with torch.no_grad():
        expected = model.hidden(context, level, conditions)
        cache = model.new_cache(2, dtype=torch.float32, device=CPU)
        parts = []
        for step in range(frames):
            parts.append(
                model.step_hidden(context[:, step], conditions.frames(step, step + 1), cache)
            )
            cache.commit()
    made = torch.stack(parts, dim=1)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    channels, width = shape[-1], world.backbone.width
    correction, whole, half = made[..., width:].split(channels, dim=-1)
    # Of the first frame, nothing beyond what was foretold is known.
    torch.testing.assert_close(whole[:, 0], correction[:, 0])
    assert (whole[0, 1:5] - half[0, 1:5]).abs().amax(dim=(1, 2)).min() > 0.01
    # Where the camera stands, and where no pose says that it moves, both parallaxes are the same.
    torch.testing.assert_close(whole[0, 5], half[0, 5])
    torch.testing.assert_close(whole[1], half[1])


# Exported graphs with a transport are tested on the shipped world, in test_conformance_presets.py.
def test_bfloat16_moves_things_alike(moving_world):
    plain = TorchEngine(moving_world, device="cpu", dtype=torch.float32)
    engine = TorchEngine(moving_world, device="cpu", dtype=torch.bfloat16)
    latents, _ = play(engine, moving_world, 20, games=[0, 1])
    expected, _ = play(plain, moving_world, 20, games=[0, 1])
    distance = (latents - expected).abs() / expected.std()
    largest, mean, _ = TOLERANCES["torch-bfloat16"]
    assert distance.max() <= largest
    assert distance.mean() <= mean
    cache = plain.new_cache(2)
    assert cache.state()["phase"].shape == (2, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wavelength": -1.0}, "wavelength must be at least 0"),
        ({"step": 0}, "step must be at least 1"),
        ({"parallax": ()}, "parallax must have at least one"),
        ({"wavelength": 0.0}, "needs a wavelength"),
    ],
)
def test_config_has_limits(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


def test_only_transforms_with_a_renderer_move():
    tiny = load_preset("tiny").world
    with pytest.raises(ValueError, match="needs a transform"):
        replace(tiny, transport=CONFIG)
    stage = load_preset("stage").world
    with pytest.raises(ValueError, match="less than a cell's 64 pixels"):
        replace(stage, transport=replace(stage.transport, step=32))
