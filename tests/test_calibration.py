"""The prior's rates of what enters are held to those of the teacher's walks."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import torch

from midas_world.model.world_model import WorldModel
from midas_world.train.calibration import _logits, calibrate_prior, new_travel
from midas_world.train.latents import LatentStore
from midas_world.train.loop import seeded_weights, step_generator
from tests.training import CAMERA, LOOP, tiny


@torch.no_grad()
def test_as_many_of_each_class_are_expected_as_came(store):
    with seeded_weights(0):
        model = WorldModel(tiny().world).eval()
    bias = model.prior.trunk[-1].bias
    bias[-1] = 6.0  # it expects nothing
    calibrate_prior(model, store, generator=step_generator(0, 0))
    frames, travel = tiny().world.backbone.context_frames, new_travel(store, tiny().world)
    side = torch.from_numpy((travel > 0).astype(np.int64))
    weight = torch.from_numpy(np.abs(travel))[:, None]
    came = torch.nn.functional.one_hot(store.coming[torch.arange(62), side], 8)
    true = (came * weight).sum(dim=0) / weight.sum()
    assert true[:-1].sum() > 0
    rows = np.array([r for r in range(62) if r % 31 >= frames and travel[r]])
    chances = _logits(model, store, rows)[torch.arange(len(rows)), side[rows]].softmax(dim=1)
    expected = (chances * weight[rows]).sum(dim=0) / weight[rows].sum()
    seen = true > 0
    torch.testing.assert_close(expected[seen], true[seen], rtol=0.05, atol=0.005)


def test_only_places_where_the_camera_had_not_been_count():
    way = np.array([0, 8, 4, 12, -4, 0, 1580, 1588], np.float64)  # two episodes
    pose = torch.zeros(1, len(way), CAMERA + 1)
    pose[0, :, CAMERA] = torch.from_numpy(way % LOOP / LOOP)
    store = SimpleNamespace(conditions=SimpleNamespace(pose=pose), starts=np.array([0, 5, 8]))
    travel = new_travel(cast("LatentStore", store), tiny().world)
    np.testing.assert_allclose(travel, [0, 8, 0, 4, -4, 0, -20, 0], atol=1e-3)
