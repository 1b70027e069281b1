"""The section on outcomes: rewards, hits and ends that the world tells against the teacher's.

An env that learned from a world pays its rewards, counts its hits and ends its episodes, so all
three are measured on many held-out episodes of their own, as yes-or-no predictions at the env's
threshold and as probabilities.

Shapes: T steps of all episodes together.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from midas_world.evaluate.calibration import (
    NUM_BINS,
    Reliability,
    average_precision,
    brier_skill,
    f1_score,
    recall_at_precision,
    reliability,
    wilson_interval,
)
from midas_world.evaluate.forced import LatentEpisode, forced_steps
from midas_world.evaluate.metrics import Detection, mean_of
from midas_world.evaluate.plots import save_reliability
from midas_world.evaluate.report import Cell, Section, Table
from midas_world.evaluate.study import Study
from midas_world.model.world_model import OutcomeHead, WorldModel

# The learned env's own: it pays a reward above this size, and counts a hit and ends above these
# probabilities.
REWARD_THRESHOLD = 0.5
COST_THRESHOLD = 0.5
TERMINATION_THRESHOLD = 0.5

_LOW = 0.05
_FEW_POSITIVES = 30
_PRECISION = 0.8


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What happened at each of T steps, and what the world said, episode after episode.

    Attributes:
        episode: (T,) index of the step's episode; its steps follow each other.
        reward: (T,) the teacher's.
        expected_reward: (T,) the world's.
        reward_probability: (T,) of a reward event, see `reward_event_probability`.
        cost: (T,) bool, whether there was a hit in the teacher.
        cost_probability: (T,) the world's.
        terminated: (T,) bool, the teacher's.
        termination_probability: (T,) the world's.
    """

    episode: np.ndarray
    reward: np.ndarray
    expected_reward: np.ndarray
    reward_probability: np.ndarray
    cost: np.ndarray
    cost_probability: np.ndarray
    terminated: np.ndarray
    termination_probability: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How one yes-or-no prediction did.

    Attributes:
        found: At the env's threshold, step by step.
        near_hits: Positives with something said at their own step or one beside it.
        near_said: Things said with a positive at their own step or one beside it.
        average_precision: Of the probability.
        recall_at_precision: Largest recall at a precision of `_PRECISION` or more.
        above_low: Reliability of probabilities above `_LOW` only.
        whole: Reliability of all probabilities.
        brier_skill: Of the probability.
    """

    found: Detection
    near_hits: int
    near_said: int
    average_precision: float
    recall_at_precision: float
    above_low: Reliability
    whole: Reliability
    brier_skill: float


def reward_event_probability(outcome: OutcomeHead, logits: torch.Tensor) -> torch.Tensor:
    """Return the probability that the reward's size exceeds `REWARD_THRESHOLD`, (...,) float32.

    The head gives a distribution over values; those beyond the threshold are summed. It learned
    from targets that share a value between the two nearest bins, so this is exact where no reward
    lies within a bin of the threshold.

    Args:
        outcome: The head.
        logits: (..., bins).
    """
    is_event = outcome.bins.abs() > math.log1p(REWARD_THRESHOLD)
    return (logits.float().softmax(dim=-1) * is_event).sum(dim=-1).clamp(0.0, 1.0)


def predict_outcomes(
    model: WorldModel,
    episodes: list[LatentEpisode],
    *,
    first: int,
    num_denoise_steps: int | None = None,
) -> Outcomes:
    """Return what the world says of every step of the teacher's episodes that has a full context.

    Args:
        model: In evaluation mode.
        episodes: The teacher's.
        first: First frame that is predicted.
        num_denoise_steps: K; None takes the world's own.

    Raises:
        ValueError: No episode is that long.
    """
    told = [np.zeros((4, max(0, episode.num_steps - first + 1))) for episode in episodes]
    steps = forced_steps(model, episodes, first=first, num_denoise_steps=num_denoise_steps)
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
    expected, probability, cost, termination = np.concatenate(told, axis=1)
    return Outcomes(
        episode=np.repeat(np.arange(len(told)), [item.shape[1] for item in told]),
        reward=np.concatenate([episode.rewards[first - 1 :] for episode in episodes]),
        expected_reward=expected,
        reward_probability=probability,
        cost=np.concatenate([episode.costs[first - 1 :] for episode in episodes]) > 0,
        cost_probability=cost,
        terminated=np.concatenate([episode.terminated[first - 1 :] for episode in episodes]),
        termination_probability=termination,
    )


def judge_rewards(outcomes: Outcomes) -> Judgement:
    """Return how reward events are predicted; a reward of the wrong sign is no hit."""
    said = np.abs(outcomes.expected_reward) > REWARD_THRESHOLD
    happened = np.abs(outcomes.reward) > REWARD_THRESHOLD
    agrees = np.sign(outcomes.expected_reward) == np.sign(outcomes.reward)
    return _judge(
        said, happened, said & happened & agrees, outcomes.reward_probability, outcomes.episode
    )


def judge_costs(outcomes: Outcomes) -> Judgement:
    """Return how hits are predicted."""
    said = outcomes.cost_probability > COST_THRESHOLD
    happened = outcomes.cost
    return _judge(said, happened, said & happened, outcomes.cost_probability, outcomes.episode)


def judge_terminations(outcomes: Outcomes) -> Judgement:
    """Return how ends of episodes are predicted."""
    said = outcomes.termination_probability > TERMINATION_THRESHOLD
    happened = outcomes.terminated
    return _judge(
        said, happened, said & happened, outcomes.termination_probability, outcomes.episode
    )


def _judge(
    said: np.ndarray,
    happened: np.ndarray,
    hits: np.ndarray,
    probability: np.ndarray,
    episode: np.ndarray,
) -> Judgement:
    return Judgement(
        found=Detection(
            positives=int(happened.sum()),
            predicted=int(said.sum()),
            hits=int(hits.sum()),
            count=len(said),
        ),
        near_hits=int((happened & _widened(said, episode)).sum()),
        near_said=int((said & _widened(happened, episode)).sum()),
        average_precision=average_precision(probability, happened),
        recall_at_precision=recall_at_precision(probability, happened, precision=_PRECISION),
        above_low=reliability(probability, happened, above=_LOW),
        whole=reliability(probability, happened),
        brier_skill=brier_skill(probability, happened),
    )


def _widened(flags: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Return flags (T,) that are also up one step before and after, within the same episode."""
    wide = flags.copy()
    same = episode[1:] == episode[:-1]
    wide[1:] |= flags[:-1] & same
    wide[:-1] |= flags[1:] & same
    return wide


