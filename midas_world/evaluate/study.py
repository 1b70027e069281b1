"""A study: one world, its teacher, and what the sections of an evaluation have in common.

Playing is expensive, so episodes and rollouts are made once, when a section first asks for them.
Seeds are never those of training: the held-out episodes' own, fresh ones for each kind of rollout,
and the probes', which they learn from and nothing is measured on.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from midas_world.checkpoint import WEIGHTS_NAME
from midas_world.config import DataConfig
from midas_world.data.episodes import list_episodes, load_episode
from midas_world.evaluate.config import EvaluationConfig
from midas_world.evaluate.forced import LatentEpisode, to_latent_episode
from midas_world.evaluate.probes.keypoints import train_probe
from midas_world.evaluate.probes.pictures import NumberProbe, cut, train_number_probe
from midas_world.evaluate.probes.training import ProbeConfig, halve
from midas_world.evaluate.rollouts import (
    EnvFrame,
    FollowedEpisode,
    TeacherEpisode,
    Undying,
    play_world,
    recorded_moments,
    teacher_moments,
    to_episode,
)
from midas_world.teachers.collect import load_policy
from midas_world.teachers.env import make_teacher
from midas_world.teachers.policies import Policy
from midas_world.train.strips import save_strip
from midas_world.trust import check_data
from midas_world.types import StepConditions
from midas_world.world import World

logger = logging.getLogger(__name__)

ROLLOUT_SEED = 10_000
LONG_SEED = 11_000
OUTCOME_SEED = 12_000
GAME_SEED = 13_000
STILL_SEED = 14_000
PROMPT_SEED = 15_000
THING_SEED = 16_000
VOICE_SEED = 17_000
WEATHER_SEED = 18_000
REVISIT_SEED = 19_000

# Who plays for the section on outcomes, in turn: Stage's reckless one ends episodes.
_OUTCOME_POLICIES = ("expert", "reckless", "mixed", "reckless", "random")


class NotApplicableError(Exception):
    """A section has no meaning for this teacher; the message says why."""


def _never(outlook: Any) -> np.ndarray:
    """Return that no game ends: what a world *shows* is measured, to the last step."""
    return np.zeros(len(outlook.step), bool)


def _held_out(world: World, data: Path | None) -> list[Path]:
    """Return the held-out recordings of a world without a teacher."""
    folder = (data or Path("data") / world.folder.resolve().name) / "validation"
    paths = list_episodes(folder) if folder.is_dir() else []
    if not paths:
        raise ValueError(
            f"the world {world.folder} learned from recordings, and no held-out ones are in "
            f"{folder}: name their folder with --data"
        )
    return paths


class HeldOut(gymnasium.Wrapper):
    """A teacher that plays no episode that a world was trained on."""

    def __init__(self, env: gymnasium.Env, data: DataConfig) -> None:
        super().__init__(env)
        self._data = data

    def reset(self, *, seed: int | None = None, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset; raises ValueError for a seed that was trained on."""
        data = self._data
        trained = range(data.first_seed, data.first_seed + data.num_episodes)
        if seed in trained:
            raise ValueError(f"{seed} is a training seed ({trained.start}..{trained.stop - 1})")
        return self.env.reset(seed=seed, **kwargs)


