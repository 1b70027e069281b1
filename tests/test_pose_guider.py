"""The pose guider: maps against distances worked out by hand, and what is painted of them."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from midas_world.autoencoder import Autoencoder
from midas_world.conditions import POSE, ConditionEncoder
from midas_world.conditions_config import ConditionsConfig, LimbsConfig
from midas_world.config import load_preset
from midas_world.klt import CellTransform
from midas_world.pose_guider import PoseGuider
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.data import open_frames
from midas_world.train.limb_error import LimbError
from midas_world.train.loop import seeded_weights
from midas_world.train.renderer import train_renderer
from midas_world.train.sources import open_sequence_source
from midas_world.world_model import WorldModel
from tests.test_renderer import CONFIG, make_conditions, make_encoder
from tests.training import CPU, tiny, tiny_that_moves

LIMBS = LimbsConfig(limbs=((0, 1), (1, 1)), reach=0.5, side=4, width=6, channels=3)
GUIDED = dataclasses.replace(CONFIG, limbs=LIMBS, drop_rate=0.0)
# Of a cell's map with four points along its side.
ALONG = (-0.375, -0.125, 0.125, 0.375)


def make_guider() -> PoseGuider:
    guider = PoseGuider(LIMBS, feature_width=5, grid=(2, 3), latent_channels=7)
    generator = torch.Generator().manual_seed(0)
    for parameter in guider.requires_grad_(False).parameters():
        parameter.normal_(0.0, 0.5, generator=generator)
    return guider


def test_maps_fall_from_the_bone_to_its_reach():
    # A bone along y = 0 from x = -0.125 to 0.125, and a disc at its right end.
    maps = make_guider().maps(torch.tensor([[-0.125, 0.0], [0.125, 0.0]]))
    assert maps.shape == (16, 2)
    for row, y in enumerate(ALONG):
        for column, x in enumerate(ALONG):
            beyond = max(0.0, abs(x) - 0.125)
            for limb, distance in enumerate((beyond**2 + y**2, (x - 0.125) ** 2 + y**2)):
                expected = max(0.0, 1.0 - distance**0.5 / 0.5)
                assert maps[4 * row + column, limb] == pytest.approx(expected, abs=1e-3)


def test_training_paints_only_cells_near_limbs_and_to_the_same_values():
    guider = make_guider()
    generator = torch.Generator().manual_seed(1)
    keypoints = torch.full((2, 3, 6, 2, 2), 50.0)
    keypoints[:, :, :2] = 0.5 * torch.randn(2, 3, 2, 2, 2, generator=generator)
    features = torch.randn(2, 3, 6, 5, generator=generator)
    painted = guider.eval()(keypoints, features)
    assert painted.shape == (2, 3, 6, 7)
    assert painted[:, :, 0].abs().amax(dim=-1).min() > 1e-3
    assert not painted[:, :, 2:].any()
    torch.testing.assert_close(guider.train()(keypoints, features), painted)


def test_cells_are_painted_by_what_the_renderer_knows_of_them_and_by_their_row():
    guider = make_guider().eval()
    keypoints = torch.zeros(1, 1, 6, 2, 2)
    features = torch.zeros(1, 1, 6, 5)
    features[..., 1, :] = 1.0
    cells = guider(keypoints, features)[0, 0]
    assert torch.equal(cells[0], cells[2])
    assert (cells[0] - cells[1]).abs().max() > 1e-3
    assert (cells[0] - cells[3]).abs().max() > 1e-3


def test_what_is_foretold_follows_the_limbs_and_not_those_of_an_absent_pose():
    encoder, conditions = make_encoder(GUIDED).eval(), make_conditions()
    plain = make_encoder(GUIDED).eval()
    for row in plain.renderer.guider.rows:
        row.weight.zero_()
    told, without = encoder.foretell(conditions), plain.foretell(conditions)
    near = (encoder._from_centres(conditions.pose).abs().amax(dim=-1) < 0.4).any(dim=-1)
    assert near.any()
    assert (told - without).abs().amax(dim=-1)[near].min() > 1e-3
    absent = conditions.present.clone()
    absent[..., POSE] = False
    silent = dataclasses.replace(conditions, present=absent)
    assert torch.equal(encoder.foretell(silent), plain.foretell(silent))


def test_an_untrained_guider_adds_nothing_and_learns():
    guider = PoseGuider(LIMBS, feature_width=5, grid=(2, 3), latent_channels=7)
    keypoints, features = torch.zeros(1, 1, 6, 2, 2), torch.ones(1, 1, 6, 5)
    painted = guider(keypoints, features)
    assert not painted.any()
    painted.sum().backward()
    assert guider.paint.weight.grad.abs().max() > 0


SIDE, ROWS, COLUMNS = 8, 2, 3
# As many channels as a cell has values: the transform loses nothing.
CHANNELS = 3 * SIDE * SIDE


@pytest.fixture(scope="module")
def transform() -> CellTransform:
    transform = CellTransform(ROWS, CHANNELS, SIDE)
    generator = torch.Generator().manual_seed(0)
    shape = (256, 3, ROWS * SIDE, COLUMNS * SIDE)
    transform.fit(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
    return transform


def wide_guider(channels: int) -> PoseGuider:
    """Return an untrained guider of the transform's latents."""
    limbs = dataclasses.replace(LIMBS, channels=channels)
    guider = PoseGuider(limbs, feature_width=5, grid=(ROWS, COLUMNS), latent_channels=CHANNELS)
    return guider.requires_grad_(requires_grad=False)


