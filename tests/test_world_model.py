import dataclasses
import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from midas_world.conditions import Conditions
from midas_world.config import WorldConfig, load_preset
from midas_world.world_model import OutcomeHead, WorldModel

CPU = torch.device("cpu")


@cache
def tiny() -> WorldConfig:
    return load_preset("tiny").world


def make_model(config: WorldConfig | None = None, *, seed: int = 0) -> WorldModel:
    model = WorldModel(config or tiny()).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5, generator=generator)
            else:
                parameter.normal_(1.0 if "norm" in name else 0.0, 0.1, generator=generator)
    return model


def make_batch(batch: int, frames: int, *, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    size = tiny().conditions
    return {
        "latents": torch.randn(batch, frames + 1, 15, 8, generator=generator),
        "conditions": Conditions(
            pose=torch.randn(batch, frames, size.pose_size, generator=generator),
            text=torch.randint(0, 256, (batch, frames, size.text_length), generator=generator),
            audio=torch.rand(batch, frames, size.audio_size, generator=generator),
            present=torch.rand(batch, frames, 3, generator=generator) > 0.3,
        ),
        "reward": torch.randn(batch, frames, generator=generator),
        "terminated": torch.rand(batch, frames, generator=generator) > 0.8,
    }


@settings(deadline=None, max_examples=10)
@given(frames=st.integers(1, 9), batch=st.integers(1, 3), seed=st.integers(0, 3))
def test_playing_step_by_step_equals_the_whole_sequence(frames, batch, seed):
    model, data = make_model(seed=seed), make_batch(batch, frames, seed=seed)
    context, conditions = data["latents"][:, :-1], data["conditions"]
    with torch.no_grad():
        expected = model.hidden(context, torch.zeros(batch, frames), conditions)
        cache = model.new_cache(batch, dtype=torch.float32, device=CPU)
        parts = []
        for step in range(frames):
            now = conditions.frames(step, step + 1)
            parts.append(model.step_hidden(context[:, step], now, cache))
            cache.commit()
    torch.testing.assert_close(torch.stack(parts, dim=1), expected, rtol=1e-4, atol=1e-4)


def test_play_noise_labels_the_context_as_training_did():
    config = dataclasses.replace(tiny(), play_noise=0.2)
    model, data = make_model(config), make_batch(2, 1)
    level = torch.full((2, 1), 0.2)
    with torch.no_grad():
        expected = model.hidden(data["latents"][:, :1], level, data["conditions"])[:, 0]
        cache = model.new_cache(2, dtype=torch.float32, device=CPU)
        hidden = model.step_hidden(data["latents"][:, 0], data["conditions"], cache)
        clean = model.hidden(data["latents"][:, :1], 0 * level, data["conditions"])[:, 0]
    torch.testing.assert_close(hidden, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(hidden, clean, atol=1e-3)


def test_noise_levels_fall_into_equal_buckets():
    model = make_model()
    levels = torch.linspace(0, tiny().context_noise, 10 * 8 + 1)
    buckets = model.bucket(levels + 1e-6)
    assert buckets[:-1].tolist() == [index // 8 for index in range(80)]
    assert buckets[-1] == 9
    assert model.bucket(torch.zeros(2, 3)).tolist() == [[0, 0, 0]] * 2


def test_samples_are_the_context_plus_a_scaled_change():
    model, data = make_model(), make_batch(2, 1)
    context, noise = data["latents"][:, 0], data["latents"][:, 1]
    hidden = torch.randn(2, 15, tiny().hidden_width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first = model.sample(context, hidden, noise, num_denoise_steps=3)
        again = model.sample(context, hidden, noise, num_denoise_steps=3)
        model.change_std.fill_(2.0)
        doubled = model.sample(context, hidden, noise, num_denoise_steps=3)
        # With one step from pure noise the sample is the prediction itself.
        one = model.sample(context, hidden, noise, num_denoise_steps=1)
        predicted = model.head(noise, torch.ones(2), hidden, context)
    assert torch.equal(first, again)
    torch.testing.assert_close(doubled - context, 2 * (first - context), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one, context + 2 * predicted, rtol=1e-5, atol=1e-5)


def own_context(model: WorldModel, data: dict, count: int, generator: torch.Generator):
    if not count:
        return None
    return model.own_context(
        data["latents"][:count, 0], data["conditions"].rows(0, count), generator
    )


@pytest.mark.parametrize("num_own", [0, 1, 2])
def test_losses_are_finite_and_reach_every_weight(num_own):
    model, data = make_model(), make_batch(2, 5)
    # Absent modalities have weights of their own.
    absent = dataclasses.replace(
        data["conditions"],
        present=data["conditions"].present & (torch.arange(2) > 0)[:, None, None],
    )
    data["conditions"] = absent
    generator = torch.Generator().manual_seed(0)
    own = own_context(model, data, num_own, generator)
    losses = model.losses(**data, generator=generator, own_context=own)
    assert set(losses) == {"head", "reward", "termination"}
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    sum(losses.values()).backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent


@pytest.mark.parametrize("num_own", [0, 1])
def test_losses_depend_on_their_generator_alone(num_own):
    model, data = make_model(), make_batch(2, 4)

    def losses(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        own = own_context(model, data, num_own, generator)
        named = model.losses(**data, generator=generator, own_context=own)
        return [float(value.detach()) for value in named.values()]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_own_context_is_the_rollout_from_the_first_frame():
    model, data = make_model(), make_batch(2, 4)
    own = own_context(model, data, 2, torch.Generator().manual_seed(3))
    assert own.shape == data["latents"][:, :-1].shape
    assert torch.equal(own[:, 0], data["latents"][:, 0])
    generator, cache = torch.Generator().manual_seed(3), None
    cache = model.new_cache(2, dtype=torch.float32, device=torch.device("cpu"))
    last = data["latents"][:, 0]
    with torch.no_grad():
        for frame in range(3):
            hidden = model.step_hidden(last, data["conditions"].frames(frame, frame + 1), cache)
            cache.commit()
            noise = torch.randn(last.shape, generator=generator)
            last = model.sample(last, hidden, noise, num_denoise_steps=2)
            assert torch.equal(own[:, frame + 1], last)


def test_own_context_is_labelled_as_at_play_time(monkeypatch):
    model, data = make_model(dataclasses.replace(tiny(), play_noise=0.2)), make_batch(3, 4)
    seen: list[torch.Tensor] = []
    hidden = model.hidden

    def watch(context: torch.Tensor, level: torch.Tensor, conditions) -> torch.Tensor:
        seen.append(level)
        return hidden(context, level, conditions)

    monkeypatch.setattr(model, "hidden", watch)
    generator = torch.Generator().manual_seed(0)
    own = own_context(model, data, 2, generator)
    model.losses(**data, generator=generator, own_context=own)
    (level,) = seen
    assert (level[:2] == 0.2).all()
    assert level[2].unique().numel() > 1


def test_a_world_without_context_noise_can_be_trained():
    model = make_model(dataclasses.replace(tiny(), context_noise=0.0))
    losses = model.losses(**make_batch(2, 3), generator=torch.Generator().manual_seed(0))
    assert all(loss.isfinite() for loss in losses.values())


def make_outcome(limit: float = 20.0, bins: int = 41) -> OutcomeHead:
    return OutcomeHead(hidden_width=4, reward_limit=limit, reward_bins=bins)


def two_hot(head: OutcomeHead, reward: float) -> torch.Tensor:
    """Return the target distribution, worked out without the head's own code."""
    value = max(
        -math.log1p(20.0), min(math.log1p(20.0), math.copysign(math.log1p(abs(reward)), reward))
    )
    bins = head.bins.tolist()
    upper = min(index for index, edge in enumerate(bins) if edge >= value - 1e-6)
    target = torch.zeros(len(bins))
    if upper == 0:
        target[0] = 1.0
        return target
    share = (value - bins[upper - 1]) / (bins[upper] - bins[upper - 1])
    target[upper - 1], target[upper] = 1.0 - share, share
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


def test_confident_logits_decode_to_bins_and_even_ones_to_nothing():
    head = make_outcome()
    assert head.reward(torch.zeros(41)).item() == pytest.approx(0.0, abs=1e-5)
    top = torch.full((41,), -100.0)
    top[-1] = 100.0
    assert head.reward(top).item() == pytest.approx(20.0, rel=1e-5)
    assert head.reward(top.flip(0)).item() == pytest.approx(-20.0, rel=1e-5)


def test_outcomes_pool_over_tokens_whatever_their_order():
    head = make_outcome()
    hidden = torch.randn(2, 3, 15, 4, generator=torch.Generator().manual_seed(0))
    reward, termination = head(hidden)
    assert reward.shape == (2, 3, 41)
    assert termination.shape == (2, 3)
    shuffled = hidden[:, :, torch.randperm(15, generator=torch.Generator().manual_seed(1))]
    torch.testing.assert_close(head(shuffled)[0], reward)