class Study:
    """One world under study; what it has played is kept until it is dropped.

    Args:
        data: Folder of the recordings of a world without a teacher, whose held-out ones stand for
            it; None: data/NAME.

    Raises:
        ValueError: There are none in it.
    """

    def __init__(
        self, world: World, config: EvaluationConfig, output: Path, data: Path | None = None
    ) -> None:
        # A world that plays by itself may still name the module of its teacher.
        check_data(world.config.data, source=world.folder, trust=world.trust)
        self.world = world
        self.config = config
        self.output = output
        self._recordings = [] if self.has_teacher else _held_out(world, data)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.autoencoder = world.autoencoder.to(self.device)
        self.model = world.model.to(self.device)

    @property
    def has_teacher(self) -> bool:
        """Whether there is a game that can be played, not held-out recordings alone."""
        return self.world.config.data.has_teacher

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the world's frames."""
        return self.world.config.world.height, self.world.config.world.width

    @property
    def context_frames(self) -> int:
        """Real frames that a rollout begins from."""
        return self.world.config.world.backbone.context_frames

    @property
    def policies(self) -> list[str]:
        """Names of the policies, which take turns."""
        if not self.has_teacher:
            return ["recorded"]
        return sorted(self.world.config.data.policy_weights)

    @cached_property
    def weights_hash(self) -> str:
        """16 hex digits of the weights file."""
        data = (self.world.folder / WEIGHTS_NAME).read_bytes()
        return hashlib.sha256(data).hexdigest()[:16]

    @property
    def bare_options(self) -> dict[str, Any]:
        """Reset options of a teacher in which no things lie: where they would is chance."""
        has_things = self.world.config.world.entries.num_classes > 0
        return dict(self.config.teacher_options) | ({"things": False} if has_things else {})

    def make_teacher(self) -> gymnasium.Env:
        """Return a new teacher.

        Raises:
            NotApplicableError: There is none.
        """
        if not self.has_teacher:
            raise NotApplicableError("the world learned from recordings: nobody can play its game")
        return HeldOut(make_teacher(self.world.config.data), self.world.config.data)

    def make_world_env(self, **kwargs: Any) -> gymnasium.Env:
        """Return the world as an environment, on the engine of all sections."""
        return self._make(self.world, engine=self.engine, **kwargs)

    def make_endless_world(self, num_steps: int, **kwargs: Any) -> gymnasium.Env:
        """Return the world as an environment that goes on for so many steps, whatever happens."""
        env = self.make_world_env(horizon=num_steps + 1, end=_never, **kwargs)
        lives = self.world.config.world.lives
        return Undying(env, lives) if lives else env

    @cached_property
    def engine(self) -> Any:
        """What runs the world's networks, one for all sections, as it would for a player."""
        trust = {"trust": True} if self.world.trust else {}
        return self._make(str(self.world.folder), **trust).get_wrapper_attr("engine")

    def _make(self, world: World | str, **kwargs: Any) -> gymnasium.Env:
        kwargs |= {"world": world, "disable_env_checker": True}
        return gymnasium.make("envs:midas/World-v0", **kwargs)

    def action(self, name: str) -> int:
        """Return an action by its name.

        Raises:
            NotApplicableError: The world has none of that name.
        """
        if name not in self.world.keymap.actions:
            raise NotApplicableError(f"the world has no action {name!r}")
        return self.world.keymap.actions.index(name)

    def camera_places(self, conditions: Sequence[StepConditions]) -> np.ndarray:
        """Return how far the camera has travelled since the first of F frames, (F,) px.

        Raises:
            NotApplicableError: The world's poses tell of no camera.
        """
        camera = self.world.config.world.conditions.camera
        if not camera.is_declared:
            raise NotApplicableError("no camera is declared (conditions.camera)")
        if any(step.pose is None for step in conditions):
            raise NotApplicableError('the teacher gives no info["pose"]')
        shares = [step.pose[camera.index] for step in conditions if step.pose is not None]
        places = np.array(shares) * camera.loop
        return np.cumsum(camera.travel(np.concatenate((places[:1], places[:-1])), places))

    def policy(self, seed: int, env: gymnasium.Env, names: Sequence[str] = ()) -> Policy:
        """Return who plays a seed's episode: the world's policies, or those named, take turns."""
        names = names or self.policies
        factory = self.world.config.data.policy_factory
        return load_policy(factory, names[seed % len(names)], env.action_space)

    def save_strip(self, name: str, rows: Sequence[Sequence[np.ndarray]]) -> str:
        """Write rows of frames as a picture of the report, and return its name."""
        save_strip(rows, self.output / name)
        return name

    def play_teacher(
        self,
        env: gymnasium.Env,
        seed: int,
        *,
        num_steps: int,
        options: Mapping[str, Any],
        policies: Sequence[str] = (),
        policy: Policy | None = None,
    ) -> TeacherEpisode:
        """Return an episode of the teacher, by a policy or by the one of all or some in turn.

        Raises:
            ValueError: The seed was trained on, or the frames have another size than the world's.
        """
        names = policies or self.policies
        name = names[seed % len(names)]
        plays = policy or self.policy(seed, env, names)
        moments = islice(teacher_moments(env, plays, seed=seed, options=options), num_steps + 1)
        episode = to_episode(list(moments), name=name, seed=seed)
        if episode.frames.shape[1:3] != self.size:
            raise ValueError(
                f"the world's frames are {self.size}, the teacher's {episode.frames.shape[1:3]}"
            )
        return episode

    def to_latent(self, episode: TeacherEpisode) -> LatentEpisode:
        """Return an episode as the world sees it."""
        return to_latent_episode(
            episode, autoencoder=self.autoencoder, model=self.model, device=self.device
        )

    def outcome_episodes(self) -> list[LatentEpisode]:
        """Return the held-out episodes for reward and termination; their frames are not kept."""
        config = self.config
        if not self.has_teacher:
            recorded = self._recorded(config.num_outcome_episodes, config.outcome_steps)
            return [self.to_latent(episode) for episode in recorded]
        seeds = range(OUTCOME_SEED, OUTCOME_SEED + config.num_outcome_episodes)
        known = [name for name in _OUTCOME_POLICIES if name in self.policies]
        env = self.make_teacher()
        return [
            self.to_latent(
                self.play_teacher(
                    env, seed, num_steps=config.outcome_steps, options={}, policies=known
                )
            )
            for seed in tqdm(seeds, desc="teacher", mininterval=5.0)
        ]

    def number_probe(
        self,
        name: str,
        region: Callable[[Mapping[str, Any]], np.ndarray],
        env: gymnasium.Env,
        policy: Policy,
    ) -> NumberProbe:
        """Return what reads info[name] off a region of frames, as `cut` takes it.

        Raises:
            NotApplicableError: The teacher tells no such number or region, or never shows it.
        """
        config = self.config.mouth_probe
        views, numbers = [], []
        for moment in self.sample_moments(env, config, policy=policy):
            try:
                place, number = region(moment.info), moment.info[name]
            except KeyError as error:
                raise NotApplicableError(f"the teacher gives no info[{error}]") from error
            if place[2]:
                views.append(cut(moment.frame[None], place)[0])
                numbers.append(number)
        if not views:
            raise NotApplicableError(f"the teacher never shows what {name} is")
        return train_number_probe(np.stack(views), np.array(numbers), config)

    @cached_property
    def episodes(self) -> list[TeacherEpisode]:
        """The held-out episodes, with all that happens in them."""
        first = self.world.config.data.first_validation_seed
        seeds = range(first, first + self.config.num_episodes)
        steps = self.config.episode_steps
        if not self.has_teacher:
            return list(self._recorded(self.config.num_episodes, steps))
        env = self.make_teacher()
        return [
            self.play_teacher(env, seed, num_steps=steps, options={})
            for seed in tqdm(seeds, desc="teacher", mininterval=5.0)
        ]

    def _recorded(self, count: int, num_steps: int) -> Iterator[TeacherEpisode]:
        """Yield so many pieces of held-out recordings, spread over them, each once.

        Raises:
            ValueError: They are of another size.
        """
        data, paths = self.world.config.data, self._recordings
        rounds = -(-count // len(paths))
        for place in range(min(count, len(paths))):
            number = round(place * len(paths) / min(count, len(paths)))
            episode = load_episode(paths[number])
            if episode.frames.shape[1:3] != self.size:
                raise ValueError(f"{paths[number]} has frames of {episode.frames.shape[1:3]}")
            slack = max(0, episode.num_steps - num_steps)
            for first in sorted({round(slack * part / rounds) for part in range(rounds)}):
                moments = recorded_moments(episode, data)[first : first + num_steps + 1]
                yield to_episode(moments, name="recorded", seed=1000 * number + first)

    @cached_property
    def rollouts(self) -> list[FollowedEpisode]:
        """The rollouts for horizon and pose."""
        steps, context = self.config.rollout_steps, self.context_frames
        rollouts = []
        # What was recorded steers, as it was: nobody may be there who gives pose or sound at play.
        kind = {} if self.has_teacher else {"action": "conditions"}
        env = self.make_endless_world(steps, **kind)
        for episode in self._rollout_episodes(context - 1 + steps):
            actions: Sequence[Any] = episode.actions[context - 1 :]
            if not self.has_teacher:
                actions = [step.given() for step in episode.conditions[context:]]
            if not actions:
                logger.warning("seed %d: the teacher's episode ends in the context", episode.seed)
                continue
            start = episode.start_state(context)
            moments = play_world(env, start, actions, seed=episode.seed, things=False)
            frames = np.stack([moment.frame for moment in moments])
            rollouts.append(FollowedEpisode(teacher=episode, first=context, frames=frames))
        if not rollouts:
            raise ValueError("every episode of the teacher ends within the context")
        return rollouts

    def _rollout_episodes(self, num_steps: int) -> Iterator[TeacherEpisode]:
        """Yield the teacher's episodes for rollouts."""
        count = self.config.num_rollouts
        if not self.has_teacher:
            yield from tqdm(self._recorded(count, num_steps), desc="rollouts", mininterval=5.0)
            return
        teacher, options = self.make_teacher(), self.bare_options
        seeds = range(ROLLOUT_SEED, ROLLOUT_SEED + count)
        for seed in tqdm(seeds, desc="rollouts", mininterval=5.0):
            yield self.play_teacher(teacher, seed, num_steps=num_steps, options=options)

    @cached_property
    def probe(self) -> Callable[[np.ndarray], np.ndarray]:
        """The keypoint probe.

        Raises:
            NotApplicableError: The teacher gives no keypoints.
        """
        config, env = self.config.probe, self.make_teacher()
        if env.reset(seed=config.first_seed)[1].get("keypoints") is None:
            raise NotApplicableError('the teacher gives no info["keypoints"]')
        moments = self.sample_moments(env, config)
        shown = tqdm(moments, total=config.num_frames, desc="probe", mininterval=5.0)
        pairs = [(halve(m.frame[None])[0], m.info["keypoints"]) for m in shown]
        halves, keypoints = zip(*pairs, strict=True)
        return train_probe(np.stack(halves), np.stack(keypoints), config)

    def sample_moments(
        self, env: gymnasium.Env, config: ProbeConfig, *, policy: Policy | None = None
    ) -> Iterator[EnvFrame]:
        """Yield what a probe learns from, by a policy or by the world's in turn."""
        left = config.num_frames
        for seed in count(config.first_seed):
            plays = policy or self.policy(seed, env)
            moments = teacher_moments(env, plays, seed=seed, options={})
            for moment in islice(moments, 0, config.episode_steps + 1, config.keep_every):
                yield moment
                left -= 1
                if not left:
                    return
