"""Spreads of the head on real play, on rollouts and on given contexts, and what they are worth.

Shapes: B runs, R windows, F frames, S draws, N tokens per frame, C latent channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.diffusion import sample_noise
from midas_world.evaluate.calibration import area_under_roc, rank_correlation
from midas_world.evaluate.forced import LatentEpisode, forced_steps, frame_of
from midas_world.evaluate.metrics import mean_of
from midas_world.evaluate.study import UNCERTAINTY_SEED, Study
from midas_world.evaluate.wrong_contexts import Windows
from midas_world.train.loop import mixed_precision, step_generator
from midas_world.uncertainty import head_spread, uncertainty_noise

NUM_RESAMPLES = 400
EVERY = 4
"""Of real play, one frame in so many is measured: neighbours tell nearly the same."""

Measured = tuple[float, float, float]
"""A number, and the 95 % interval that resampled runs give it."""

_WINDOW_BATCH = 16
_FEW_RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Spreads:
    """Spreads of some frames.

    Attributes:
        run: (n,) index of the run that each belongs to.
        step: (n,) its step.
        spread: (n,) of the head.
        error: (n,) root mean square distance of the frame made to the true one, in latents, in
            units of the usual change; NaN where there is no true one.
    """

    run: np.ndarray
    step: np.ndarray
    spread: np.ndarray
    error: np.ndarray

    def where(self, chosen: np.ndarray) -> "Spreads":
        """Return those that (n,) bool chooses."""
        return Spreads(
            run=self.run[chosen],
            step=self.step[chosen],
            spread=self.spread[chosen],
            error=self.error[chosen],
        )


class _Collector:
    """Gathers spreads batch by batch."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, runs: Sequence[int], step: int, spread: Tensor, error: Tensor | None) -> None:
        known = np.full(len(runs), np.nan) if error is None else error.cpu().numpy()
        steps = np.full(len(runs), step)
        self._parts.append((np.asarray(runs), steps, spread.cpu().numpy(), known))

    def spreads(self) -> Spreads:
        run, step, spread, error = (np.concatenate(part) for part in zip(*self._parts, strict=True))
        return Spreads(run=run, step=step, spread=spread, error=error)


def _noise(study: Study, batch: int) -> Tensor:
    """Return the draws, (S, B, N, C)."""
    config = study.world.config.world
    shape = config.tokens_per_frame, config.autoencoder.latent_channels
    noise = uncertainty_noise(study.config.num_uncertainty_draws, shape).to(study.device)
    return noise[:, None].expand(-1, batch, -1, -1)


def _distance(study: Study, made: Tensor, target: Tensor) -> Tensor:
    """Return the root mean square distance of latents (B, N, C) in usual changes, (B,)."""
    return ((made - target) / study.model.change_std).square().mean(dim=(1, 2)).sqrt()


@torch.no_grad()
def forced_spreads(study: Study, episodes: Sequence[LatentEpisode]) -> Spreads:
    """Return spread and next-frame error given the teacher's true frames."""
    collector = _Collector()
    generator = step_generator(UNCERTAINTY_SEED, 0)
    steps = forced_steps(study.model, episodes, first=study.context_frames)
    for step in tqdm(steps, desc="real frames", mininterval=5.0):
        if (step.number - study.context_frames) % EVERY:
            continue
        spread, made = _look(study, step.hidden, step.context, generator)
        collector.add(step.episodes, step.number, spread, _distance(study, made, step.target))
    return collector.spreads()


