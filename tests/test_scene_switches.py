"""Sequences that go on as another's: the scene changes in mid-play."""

import torch

from midas_world.conditions import Conditions
from midas_world.train.scene_switches import switch_scenes

SIZE, FRAMES = 40, 6


def make_batch(value: float) -> dict:
    shape = SIZE, FRAMES
    return {
        "latents": torch.full((SIZE, FRAMES + 1, 2, 3), value),
        "reward": torch.full(shape, value),
        "terminated": torch.full(shape, bool(value)),
        "conditions": Conditions(
            pose=torch.full((*shape, 4), value),
            text=torch.full((*shape, 5), int(value)),
            audio=torch.full((*shape, 2), value),
            present=torch.full((*shape, 3), bool(value)),
        ),
    }


def test_a_frame_keeps_its_own_conditions_reward_and_end_where_scenes_switch():
    batch = make_batch(0.0)
    switched = switch_scenes(batch, make_batch(1.0), 0.5, torch.Generator().manual_seed(0))
    assert 10 < int(switched.sum()) < 30
    is_other = batch["latents"][:, :, 0, 0].bool()
    assert not is_other[:, 0].any()
    assert torch.equal(is_other.any(dim=1), switched)
    # Once switched, a sequence stays; cuts fall on every frame.
    assert torch.equal(is_other.long().cummax(dim=1).values.bool(), is_other)
    assert set(is_other.sum(dim=1).tolist()) == set(range(FRAMES + 1))
    conditions = batch["conditions"]
    of_frames = (
        batch["latents"][:, 1:].flatten(2),
        batch["reward"][..., None],
        batch["terminated"][..., None],
        conditions.pose,
        conditions.text,
        conditions.audio,
        conditions.present,
    )
    for part in of_frames:
        assert torch.equal(part.bool(), is_other[:, 1:, None].expand(part.shape))


def test_at_rate_zero_nothing_switches():
    batch = make_batch(0.0)
    assert not switch_scenes(batch, make_batch(1.0), 0.0, torch.Generator()).any()
    assert not batch["latents"].any()


def test_rolled_conditions_are_those_of_the_sequence_before():
    conditions = make_batch(0.0)["conditions"]
    conditions.pose[3] = 1.0
    rolled = conditions.roll()
    assert rolled.pose[:, 0, 0].nonzero().tolist() == [[4]]
