import dataclasses
import math
import zlib

import pytest
import torch

from midas_world.config import CameraConfig, ClockConfig, ConditionsConfig
from midas_world.model.conditions import (
    AUDIO,
    POSE,
    TEXT,
    ConditionEncoder,
    Conditions,
    hash_text,
    stack_conditions,
    with_hits,
)
from midas_world.model.skeleton_maps import WAVES_PER_LIMB, limb_fields, limb_waves
from midas_world.types import LONGEST_SINCE_HIT, StepConditions

CONFIG = ConditionsConfig(
    pose_size=8,
    num_keypoints=2,
    limbs=((0, 1), (1, 1)),
    limb_reach=6.0,
    camera=CameraConfig(index=6, loop=64),
    clock=ClockConfig(index=7, period=8),
    audio_size=6,
    text_buckets=64,
    text_length=10,
    word_width=16,
)
GRID, FRAME_SIZE, PARALLAX = (3, 5), (12, 20), (1.0, 0.5)


def make_encoder(config: ConditionsConfig = CONFIG) -> ConditionEncoder:
    encoder = ConditionEncoder(
        config,
        width=12,
        grid=GRID,
        frame_size=FRAME_SIZE,
        parallax=PARALLAX if config.camera.is_declared else (),
    ).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in encoder.parameters():
        parameter.normal_(0.0, 0.3, generator=generator)
    return encoder


