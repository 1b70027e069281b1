"""The pool that dynamics are trained on: what it asks for, what it gives, and how it goes on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from midas_world.config import ProjectConfig
from midas_world.model.autoencoder import to_tokens
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.latents import LatentStore, coming_classes, open_latents, told_things
from midas_world.train.loop import step_generator
from midas_world.train.pool import MOST_LATENT, Pool, rate_at
from tests.training import CAMERA, CPU, LOOP, make_episode, same, tiny

# Nothing is lost, noisy, kept back or begun anew.
PLAIN = (
    "train_dynamics.fresh_rate=[[0.0,0.0],[1.0,0.0]]",
    "train_dynamics.lost_rate=[[0.0,0.0],[1.0,0.0]]",
    "train_dynamics.noisy_rate=0.0",
    "train_dynamics.untold_rate=0.0",
    "world.conditions.drop_rate=0.0",
    "world.conditions.word_drop_rate=0.0",
    "train_dynamics.forget_rate=0.0",
)
LOST = (*PLAIN, "train_dynamics.lost_rate=[[0.0,1.0],[1.0,1.0]]")
OUTSIDE, INSIDE, STRIP, HALF = 14, 36, 8, 40


@pytest.fixture(scope="module")
def store(data: Path, trained: Path) -> LatentStore:
    coder = load_autoencoder(trained / "autoencoder", tiny())
    return open_latents(data / "train", coder, tiny().world, device=CPU)


def make_pool(store: LatentStore, config: ProjectConfig) -> Pool:
    return Pool(store, config.world, config.train_dynamics)


def walk(pool: Pool, steps: int, *, first: int = 0):
    """Yield batches of a pool whose model is perfect."""
    for step in range(first, first + steps):
        batch = pool.batch(step_generator(0, step), 0.5)
        yield batch
        pool.advance(batch["target"])


def tokens_of(store: LatentStore, rows: np.ndarray) -> Tensor:
    return to_tokens(store.gather(rows), tiny().world.token_block).half().float()


def test_a_perfect_model_walks_beside_its_episode(store):
    pool = make_pool(store, tiny(*PLAIN))
    context = tiny().world.backbone.context_frames
    deepest = 0
    for batch in walk(pool, 40):
        rows = pool.rows.numpy().copy()
        deepest = max(deepest, int(pool.depth.max()))
        first = store.starts[np.searchsorted(store.starts, rows, side="right") - 1]
        torch.testing.assert_close(batch["target"], store.gather(rows + 1))
        torch.testing.assert_close(batch["last"], store.gather(rows))
        torch.testing.assert_close(batch["before"], store.gather(rows - 1))
        pose = store.conditions.pose[0]
        torch.testing.assert_close(batch["last_camera"], pose[rows, CAMERA] * LOOP)
        torch.testing.assert_close(batch["last_audio"], store.conditions.audio[0, rows])
        for place in range(context):
            back = context - 1 - place
            seen = np.maximum(rows - back, first)
            expected = tokens_of(store, seen)
            torch.testing.assert_close(batch["context"][:, place], expected)
            given = batch["conditions"].frames(place, place + 1)
            told = np.maximum(rows + 1 - back, first + 1)
            for name in ("pose", "text", "audio", "present", "entries"):
                column = getattr(store.conditions, name)[0, told]
                assert torch.equal(getattr(given, name)[:, 0], column), name
            assert torch.equal(batch["coming"][:, place], store.coming[told])
        for name in ("reward", "cost", "terminated"):
            assert torch.equal(batch[name], getattr(store, name)[rows + 1])
        assert batch["is_whole"].all()
        step = tiny().world.autoencoder.downsampling
        size = tiny().train_dynamics.crop_size
        frames = store.frames.gather(rows + 1)
        for frame, crop, (y, x) in zip(
            frames, batch["crops"], batch["corners"] * step, strict=True
        ):
            assert np.array_equal(frame[y : y + size, x : x + size], crop.numpy())
    assert deepest > 15


def test_a_sequence_begins_anew_where_its_episode_ends_or_its_frames_run_away(store):
    pool = make_pool(store, tiny(*PLAIN))
    batch = next(iter(walk(pool, 1)))
    before = pool.rows.clone()
    ends = store.starts[1:] - 1
    made = batch["target"].clone()
    made[1] = 2 * MOST_LATENT
    made[2] = float("nan")
    pool.rows.copy_(torch.tensor([ends[0] - 1, 5, 5, 5]))
    pool.advance(made)
    assert pool.rows.tolist() == [ends[0], -1, -1, 6]
    batch = pool.batch(step_generator(0, 9), 0.5)
    assert batch["is_fresh"].tolist() == [True, True, True, False]
    assert all(tensor.isfinite().all() for tensor in (batch["last"], batch["before"]))
    assert before.shape == pool.rows.shape


def test_the_fresh_rate_follows_progress(store):
    points = ((0.0, 1.0), (0.5, 0.0))
    assert [rate_at(points, progress) for progress in (0.0, 0.25, 0.5, 1.0)] == [1.0, 0.5, 0.0, 0.0]
    pool = make_pool(store, tiny(*PLAIN, "train_dynamics.fresh_rate=[[0.0,1.0],[1.0,1.0]]"))
    assert all(batch["is_fresh"].all() for batch in walk(pool, 3))


def test_things_are_told_from_just_outside_until_they_are_wholly_inside(data):
    things = make_episode(1).extras["things"]
    found = told_things(things, tiny().world)
    assert found.any()
    numbers = np.unique(things[things[..., 0] >= 0][:, 5])
    for number in numbers:
        is_armed, was_there = False, False
        for row in range(len(things)):
            (places,) = np.nonzero(things[row, :, 5] == number)
            if not len(places):
                continue
            away = abs(things[row, places[0], 1] - HALF)
            # New in the list while it goes on, it came from outside.
            is_armed |= not was_there and row > 0
            was_there = True
            if away >= HALF + OUTSIDE:
                is_armed = True
            elif away < HALF - INSIDE:
                is_armed = False
            assert found[row, places[0]] == (is_armed and away < HALF + OUTSIDE)
    # What is in view at the start is not told; no place that is filled up is.
    assert not found[0].any()
    assert not found[things[..., 0] < 0].any()


def test_what_is_said_to_come_next_comes_next():
    entered = 0
    for seed in range(8):
        episode = make_episode(seed, num_steps=60)
        things, pose = episode.extras["things"], episode.pose
        coming = coming_classes(things, pose, tiny().world)
        none = tiny().world.entries.num_classes
        reach = HALF + OUTSIDE
        # The camera's place without the loop, as the fake episode makes it.
        moved = np.round(np.diff(pose[:, CAMERA].astype(np.float64)) * LOOP)
        camera = np.concatenate(([0.0], np.cumsum((moved + LOOP / 2) % LOOP - LOOP / 2)))
        camera += float(pose[0, CAMERA]) * LOOP
        strips = {
            side: np.floor((camera + sign * reach) / STRIP).astype(int)
            for side, sign in ((0, -1), (1, 1))
        }
        for row in range(len(things) - 1):
            for side, sign in ((0, -1), (1, 1)):
                new = strips[side][row + 1]
                if new != strips[side][row] + sign:
                    continue  # the camera uncovers nothing new
                listed = things[row + 1][things[row + 1, :, 0] >= 0]
                places = np.floor((listed[:, 1] - HALF + camera[row + 1]) / STRIP)
                kinds = listed[places == new, 0]
                entered += len(kinds)
                assert coming[row, side] == (kinds[-1] if len(kinds) else none)
    assert entered > 20


def test_a_pool_saved_and_loaded_goes_on_the_same_way(store):
    config = tiny("train_dynamics.fresh_rate=[[0.0,0.2],[1.0,0.2]]")
    one = make_pool(store, config)
    for _ in walk(one, 5):
        pass
    other = make_pool(store, config)
    other.load_state({name: tensor.clone() for name, tensor in one.state().items()})
    for first, second in zip(walk(one, 8, first=5), walk(other, 8, first=5), strict=True):
        assert first.keys() == second.keys()
        for name, value in first.items():
            if isinstance(value, Tensor):
                assert torch.equal(value, second[name]), name
            else:
                pairs = zip(vars(value).values(), vars(second[name]).values(), strict=True)
                assert all(torch.equal(a, b) for a, b in pairs)
    assert same(one.state(), other.state())


def test_batches_leave_the_store_as_it_is(store):
    before = store.told.copy(), store.conditions.map(Tensor.clone)
    for config in (tiny(*LOST, "train_dynamics.untold_rate=1.0"), tiny()):
        for _ in walk(make_pool(store, config), 20):
            pass
    assert np.array_equal(store.told, before[0])
    for name, column in vars(before[1]).items():
        assert torch.equal(getattr(store.conditions, name), column), name


def test_lost_bands_are_marked_and_nothing_else_is_changed(store):
    pool = make_pool(store, tiny(*LOST))
    for batch in walk(pool, 12):
        rows, fresh = pool.rows.numpy(), batch["is_fresh"]
        lost = batch["lost"].bool().expand_as(batch["last"])
        is_lost = batch["lost"].amax(dim=(1, 2, 3)) > 0
        assert torch.equal(is_lost, fresh)
        for name, real in (("last", store.gather(rows)), ("before", store.gather(rows - 1))):
            assert torch.equal(batch[name][fresh][~lost[fresh]], real[fresh][~lost[fresh]])
            changed = (batch[name] != real)[fresh].any(dim=(1, 2))
            # The smear of a column is the column.
            assert not (changed & ~batch["lost"][fresh, 0, 0].bool()).any()
            assert changed.any(dim=1).all()
        # The frame before the last one had been lost, too: it counts for nothing.
        second = pool.depth == 1
        assert torch.equal(batch["before"][second], batch["last"][second])
        # Whole columns.
        assert torch.equal(batch["lost"].amin(dim=2), batch["lost"].amax(dim=2))
        assert not batch["is_whole"][fresh].any()


def test_sequences_lose_bands_on_their_way_and_are_told_what_was_there(store):
    pool = make_pool(store, tiny(*PLAIN, "train_dynamics.forget_rate=1.0"))
    for batch in walk(pool, 12):
        is_lost = batch["lost"].amax(dim=(1, 2, 3)) > 0
        assert torch.equal(is_lost, ~batch["is_fresh"])
        assert pool.unknown.isnan().all()


def test_where_the_context_is_lost_things_are_told_or_not_asked_for(store):
    pool = make_pool(store, tiny(*LOST))
    step = tiny().world.height // tiny().world.grid[0]
    told_of = asked_not = 0
    for batch in walk(pool, 60):
        codes = batch["conditions"].entries[:, -1]
        for slot, row in enumerate(pool.rows.tolist()):
            for thing in store.frames.things[row + 1]:
                if thing[0] < 0 or not 0 <= thing[1] < 2 * HALF:
                    continue
                place = (0, int(thing[2]) // step, int(thing[1]) // step)
                weight = float(batch["weight"][slot][place])
                if thing[5] in pool.unknown[slot]:
                    assert weight == 0.0
                    asked_not += 1
                elif weight != 0.0:
                    assert weight == tiny().train_dynamics.thing_weight
                if thing[5] in pool.given[slot]:
                    expected = torch.tensor([thing[0], thing[1] - HALF])
                    assert (codes[slot] == expected).all(dim=1).any()
                    told_of += 1
        unknown = (~batch["is_whole"]) & (batch["lost"].amax(dim=(1, 2, 3)) == 0)
        assert not (unknown & batch["is_fresh"]).any()
    assert told_of > 5
    assert asked_not > 5


def test_codes_are_kept_back_of_things_that_are_in_view_at_the_start(store):
    untold = tiny(*PLAIN, "train_dynamics.untold_rate=1.0")
    pool = make_pool(store, dataclasses.replace(untold, seed=1))
    kept_back = 0
    for batch in walk(pool, 40):
        told = batch["conditions"].entries[:, -1]
        for slot, row in enumerate(pool.rows.tolist()):
            things = store.frames.things[row + 1]
            is_told = store.told[row + 1]
            expected = [
                [thing[0], thing[1] - HALF]
                for thing in things[is_told]
                if thing[5] not in pool.untold[slot]
            ]
            kept_back += int(is_told.sum()) - len(expected)
            shown = told[slot][told[slot, :, 0] >= 0]
            assert shown.tolist() == expected[: len(told[slot])]
    assert kept_back > 3


def test_heat_marks_the_middles_of_things_by_class(store):
    pool = make_pool(store, tiny(*PLAIN))
    batch = next(iter(walk(pool, 1)))
    step = tiny().world.height // tiny().world.grid[0]
    for slot, row in enumerate(pool.rows.tolist()):
        things = store.frames.things[row + 1]
        in_view = things[(things[:, 0] >= 0) & (things[:, 1] >= 0) & (things[:, 1] < 80)]
        assert batch["heat"][slot].sum() == len(in_view)
        for kind, x, y in in_view[:, :3]:
            assert batch["heat"][slot, int(kind), int(y // step), int(x // step)] == 1


def test_events_are_sought_out(store):
    config = tiny(*PLAIN, "train_dynamics.event_rate=1.0", "train_dynamics.optimizer.batch_size=64")
    pool = make_pool(store, config)
    pool.batch(step_generator(0, 0), 0.0)
    happens = np.zeros(store.frames.num_frames, bool)
    happens[np.concatenate(pool._events)] = True
    for row in pool.rows.tolist():
        assert happens[row : row + 10].any()


def test_words_change_with_another_scene_in_the_context(store):
    pool = make_pool(store, tiny(*PLAIN, "train_dynamics.switch_rate=1.0"))
    is_told, is_other = [], []
    for step in range(6):
        pool.rows.fill_(-1)  # all begin anew
        batch = pool.batch(step_generator(0, step), 0.5)
        rows = pool.rows.numpy()
        torch.testing.assert_close(batch["target"], store.gather(rows + 1))
        difference = (batch["last"] - store.gather(rows)).abs().amax(dim=(1, 2, 3))
        is_other.append(difference > 1e-3)
        is_told.append((batch["conditions"].entries[:, -1, :, 0] >= 0).any(dim=1))
        # Things that nobody can know of are not asked for.
        assert batch["is_whole"].logical_not().logical_or(~is_other[-1]).all()
    assert torch.cat(is_other).float().mean() > 0.9
    assert torch.cat(is_told).any()


def test_where_a_thing_is_gone_its_place_keeps_its_weight(store):
    row = 12
    listed = store.frames.things[row]
    shown = listed[(listed[:, 0] >= 0) & (np.abs(listed[:, 1] - 40) < 30)]
    number = shown[0, 5]
    collected = store.frames.things.copy()
    collected[row:][collected[row:, :, 5] == number] = -1
    frames = dataclasses.replace(store.frames, things=collected)
    pool = make_pool(dataclasses.replace(store, frames=frames), tiny(*PLAIN))
    # What left the picture is gone, too, and outside.
    (gone,) = [box for box in pool._gone(row) if abs(box[0] - 40) < 40]
    np.testing.assert_allclose(gone, shown[0, 1:5], atol=1.0)  # where it would be by now
    step = tiny().world.autoencoder.downsampling
    y, x = int(gone[1] // step), int(gone[0] // step)
    weight, _ = pool._weight(np.array([row]))
    assert weight[0, 0, y, x] == tiny().train_dynamics.thing_weight
    assert all(abs(box[0] - 40) > 40 for box in pool._gone(row + 10))
