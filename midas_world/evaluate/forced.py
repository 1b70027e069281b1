"""Teacher forcing: what a world makes of each frame of real episodes from the real ones before it.

Episodes are kept as latents, so that many of them fit into memory, and run side by side. The codes
of things that were seen are told; what enters by chance is not.

Shapes: B episodes, T steps, F frames, R rows of a batch, N tokens per frame, C token channels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from midas_world.evaluate.rollouts import TeacherEpisode
from midas_world.model.autoencoder import Autoencoder
from midas_world.model.conditions import Conditions
from midas_world.model.diffusion import sample_noise
from midas_world.model.world_model import Outcome, WorldModel
from midas_world.train.latents import encode_frames, sequence_conditions, tallies, thing_codes
from midas_world.train.loop import mixed_precision

_FORCED_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class LatentEpisode:
    """T steps of the teacher as a world sees them.

    Attributes:
        latents: (T + 1, N, C) float32 tokens.
        conditions: Of its T + 1 frames, as one sequence (1, T + 1, ...).
        rewards: (T,) float64.
        costs: (T,) float64, 1 where there was a hit.
        terminated: (T,) bool.
    """

    policy: str
    latents: Tensor
    conditions: Conditions
    rewards: np.ndarray
    costs: np.ndarray
    terminated: np.ndarray

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.rewards)


@dataclass(frozen=True, kw_only=True)
class ForcedStep:
    """One step of some of the episodes, given the real frames before it.

    Attributes:
        number: t; what is made is frame t, which step t - 1 (counted from 0) led to.
        episodes: The R episodes that have this frame, by their index.
        made: (R, N, C) float32 tokens of the world's frame t.
    """

    number: int
    episodes: list[int]
    made: Tensor
    outcome: Outcome


def to_latent_episode(
    episode: TeacherEpisode, *, autoencoder: Autoencoder, model: WorldModel, device: torch.device
) -> LatentEpisode:
    """Return an episode of the teacher as latents and conditions, without its frames."""
    latents = encode_frames(episode.frames, autoencoder, device=device)
    return LatentEpisode(
        policy=episode.policy,
        latents=model.to_tokens(latents.float().to(device)),
        conditions=_with_codes(episode, model).to(device),
        rewards=episode.rewards,
        costs=episode.costs,
        terminated=episode.terminated,
    )


def _with_codes(episode: TeacherEpisode, model: WorldModel) -> Conditions:
    """Return the conditions of an episode with the codes of what was seen, and its tally."""
    config = model.config
    given = sequence_conditions(episode.conditions, config)
    costs = np.concatenate(([0.0], episode.costs))
    given = replace(given, tally=torch.from_numpy(tallies(costs, config))[None])
    if episode.things is None or not config.entries.num_classes:
        return given
    codes, _ = thing_codes(episode.things, given.pose[0].numpy(), config, only_seen=True)
    return replace(given, entries=torch.from_numpy(codes)[None])


def forced_steps(
    model: WorldModel, episodes: Sequence[LatentEpisode], *, first: int
) -> Iterator[ForcedStep]:
    """Yield the steps of all episodes; how they are grouped is of no meaning.

    Args:
        model: In evaluation mode.
        episodes: Those too short to have frame ``first`` are passed over.
        first: First frame that is made; the world's context makes all contexts full.

    Raises:
        ValueError: No episode is that long.
    """
    # Episodes of like length run together, so that few rows idle at the end.
    order = sorted(
        (index for index, episode in enumerate(episodes) if episode.num_steps >= first),
        key=lambda index: episodes[index].num_steps,
    )
    if not order:
        raise ValueError(f"no held-out episode is longer than the context of {first} frames")
    for start in range(0, len(order), _FORCED_BATCH):
        chosen = order[start : start + _FORCED_BATCH]
        batch = [episodes[index] for index in chosen]
        lengths = np.array([episode.num_steps for episode in batch])
        for number, made, outcome in _batch_steps(model, batch, first=first):
            # Rows of episodes that have ended run on, and nobody looks at them.
            alive = int(np.searchsorted(lengths, number))
            yield ForcedStep(
                number=number,
                episodes=chosen[alive:],
                made=made[alive:],
                outcome=Outcome(*(part[alive:] for part in outcome)),
            )


@torch.no_grad()
def _batch_steps(
    model: WorldModel, episodes: Sequence[LatentEpisode], *, first: int
) -> Iterator[tuple[int, Tensor, Outcome]]:
    """Yield t, tokens (B, N, C) and outcomes of episodes side by side, for t from ``first`` on."""
    device = episodes[0].latents.device
    cache = model.new_cache(len(episodes), dtype=torch.float32, device=device)
    generator = torch.Generator().manual_seed(first)
    for number in range(1, max(episode.num_steps for episode in episodes) + 1):
        # Where an episode has ended it is the last frame.
        places = [min(number, episode.num_steps) for episode in episodes]
        pairs = list(zip(episodes, places, strict=True))
        context = torch.stack([e.latents[min(number - 1, e.num_steps)] for e in episodes])
        rows = [e.conditions.frames(place, place + 1) for e, place in pairs]
        conditions = Conditions(
            **{name: torch.cat([getattr(row, name) for row in rows]) for name in vars(rows[0])}
        )
        with mixed_precision(device, enabled=True):
            guidance, fate, _ = model.step_guidance(context, conditions, cache)
            cache.commit()
            if number < first:
                continue
            noise = sample_noise(guidance.last.shape, model.config.head, generator).to(device)
            steps = model.config.head.num_denoise_steps
            made = model.sample(guidance, noise, num_denoise_steps=steps)
            outcome = model.outcomes(made, guidance, model.near(conditions), fate.told)
        yield number, model.to_tokens(made.float()), outcome
