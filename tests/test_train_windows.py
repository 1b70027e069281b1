"""Windows learn alone, from rows that were painted badly, and go on where they were stopped."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from midas_world.model.autoencoder import Autoencoder, normalize_frames
from midas_world.model.world_model import WorldModel
from midas_world.train.latents import LatentStore
from midas_world.train.loop import seeded_weights
from midas_world.train.scenery import Lesson
from midas_world.train.windows import WindowLoss, WindowRows, fit_windows
from tests.training import CPU, SHOWS_FACE, tiny

EVEN = torch.ones(tiny().world.autoencoder.latent_channels)
CHARACTER, PORTRAIT = range(2)


@pytest.fixture
def model() -> WorldModel:
    with seeded_weights(0):
        return WorldModel(tiny().world).eval()


def rows_of(model: WorldModel, store: LatentStore, number: int = CHARACTER) -> WindowRows:
    return WindowRows(model, number, store, tiny(), device=CPU)


def loss_of(model: WorldModel, coder: Autoencoder, number: int = CHARACTER) -> WindowLoss:
    window = model.windows[number]
    return WindowLoss(window, coder, EVEN, energy_weight=1.0)


def test_windows_learn_and_nothing_else_does(model, coder, store, tmp_path):
    before = copy.deepcopy(model.state_dict())
    rows = np.arange(0, 60, 7)
    batch = {**rows_of(model, store).batch(rows), "rows": torch.from_numpy(rows)}
    config = tiny("train_dynamics.windows.train_steps=60")
    with torch.no_grad():
        first = float(loss_of(model, coder)(**batch)["loss"])
    fit_windows(Lesson(model, coder, EVEN, store, store, config, CPU), tmp_path)
    with torch.no_grad():
        assert float(loss_of(model, coder)(**batch)["loss"]) < 0.9 * first
    for name, value in model.state_dict().items():
        assert name.startswith("windows.") or torch.equal(value, before[name]), name
    # The largest takes all train steps, and finished windows are taken as they are.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["character", "portrait"]
    again = copy.deepcopy(model)
    again.load_state_dict(before)
    fit_windows(Lesson(again, coder, EVEN, store, store, config, CPU), tmp_path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@torch.no_grad()
def test_a_window_is_judged_by_a_cut_around_it_as_in_the_whole_picture(model, coder, store):
    rows = np.array([3, 17])
    loss, batch = loss_of(model, coder), rows_of(model, store).batch(rows)
    cuts = loss.cuts(**batch)
    height, width = 6, 8  # a window of 2 x 2 and its margin, in a grid of 6 x 10
    assert cuts.made.shape == cuts.target.shape == (2, 8, height, width)
    assert cuts.weight.shape == cuts.is_judged.shape == (2, 1, height, width)
    assert cuts.frames.shape == (2, 3, 8 * height, 8 * width)
    painted = loss.window(
        *(batch[n] for n in ("behind", "vector", "middle")), lambda _: batch["waves"]
    )
    whole, shown = coder.decode(painted), loss.shown(cuts)
    for index, row in enumerate(rows):
        frame = normalize_frames(torch.from_numpy(store.frames.gather(rows[index : index + 1])))[0]
        x = next(
            x
            for x in range(3)
            if torch.equal(frame[:, :, 8 * x : 8 * (x + width)], cuts.frames[index])
        )
        judged = cuts.is_judged[index, 0]
        # Only where the cut ends and the picture does not, something is left out.
        assert judged[:, :2].any() == (x == 0), row
        assert judged[:, -2:].any() == (x == 2), row
        assert judged[:, 2:-2].all()
        places = (judged > 0).repeat_interleave(8, 0).repeat_interleave(8, 1)
        there = whole[index, :, :, 8 * x : 8 * (x + width)]
        torch.testing.assert_close(shown[index][:, places], there[:, places], atol=0.1, rtol=0)
        assert torch.equal(shown[index][:, ~places], cuts.frames[index][:, ~places])


def test_what_is_painted_over_does_not_count_and_the_face_counts_most(model, store):
    row = int(np.flatnonzero((store.frames.regions[:, :, 2] > 0).any(axis=1))[0])
    weight = rows_of(model, store).batch(np.array([row]))["weight"][0, 0]
    for x, y, half_width, _ in store.frames.regions[row]:
        assert half_width <= 0 or weight[int(y // 8), int(x // 8)] == 0.0
    assert weight.max() == tiny().train_dynamics.face.weight
    portrait = rows_of(model, store, PORTRAIT).batch(np.array([row]))["weight"]
    assert portrait.min() == 1.0


def test_a_window_learns_from_rows_alone_in_which_it_is_seen(model, coder, store, tmp_path):
    rows, generator = rows_of(model, store, PORTRAIT), torch.Generator().manual_seed(0)
    is_shown = store.conditions.pose[0, :, SHOWS_FACE] > 0.5
    assert 0 < is_shown.sum() < len(is_shown)
    assert torch.equal(rows.seen, is_shown.nonzero()[:, 0])
    for _ in range(20):
        assert is_shown[rows.draw(generator, 8)].all()
    assert len(rows_of(model, store).seen) == len(is_shown)
    pose = store.conditions.pose.clone()
    pose[..., SHOWS_FACE] = 0.0
    conditions = dataclasses.replace(store.conditions, pose=pose)
    never = dataclasses.replace(store, conditions=conditions)
    before = copy.deepcopy(model.windows[PORTRAIT].state_dict())
    fit_windows(Lesson(model, coder, EVEN, never, never, tiny(), CPU), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["character"]
    for name, value in model.windows[PORTRAIT].state_dict().items():
        assert torch.equal(value, before[name]), name


def test_rows_that_were_painted_badly_come_oftener(model, store):
    rows, generator = rows_of(model, store), torch.Generator().manual_seed(0)
    drawn = rows.draw(generator, 8)
    rows.learn(drawn, torch.full((8,), 1e-6).index_fill(0, torch.tensor([2]), 50.0))
    counts = torch.zeros(len(rows.odds))
    for _ in range(200):
        for row in rows.draw(generator, 8):
            counts[row] += 1
    assert counts[drawn[2]] > 1.7 * counts.mean()
    assert (counts > 0).sum() > 0.9 * len(counts)
    other = rows_of(model, store)
    other.load_state(rows.state())
    assert torch.equal(other.odds, rows.odds)