def outcomes_section(study: Study) -> Section:
    """Measure reward, hits and termination as predicted from a real context."""
    first = study.context_frames
    episodes = study.outcome_episodes()
    outcomes = predict_outcomes(
        study.model, episodes, first=first, num_denoise_steps=study.config.num_denoise_steps
    )
    judged = {
        "reward": judge_rewards(outcomes),
        "cost": judge_costs(outcomes),
        "termination": judge_terminations(outcomes),
    }
    paid = np.abs(outcomes.expected_reward) > REWARD_THRESHOLD
    values: dict[str, Any] = {
        "num_steps": len(outcomes.reward),
        "num_episodes": len(np.unique(outcomes.episode)),
    }
    for name, item in judged.items():
        values |= {f"{name}_{key}": value for key, value in _numbers(item).items()}
    values["reward_mean_error"] = mean_of(np.abs(outcomes.expected_reward - outcomes.reward))
    values["reward_sum_teacher"] = float(outcomes.reward.sum())
    values["reward_sum_paid"] = float(outcomes.expected_reward[paid].sum())
    values["reward_sum_expected"] = float(outcomes.expected_reward.sum())
    save_reliability(
        study.output / "reliability.png",
        {name: item.whole for name, item in judged.items()},
        title=f"Predicted probability against what happened, {len(outcomes.reward)} steps",
    )
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
            "be said at the very step at which it happens, and 'one step off' tells how much that "
            "asks. Average precision, the largest recall at a precision of at least "
            f"{_PRECISION:g} and calibration are those of the probability (for rewards: the mass "
            "of the head's distribution beyond the threshold). Brackets: 95 % Wilson intervals, "
            "which take "
            f"steps as independent. ECE: expected calibration error in {NUM_BINS} bins of equal "
            "width; Brier skill: 1 is perfect, 0 is knowing only how often it happens. Plot: mean "
            "probability and share that happened in each bin, and how many steps it holds."
        ),
        values=values,
        tables=_tables(judged),
        notes=_notes(judged, values),
        pictures=("reliability.png",),
    )