def make_conditions(
    config: ConditionsConfig = CONFIG, *, batch: int = 2, frames: int = 3, seed: int = 0
) -> Conditions:
    """Return random conditions in which everything is there but entry codes."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, frames)
    text = torch.randint(1, config.text_buckets, (*shape, config.text_length), generator=generator)
    return Conditions(
        pose=torch.rand(*shape, config.pose_size, generator=generator),
        text=text,
        audio=torch.rand(*shape, config.audio_size, generator=generator),
        present=torch.ones(*shape, 3, dtype=torch.bool),
        entries=torch.full((*shape, 4, 2), -1.0),
        tally=torch.rand(*shape, 2, generator=generator),
    )


def all_told(
    encoder: ConditionEncoder, conditions: Conditions, last_audio: torch.Tensor
) -> list[torch.Tensor]:
    """Return the tokens, the vector and the maps of conditions."""
    vector = encoder.vector(conditions, encoder.cues(conditions), last_audio)
    return [encoder.tokens(conditions), vector, encoder.maps(conditions)]


@pytest.mark.parametrize("modality", [POSE, TEXT, AUDIO])
def test_an_absent_modality_says_the_same_whatever_its_values(modality):
    encoder = make_encoder()
    first, second = make_conditions(seed=1), make_conditions(seed=2)
    name = ("pose", "text", "audio")[modality]
    changed = dataclasses.replace(first, **{name: getattr(second, name)})
    before, after = (all_told(encoder, each, first.audio[:, 0]) for each in (first, changed))
    assert not torch.equal(before[0], after[0])  # present, the values matter
    assert not torch.equal(before[1], after[1])
    assert torch.equal(before[2], after[2]) == (modality != POSE)
    absent = torch.arange(3).expand(2, 3, 3) != modality
    without, other = (
        all_told(encoder, dataclasses.replace(each, present=absent), first.audio[:, 0])
        for each in (first, changed)
    )
    assert all(map(torch.equal, without, other))
    assert not torch.equal(without[0], before[0])  # absence itself is told


def test_maps_are_nearest_where_the_limbs_lie():
    encoder = make_encoder()
    conditions = make_conditions(batch=1, frames=1)
    # The first keypoint lies at x = 2, the second at x = 14, both at y = 6 of 12.
    conditions.pose[0, 0, :4] = torch.tensor([-0.8, 0.0, 0.4, 0.0])
    near = encoder.maps(conditions)[0, :2]
    bone, disc = near
    assert bone[1].min() < bone[1, :4].min()  # the last column lies behind its end
    assert (bone[1, :4] > 0.85).all()
    assert disc[1].argmax() == 3
    assert disc[:, :2].max() == 0.0
    conditions.present[..., POSE] = False
    assert not encoder.maps(conditions).any()


def test_waves_are_of_the_way_from_a_limb_and_fade_with_it():
    keypoints = torch.tensor([[2.0, 4.0], [10.0, 4.0]])
    ends = {"first": torch.tensor([0, 1]), "last": torch.tensor([1, 1]), "reach": 8.0}
    # Below the bone's first quarter, behind its end and out of reach.
    points = torch.tensor([[4.0, 13.0, 40.0], [6.0, 0.0, 4.0]])
    waves = limb_waves(keypoints, points, **ends)
    assert waves.shape == (3, 2 * WAVES_PER_LIMB)
    torch.testing.assert_close(waves[:, :8], limb_fields(keypoints, points, **ends))
    for number, (x, y), share in ((0, (0.0, 2.0), 0.25), (1, (3.0, -4.0), 1.0)):
        near = 1 - math.hypot(x, y) / 8
        place = [near, near * (2 * share - 1), near * x * 3 / 8, near * y * 3 / 8]
        angles = [way * math.pi * count / 8 for way in (x, y) for count in (1, 2, 4)]
        turns = [near * f(angle) for angle in angles for f in (math.sin, math.cos)]
        expected = torch.tensor([*place, *turns])
        torch.testing.assert_close(waves[number, ::2], expected, rtol=1e-4, atol=1e-4)
    assert not waves[2].any()


@pytest.mark.parametrize(("lives", "share"), [(3, 2 / 3), (0, 1.0)])
def test_a_hit_takes_a_life_in_the_very_frame(lives, share):
    before = stack_conditions([StepConditions()] * 2, CONFIG, capacity=4)
    hit = with_hits(before, torch.tensor([False, True]), lives=lives).tally[:, 0]
    torch.testing.assert_close(hit, torch.tensor([[1.0, LONGEST_SINCE_HIT], [share, 0.0]]))


def test_the_head_is_told_where_in_a_latent_the_camera_stands_but_not_which():
    encoder = make_encoder()
    conditions = make_conditions(batch=3, frames=1).pick([0, 0, 0])
    # A latent is 4 px; at half the parallax and half the frequency it passes in 16 px of travel.
    conditions.pose[:, 0, 6] = torch.tensor([3.0, 19.0, 4.0]) / 64
    vector = encoder.vector(conditions, encoder.cues(conditions), conditions.audio[:, 0])
    torch.testing.assert_close(vector[0], vector[1], rtol=0, atol=1e-5)
    assert (vector[0] - vector[2]).abs().max() > 0.1


def test_hashes_are_the_same_in_every_process_and_on_every_machine():
    config = ConditionsConfig(text_length=6)
    expected = [1 + zlib.crc32(gram) % 4095 for gram in (b"red", b"coin", b"red coin")]
    assert hash_text("Red, coin!", config).tolist() == [*expected, 0, 0, 0]
    # Written down, so that a change of the hash is seen: worlds are trained on it.
    assert expected == [1696, 3660, 1604]


def test_empty_text_is_not_absent_text():
    encoder = make_encoder()
    given_empty = stack_conditions([StepConditions(text="")], CONFIG, capacity=4)
    absent = stack_conditions([StepConditions()], CONFIG, capacity=4)
    assert given_empty.present[0, 0].tolist() == [False, True, False]
    assert encoder.tokens(given_empty).isfinite().all()
    assert not torch.equal(encoder.tokens(given_empty), encoder.tokens(absent))


def conditions_of_ones(batch: int, frames: int = 5) -> Conditions:
    return Conditions(
        pose=torch.zeros(batch, frames, 0),
        text=torch.ones(batch, frames, 10, dtype=torch.int64),
        audio=torch.zeros(batch, frames, 0),
        present=torch.ones(batch, frames, 3, dtype=torch.bool),
        entries=torch.full((batch, frames, 4, 2), -1.0),
        tally=torch.ones(batch, frames, 2),
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
    config = ConditionsConfig(text_buckets=64, word_width=16)
    encoder = make_encoder(config)
    steps = [StepConditions(text="jump")] * 2
    conditions = stack_conditions(steps, config, capacity=4)
    tokens, vector, maps = all_told(encoder, conditions, conditions.audio[:, 0])
    assert tokens.shape == (2, 1, 3, 12)
    assert vector.shape == (2, encoder.vector_size) == (2, 16 + 3 + 3)
    assert maps.shape == (2, 0, *GRID)
    assert torch.isfinite(tokens).all()
    assert not encoder.cues(conditions).camera.any()
