"""The pool that dynamics are trained on: what it asks for, what it gives, and how it goes on."""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from midas_world.config import ProjectConfig
from midas_world.model.autoencoder import to_tokens
from midas_world.train.latents import LatentStore
from midas_world.train.loop import step_generator
from midas_world.train.pool import MOST_LATENT, Pool
from tests.training import CAMERA, LOOP, same, tiny

# Nothing is lost, noisy or begun anew.
PLAIN = (
    "train_dynamics.fresh_rate=[[0.0,0.0],[1.0,0.0]]",
    "train_dynamics.lost_rate=[[0.0,0.0],[1.0,0.0]]",
    "train_dynamics.noisy_rate=0.0",
    "world.conditions.drop_rate=0.0",
    "world.conditions.word_drop_rate=0.0",
    "train_dynamics.forget_rate=0.0",
)
LOST = (*PLAIN, "train_dynamics.lost_rate=[[0.0,1.0],[1.0,1.0]]")


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
            for name in ("pose", "text", "audio", "present", "entries", "tally"):
                column = getattr(store.conditions, name)[0, told]
                assert torch.equal(getattr(given, name)[:, 0], column), name
            assert torch.equal(batch["coming"][:, place], store.coming[told])
        for name in ("reward", "cost", "terminated", "gone"):
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
    before = store.gone.clone(), store.conditions.map(Tensor.clone)
    for config in (tiny(*LOST), tiny()):
        for _ in walk(make_pool(store, config), 20):
            pass
    assert torch.equal(store.gone, before[0])
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
    is_other = []
    for step in range(6):
        pool.rows.fill_(-1)  # all begin anew
        batch = pool.batch(step_generator(0, step), 0.5)
        rows = pool.rows.numpy()
        torch.testing.assert_close(batch["target"], store.gather(rows + 1))
        difference = (batch["last"] - store.gather(rows)).abs().amax(dim=(1, 2, 3))
        is_other.append(difference > 1e-3)
        # What is in the new scene is told by its codes.
        codes = store.conditions.entries[0, rows + 1]
        assert torch.equal(batch["conditions"].entries[:, -1], codes)
    assert torch.cat(is_other).float().mean() > 0.9


def test_where_a_thing_is_gone_its_place_keeps_its_weight(store):
    listed = store.frames.things
    rows, places = np.nonzero((listed[..., 0] >= 0) & (np.abs(listed[..., 1] - 40) < 30))
    row, place = next((r, p) for r, p in zip(rows, places, strict=True) if 8 <= r < 20)
    shown, number = listed[row, place], listed[row, place, 5]
    collected = store.frames.things.copy()
    collected[row:][collected[row:, :, 5] == number] = -1
    frames = dataclasses.replace(store.frames, things=collected)
    pool = make_pool(dataclasses.replace(store, frames=frames), tiny(*PLAIN))
    gone = min(pool._gone(row), key=lambda box: abs(box[0] - shown[1]))
    np.testing.assert_allclose(gone, shown[1:5], atol=1.0)  # where it would be by now
    step = tiny().world.autoencoder.downsampling
    y, x = int(gone[1] // step), int(gone[0] // step)
    weight = pool._weight(np.array([row]))
    assert weight[0, 0, y, x] == tiny().train_dynamics.thing_weight
    later = shown[1] - pool._travel(row, row + 10)
    assert all(abs(box[0] - later) > 2 for box in pool._gone(row + 10))