def test_fitted_channels_are_colours_of_a_coarse_picture(transform):
    guider = wide_guider(4)
    std = torch.linspace(0.5, 2.0, CHANNELS)
    guider.fit(transform, std)
    coarse = torch.rand(ROWS, COLUMNS, 4, 4, 4)  # the last: points' channels
    latents = torch.stack(
        [row(cells.flatten(1)) for row, cells in zip(guider.rows, coarse, strict=True)]
    )
    black = transform(torch.zeros(1, CHANNELS, ROWS, COLUMNS))
    shown = transform((latents * std).permute(2, 0, 1)[None]) - black
    cells = shown[0].unflatten(2, (COLUMNS, SIDE)).unflatten(1, (ROWS, SIDE))
    fine = functional.interpolate(
        coarse[..., :3].flatten(0, 1).permute(0, 3, 1, 2), size=(SIDE, SIDE), mode="bilinear"
    )
    expected = fine.unflatten(0, (ROWS, COLUMNS))
    torch.testing.assert_close(cells.permute(1, 3, 0, 2, 4), expected, atol=1e-3, rtol=0.0)


def test_colours_need_three_channels(transform):
    guider = wide_guider(2)
    with pytest.raises(ValueError, match="channels must be at least 3 to fit, got 2"):
        guider.fit(transform, torch.ones(CHANNELS))


def test_the_error_on_limbs_is_that_of_the_picture_there(transform):
    scale = torch.linspace(0.5, 2.0, CHANNELS)
    measure = LimbError(transform, scale, side=SIDE)
    error = torch.randn(1, 1, ROWS * COLUMNS, CHANNELS, generator=torch.Generator().manual_seed(0))
    raw = (error * scale)[0, 0].T.unflatten(1, (ROWS, COLUMNS))[None]
    picture = transform(raw) - transform(torch.zeros_like(raw))
    cells = picture[0].unflatten(2, (COLUMNS, SIDE)).unflatten(1, (ROWS, SIDE))
    squared = cells.permute(1, 3, 2, 4, 0).flatten(2, 3).square().mean(dim=-1).flatten(0, 1)
    # All points alike: an error of variance 1 on all latents counts as 1.
    everywhere = measure(error, torch.ones(1, 1, ROWS * COLUMNS, SIDE**2))
    assert float(everywhere) == pytest.approx(1.0, rel=0.15)
    maps = torch.zeros(1, 1, ROWS * COLUMNS, SIDE**2)
    maps[0, 0, 4, 10], maps[0, 0, 4, 11] = 1.0, 0.5
    expected = (squared[4, 10] + 0.5 * squared[4, 11]) / 1.5 / unit(transform, scale)[1]
    torch.testing.assert_close(measure(error, maps), expected, atol=1e-4, rtol=1e-3)


def unit(transform: CellTransform, scale: torch.Tensor) -> torch.Tensor:
    """Return each row's mean square of the picture of latents of variance 1."""
    gain = transform.gain.view(ROWS, CHANNELS)
    return (scale / gain).square().sum(dim=1) / CHANNELS


