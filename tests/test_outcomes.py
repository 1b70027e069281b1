import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from envs.world.outcomes import OutcomeRule
from midas_world.config import load_preset
from midas_world.evaluate.forced import LatentEpisode, to_latent_episode
from midas_world.evaluate.metrics import average_precision, recall_at_precision
from midas_world.evaluate.rollouts import TeacherEpisode
from midas_world.evaluate.sections import outcome as outcome_section
from midas_world.evaluate.sections.outcome import (
    judge,
    outcomes_of,
    predict_outcomes,
    reward_event_probability,
)
from midas_world.model.outcome import OutcomeHead
from midas_world.train.latents import thing_codes
from midas_world.train.loop import mixed_precision
from midas_world.types import StepConditions
from midas_world.world import World
from tests.training import make_episode


def flags(*values: int) -> np.ndarray:
    return np.array(values, bool)


def test_average_precision_by_hand():
    # From the top: hit (1/1), miss, hit (2/3).
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert average_precision(scores, flags(1, 0, 1, 0)) == pytest.approx(0.5 * (1 + 2 / 3))
    assert average_precision(scores, flags(1, 1, 0, 0)) == 1.0
    assert math.isnan(average_precision(scores, flags(0, 0, 0, 0)))
    with pytest.raises(ValueError, match="bool"):
        average_precision(scores[:2], np.array([0, 1]))


def test_recall_at_precision_by_hand():
    # From the top: hit (1/1), hit (2/2), miss (2/3), hit (3/4), miss, hit (4/6).
    scores, truth = np.arange(6)[::-1] / 6, flags(1, 1, 0, 1, 0, 1)
    assert recall_at_precision(scores, truth, precision=0.8) == 0.5
    assert recall_at_precision(scores, truth, precision=0.75) == 0.75
    assert recall_at_precision(scores, ~truth, precision=0.8) == 0.0
    assert math.isnan(recall_at_precision(scores, flags(*[0] * 6), precision=0.8))


def test_reward_event_probability_is_the_mass_beyond_the_threshold():
    sizes = {"latent_channels": 2, "fate_size": 2, "hidden_width": 8, "vector_size": 3}
    head = OutcomeHead(width=8, reward_limit=20.0, reward_bins=41, **sizes)
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


def outcomes(reward: list[float], expected: list[float]):
    """Return outcomes in which a reward above a half comes with a hit and an end."""
    real, probability = np.array(reward, float), np.abs(np.array(expected)).clip(0, 1)
    ends = real > 0.5
    return outcomes_of(real, ends, ends, np.array(expected), *(probability,) * 3).events


def test_a_reward_of_the_wrong_sign_is_no_hit():
    found = judge(outcomes([1, -1, 0], [0.9, 0.9, 0.1])["reward"])
    assert (found["positives"], found["predicted"], found["hits"]) == (2, 2, 1)


def test_hits_are_judged_by_their_own_probability():
    item = judge(outcomes([0, 1, 1], [0.1, 0.9, 0.3])["cost"])
    assert (item["positives"], item["hits"]) == (2, 1)
    assert item["recall_at_precision"] == 1.0


def teacher_episode(seed: int, *, num_steps: int = 12) -> TeacherEpisode:
    made = make_episode(seed, num_steps=num_steps)
    conditions = [
        StepConditions(pose=pose, text=text, audio=audio)
        for pose, text, audio in zip(made.pose, made.text, made.audio, strict=True)
    ]
    return TeacherEpisode(
        seed=seed,
        policy="any",
        frames=made.frames,
        actions=tuple(made.actions),
        rewards=made.rewards,
        costs=made.extras["cost"][1:],
        terminated=made.terminated,
        conditions=tuple(conditions),
        keypoints=None,
        things=made.extras["things"],
        conditioner_states=({},) * (num_steps + 1),
    )


def latents_of(episode: TeacherEpisode, world: World) -> LatentEpisode:
    parts = {"autoencoder": world.autoencoder, "model": world.model}
    return to_latent_episode(episode, **parts, device=torch.device("cpu"))


def test_episodes_are_told_the_things_that_were_seen_and_hits_but_not_what_enters(tiny_world):
    given = teacher_episode(2)
    told = latents_of(given, tiny_world).conditions
    config, pose = tiny_world.config.world, told.pose[0].numpy()
    seen, _ = thing_codes(given.things, pose, config, only_seen=True)
    every, _ = thing_codes(given.things, pose, config)
    assert np.array_equal(told.entries[0], seen)
    assert not np.array_equal(seen, every)
    assert (seen[..., 0] >= 0).any()
    assert not (seen[0, :, 0] >= 0).any()
    hits = given.costs > 0
    assert hits.any()
    left = np.maximum(config.lives - np.concatenate(([0, 0], np.cumsum(hits)[:-1])), 0)
    np.testing.assert_allclose(told.tally[0, :, 0], left / config.lives)
    told = latents_of(replace(given, things=None), tiny_world).conditions
    assert (told.entries[..., 0] == -1).all()


def test_a_game_that_goes_on_from_an_episode_is_told_its_things():
    episode = teacher_episode(1)
    start = episode.start_state(3, end=7)
    assert np.array_equal(start["things"], episode.things[6])
    assert len(start["frames"]) == 3
    assert "things" not in replace(episode, things=None).start_state(3)


def test_outcomes_are_the_heads_own_on_real_frames(tiny_world):
    episodes = [latents_of(teacher_episode(n, num_steps=n), tiny_world) for n in (8, 5)]
    model = tiny_world.model
    found = predict_outcomes(model, episodes, first=4)
    np.testing.assert_array_equal(found.reward, np.concatenate([e.rewards[3:] for e in episodes]))
    episode = episodes[1]
    cache = model.new_cache(1, dtype=torch.float32, device=episode.latents.device)
    for number in range(1, 6):
        told = episode.conditions.frames(number, number + 1)
        with torch.no_grad(), mixed_precision(episode.latents.device, enabled=True):
            guidance, fate, _ = model.step_guidance(episode.latents[number - 1][None], told, cache)
            made = model.sample(guidance, torch.zeros_like(guidance.last), num_denoise_steps=1)
            outcome = model.outcomes(made, guidance, model.near(told), fate.told)
        cache.commit()
        if number >= 4:
            # Another episode lies beside it there, which changes how products round.
            at = 5 + number - 4
            reward = model.outcome.reward(outcome.reward)
            np.testing.assert_allclose(found.expected_reward[at], reward, rtol=5e-2, atol=5e-2)
            cost = found.events["cost"].probability[at]
            np.testing.assert_allclose(cost, outcome.cost.sigmoid(), atol=2e-2)
    with pytest.raises(ValueError, match="longer than the context"):
        predict_outcomes(model, episodes, first=9)


def test_thresholds_are_those_of_the_learned_env():
    rule = OutcomeRule()
    assert rule.reward_threshold is None  # half of the unit
    assert load_preset("stage").world.reward_unit / 2 == outcome_section.REWARD_THRESHOLD
    assert rule.cost_threshold == outcome_section.COST_THRESHOLD
    assert rule.termination_threshold == outcome_section.TERMINATION_THRESHOLD
