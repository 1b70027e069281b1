"""A study: one world, its teacher, and what the sections of an evaluation have in common.

Playing is expensive, so episodes and rollouts are made once, when a section first asks for them.
Seeds are never those of training: the held-out episodes' own, fresh ones for rollouts, outcomes and
uncertainty, and the probe's, which it learns from and nothing is measured on.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from midas_world.checkpoint import WEIGHTS_NAME
from midas_world.collect import load_policy
from midas_world.evaluate.forced import LatentEpisode, to_latent_episode
from midas_world.evaluate.probe import (
    Probe,
    ProbeConfig,
    halve,
    load_probe,
    save_probe,
    train_probe,
)
from midas_world.evaluate.rollouts import (
    EndlessEngine,
    TeacherEpisode,
    check_held_out,
    play_teacher,
    play_world,
    teacher_moments,
)
from midas_world.teachers import make_teacher
from midas_world.uncertainty import MIN_DRAWS
from midas_world.world import World

logger = logging.getLogger(__name__)

ROLLOUT_SEED = 10_000
LONG_SEED = 11_000
OUTCOME_SEED = 12_000
UNCERTAINTY_SEED = 13_000
STILL_SEED = 14_000
PROMPT_SEED = 15_000


class NotApplicableError(Exception):
    """A section has no meaning for this teacher; the message says why."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How much is measured.

    Attributes:
        world_env_id: Gymnasium id of the learned environment, "module:id".
        num_denoise_steps: K; None takes the world's own number.
        num_episodes: Held-out teacher episodes for the sections on single frames.
        episode_steps: Steps of each at most.
        num_autoencoder_frames: Frames for the autoencoder, spread over these episodes.
        num_next_frames: Frames for the next-frame prediction, likewise.
        moving_threshold: Mean absolute change, in levels of 255, above which a frame counts as
            moving.
        num_rollouts: Rollouts for horizon and pose.
        rollout_steps: Steps of each.
        num_long_runs: Rollouts for sharpness.
        long_steps: Steps of each.
        sharpness_window: Frames that are averaged at both ends of a long run.
        num_still_runs: Games in which nothing is done.
        still_steps: Steps of each.
        num_prompt_runs: Games in which words ask for another scene.
        prompt_steps: Steps of each after the words.
        num_outcome_episodes: Held-out teacher episodes for reward and termination: many, for both
            are rare.
        outcome_steps: Steps of each at most.
        outcome_policies: Who plays them, in turn; names that the world's data lack are passed
            over, and if none is left all of theirs play. Stage's reckless one ends episodes.
        num_uncertainty_runs: Teacher episodes for the uncertainty, each also the start of a
            rollout.
        uncertainty_steps: Steps of each rollout.
        num_uncertainty_draws: Head samples that the spread is taken over.
        num_uncertainty_windows: Contexts for each way of making a context wrong.
        num_speed_steps: Steps that are timed.
        teacher_options: Reset options of the teacher in rollouts, beside the seed: what the
            actions do not decide must not happen, for a world cannot know of it.
        probe: The keypoint probe.
    """

    world_env_id: str = "envs:midas/Stage-v0"
    num_denoise_steps: int | None = None
    num_episodes: int = 12
    episode_steps: int = 200
    num_autoencoder_frames: int = 200
    num_next_frames: int = 800
    moving_threshold: float = 4.0
    num_rollouts: int = 12
    rollout_steps: int = 200
    num_long_runs: int = 3
    long_steps: int = 2000
    sharpness_window: int = 20
    num_still_runs: int = 8
    still_steps: int = 400
    num_prompt_runs: int = 12
    prompt_steps: int = 60
    num_outcome_episodes: int = 42
    outcome_steps: int = 200
    outcome_policies: tuple[str, ...] = ("expert", "reckless", "mixed", "reckless", "random")
    num_uncertainty_runs: int = 12
    uncertainty_steps: int = 200
    num_uncertainty_draws: int = 4
    num_uncertainty_windows: int = 48
    num_speed_steps: int = 300
    teacher_options: Mapping[str, Any] = field(default_factory=lambda: {"scene_changes": False})
    probe: ProbeConfig = field(default_factory=ProbeConfig)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.startswith("num_") and value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.num_uncertainty_draws < MIN_DRAWS:
            raise ValueError(
                f"num_uncertainty_draws must be at least {MIN_DRAWS}, "
                f"got {self.num_uncertainty_draws}"
            )


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """T' steps of a world and of its teacher, after the same context and by the same actions.

    Attributes:
        teacher: The teacher's episode; its frames up to ``first - 1`` are the context.
        first: Index of the teacher's frame that the world's first one is compared with.
        frames: (T', H, W, 3) uint8 of the world.
        num_ends: How often the world said that the episode is over; it went on all the same.
    """

    teacher: TeacherEpisode
    first: int
    frames: np.ndarray
    num_ends: int

    @property
    def real(self) -> np.ndarray:
        """The teacher's frames, (T', H, W, 3)."""
        return self.teacher.frames[self.first :]


class Study:
    """One world under study; what it has played is kept until it is dropped.

    Args:
        world: The world.
        config: How much is measured.
        output: Folder for pictures, and for the probe's cache.
    """

    def __init__(self, world: World, config: EvaluationConfig, output: Path) -> None:
        self.world = world
        self.config = config
        self.output = output
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.results: dict[str, Any] = {}
        self.autoencoder = world.autoencoder.to(self.device)
        self.model = world.model.to(self.device)
        self.refiner = None if world.refiner is None else world.refiner.to(self.device)

    @property
    def context_frames(self) -> int:
        """Real frames that a rollout begins from."""
        return self.world.config.world.backbone.context_frames

    @property
    def num_denoise_steps(self) -> int:
        """K, head passes per frame."""
        own = self.world.config.world.diffusion.num_denoise_steps
        return self.config.num_denoise_steps or own

    @property
    def policies(self) -> list[str]:
        """Names of the policies, which take turns."""
        return sorted(self.world.config.data.policy_weights)

    @cached_property
    def weights_hash(self) -> str:
        """16 hex digits of the weights file."""
        data = (self.world.folder / WEIGHTS_NAME).read_bytes()
        return hashlib.sha256(data).hexdigest()[:16]

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what `make` returns, made at the first call with this name."""
        if name not in self.results:
            self.results[name] = make()
        return self.results[name]

    def make_teacher(self) -> gymnasium.Env:
        """Return a new teacher."""
        return make_teacher(self.world.config.data)

    def make_world_env(self, **kwargs: Any) -> gymnasium.Env:
        """Return the world as an environment."""
        return gymnasium.make(
            self.config.world_env_id,
            world=str(self.world.folder),
            num_denoise_steps=self.config.num_denoise_steps,
            disable_env_checker=True,
            **kwargs,
        )

    def make_endless_world(self, num_steps: int) -> tuple[gymnasium.Env, EndlessEngine]:
        """Return the world as an environment that goes on for so many steps, and its engine."""
        engine = EndlessEngine(self.make_world_env().get_wrapper_attr("engine"))
        return self.make_world_env(engine=engine, horizon=num_steps + 1), engine

    def play_teacher(
        self,
        env: gymnasium.Env,
        seed: int,
        *,
        num_steps: int,
        options: Mapping[str, Any],
        policies: Sequence[str] = (),
    ) -> TeacherEpisode:
        """Return an episode of the teacher; the seed says which policy plays, of all or of some.

        Raises:
            ValueError: The seed was trained on, or the frames have another size than the world's.
        """
        data = self.world.config.data
        check_held_out([seed], data)
        names = policies or self.policies
        name = names[seed % len(names)]
        policy = load_policy(data.policy_factory, name, env.action_space)
        episode = play_teacher(
            env, policy, name=name, seed=seed, num_steps=num_steps, options=options
        )
        size = (self.world.config.world.height, self.world.config.world.width)
        if episode.frames.shape[1:3] != size:
            raise ValueError(
                f"the world's frames are {size}, the teacher's {episode.frames.shape[1:3]}"
            )
        return episode

    def to_latent(self, episode: TeacherEpisode) -> LatentEpisode:
        """Return an episode as the world sees it."""
        return to_latent_episode(
            episode,
            autoencoder=self.autoencoder,
            config=self.world.config.world.conditions,
            device=self.device,
        )

    def outcome_episodes(self) -> list[LatentEpisode]:
        """Return the held-out episodes for reward and termination; their frames are not kept."""
        config = self.config
        seeds = range(OUTCOME_SEED, OUTCOME_SEED + config.num_outcome_episodes)
        known = [name for name in config.outcome_policies if name in self.policies]
        env = self.make_teacher()
        return [
            self.to_latent(
                self.play_teacher(
                    env, seed, num_steps=config.outcome_steps, options={}, policies=known
                )
            )
            for seed in tqdm(seeds, desc="teacher", mininterval=5.0)
        ]

    def episodes(self) -> list[TeacherEpisode]:
        """Return the held-out episodes, with all that happens in them."""
        return self.once("episodes", self._play_episodes)

    def rollouts(self) -> list[Rollout]:
        """Return the rollouts for horizon and pose."""
        return self.once("rollouts", self._play_rollouts)

    def probe(self) -> Probe:
        """Return the keypoint probe, from the output folder's cache if it is there.

        Raises:
            NotApplicableError: The teacher gives no keypoints.
        """
        return self.once("probe", self._train_probe)

    def _play_episodes(self) -> list[TeacherEpisode]:
        first = self.world.config.data.first_validation_seed
        seeds = range(first, first + self.config.num_episodes)
        steps = self.config.episode_steps
        env = self.make_teacher()
        return [
            self.play_teacher(env, seed, num_steps=steps, options={})
            for seed in tqdm(seeds, desc="teacher", mininterval=5.0)
        ]

    def _play_rollouts(self) -> list[Rollout]:
        steps, context = self.config.rollout_steps, self.context_frames
        env, engine = self.make_endless_world(steps)
        teacher, rollouts = self.make_teacher(), []
        seeds = range(ROLLOUT_SEED, ROLLOUT_SEED + self.config.num_rollouts)
        for seed in tqdm(seeds, desc="rollouts", mininterval=5.0):
            episode = self.play_teacher(
                teacher, seed, num_steps=context - 1 + steps, options=self.config.teacher_options
            )
            actions = episode.actions[context - 1 :]
            if not actions:
                logger.warning("seed %d: the teacher's episode ends within the context", seed)
                continue
            ends = engine.num_ends
            moments = play_world(env, episode.start_state(context), actions, seed=seed)
            frames = np.stack([moment.frame for moment in moments])
            rollouts.append(
                Rollout(
                    teacher=episode, first=context, frames=frames, num_ends=engine.num_ends - ends
                )
            )
        if not rollouts:
            raise ValueError("every episode of the teacher ends within the context")
        return rollouts

    def _train_probe(self) -> Probe:
        config, data = self.config.probe, self.world.config.data
        env = self.make_teacher()
        keypoints = env.reset(seed=config.first_seed)[1].get("keypoints")
        if keypoints is None:
            raise NotApplicableError('the teacher gives no info["keypoints"]')
        size = (self.world.config.world.height, self.world.config.world.width)
        key = config.key(data.env_id, data.policy_factory, self.policies, size, keypoints.shape)
        path = self.output / f"probe-{key}.safetensors"
        if not path.is_file():
            halves, truth = self._probe_frames(env)
            save_probe(train_probe(halves, truth, config), path)
        return load_probe(path, config, num_keypoints=len(keypoints))

    def _probe_frames(self, env: gymnasium.Env) -> tuple[np.ndarray, np.ndarray]:
        """Return teacher frames at half resolution and their keypoints."""
        config = self.config.probe
        halves: list[np.ndarray] = []
        keypoints: list[np.ndarray] = []
        progress = tqdm(total=config.num_frames, desc="probe frames", mininterval=5.0)
        for seed in count(config.first_seed):
            check_held_out([seed], self.world.config.data)
            policy = load_policy(
                self.world.config.data.policy_factory,
                self.policies[seed % len(self.policies)],
                env.action_space,
            )
            moments = teacher_moments(env, policy, seed=seed, options={})
            for step, moment in zip(range(config.episode_steps + 1), moments, strict=False):
                if step % config.keep_every == 0 and len(halves) < config.num_frames:
                    halves.append(halve(moment.frame[None])[0])
                    keypoints.append(moment.info["keypoints"])
                    progress.update()
            if len(halves) >= config.num_frames:
                progress.close()
                return np.stack(halves), np.stack(keypoints)
        raise AssertionError("count() does not end")
