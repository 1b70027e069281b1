import dataclasses
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midas_world.conditions import (
    AUDIO,
    POSE,
    TEXT,
    ConditionEncoder,
    Conditions,
    hash_text,
    stack_conditions,
)
from midas_world.conditions_config import ConditionsConfig
from midas_world.types import StepConditions

CONFIG = ConditionsConfig(
    pose_size=8, num_keypoints=2, audio_size=6, text_buckets=64, text_length=10, encoder_width=16
)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_encoder(config: ConditionsConfig = CONFIG) -> ConditionEncoder:
    encoder = ConditionEncoder(config, width=12, grid=(3, 5), latent_channels=7).requires_grad_(
        False
    )
    generator = torch.Generator().manual_seed(0)
    for parameter in encoder.parameters():
        parameter.normal_(0.0, 0.3, generator=generator)
    return encoder


def make_conditions(*, seed: int = 0, present: tuple[bool, bool, bool] = (True, True, True)):
    generator = torch.Generator().manual_seed(seed)
    return Conditions(
        pose=torch.randn(2, 3, 8, generator=generator),
        text=torch.randint(1, 64, (2, 3, 10), generator=generator),
        audio=torch.rand(2, 3, 6, generator=generator),
        present=torch.tensor(present).expand(2, 3, 3),
    )


def test_tokens_have_one_place_per_modality_and_latents_one_addition_each():
    tokens, local, foretold = make_encoder()(make_conditions())
    assert tokens.shape == (2, 3, CONFIG.num_tokens, 12)
    assert local.shape == (2, 3, 15, 12)
    assert foretold is None


@pytest.mark.parametrize("modality", [POSE, TEXT, AUDIO])
def test_an_absent_modality_says_the_same_whatever_its_values(modality):
    present = tuple(index != modality for index in range(3))
    encoder = make_encoder()
    first, second = make_conditions(seed=1), make_conditions(seed=2)
    name = ("pose", "text", "audio")[modality]
    changed = dataclasses.replace(first, **{name: getattr(second, name)})
    before, after = encoder(first), encoder(changed)
    assert not torch.equal(before[0], after[0])  # present, the values matter
    absent = torch.tensor(present).expand(2, 3, 3)
    before = encoder(dataclasses.replace(first, present=absent))
    after = encoder(dataclasses.replace(changed, present=absent))
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert not torch.equal(before[0], encoder(first)[0])  # absence itself is told


def test_only_the_pose_is_told_to_the_latent_tokens():
    encoder = make_encoder()
    first = make_conditions(seed=1)
    other = dataclasses.replace(make_conditions(seed=2), pose=first.pose)
    assert torch.equal(encoder(first)[1], encoder(other)[1])
    moved = dataclasses.replace(first, pose=first.pose + 0.1)
    assert not torch.equal(encoder(first)[1], encoder(moved)[1])


def test_local_text_is_told_to_the_latent_tokens_once_it_is_learned():
    config = dataclasses.replace(CONFIG, local_text=True)
    fresh = ConditionEncoder(config, width=12, grid=(3, 5), latent_channels=7).requires_grad_(False)
    first = make_conditions(seed=1)
    other = dataclasses.replace(first, text=make_conditions(seed=2).text)
    assert torch.equal(fresh(first)[1], fresh(other)[1])  # an older world goes on as it was
    learned = make_encoder(config)
    change = learned(other)[1] - learned(first)[1]
    assert (change.abs().amax(dim=-1) > 1e-3).all()
    torch.testing.assert_close(change, change[:, :, :1].expand_as(change))
    absent = torch.tensor((True, False, True)).expand(2, 3, 3)
    silent = [learned(dataclasses.replace(c, present=absent))[1] for c in (first, other)]
    assert torch.equal(*silent)


