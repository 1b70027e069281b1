import math

import numpy as np
import pytest
import torch
from PIL import Image

from envs.world import games
from midas_world.evaluate.calibration import (
    NUM_BINS,
    average_precision,
    brier_skill,
    f1_score,
    recall_at_precision,
    reliability,
    wilson_interval,
)
from midas_world.evaluate.forced import LatentEpisode, forced_steps, sequence_conditions
from midas_world.evaluate.plots import save_reliability
from midas_world.evaluate.sections import outcome as outcome_section
from midas_world.evaluate.sections.outcome import (
    Outcomes,
    judge_costs,
    judge_rewards,
    judge_terminations,
    predict_outcomes,
    reward_event_probability,
)
from midas_world.evaluate.study import EvaluationConfig
from midas_world.model.world_model import OutcomeHead
from midas_world.types import StepConditions
from midas_world.world import World


def flags(*values: int) -> np.ndarray:
    return np.array(values, bool)


def test_wilson_interval_equals_the_published_example():
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20 and 1 of 29.
    for hits, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        np.testing.assert_allclose(wilson_interval(hits, count), (low, high), atol=5e-5)


def test_wilson_interval_of_nothing_is_unknown_and_of_nonsense_an_error():
    assert all(math.isnan(limit) for limit in wilson_interval(0, 0))
    with pytest.raises(ValueError, match="0 to count"):
        wilson_interval(3, 2)


def test_f1_is_the_harmonic_mean():
    assert f1_score(0.5, 1.0) == pytest.approx(2 / 3)
    assert f1_score(math.nan, 0.0) == 0.0
    assert math.isnan(f1_score(0.0, math.nan))


def test_average_precision_by_hand():
    # From the top: hit (1/1), miss, hit (2/3).
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert average_precision(scores, flags(1, 0, 1, 0)) == pytest.approx(0.5 * (1 + 2 / 3))
    assert average_precision(scores, flags(1, 1, 0, 0)) == 1.0
    assert math.isnan(average_precision(scores, flags(0, 0, 0, 0)))


def test_average_precision_of_equal_scores_is_the_share_of_positives():
    truth = flags(0, 1, 0, 0, 1, 0, 0, 0)
    assert average_precision(np.full(8, 0.3), truth) == pytest.approx(0.25)
    assert average_precision(np.full(8, 0.3), truth[::-1]) == pytest.approx(0.25)


def test_calibration_error_by_hand():
    probability = np.array([0.0, 0.02, 0.55, 0.55, 1.0])
    truth = flags(0, 0, 1, 0, 0)
    found = reliability(probability, truth)
    assert found.counts.tolist() == [2, 0, 0, 0, 0, 2, 0, 0, 0, 1]
    assert found.hits.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    expected = (2 * 0.01 + 2 * 0.05 + 1 * 1.0) / 5
    assert found.expected_calibration_error == pytest.approx(expected)
    loud = reliability(probability, truth, above=0.05)
    assert loud.counts.sum() == 3
    assert loud.expected_calibration_error == pytest.approx((2 * 0.05 + 1.0) / 3)


def test_a_head_that_never_speaks_is_well_calibrated_only_where_it_is_silent():
    truth = np.zeros(1000, bool)
    truth[:5] = True
    silent = np.full(1000, 0.001)
    assert reliability(silent, truth).expected_calibration_error == pytest.approx(0.004)
    assert math.isnan(reliability(silent, truth, above=0.05).expected_calibration_error)
    assert average_precision(silent, truth) == pytest.approx(0.005)
    assert brier_skill(silent, truth) < 0.01


def test_true_probabilities_are_calibrated_and_twisted_ones_are_not():
    rng = np.random.default_rng(0)
    probability = rng.uniform(size=20_000)
    truth = rng.random(20_000) < probability
    assert reliability(probability, truth).expected_calibration_error < 0.02
    assert reliability(probability**3, truth).expected_calibration_error > 0.15
    assert brier_skill(probability, truth) > brier_skill(probability**3, truth)


def test_what_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\], got -0.1 to 0.5"):
        reliability(np.array([-0.1, 0.5]), flags(0, 1))
    with pytest.raises(ValueError, match="pair up"):
        reliability(np.array([0.1]), flags(0, 1))
    with pytest.raises(ValueError, match="bool"):
        average_precision(np.array([0.1, 0.2]), np.array([0, 1]))


def test_recall_at_precision_by_hand():
    # From the top: hit (1/1), hit (2/2), miss (2/3), hit (3/4), miss, hit (4/6).
    scores, truth = np.arange(6)[::-1] / 6, flags(1, 1, 0, 1, 0, 1)
    assert recall_at_precision(scores, truth, precision=0.8) == 0.5
    assert recall_at_precision(scores, truth, precision=0.75) == 0.75
    assert recall_at_precision(scores, ~truth, precision=0.8) == 0.0
    assert math.isnan(recall_at_precision(scores, flags(*[0] * 6), precision=0.8))


def test_reward_event_probability_is_the_mass_beyond_the_threshold():
    head = OutcomeHead(
        latent_channels=2, hidden_width=8, vector_size=3, reward_limit=20.0, reward_bins=41
    )
    rewards = torch.tensor([0.0, 1.0, -1.0, 3.0])
    symlog = rewards.sign() * rewards.abs().log1p()
    step = head.bins[1] - head.bins[0]
    place = ((symlog - head.bins[0]) / step)[:, None]
    targets = (1.0 - (place - torch.arange(41)).abs()).clamp_min(0.0)
    # A head that says the very targets of its training.
    certain = reward_event_probability(head, targets.clamp_min(1e-9).log())
    torch.testing.assert_close(certain, torch.tensor([0.0, 1.0, 1.0, 1.0]), atol=1e-5, rtol=0)
    half = 0.5 * targets[0] + 0.5 * targets[1]
    mixed = reward_event_probability(head, half.clamp_min(1e-9).log())
    assert float(mixed) == pytest.approx(0.5, abs=1e-5)


