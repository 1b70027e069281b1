import dataclasses
import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from midas_world.config import WorldConfig, load_preset
from midas_world.model.conditions import Conditions
from midas_world.model.entries import FATE_SIZE, kept
from midas_world.model.head import Guidance
from midas_world.model.world_model import Before, Guided, OutcomeHead, WorldModel

CPU = torch.device("cpu")


@cache
def preset(name: str) -> WorldConfig:
    return load_preset(name).world


def make_model(config: WorldConfig | None = None, *, seed: int = 0) -> WorldModel:
    model = WorldModel(config or preset("tiny")).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.normal_(1.0 if "norm" in name else 0.0, 0.1, generator=generator)
        noise = torch.randn(model.motion.operators.shape, generator=generator)
        model.motion.operators.add_(0.1 * noise)
    return model.requires_grad_(requires_grad=False)


def make_batch(
    batch: int, frames: int, *, seed: int = 0, config: WorldConfig | None = None
) -> tuple[Tensor, Conditions]:
    """Return latent tokens (B, F, N, C) and conditions of F frames, with codes among them."""
    config = config or preset("tiny")
    generator = torch.Generator().manual_seed(seed)
    size, shape = config.conditions, (batch, frames)
    latents = torch.randn(
        *shape, config.tokens_per_frame, config.token_channels, generator=generator
    )
    codes = (*shape, config.entries.capacity)
    classes = torch.randint(-1, max(0, config.entries.num_classes), codes, generator=generator)
    places = config.width * (torch.rand(codes, generator=generator) - 0.5)
    texts = (*shape, size.text_length)
    return latents, Conditions(
        pose=torch.rand(*shape, size.pose_size, generator=generator),
        text=torch.randint(0, size.text_buckets, texts, generator=generator),
        audio=torch.rand(*shape, size.audio_size, generator=generator),
        present=torch.rand(*shape, 3, generator=generator) > 0.3,
        entries=torch.stack((classes.float(), places), dim=-1),
        tally=torch.rand(*shape, 2, generator=generator),
    )


def stream(model: WorldModel, context: Tensor, conditions: Conditions) -> list[Guidance]:
    """Return what the head is told of each frame, one step after another."""
    cache, told = model.new_cache(len(context), dtype=torch.float32, device=CPU), []
    for step in range(context.shape[1]):
        given = conditions.frames(step, step + 1)
        told.append(model.step_guidance(context[:, step], given, cache)[0])
        cache.commit()
    return told


@settings(deadline=None, max_examples=10)
@given(frames=st.integers(1, 9), batch=st.integers(1, 3), seed=st.integers(0, 3))
def test_playing_step_by_step_equals_the_whole_sequence(frames, batch, seed):
    model = make_model(seed=seed)
    context, conditions = make_batch(batch, frames, seed=seed)
    expected = model.hidden(context, torch.zeros(batch, frames), conditions)
    hidden = torch.stack([told.hidden for told in stream(model, context, conditions)], dim=1)
    torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-5)


def test_a_step_is_told_of_the_frames_before_as_a_whole_sequence_would_be():
    model = make_model()
    context, conditions = make_batch(2, 6)
    hidden = model.hidden(context, torch.zeros(2, 6), conditions)
    for step, told in enumerate(stream(model, context, conditions)):
        # Of the first frame it is as if it had stood still before.
        past = max(0, step - 1)
        last = conditions.frames(past, past + 1) if step else conditions.frames(0, 1)
        before = Before(
            latents=model.to_grid(context[:, past]),
            camera=model.conditions.cues(last).camera,
            audio=last.audio[:, 0],
        )
        now = conditions.frames(step, step + 1)
        fate = model.fate(now)
        expected, _ = model.guide(
            model.to_grid(context[:, step]),
            model.with_own_hits(now, fate),
            before,
            hidden[:, step],
            entries=kept(now.entries[:, 0], fate.gone),
        )
        for name in Guidance._fields:
            torch.testing.assert_close(
                getattr(told, name), getattr(expected, name), rtol=1e-4, atol=1e-4, msg=name
            )


