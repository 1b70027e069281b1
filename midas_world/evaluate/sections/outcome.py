"""The section on outcomes: rewards, hits and ends that the world tells against the teacher's.

An env that learned from a world pays its rewards, counts its hits and ends its episodes, so all
three are measured on many held-out episodes of their own, as yes-or-no predictions at the env's
threshold and as probabilities.

Shapes: T steps of all episodes together.
"""

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from midas_world.evaluate.forced import LatentEpisode, forced_steps
from midas_world.evaluate.metrics import average_precision, mean_of, recall_at_precision
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.study import Study
from midas_world.model.outcome import OutcomeHead
from midas_world.model.world_model import WorldModel

# The learned env's own: it pays a reward above this size, and counts a hit and ends above these
# probabilities.
REWARD_THRESHOLD = 0.5
COST_THRESHOLD = 0.5
TERMINATION_THRESHOLD = 0.5

_FEW_POSITIVES = 30
_PRECISION = 0.8


class Told(NamedTuple):
    """A kind of event at each of T steps, episode after episode.

    Attributes:
        happened: (T,) bool, in the teacher.
        said: (T,) bool, by the world, at the env's threshold.
        is_right: (T,) bool: said of the very event that happened.
        probability: (T,) the world's.
    """

    happened: np.ndarray
    said: np.ndarray
    is_right: np.ndarray
    probability: np.ndarray


class Outcomes(NamedTuple):
    """What happened, and what the world said: the rewards (T,) too, the teacher's and expected."""

    events: dict[str, Told]
    reward: np.ndarray
    expected_reward: np.ndarray


def reward_event_probability(outcome: OutcomeHead, logits: torch.Tensor) -> torch.Tensor:
    """Return the probability that the reward's size exceeds `REWARD_THRESHOLD`, (...,) float32.

    The head gives a distribution over values; those beyond the threshold are summed. It learned
    from targets that share a value between the two nearest bins, so this is exact where no reward
    lies within a bin of the threshold.
    """
    is_event = outcome.bins.abs() > math.log1p(REWARD_THRESHOLD)
    return (logits.float().softmax(dim=-1) * is_event).sum(dim=-1).clamp(0.0, 1.0)


def predict_outcomes(model: WorldModel, episodes: list[LatentEpisode], *, first: int) -> Outcomes:
    """Return what the world says of every step of the teacher's episodes that has a full context.

    Raises:
        ValueError: No episode is that long.
    """
    told = [np.zeros((4, max(0, episode.num_steps - first + 1))) for episode in episodes]
    steps = forced_steps(model, episodes, first=first)
    for step in tqdm(steps, desc="outcomes", mininterval=5.0):
        rows = torch.stack(
            (
                model.outcome.reward(step.outcome.reward),
                reward_event_probability(model.outcome, step.outcome.reward),
                step.outcome.cost.float().sigmoid(),
                step.outcome.termination.float().sigmoid(),
            )
        )
        for column, index in zip(rows.cpu().numpy().T, step.episodes, strict=True):
            told[index][:, step.number - first] = column
    happened = [(e.rewards, e.costs, e.terminated) for e in episodes]
    columns = (
        np.concatenate([column[first - 1 :] for column in part])
        for part in zip(*happened, strict=True)
    )
    return outcomes_of(*columns, *np.concatenate(told, axis=1))


def outcomes_of(
    reward: np.ndarray,
    cost: np.ndarray,
    terminated: np.ndarray,
    expected: np.ndarray,
    event: np.ndarray,
    hit: np.ndarray,
    end: np.ndarray,
) -> Outcomes:
    """Return the outcomes of T steps: the teacher's, then the world's reward and probabilities.

    A reward of the wrong sign is no hit.
    """
    paid, happened = abs(expected) > REWARD_THRESHOLD, abs(reward) > REWARD_THRESHOLD
    agrees = np.sign(expected) == np.sign(reward)
    events = {"reward": Told(happened, paid, paid & happened & agrees, event)}
    for name, truth, probability, threshold in (
        ("cost", cost > 0, hit, COST_THRESHOLD),
        ("termination", terminated > 0, end, TERMINATION_THRESHOLD),
    ):
        said = probability > threshold
        events[name] = Told(truth, said, said & truth, probability)
    return Outcomes(events, reward, expected)