@torch.no_grad()
def rollout_spreads(study: Study, episodes: Sequence[LatentEpisode]) -> Spreads:
    """Return spread and error of rollouts from the first frames, under the true conditions."""
    model, device, context = study.model, study.device, study.context_frames
    collector = _Collector()
    generator = step_generator(UNCERTAINTY_SEED, 1)
    cache = model.new_cache(len(episodes), dtype=torch.float32, device=device)
    last, _ = frame_of(episodes, 0)
    longest = max(episode.num_steps for episode in episodes)
    for number in tqdm(range(1, longest + 1), desc="rollouts", mininterval=5.0):
        target, conditions = frame_of(episodes, number)
        with mixed_precision(device, enabled=True):
            hidden = model.step_hidden(last, conditions, cache)
        cache.commit()
        if number < context:
            last = target
            continue
        spread, last = _look(study, hidden, last, generator)
        alive = [i for i, episode in enumerate(episodes) if episode.num_steps >= number]
        error = _distance(study, last, target)
        collector.add(alive, number - context + 1, spread[alive], error[alive])
    return collector.spreads()


def _look(
    study: Study, hidden: Tensor, context: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the spread (B,) and a sampled next frame (B, N, C), float32."""
    noise = sample_noise(context.shape, study.model.config.diffusion, generator).to(study.device)
    with mixed_precision(study.device, enabled=True):
        spread = head_spread(study.model.head, hidden, context, _noise(study, len(context)))
        made = study.model.sample(context, hidden, noise, num_denoise_steps=study.num_denoise_steps)
    return spread, made.float()


@torch.no_grad()
def window_spreads(study: Study, windows: Windows) -> Spreads:
    """Return the spread after each window."""
    model = study.model
    collector = _Collector()
    for start in range(0, len(windows.run), _WINDOW_BATCH):
        stop = min(start + _WINDOW_BATCH, len(windows.run))
        latents = windows.latents[start:stop]
        level = latents.new_full(latents.shape[:2], model.config.play_noise)
        with mixed_precision(study.device, enabled=True):
            hidden = model.hidden(latents, level, windows.conditions.rows(start, stop))[:, -1]
            spread = head_spread(model.head, hidden, latents[:, -1], _noise(study, stop - start))
        collector.add(windows.run[start:stop].tolist(), 0, spread, None)
    return collector.spreads()


def roc_with_interval(
    negatives: Spreads, positives: Spreads, *, rng: np.random.Generator
) -> Measured:
    """Return the AUROC and its 95 % interval over resampled runs."""
    runs = np.unique(np.concatenate((negatives.run, positives.run)))
    sides = [[group.spread[group.run == run] for run in runs] for group in (negatives, positives)]

    def measure(chosen: np.ndarray) -> float:
        return area_under_roc(*(np.concatenate([side[i] for i in chosen]) for side in sides))

    return _resampled(measure, len(runs), rng=rng)


def correlation_with_interval(group: Spreads, *, rng: np.random.Generator) -> Measured:
    """Return the rank correlation of spread and error, and its 95 % interval over runs."""
    runs = np.unique(group.run)
    parts = [group.where(group.run == run) for run in runs]

    def measure(chosen: np.ndarray) -> float:
        return rank_correlation(
            np.concatenate([parts[i].spread for i in chosen]),
            np.concatenate([parts[i].error for i in chosen]),
        )

    return _resampled(measure, len(runs), rng=rng)


def correlation_at_same_step(group: Spreads) -> float:
    """Return the mean over steps of the rank correlation among the runs at that step.

    Both spread and error grow with the step; this tells whether the spread knows more than that.
    Steps that fewer than 5 runs reach do not count; NaN if none is left.
    """
    at_step = [group.where(group.step == step) for step in np.unique(group.step)]
    return mean_of(
        [rank_correlation(s.spread, s.error) for s in at_step if len(s.run) >= _FEW_RUNS]
    )


def _resampled(
    measure: Callable[[np.ndarray], float], count: int, *, rng: np.random.Generator
) -> Measured:
    """Return a measure of all runs, and its 95 % interval over resamples of them."""
    whole = measure(np.arange(count))
    drawn = np.array([measure(rng.integers(count, size=count)) for _ in range(NUM_RESAMPLES)])
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return whole, float("nan"), float("nan")
    low, high = np.percentile(drawn, (2.5, 97.5))
    return whole, float(low), float(high)
