import numpy as np
import pytest

from midas_world.evaluate.probes.pictures import Seen, thing_targets, train_thing_probe
from midas_world.evaluate.probes.training import ProbeConfig, halve
from midas_world.evaluate.sections.thing import Travel, find_tracks, held_score, in_view

HEIGHT, WIDTH = 64, 128
THING = np.array([2, 30, 40, 6, 6, 7.0], np.float32)


def wall(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.repeat(rng.integers(60, 120, (1, WIDTH, 3)), HEIGHT, axis=0).astype(np.uint8)


def with_thing(frame: np.ndarray, thing: np.ndarray, *, contrast: float = 1.0) -> np.ndarray:
    x, y, half_width, half_height = thing[1:5].astype(int)
    part = np.s_[y - half_height : y + half_height, x - half_width : x + half_width]
    made = frame.astype(float)
    made[part] += contrast * (np.array((240, 200, 30)) - made[part])
    return made.round().astype(np.uint8)


@pytest.mark.parametrize("contrast", [0.0, 0.5, 1.0])
def test_what_is_left_of_a_thing_is_its_share_of_the_contrast(contrast):
    plain = wall()
    shown = with_thing(plain, THING, contrast=contrast)
    score = held_score(shown, with_thing(plain, THING), plain, THING)
    assert score.contrast == pytest.approx(contrast, abs=0.01)
    assert score.correlation == pytest.approx(float(contrast > 0), abs=0.01)


def test_in_view_is_what_lies_whole_in_the_picture_and_clear_of_the_character():
    things = np.array(
        [[0, 30, 30, 6, 6, 1], [0, 3, 30, 6, 6, 2], [0, 70, 30, 6, 6, 3], [-1] * 6], np.float32
    )
    assert set(in_view(things, (HEIGHT, WIDTH))) == {(0, 1.0)}


def test_a_thing_that_scrolls_by_is_one_track():
    camera = np.arange(20) * 4.0
    noise = np.random.default_rng(0).uniform(-3, 3, 20)
    seen = [[Seen(x=120 - at + e, y=30)] for at, e in zip(camera, noise, strict=True)]
    (track,) = find_tracks(seen, camera, width=WIDTH)
    assert track.steps == list(range(20))
    assert track.place == pytest.approx(56, abs=3)


def travel_past(*, from_step: int, to_step: int, place: float = 100.0) -> Travel:
    camera, travel = np.arange(40) * 4.0, Travel()
    seen = [
        [Seen(x=place - at + WIDTH / 2, y=30)]
        if from_step <= step <= to_step and 0 < place - at + WIDTH / 2 < WIDTH
        else []
        for step, at in enumerate(camera)
    ]
    travel.add(seen, camera, width=WIDTH)
    return travel


def test_a_new_thing_lasts_if_it_is_there_until_the_character_comes():
    # In view from step 9 on, near the character from step 18 on.
    travel = travel_past(from_step=0, to_step=40)
    assert (travel.appeared, travel.spells, travel.lasted) == (1, 1, 1)
    assert travel.rate == pytest.approx(160 / 156)
    assert travel_past(from_step=0, to_step=13).lasting == 0.0
    assert travel_past(from_step=0, to_step=17).lasting == 1.0


def test_what_was_in_view_at_first_or_flickers_is_not_new():
    assert travel_past(from_step=0, to_step=40, place=40).appeared == 0
    assert travel_past(from_step=12, to_step=13).appeared == 0


def test_targets_count_neither_beside_a_thing_nor_at_the_edge():
    things = np.array([[1, 28, 36, 6, 6, 0], [0, 127, 12, 6, 6, 1], [-1] * 6], np.float32)
    target, weight = thing_targets(things, size=(HEIGHT, WIDTH))
    assert np.argwhere(target).tolist() == [[4, 3]]
    assert weight[4, 3] > 1
    assert not weight[3:6, 2:5][target[3:6, 2:5] == 0].any()
    assert weight[1, 15] == 0
    assert weight[7, 0] == 1


def test_a_thing_probe_learns_to_see_squares():
    rng = np.random.default_rng(0)
    pairs = []
    for index in range(160):
        x = float(rng.choice((rng.uniform(10, 34), rng.uniform(94, 118))))
        kind = int(rng.integers(2))
        thing = np.array([kind, x, rng.uniform(12, 52), 5 + 3 * kind, 5, 0], np.float32)
        pairs.append((with_thing(wall(index), thing), thing))
    frames, things = (np.stack(part) for part in zip(*pairs, strict=True))
    targets = [thing_targets(t[None], size=(HEIGHT, WIDTH)) for t in things]
    target, weight = (np.stack(part) for part in zip(*targets, strict=True))
    config = ProbeConfig(first_seed=0, width=16, train_steps=150, batch_size=8)
    probe = train_thing_probe(halve(frames[:140]), target[:140], weight[:140], config)
    found = 0
    for items, thing in zip(probe(frames[140:]), things[140:], strict=True):
        found += any(abs(i.x - thing[1]) < 6 and abs(i.y - thing[2]) < 6 for i in items)
    assert found >= 17
    assert not any(probe(np.stack([wall(900), wall(901)])))