def judge(told: Told) -> dict[str, float]:
    """Return how a yes-or-no prediction did at the env's threshold, and its probability at all."""
    positives, predicted, both = (int(which.sum()) for which in told[:3])
    return {
        "positives": positives,
        "predicted": predicted,
        "hits": both,
        "precision": both / predicted if predicted else math.nan,
        "recall": both / positives if positives else math.nan,
        "average_precision": average_precision(told.probability, told.happened),
        "base_rate": positives / len(told.said),
        "recall_at_precision": recall_at_precision(
            told.probability, told.happened, precision=_PRECISION
        ),
    }


def outcomes_section(study: Study) -> Section:
    """Measure reward, hits and termination as predicted from a real context."""
    first = study.context_frames
    episodes = study.outcome_episodes()
    outcomes = predict_outcomes(study.model, episodes, first=first)
    judged = {name: judge(told) for name, told in outcomes.events.items()}
    paid = outcomes.events["reward"].said
    values: dict[str, Any] = {
        "num_steps": len(outcomes.reward),
        "num_episodes": sum(episode.num_steps >= first for episode in episodes),
    }
    for name, item in judged.items():
        values |= {f"{name}_{key}": value for key, value in item.items()}
    values["reward_mean_error"] = mean_of(np.abs(outcomes.expected_reward - outcomes.reward))
    values["reward_sum_teacher"] = float(outcomes.reward.sum())
    values["reward_sum_paid"] = float(outcomes.expected_reward[paid].sum())
    values["reward_sum_expected"] = float(outcomes.expected_reward.sum())
    policies = Counter(episode.policy for episode in episodes)
    played = ", ".join(f"{count} by {name}" for name, count in policies.items())
    return Section(
        title="Outcomes",
        method=(
            f"{values['num_steps']} steps of {values['num_episodes']} held-out episodes of their "
            f"own ({played}), each predicted from the "
            "teacher's true frames. A reward event is a step whose reward exceeds "
            f"{REWARD_THRESHOLD:g} in size. Said is what the env acts on: an expected reward "
            f"above {REWARD_THRESHOLD:g} in size and of the right sign, a probability of a hit "
            f"(cost) above {COST_THRESHOLD:g}, of the end above {TERMINATION_THRESHOLD:g}; it must "
            "be said at the very step at which it happens. Average precision and the largest "
            f"recall at a precision of at least {_PRECISION:g} are those of the probability (for "
            "rewards: the mass of the head's distribution beyond the threshold)."
        ),
        values=values,
        tables=(
            Table(
                title="At the env's threshold, and as probabilities",
                columns=(
                    *("", "happened", "said", "both", "precision", "recall"),
                    *("average precision", "that of chance"),
                    f"recall at precision {_PRECISION:g}",
                ),
                rows=tuple((name, *item.values()) for name, item in judged.items()),
                digits=4,
            ),
        ),
        notes=_notes(judged, values),
    )


def _notes(judged: dict[str, dict[str, float]], values: dict[str, Any]) -> tuple[str, ...]:
    few = [
        f"Few positives for {name} ({item['positives']}): its numbers say little."
        for name, item in judged.items()
        if item["positives"] < _FEW_POSITIVES
    ]
    return (
        *few,
        f"Rewards in all: the teacher paid {values['reward_sum_teacher']:.0f}, the env would pay "
        f"{values['reward_sum_paid']:.1f}, the expectations add up to "
        f"{values['reward_sum_expected']:.1f}.",
    )
