"""Teacher forcing: what a world says of each frame of real episodes from the real frames before it.

Episodes are kept as latents, so that many of them fit into memory, and run side by side.

Shapes: B episodes, T steps, F frames, R rows of a batch, N tokens per frame, C latent channels,
D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from midas_world.autoencoder import Autoencoder, normalize_frames, to_tokens
from midas_world.conditions import Conditions, stack_conditions
from midas_world.conditions_config import ConditionsConfig
from midas_world.evaluate.rollouts import TeacherEpisode
from midas_world.train.loop import mixed_precision
from midas_world.types import StepConditions
from midas_world.world_model import WorldModel

_ENCODE_BATCH = 16
_FORCED_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class LatentEpisode:
    """T steps of the teacher as a world sees them.

    Attributes:
        seed: Of the teacher's reset.
        policy: Who played.
        latents: (T + 1, N, C) float32.
        conditions: Of its T + 1 frames, as one sequence (1, T + 1, ...).
        texts: Of its T + 1 frames; None where there was none.
        rewards: (T,) float64.
        terminated: (T,) bool.
    """

    seed: int
    policy: str
    latents: Tensor
    conditions: Conditions
    texts: tuple[str | None, ...]
    rewards: np.ndarray
    terminated: np.ndarray

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.rewards)


@dataclass(frozen=True, kw_only=True)
class ForcedStep:
    """One step of some of the episodes, given the real frames before it.

    Attributes:
        number: t; what is predicted is frame t, which step t - 1 (counted from 0) led to.
        episodes: The R episodes that have this frame, by their index.
        hidden: (R, N, D) of the backbone.
        context: (R, N, C) real latents of frame t - 1.
        target: (R, N, C) real latents of frame t.
    """

    number: int
    episodes: list[int]
    hidden: Tensor
    context: Tensor
    target: Tensor


def to_latent_episode(
    episode: TeacherEpisode,
    *,
    autoencoder: Autoencoder,
    config: ConditionsConfig,
    device: torch.device,
) -> LatentEpisode:
    """Return an episode of the teacher as latents and conditions, without its frames."""
    return LatentEpisode(
        seed=episode.seed,
        policy=episode.policy,
        latents=encode_frames(autoencoder, episode.frames, device=device),
        conditions=sequence_conditions(episode.conditions, config).to(device),
        texts=tuple(step.text for step in episode.conditions),
        rewards=episode.rewards,
        terminated=episode.terminated,
    )


@torch.no_grad()
def encode_frames(autoencoder: Autoencoder, frames: np.ndarray, *, device: torch.device) -> Tensor:
    """Return latent tokens, (F, H, W, 3) uint8 -> (F, N, C) float32."""
    parts = []
    for part in torch.from_numpy(frames).split(_ENCODE_BATCH):
        with mixed_precision(device, enabled=True):
            latents = autoencoder.encode(normalize_frames(part.to(device)))
        parts.append(to_tokens(latents).float())
    return torch.cat(parts)


def sequence_conditions(steps: Sequence[StepConditions], config: ConditionsConfig) -> Conditions:
    """Return the conditions of F frames as one sequence, (1, F, ...)."""
    rows = stack_conditions(steps, config)
    return Conditions(
        pose=rows.pose.transpose(0, 1),
        text=rows.text.transpose(0, 1),
        audio=rows.audio.transpose(0, 1),
        present=rows.present.transpose(0, 1),
    )


def join_conditions(sequences: Sequence[Conditions]) -> Conditions:
    """Return sequences (R, F, ...) of one length as one batch."""
    return Conditions(
        pose=torch.cat([item.pose for item in sequences]),
        text=torch.cat([item.text for item in sequences]),
        audio=torch.cat([item.audio for item in sequences]),
        present=torch.cat([item.present for item in sequences]),
    )


def forced_steps(
    model: WorldModel, episodes: Sequence[LatentEpisode], *, first: int
) -> Iterator[ForcedStep]:
    """Yield the steps of all episodes; how they are grouped is of no meaning.

    Args:
        model: In evaluation mode.
        episodes: Those too short to have frame ``first`` are passed over.
        first: First frame that is predicted; the world's context makes all contexts full.
    """
    # Episodes of like length run together, so that few rows idle at the end.
    order = sorted(
        (index for index, episode in enumerate(episodes) if episode.num_steps >= first),
        key=lambda index: episodes[index].num_steps,
    )
    for start in range(0, len(order), _FORCED_BATCH):
        chosen = order[start : start + _FORCED_BATCH]
        yield from _batch_steps(model, [episodes[index] for index in chosen], chosen, first=first)


def frame_of(episodes: Sequence[LatentEpisode], number: int) -> tuple[Tensor, Conditions]:
    """Return a frame of every episode, (B, N, C), with its conditions, (B, 1, ...).

    Where an episode has ended it is the last frame.
    """
    places = [min(number, episode.num_steps) for episode in episodes]
    pairs = list(zip(episodes, places, strict=True))
    return (
        torch.stack([episode.latents[place] for episode, place in pairs]),
        join_conditions([e.conditions.frames(place, place + 1) for e, place in pairs]),
    )


def _batch_steps(
    model: WorldModel, episodes: Sequence[LatentEpisode], names: list[int], *, first: int
) -> Iterator[ForcedStep]:
    """Yield the steps of episodes that run side by side, the shortest first."""
    device = episodes[0].latents.device
    lengths = np.array([episode.num_steps for episode in episodes])
    cache = model.new_cache(len(episodes), dtype=torch.float32, device=device)
    context, _ = frame_of(episodes, 0)
    for number in range(1, int(lengths.max()) + 1):
        target, conditions = frame_of(episodes, number)
        # Not around the yield: who gets the step chooses its own precision.
        with torch.no_grad(), mixed_precision(device, enabled=True):
            hidden = model.step_hidden(context, conditions, cache)
        cache.commit()
        if number >= first:
            # Rows of episodes that have ended run on, and nobody looks at them.
            alive = int(np.searchsorted(lengths, number))
            yield ForcedStep(
                number=number,
                episodes=names[alive:],
                hidden=hidden[alive:],
                context=context[alive:],
                target=target[alive:],
            )
        context = target
