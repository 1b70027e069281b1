"""The prior's rates of what enters are held to those of the teacher's walks."""

import numpy as np
import torch

from midas_world.model.world_model import WorldModel
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.calibration import _logits, calibrate_prior
from midas_world.train.latents import open_latents
from midas_world.train.loop import seeded_weights, step_generator
from tests.training import CAMERA, CPU, LOOP, tiny


@torch.no_grad()
def test_as_many_of_each_class_are_expected_as_came(data, trained):
    coder = load_autoencoder(trained / "autoencoder", tiny())
    store = open_latents(data / "train", coder, tiny().world, device=CPU)
    with seeded_weights(0):
        model = WorldModel(tiny().world).eval()
    bias = model.prior.trunk[-1].bias
    bias[-1] = 6.0  # it expects nothing
    calibrate_prior(model, store, generator=step_generator(0, 0))
    frames = tiny().world.backbone.context_frames
    rows = np.array([r for r in range(62) if r % 31 >= frames])
    share = store.conditions.pose[0, :, CAMERA].numpy()
    way = ((share[rows] - share[rows - 1] + 0.5) % 1.0 - 0.5) * LOOP
    side = torch.from_numpy((way > 0).astype(np.int64))
    index, weight = torch.arange(len(rows)), torch.from_numpy(np.abs(way))[:, None]
    chances = _logits(model, store, rows)[index, side].softmax(dim=1)
    came = torch.nn.functional.one_hot(store.coming[torch.from_numpy(rows)][index, side], 8)
    expected, true = (chances * weight).sum(dim=0), (came * weight).sum(dim=0)
    assert true[:-1].sum() > 0
    seen = true > 0
    torch.testing.assert_close(expected[seen].double(), true[seen].double(), rtol=0.05, atol=0.5)