@pytest.mark.parametrize("name", ["tiny", "stage", "dream"])
def test_a_step_gives_latents_and_outcomes_of_the_worlds_sizes(name):
    config = preset(name)
    model = make_model(config)
    context, conditions = make_batch(2, 1, config=config)
    (told,) = stream(model, context, conditions)
    noise = torch.zeros(2, config.autoencoder.latent_channels, *config.grid)
    made = model.sample(told, noise, num_denoise_steps=config.head.num_denoise_steps)
    assert made.shape == noise.shape
    outcome = model.outcomes(made, told, model.near(conditions), torch.zeros(2, FATE_SIZE))
    assert outcome.reward.shape == (2, config.reward_bins)
    assert outcome.cost.shape == outcome.termination.shape == (2,)
    coming = guided(model, context, conditions).coming
    assert coming.shape == (2, 2, config.entries.num_classes + 1)
    assert all(value.isfinite().all() for value in (made, *outcome))


def test_a_new_model_makes_what_is_painted_and_sampling_takes_each_step():
    model = WorldModel(preset("tiny")).requires_grad_(requires_grad=False)
    context, conditions = make_batch(2, 1)
    (told,) = stream(model, context, conditions)
    noise = torch.randn(told.last.shape, generator=torch.Generator().manual_seed(0))
    made = model.sample(told, noise, num_denoise_steps=1)
    painted = told.copies[:, -1]
    assert (made - painted).square().mean() < 0.1 * (told.last - painted).square().mean()
    # Without scenery what was stays.
    bare = WorldModel(preset("dream")).requires_grad_(requires_grad=False)
    (seen,) = stream(bare, *make_batch(2, 1, config=preset("dream")))
    stays = bare.sample(seen, torch.zeros_like(seen.last), num_denoise_steps=1)
    assert (stays - seen.last).square().mean() < 0.1 * seen.last.square().mean()
    # By hand: two steps, the second from halfway between noise and what was predicted.
    model.change_std.mul_(0.5)
    first = model.head(noise, torch.ones(2), told) - told.last
    second = model.head(0.5 * noise + 0.5 * (first / 0.5), torch.full((2,), 0.5), told)
    torch.testing.assert_close(model.sample(told, noise, num_denoise_steps=2), second)


def with_codes(conditions: Conditions, *codes: tuple[float, float]) -> Conditions:
    """Return conditions of one frame with these codes alone."""
    entries = torch.full_like(conditions.entries, -1.0)
    entries[:, 0, : len(codes)] = torch.tensor(codes).view(-1, 2)
    return dataclasses.replace(conditions, entries=entries)


def guided(model: WorldModel, context: Tensor, conditions: Conditions) -> Guided:
    """Return what is known of a first frame before it is made."""
    cache = model.new_cache(len(context), dtype=torch.float32, device=CPU)
    return model.step_guidance(context[:, 0], conditions, cache)


def test_codes_are_told_to_the_backbone_to_the_head_and_to_the_scenery():
    model = make_model()
    model.fates.trunk[-1].bias[0] = -50.0  # nothing is gone
    context, conditions = make_batch(1, 1)
    told, *_ = guided(model, context, with_codes(conditions, (2.0, 20.0)))
    without, *_ = guided(model, context, with_codes(conditions))
    nowhere, *_ = guided(model, context, with_codes(conditions, (-1.0, 30.0)))
    for name in ("maps", "hidden", "copies"):
        assert (getattr(told, name) - getattr(without, name)).abs().max() > 1e-3
        assert torch.equal(getattr(without, name), getattr(nowhere, name))


def test_a_window_is_painted_where_the_pose_says_that_it_is_shown():
    model, config = make_model(), preset("tiny")
    window = config.scenery.windows["portrait"]
    assert window.at is not None
    _, conditions = make_batch(3, 1)
    conditions.present[:] = True
    conditions.pose[:, 0, window.shown_by] = torch.tensor([0.0, 1.0, 1.0])
    conditions.present[2, 0, 0] = False  # who gives no pose shows nothing
    vector = torch.randn(
        3, model.conditions.vector_size, generator=torch.Generator().manual_seed(1)
    )
    scenery = torch.zeros(3, config.autoencoder.latent_channels, *config.grid)
    before = model.painted(scenery, conditions, vector, stop=1)
    changed = (model.painted(scenery, conditions, vector) != before).any(dim=1)
    assert changed.flatten(1).any(dim=1).tolist() == [False, True, False]
    (row, column), (rows, columns) = window.at, window.size
    assert changed[1, row : row + rows, column : column + columns].all()
    assert changed[1].sum() == rows * columns