def _numbers(item: Judgement) -> dict[str, Any]:
    """Return a judgement as named numbers."""
    found = item.found
    whole, above_low = item.whole, item.above_low
    return {
        "precision": found.precision,
        "precision_interval": wilson_interval(found.hits, found.predicted),
        "recall": found.recall,
        "recall_interval": wilson_interval(found.hits, found.positives),
        "f1": f1_score(found.precision, found.recall),
        "precision_one_off": item.near_said / found.predicted if found.predicted else math.nan,
        "recall_one_off": item.near_hits / found.positives if found.positives else math.nan,
        "positives": found.positives,
        "predicted": found.predicted,
        "hits": found.hits,
        "average_precision": item.average_precision,
        "recall_at_precision": item.recall_at_precision,
        "base_rate": found.positives / found.count,
        "ece": whole.expected_calibration_error,
        "ece_above_low": above_low.expected_calibration_error,
        "num_above_low": int(above_low.counts.sum()),
        "brier_skill": item.brier_skill,
        "bins": {
            "counts": whole.counts,
            "mean_probability": whole.predicted,
            "happened": whole.hits,
        },
    }


def _tables(judged: dict[str, Judgement]) -> tuple[Table, ...]:
    at_threshold: list[tuple[Cell, ...]] = []
    as_probability: list[tuple[Cell, ...]] = []
    for name, item in judged.items():
        numbers, found = _numbers(item), item.found
        at_threshold.append(
            (
                name,
                found.positives,
                found.predicted,
                found.hits,
                _with_interval(numbers["precision"], numbers["precision_interval"]),
                _with_interval(numbers["recall"], numbers["recall_interval"]),
                numbers["f1"],
                numbers["precision_one_off"],
                numbers["recall_one_off"],
            )
        )
        as_probability.append(
            (
                name,
                *(
                    numbers[key]
                    for key in (
                        *("average_precision", "base_rate", "recall_at_precision"),
                        *("ece", "ece_above_low"),
                    )
                ),
                numbers["num_above_low"],
                numbers["brier_skill"],
            )
        )
    return (
        Table(
            title="At the env's threshold",
            columns=(
                *("", "happened", "said", "both", "precision", "recall", "F1"),
                *("precision, one step off", "recall, one step off"),
            ),
            rows=tuple(at_threshold),
        ),
        Table(
            title="As probabilities",
            columns=(
                *("", "average precision", "that of chance"),
                *(f"recall at precision {_PRECISION:g}", "ECE"),
                f"ECE of predictions above {_LOW:g}",
                *("their number", "Brier skill"),
            ),
            rows=tuple(as_probability),
            digits=4,
        ),
    )


def _notes(judged: dict[str, Judgement], values: dict[str, Any]) -> tuple[str, ...]:
    notes = [
        f"Few positives for {name} ({item.found.positives}): its numbers say little."
        for name, item in judged.items()
        if item.found.positives < _FEW_POSITIVES
    ]
    for name, item in judged.items():
        share = 1 - item.above_low.counts.sum() / item.found.count
        notes.append(
            f"{name.capitalize()}: {100 * share:.1f} % of the probabilities are at most "
            f"{_LOW:g}. They make the ECE over all steps small for any cautious head; that of "
            "the others says what a probability is worth when the head does speak."
        )
    notes.append(
        f"Rewards in all: the teacher paid {values['reward_sum_teacher']:.0f}, the env would pay "
        f"{values['reward_sum_paid']:.1f}, the expectations add up to "
        f"{values['reward_sum_expected']:.1f}."
    )
    return tuple(notes)


def _with_interval(share: float, interval: tuple[float, float]) -> str | None:
    if math.isnan(share):
        return None
    return f"{share:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