def test_local_features_are_keypoints_relative_to_the_cell():
    encoder = make_encoder()
    pose = torch.zeros(1, 1, 8)
    # The first keypoint lies in the middle of cell (row 1, column 2), the second right of it.
    pose[0, 0, :4] = torch.tensor([0.0, 0.0, 0.4, 0.0])
    conditions = Conditions(
        pose=pose,
        text=torch.zeros(1, 1, 10, dtype=torch.int64),
        audio=torch.zeros(1, 1, 6),
        present=torch.ones(1, 1, 3, dtype=torch.bool),
    )
    features = encoder._local_features(conditions)[0, 0]
    assert features.shape == (15, 8 + 1 + 4)
    relative = features[:, 9:].unflatten(0, (3, 5))
    torch.testing.assert_close(relative[1, 2], torch.tensor([0.0, 0.0, 1.0, 0.0]))
    torch.testing.assert_close(relative[1, 3], torch.tensor([-1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(relative[0, 2], torch.tensor([0.0, 1.0, 1.0, 1.0]))
    torch.testing.assert_close(relative[1, 0], torch.tensor([2.0, 0.0, 2.0, 0.0]))  # clamped
    # The rest is the pose itself and that it is there, the same for every cell.
    assert torch.equal(features[:, :8], pose[0].expand(15, -1))
    assert torch.equal(features[:, 8], torch.ones(15))


def test_hashes_are_the_same_in_every_process_and_on_every_machine():
    config = ConditionsConfig(text_length=6)
    expected = [1 + zlib.crc32(gram) % 4095 for gram in (b"red", b"coin", b"red coin")]
    assert hash_text("Red, coin!", config).tolist() == [*expected, 0, 0, 0]
    # Written down, so that a change of the hash is seen: worlds are trained on it.
    assert expected == [1696, 3660, 1604]


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_has_a_hash(text):
    ids = hash_text(text, CONFIG)
    assert ids.shape == (10,)
    assert ids.dtype == np.int64
    assert ((ids >= 0) & (ids < 64)).all()
    count = int((ids > 0).sum())
    assert (ids[:count] > 0).all()


def test_words_matter_and_their_order_does_too():
    config = ConditionsConfig()
    red_then_blue = set(hash_text("red hat blue coat", config))
    blue_then_red = set(hash_text("blue hat red coat", config))
    assert red_then_blue != blue_then_red
    assert set(hash_text("GREEN hat", config)) == set(hash_text("green  hat.", config))
    assert hash_text("wörter schön", config)[0] != 0
    assert hash_text("雪の森", config)[0] != 0


def test_empty_text_is_not_absent_text():
    encoder = make_encoder()
    given_empty = stack_conditions([StepConditions(text="")], CONFIG)
    absent = stack_conditions([StepConditions()], CONFIG)
    assert given_empty.present[0, 0].tolist() == [False, True, False]
    assert encoder(given_empty)[0].isfinite().all()
    assert not torch.equal(encoder(given_empty)[0], encoder(absent)[0])


def test_unknown_words_change_the_token_but_not_its_size():
    encoder = make_encoder()
    steps = [StepConditions(text=text) for text in ("zxqv frobnicate", "meadow at noon")]
    tokens, *_ = encoder(stack_conditions(steps, CONFIG))
    assert tokens.isfinite().all()
    assert not torch.equal(tokens[0, 0, TEXT], tokens[1, 0, TEXT])


def test_games_are_stacked_row_by_row():
    pose, audio = np.arange(8, dtype=np.float32), np.ones(6, np.float32)
    steps = [StepConditions(pose=pose), StepConditions(audio=audio, text="walk left")]
    stacked = stack_conditions(steps, CONFIG)
    assert stacked.present[:, 0].tolist() == [[True, False, False], [False, True, True]]
    assert torch.equal(stacked.pose[:, 0], torch.tensor(np.stack((pose, 0 * pose))))
    assert torch.equal(stacked.audio[:, 0], torch.tensor(np.stack((0 * audio, audio))))
    assert torch.equal(stacked.text[1, 0], torch.tensor(hash_text("walk left", CONFIG)))


@pytest.mark.parametrize("name", ["pose", "audio"])
def test_a_vector_of_the_wrong_size_is_an_error(name):
    step = StepConditions(**{name: np.zeros(7, np.float32)})
    with pytest.raises(ValueError, match=rf"{name} must have shape \(\d,\), got \(7,\)"):
        stack_conditions([step], CONFIG)


@settings(deadline=None, max_examples=20)
@given(start=st.integers(0, 3), stop=st.integers(0, 3))
def test_frames_are_a_slice_of_every_field(start, stop):
    conditions = make_conditions()
    part = conditions.frames(start, stop)
    for item in dataclasses.fields(Conditions):
        expected = getattr(conditions, item.name)[:, start:stop]
        assert torch.equal(getattr(part, item.name), expected)


def conditions_of_ones(batch: int, frames: int = 5) -> Conditions:
    return Conditions(
        pose=torch.zeros(batch, frames, 0),
        text=torch.ones(batch, frames, 10, dtype=torch.int64),
        audio=torch.zeros(batch, frames, 0),
        present=torch.ones(batch, frames, 3, dtype=torch.bool),
    )


def test_drop_leaves_out_whole_sequences_at_its_rate():
    conditions = conditions_of_ones(4000)
    generator = torch.Generator().manual_seed(0)
    kept = conditions.drop(0.25, 0.0, generator)
    assert torch.equal(kept.text, conditions.text)
    assert torch.equal(kept.present, kept.present[:, :1].expand(-1, 5, -1))
    # The standard deviation of each share is 0.007.
    torch.testing.assert_close(
        kept.present[:, 0].float().mean(dim=0), torch.full((3,), 0.75), rtol=0, atol=0.03
    )
    assert conditions.drop(0.0, 0.0, generator).present.all()
    assert not conditions.drop(1.0, 0.0, generator).present.any()
    absent = dataclasses.replace(conditions, present=~conditions.present)
    assert not absent.drop(0.0, 0.0, generator).present.any()


def test_drop_leaves_out_the_same_words_throughout_a_sequence():
    conditions = conditions_of_ones(4000)
    kept = conditions.drop(0.0, 0.5, torch.Generator().manual_seed(0))
    assert kept.present.all()
    assert torch.equal(kept.text, kept.text[:, :1].expand(-1, 5, -1))
    shares = kept.text[:, 0].float().mean(dim=-1)
    # The share that is left out is uniform in [0, 0.5] over sequences.
    assert shares.mean().item() == pytest.approx(0.75, abs=0.02)
    assert shares.std().item() > 0.15
    assert torch.equal(conditions.text, torch.ones(4000, 5, 10, dtype=torch.int64))


def test_a_teacher_without_pose_or_sound_is_possible():
    config = ConditionsConfig(
        pose_size=0, num_keypoints=0, audio_size=0, text_buckets=64, encoder_width=16
    )
    encoder = ConditionEncoder(config, width=12, grid=(2, 2), latent_channels=7)
    tokens, local, _ = encoder(stack_conditions([StepConditions(text="jump")] * 2, config))
    assert tokens.shape == (2, 1, 3, 12)
    assert local.shape == (2, 1, 4, 12)
    assert torch.isfinite(tokens).all()
    assert torch.isfinite(local).all()