def test_codes_that_are_gone_are_painted_no_more_but_their_fate_is_told():
    model = make_model()
    context, conditions = make_batch(1, 1)
    told, none = with_codes(conditions, (2.0, 20.0)), with_codes(conditions)
    painted = []
    for bias in (-50.0, 50.0):
        model.fates.trunk[-1].bias[0] = bias
        guidance, fate, _ = guided(model, context, told)
        assert (fate.gone[0, 0] > 0) == (bias > 0)
        assert not (fate.gone[0, 1:] > 0).any()
        assert fate.told.any()
        painted.append((guidance.maps, guidance.copies))
    without, *_ = guided(model, context, none)
    for left, gone, expected in zip(*painted, (without.maps, without.copies), strict=True):
        assert torch.equal(gone, expected)
        assert not torch.equal(left, expected)


def make_outcome(*, width: int = 8) -> OutcomeHead:
    sizes = {"latent_channels": 3, "fate_size": 2, "hidden_width": 4, "vector_size": 5}
    head = OutcomeHead(width=width, reward_limit=20.0, reward_bins=41, **sizes)
    return head.requires_grad_(requires_grad=False)


def two_hot(head: OutcomeHead, reward: float) -> torch.Tensor:
    """Return the target distribution, worked out without the head's own code."""
    value = math.copysign(math.log1p(min(abs(reward), 20.0)), reward)
    bins = head.bins.tolist()
    upper = min(index for index, edge in enumerate(bins) if edge >= value - 1e-6)
    target = torch.zeros(len(bins))
    lower = max(0, upper - 1)
    share = (value - bins[lower]) / (bins[upper] - bins[lower]) if upper else 1.0
    target[lower], target[upper] = 1.0 - share, share
    return target


@settings(deadline=None)
@given(reward=st.floats(-25.0, 25.0))
def test_the_two_hot_target_decodes_to_its_reward(reward):
    head = make_outcome()
    logits = two_hot(head, reward).clamp_min(1e-12).log()
    expected = max(-20.0, min(20.0, reward))
    assert head.reward(logits).item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


@settings(deadline=None)
@given(reward=st.floats(-25.0, 25.0), seed=st.integers(0, 9))
def test_reward_loss_is_the_cross_entropy_with_the_two_hot_target(reward, seed):
    head = make_outcome()
    logits = torch.randn(1, 41, generator=torch.Generator().manual_seed(seed))
    expected = -(two_hot(head, reward) * logits.log_softmax(dim=-1)).sum()
    loss = head.reward_loss(logits, torch.tensor([reward]))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-3)


def test_only_what_changes_around_the_character_counts_but_for_hidden_states():
    head = make_outcome()
    guidance = Guidance(
        last=torch.zeros(1, 3, 4, 6),
        copies=torch.zeros(1, 0, 3, 4, 6),
        maps=torch.zeros(1, 0, 4, 6),
        vector=torch.zeros(1, 5),
        hidden=torch.zeros(1, 2, 4),
    )
    near = torch.zeros(1, 1, 4, 6)
    near[..., :2] = 1.0
    made = torch.zeros(1, 3, 4, 6)

    head.trunk[-1].weight.normal_(generator=torch.Generator().manual_seed(0))

    def logits(made: Tensor, told: Guidance = guidance) -> Tensor:
        return torch.cat([part.flatten() for part in head(made, told, near, torch.zeros(1, 2))])

    before, far, close = logits(made), made.clone(), made.clone()
    far[..., 5], close[..., 0] = 3.0, 3.0
    assert torch.equal(logits(far), before)
    assert not torch.equal(logits(close), before)
    assert not torch.equal(logits(made, guidance._replace(hidden=guidance.hidden + 1)), before)


def test_without_a_width_outcomes_are_of_what_fates_tell_alone():
    head = make_outcome(width=0)
    assert [name.partition(".")[0] for name in head.state_dict()] == ["fates", "fates"]
    nothing = Guidance(*(torch.zeros(0) for _ in Guidance._fields))
    told = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    reward, cost, termination = head(torch.zeros(0), nothing, torch.zeros(0), told)
    expected = told @ head.fates.weight.T + head.fates.bias
    found = torch.cat((reward, cost[:, None], termination[:, None]), dim=1)
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="outcome_width 0 needs codes that tell outcomes"):
        dataclasses.replace(preset("dream"), outcome_width=0)
