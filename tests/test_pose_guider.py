"""The pose guider: maps against distances worked out by hand, and what is painted of them."""

import dataclasses

import pytest
import torch

from midas_world.conditions import POSE
from midas_world.config import ConditionsConfig, LimbsConfig, load_preset
from midas_world.pose_guider import PoseGuider
from tests.test_renderer import CONFIG, make_conditions, make_encoder

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
    assert all(row.weight.grad.abs().max() > 0 for row in guider.rows)


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
