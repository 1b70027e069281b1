"""How much an evaluation measures."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from midas_world.evaluate.probes.training import ProbeConfig

_THING_PROBE = ProbeConfig(
    first_seed=22_000, num_frames=1600, width=32, train_steps=800, batch_size=16
)
_MOUTH_PROBE = replace(_THING_PROBE, first_seed=26_000)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How much is measured.

    Attributes:
        num_episodes: Held-out teacher episodes for the sections on single frames.
        episode_steps: Steps of each at most.
        num_autoencoder_frames: Frames for the autoencoder, spread over these episodes.
        num_next_frames: Frames for the next-frame prediction, likewise.
        num_rollouts: Rollouts for horizon and pose.
        num_long_runs: Rollouts for sharpness.
        num_still_runs: Games in which nothing is done.
        num_prompt_runs: Games in which words ask for another scene.
        num_outcome_episodes: Held-out teacher episodes for reward and termination: many, for both
            are rare.
        outcome_steps: Steps of each at most.
        num_thing_runs: Start frames from which things in view are followed.
        num_travel_starts: Start frames from which new scenery is uncovered.
        travel_seeds: Rollouts from each.
        num_sentences: Sentences that the character says, of those that worlds learned from.
        num_new_sentences: Sentences that none has heard, if the teacher has such.
        num_revisits: Walks away and back.
        teacher_options: Reset options of the teacher in rollouts, beside the seed: what the
            actions do not decide must not happen, for a world cannot know of it.
        mouth_probe: What sees how far the mouth is open, and likewise how far the eyes are turned.
    """

    num_episodes: int = 8
    episode_steps: int = 200
    num_autoencoder_frames: int = 200
    num_next_frames: int = 400
    num_rollouts: int = 12
    rollout_steps: int = 200
    num_long_runs: int = 4
    long_steps: int = 2000
    num_still_runs: int = 4
    still_steps: int = 400
    num_prompt_runs: int = 12
    prompt_steps: int = 60
    num_outcome_episodes: int = 28
    outcome_steps: int = 200
    num_games: int = 12
    game_steps: int = 300
    num_thing_runs: int = 20
    thing_steps: int = 40
    num_travel_starts: int = 12
    travel_seeds: int = 2
    travel_steps: int = 110
    num_sentences: int = 24
    num_new_sentences: int = 20
    sentence_steps: int = 36
    num_weather_runs: int = 4
    weather_steps: int = 40
    num_revisits: int = 8
    num_speed_steps: int = 300
    teacher_options: Mapping[str, Any] = field(default_factory=lambda: {"scene_changes": False})
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    thing_probe: ProbeConfig = _THING_PROBE
    mouth_probe: ProbeConfig = _MOUTH_PROBE

    def __post_init__(self) -> None:
        """Check the counts."""
        for name, value in vars(self).items():
            if name.startswith("num_") and value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