def outcomes(reward: list[float], expected: list[float], *, episode: list[int]) -> Outcomes:
    probability = np.abs(np.array(expected)).clip(0, 1)
    return Outcomes(
        episode=np.array(episode),
        reward=np.array(reward),
        expected_reward=np.array(expected),
        reward_probability=probability,
        cost=np.array(reward) > 0.5,
        cost_probability=probability,
        terminated=np.array(reward) > 0.5,
        termination_probability=probability,
    )


def test_a_reward_of_the_wrong_sign_is_no_hit():
    found = judge_rewards(outcomes([1, -1, 0], [0.9, 0.9, 0.1], episode=[0, 0, 0])).found
    assert (found.positives, found.predicted, found.hits) == (2, 2, 1)


def test_what_is_said_one_step_off_counts_apart_and_within_its_episode_only():
    item = judge_terminations(outcomes([0, 1, 0, 1], [0.9, 0, 0.9, 0], episode=[0, 0, 1, 2]))
    assert item.found.hits == 0
    assert (item.near_hits, item.near_said) == (1, 1)


def test_hits_are_judged_by_their_own_probability():
    item = judge_costs(outcomes([0, 1, 1], [0.1, 0.9, 0.3], episode=[0, 0, 0]))
    assert (item.found.positives, item.found.hits) == (2, 1)
    assert item.recall_at_precision == 1.0


def latent_episode(world: World, *, steps: int, seed: int) -> LatentEpisode:
    config = world.config.world
    shape = (steps + 1, config.tokens_per_frame, config.token_channels)
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    poses = rng.uniform(-1, 1, (steps + 1, config.conditions.pose_size)).astype(np.float32)
    conditions = [StepConditions(pose=pose, text="a person") for pose in poses]
    return LatentEpisode(
        policy="any",
        latents=torch.randn(shape, generator=generator),
        conditions=sequence_conditions(conditions, world.model),
        rewards=rng.integers(0, 2, steps).astype(float),
        costs=rng.integers(0, 2, steps).astype(float),
        terminated=np.arange(steps) == steps - 1,
    )


def test_forced_steps_are_those_of_each_episode_alone(tiny_world):
    episodes = [latent_episode(tiny_world, steps=n, seed=n) for n in (9, 5, 2, 7)]
    model = tiny_world.model
    seen = dict.fromkeys(range(4), 0)
    for step in forced_steps(model, episodes, first=4):
        for row, index in enumerate(step.episodes):
            assert step.made[row].shape == episodes[index].latents[0].shape
            assert len(step.outcome.cost) == len(step.episodes)
            seen[index] += 1
    # Frames 4 to T; the episode of two steps has none.
    assert seen == {0: 6, 1: 2, 2: 0, 3: 4}


def test_outcomes_are_the_heads_own_on_real_frames(tiny_world):
    episodes = [latent_episode(tiny_world, steps=n, seed=n) for n in (8, 5)]
    model = tiny_world.model
    found = predict_outcomes(model, episodes, first=4)
    assert found.episode.tolist() == [0] * 5 + [1] * 2
    np.testing.assert_array_equal(found.reward, np.concatenate([e.rewards[3:] for e in episodes]))
    episode = episodes[1]
    cache = model.new_cache(1, dtype=torch.float32, device=episode.latents.device)
    for number in range(1, 6):
        told = episode.conditions.frames(number, number + 1)
        with torch.no_grad():
            guidance = model.step_guidance(episode.latents[number - 1][None], told, cache)
            made = model.sample(guidance, torch.zeros_like(guidance.last), num_denoise_steps=1)
            outcome = model.outcomes(made, guidance, model.near(told))
        cache.commit()
        if number >= 4:
            # bf16 there, and another episode beside it.
            at = 5 + number - 4
            reward = model.outcome.reward(outcome.reward)
            np.testing.assert_allclose(found.expected_reward[at], reward, rtol=5e-2, atol=5e-2)
            np.testing.assert_allclose(
                found.cost_probability[at], outcome.cost.sigmoid(), atol=2e-2
            )
    with pytest.raises(ValueError, match="longer than the context"):
        predict_outcomes(model, episodes, first=9)


def test_thresholds_are_those_of_the_learned_env():
    assert outcome_section.REWARD_THRESHOLD == games.REWARD_THRESHOLD
    assert outcome_section.COST_THRESHOLD == games.COST_THRESHOLD
    assert outcome_section.TERMINATION_THRESHOLD == games.TERMINATION_THRESHOLD


def test_plots_are_drawn_even_of_nothing(tmp_path):
    some = reliability(np.array([0.1, 0.9, 0.95]), flags(0, 1, 1))
    empty = reliability(np.zeros(0), np.zeros(0, bool))
    assert len(empty.counts) == NUM_BINS
    save_reliability(tmp_path / "a.png", {"reward": some, "end": empty}, title="t")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] > 300


def test_counts_of_a_study_are_checked():
    with pytest.raises(ValueError, match="num_outcome_episodes must be at least 1, got 0"):
        EvaluationConfig(num_outcome_episodes=0)