def test_the_error_on_limbs_is_asked_for_in_vain_without_a_guider(data, trained, tmp_path):
    config = tiny("train_renderer.limb_weight=0.5")
    coder = load_autoencoder(trained / "autoencoder", config)
    conditions = ConditionEncoder(CONFIG, width=12, grid=(3, 5), latent_channels=8)
    with pytest.raises(ValueError, match="limb_weight needs a pose guider"):
        train_renderer(config, data, tmp_path, conditions, torch.ones(8), coder=coder, device=CPU)


def test_a_guided_renderer_learns_limbs(data, tmp_path):
    config = tiny_that_moves(
        "world.conditions.limbs={limbs: [[0, 0]], side: 4, width: 8, channels: 3}",
        "train_renderer.optimizer.train_steps=30",
        "train_renderer.limb_weight=1.0",
    )
    frames = open_frames(data / "train")
    pictures = torch.from_numpy(frames.gather(np.arange(frames.num_frames))).permute(0, 3, 1, 2)
    coder = Autoencoder(config.world.autoencoder).requires_grad_(requires_grad=False)
    coder.decoder.fit(pictures)
    coder.set_statistics(coder.encode_raw(pictures.float() / 127.5 - 1.0))
    with seeded_weights(0):
        conditions = WorldModel(config.world).conditions
    change_std = torch.full((6,), 0.5)
    held, _ = open_sequence_source(config, data, coder, device=CPU).held()
    measure = LimbError(coder.decoder, change_std * coder.latent_std, side=4)

    @torch.no_grad()
    def error() -> float:
        change = conditions.foretell(held["conditions"]) - held["latents"][:, 1:]
        return float(measure(change / change_std, conditions.limb_maps(held["conditions"])))

    before = error()
    train_renderer(config, data, tmp_path, conditions, change_std, coder=coder, device=CPU)
    assert error() < 0.7 * before
    assert conditions.renderer.guider.paint.weight.abs().max() > 0


def test_the_dynamics_mind_limbs_by_the_weight_of_their_noise():
    config = tiny_that_moves(
        "world.conditions.limbs={limbs: [[0, 0]], side: 4, width: 8, channels: 3}",
        "world.diffusion.noise_draws=2",
    )
    with seeded_weights(0):
        model = WorldModel(config.world)
    shape = (2, 3, config.world.tokens_per_frame, config.world.autoencoder.latent_channels)
    latents = torch.randn(2, 4, *shape[2:], generator=torch.Generator().manual_seed(1))
    conditions = make_conditions(config.world.conditions)
    seen = []

    def measure(error: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        seen.append((error.detach(), maps))
        return error.square().mean()

    def losses(**given) -> dict[str, torch.Tensor]:
        nothing = torch.zeros(shape[:2])
        generator = torch.Generator().manual_seed(2)
        return model.losses(
            latents, conditions, nothing, nothing.bool(), generator=generator, **given
        )

    plain, minded = losses(), losses(limb_error=measure)
    assert set(minded) - set(plain) == {"limbs"}
    # Where a limb is everywhere, the error on limbs is that of the head.
    torch.testing.assert_close(minded["limbs"], plain["head"])
    (error, maps) = seen[0]
    assert error.shape == (4, *shape[1:])
    torch.testing.assert_close(maps[:2], model.conditions.limb_maps(conditions))
    torch.testing.assert_close(maps[2:], maps[:2])


@pytest.mark.parametrize("limb", [(0, 2), (-1, 0)])
def test_limbs_of_keypoints_that_are_not_there_are_refused(limb):
    with pytest.raises(ValueError, match=rf"keypoints 0 to 1, got \({limb[0]}, {limb[1]}\)"):
        dataclasses.replace(CONFIG, limbs=LimbsConfig(limbs=(limb,)))


@pytest.mark.parametrize(
    ("name", "value"), [("reach", 0.0), ("side", 0), ("width", 0), ("channels", 0)]
)
def test_sizes_below_their_limits_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be"):
        LimbsConfig(**{name: value})


def test_the_shipped_preset_shows_every_keypoint_on_a_limb():
    conditions: ConditionsConfig = load_preset("stage").world.conditions
    named = {keypoint for limb in conditions.limbs.limbs for keypoint in limb}
    assert named == set(range(conditions.num_keypoints))
