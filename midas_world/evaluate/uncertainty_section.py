"""The section on uncertainty: does the spread of the head rise where the world is on unsafe ground?

Three places to look: real play from real frames, the world's own rollouts, and contexts that no
teacher ever shows. What it says of them is worked out from the numbers, not written here.

Shapes: B runs, R windows, F frames, N tokens per frame, C latent channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.evaluate.forced import LatentEpisode, encode_frames, join_conditions
from midas_world.evaluate.metrics import mean_of
from midas_world.evaluate.plots import save_boxes, save_curves
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import TeacherEpisode
from midas_world.evaluate.spreads import (
    EVERY,
    NUM_RESAMPLES,
    Measured,
    Spreads,
    correlation_at_same_step,
    correlation_with_interval,
    forced_spreads,
    roc_with_interval,
    rollout_spreads,
    window_spreads,
)
from midas_world.evaluate.study import UNCERTAINTY_SEED, Study
from midas_world.evaluate.wrong_contexts import Windows, wrong_contexts

REAL = "real frames before it"
RIGHT = "right contexts of the wrong ones"
WELL, PARTLY = 0.9, 0.7

_MARKS = (1, 5, 20, 100, 200)
_AROUND = 5


@dataclass(frozen=True, kw_only=True)
class Findings:
    """All that the section reports.

    Attributes:
        groups: Spreads by where the frames are from.
        rocs: AUROC with its interval, by the names of the groups that have one.
        on_real: Rank correlation of spread and error, real frames before it, with its interval.
        on_rollouts: The same on rollouts, all steps together.
        at_same_step: The same among runs at one step.
    """

    groups: Mapping[str, Spreads]
    rocs: Mapping[str, Measured]
    on_real: Measured
    on_rollouts: Measured
    at_same_step: float


def uncertainty_section(study: Study) -> Section:
    """Measure what the spread of the head over noise tells."""
    steps, context = study.config.uncertainty_steps, study.context_frames
    episodes = _play(study)
    latent = [study.to_latent(episode) for episode in episodes]
    real = forced_spreads(study, latent)
    dreamt = rollout_spreads(study, latent)
    windows = _windows(study, episodes, latent)
    findings = _compare(real, dreamt, _window_groups(study, windows), num_steps=steps)
    groups = findings.groups
    save_boxes(
        study.output / "uncertainty.png",
        {name: group.spread for name, group in groups.items()},
        title="Spread of the head: middle half, 5th to 95th percentile",
        x_label="spread, in usual changes from frame to frame",
    )
    x = np.unique(dreamt.step)
    save_curves(
        study.output / "uncertainty-rollout.png",
        {
            "spread": (x, [mean_of(dreamt.spread[dreamt.step == t]) for t in x]),
            "distance to the teacher's frame": (
                x,
                [mean_of(dreamt.error[dreamt.step == t]) for t in x],
            ),
            "spread on real frames (baseline)": (x, np.full(len(x), real.spread.mean())),
        },
        title=f"Rollouts, mean of {len(episodes)}",
        x_label="step",
        y_label="usual changes from frame to frame",
    )
    counts = {
        "num_runs": len(episodes),
        "num_draws": study.config.num_uncertainty_draws,
        "num_windows": len(windows.run),
        "error_real": mean_of(real.error),
        "error_rollout": mean_of(dreamt.error),
    }
    return Section(
        title="Uncertainty",
        method=(
            f"Spread: standard deviation of the change that the head predicts at sigma = 1 over "
            f"{study.config.num_uncertainty_draws} noises, root mean square over tokens and "
            "channels, in units of the usual change from frame to frame. "
            f"{len(episodes)} fresh held-out runs without scene changes: one frame in {EVERY} "
            f"from the teacher's true frames; rollouts of up to {steps} steps under the teacher's "
            f"conditions from the first {context} frames; and {len(windows.run)} contexts of "
            f"{context} frames from these runs, right and made wrong in several ways. AUROC: the "
            "chance that a frame there has the larger spread than one from real play (for wrong "
            "contexts: than one from the same contexts left right); 0.5 is a coin's. Brackets: "
            f"95 % of {NUM_RESAMPLES} resamples of whole runs."
        ),
        values=counts | _values(findings),
        tables=_tables(findings),
        notes=tuple(verdicts({name: item[0] for name, item in findings.rocs.items()})),
        pictures=("uncertainty.png", "uncertainty-rollout.png"),
    )


def _window_groups(study: Study, windows: Windows) -> dict[str, Spreads]:
    """Return the spreads after contexts, the right ones first."""

    def encode(frames: np.ndarray) -> Tensor:
        return encode_frames(study.autoencoder, frames, device=study.device)

    rng = np.random.default_rng(UNCERTAINTY_SEED)
    wrong = wrong_contexts(windows, encode=encode, rng=rng)
    groups = {RIGHT: window_spreads(study, windows)}
    for name, changed in tqdm(wrong, desc="wrong contexts", mininterval=5.0):
        groups[name] = window_spreads(study, changed)
    return groups


def _compare(
    real: Spreads, dreamt: Spreads, contexts: Mapping[str, Spreads], *, num_steps: int
) -> Findings:
    """Return what sets rollouts and wrong contexts apart from real play."""
    rollouts = {}
    for mark in (mark for mark in _MARKS if mark <= num_steps):
        low = mark - _AROUND + 1 if mark > _AROUND else mark
        near = dreamt.where((dreamt.step >= low) & (dreamt.step <= mark))
        if len(near.run):
            steps = f"step {mark}" if low == mark else f"steps {low} to {mark}"
            rollouts[f"rollout, {steps}"] = near
    rng = np.random.default_rng(UNCERTAINTY_SEED)
    rocs = {name: roc_with_interval(real, group, rng=rng) for name, group in rollouts.items()}
    for name, group in contexts.items():
        if name != RIGHT:
            rocs[name] = roc_with_interval(contexts[RIGHT], group, rng=rng)
    return Findings(
        groups={REAL: real, **rollouts, **contexts},
        rocs=rocs,
        on_real=correlation_with_interval(real, rng=rng),
        on_rollouts=correlation_with_interval(dreamt, rng=rng),
        at_same_step=correlation_at_same_step(dreamt),
    )


def _values(findings: Findings) -> dict[str, Any]:
    """Return the findings as named numbers."""
    groups: dict[str, dict[str, Any]] = {}
    for name, group in findings.groups.items():
        groups[name] = {
            "mean": float(group.spread.mean()),
            "median": float(np.median(group.spread)),
            "count": len(group.spread),
        }
        if name in findings.rocs:
            groups[name]["auroc"] = findings.rocs[name][0]
            groups[name]["auroc_interval"] = findings.rocs[name][1:]
    return {
        "groups": groups,
        "rank_correlation_real": findings.on_real[0],
        "rank_correlation_real_interval": findings.on_real[1:],
        "rank_correlation_rollout": findings.on_rollouts[0],
        "rank_correlation_rollout_interval": findings.on_rollouts[1:],
        "rank_correlation_same_step": findings.at_same_step,
    }


def _tables(findings: Findings) -> tuple[Table, ...]:
    return (
        Table(
            columns=("", "mean spread", "median", "frames", "AUROC"),
            rows=tuple(
                (
                    name,
                    float(group.spread.mean()),
                    float(np.median(group.spread)),
                    len(group.spread),
                    _bracketed(findings.rocs[name]) if name in findings.rocs else None,
                )
                for name, group in findings.groups.items()
            ),
            digits=3,
        ),
        Table(
            title="Rank correlation of the spread with the distance to the true frame",
            columns=("", "Spearman's rho"),
            rows=(
                ("next frame from real frames", _bracketed(findings.on_real)),
                ("rollouts, all steps together", _bracketed(findings.on_rollouts)),
                ("rollouts, among runs at the same step", findings.at_same_step),
            ),
        ),
    )


def verdicts(found: dict[str, float]) -> list[str]:
    """Return in words what AUROCs by name mean, from the numbers alone."""
    kinds = {
        f"Told apart from real play (AUROC at least {WELL:g})": lambda x: x >= WELL,
        f"In part ({PARTLY:g} to {WELL:g})": lambda x: PARTLY <= x < WELL,
        f"Not told apart (below {PARTLY:g})": lambda x: 1 - PARTLY < x < PARTLY,
        f"The spread falls there instead of rising (at most {1 - PARTLY:.1f})": (
            lambda x: x <= 1 - PARTLY
        ),
    }
    lines = []
    for words, fits in kinds.items():
        names = [name for name, value in found.items() if fits(value)]
        if names:
            lines.append(f"{words}: {'; '.join(names)}.")
    return lines


def _play(study: Study) -> list[TeacherEpisode]:
    """Return the runs that are longer than a context."""
    steps, context = study.config.uncertainty_steps, study.context_frames
    env = study.make_teacher()
    seeds = range(UNCERTAINTY_SEED, UNCERTAINTY_SEED + study.config.num_uncertainty_runs)
    played = [
        study.play_teacher(
            env, seed, num_steps=context - 1 + steps, options=study.config.teacher_options
        )
        for seed in tqdm(seeds, desc="teacher", mininterval=5.0)
    ]
    long_enough = [episode for episode in played if episode.num_steps >= context]
    if not long_enough:
        raise ValueError(f"no held-out episode is longer than the context of {context} frames")
    return long_enough


def _windows(
    study: Study, episodes: Sequence[TeacherEpisode], latent: Sequence[LatentEpisode]
) -> Windows:
    """Return contexts spread over all runs."""
    length = study.context_frames
    # A window of frames s to s + F - 1 predicts frame s + F.
    places = [
        (run, start)
        for run, episode in enumerate(episodes)
        for start in range(0, episode.num_steps - length + 1)
    ]
    wanted = min(len(places), study.config.num_uncertainty_windows)
    chosen = [places[i] for i in np.linspace(0, len(places) - 1, wanted).round().astype(int)]
    conditions = [
        latent[run].conditions.frames(start + 1, start + length + 1) for run, start in chosen
    ]
    return Windows(
        run=np.array([run for run, _ in chosen]),
        texts=tuple(latent[run].texts[start + length] for run, start in chosen),
        frames=np.stack([episodes[run].frames[start : start + length] for run, start in chosen]),
        latents=torch.stack([latent[run].latents[start : start + length] for run, start in chosen]),
        conditions=join_conditions(conditions),
    )


def _bracketed(item: Measured) -> str | None:
    value, low, high = item
    return None if np.isnan(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
