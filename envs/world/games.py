"""B games of a learned world in step: all that one environment and a vector of them share.

Turns actions into conditions, lets the rollout make the frames, reads reward, hits and end from
what it tells, builds observations and infos, and copies its whole state out and in. Knows nothing
of Gymnasium's calls; those are in env.py and vector_env.py.

Shapes: B games, R rows of them, N latent tokens per frame, C latent channels, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from engine.make import make_engine
from engine.rollout import Rollout, RolloutStep
from engine.shared import shared_engine, shared_world
from envs.contract import check_names
from envs.recording.header import weights_hash
from envs.tasks import has_arrived
from envs.world.conditioners import (
    SpeakingConditioner,
    load_conditioner,
    make_conditioner,
)
from envs.world.options import GameOptions
from envs.world.outcomes import Outlook, Told
from envs.world.spaces import LATENT_LIMIT, action_space, key_names, observation_space, read_action
from envs.world.starts import choose_start, find_scene
from envs.world.state import (
    WorldState,
    below,
    fingerprint,
    pack_conditions,
    pack_rng,
    rows_like,
    stack_rows,
    unpack_conditions,
    unpack_rng,
)
from midas_world.types import StepConditions
from midas_world.world import StartState, World

OPTIONS = ("prompt", "start_state")

_TOLD = (
    "cost",
    "expected_reward",
    "reward_probability",
    "hit_probability",
    "termination_probability",
)
_ROLLOUT = "rollout."
_CONDITIONER = "conditioner."


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step brought to each game.

    Attributes:
        rewards: (B,) float64.
        terminated: (B,) bool.
        truncated: (B,) bool.
    """

    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray

    @classmethod
    def none(cls, num_games: int) -> "Outcome":
        """Return that of no step."""
        ends = np.zeros(num_games, bool)
        return cls(rewards=np.zeros(num_games), terminated=ends, truncated=ends)

    def joined(self, later: "Outcome") -> "Outcome":
        """Return what this and a later step brought together."""
        return Outcome(
            rewards=self.rewards + later.rewards,
            terminated=self.terminated | later.terminated,
            truncated=self.truncated | later.truncated,
        )


@dataclass(frozen=True, kw_only=True)
class _Last:
    """The last moment of a game that ended before its action was held for long enough."""

    conditions: StepConditions
    action: int | None
    latents: np.ndarray
    frame: np.ndarray | None
    step: int


class Games:
    """B games of one world; each has its own start state, conditioner, noise and clock.

    Args:
        world: A shipped world's name, a folder, or a loaded world.
        num_games: B.
        options: All else.

    Attributes:
        world: As loaded.
        options: As given.
        engine: What runs it.
        observation_space: Of one game.
        action_space: Of one game.
        actions: Names of the actions, in the order of a discrete action space.
        keys: Names of the keys, in the order in which action="keys" holds them.
        over: (B,) bool: games that have ended, or have not begun.

    Raises:
        ValueError: An argument cannot be used; the message says why.
    """

    def __init__(self, world: str | Path | World, *, num_games: int, options: GameOptions) -> None:
        is_named = not isinstance(world, World)
        self.world = shared_world(world, trust=options.trust) if is_named else world
        self.options = options
        found = options.weights_sha256 and weights_hash(self.world.folder)
        if found != options.weights_sha256:
            raise ValueError(
                f"the world {self.world.folder.name} here is not the one that is asked for: its "
                f"weights have the SHA-256 {found}, not {options.weights_sha256}"
            )
        # First of all, for what they name may be refused.
        self._conditioners = [make_conditioner(self.world) for _ in range(num_games)]
        keymap = self.world.keymap
        self.actions = tuple(options.actions or keymap.actions)
        check_names("action", self.actions, keymap.actions)
        engine, steps = options.engine, options.num_denoise_steps
        if engine is None and is_named:
            engine = shared_engine(world, self.world, options.backend, num_denoise_steps=steps)
        elif engine is None:
            engine = make_engine(self.world, options.backend, num_denoise_steps=steps)
        self.engine = engine
        self.observation_space = observation_space(options.observation, engine.spec)
        self.action_space = action_space(options.action, engine.spec, keymap)
        if options.actions is not None:
            self.action_space = spaces.Discrete(len(self.actions))
        self.keys = key_names(keymap)
        self.over = np.ones(num_games, bool)
        self._rollout = Rollout(engine, num_games)
        self._conditions = [StepConditions()] * num_games
        self._actions: list[int | None] = [None] * num_games
        self._voices: list[tuple[np.ndarray | None, np.ndarray | None]] = []
        # Of the last step: what infos tell.
        self._told = {name: np.zeros(num_games) for name in _TOLD}
        self._last: dict[int, _Last] = {}
        self._lives = np.full(num_games, self.world.config.world.lives)
        self._frames: np.ndarray | None = None
        self._undecoded = np.ones(num_games, bool)
        self._starts = np.full(num_games, -1)  # where each game's episode began
        self._scenes = np.full(num_games, -1)  # the start state that each game goes on from
        self._fingerprint = ""

    @property
    def has_begun(self) -> bool:
        """Whether there is a frame of every game."""
        return bool(self._rollout.started.all())

    def reset(
        self,
        rows: Sequence[int],
        *,
        rngs: Sequence[np.random.Generator],
        options: Sequence[Mapping[str, Any]],
    ) -> None:
        """Begin some games anew.

        Args:
            rows: Which games; the others go on untouched.
            rngs: One per row; draws the start state, the voices and the noise.
            options: One per row; see `WorldEnv`.

        Raises:
            ValueError: An option is unknown or has a value that cannot be used.
        """
        self.over[list(rows)] = True  # should an option be wrong
        starts: list[StartState] = []
        encoded: dict[int, tuple[int, StartState]] = {}
        for row, rng, given in zip(rows, rngs, options, strict=True):
            option = self._with_own(given, rng)
            index, start = self._choose_start(option, rng, encoded)
            prompt = option.get("prompt")
            if option.get("start_state") is None:
                index = self._scene_for(row, prompt, present=index)
                start = self.world.start_states[index]
            self._begin(row, start, rng, prompt)
            self._scenes[row] = index
            self._starts[row] = index
            starts.append(start)
        seeds = [int(rng.integers(2**63)) for rng in rngs]
        self._rollout.reset(starts, seeds=seeds, rows=rows)
        self.over[list(rows)] = False
        self._undecoded[list(rows)] = True

    def step(self, actions: Sequence[Any]) -> Outcome:
        """Hold one action per game for one step; a game that is over ignores its own.

        Raises:
            InvalidAction: An action is not in the action space; nothing was changed.
        """
        keymap = self.world.keymap
        read = [
            None
            if is_over
            else read_action(action, space=self.action_space, keymap=keymap, keys=self.keys)
            for action, is_over in zip(actions, self.over, strict=True)
        ]
        if self.options.actions is not None:
            read = [
                keymap.actions.index(self.actions[meant]) if isinstance(meant, int) else None
                for meant in read
            ]
        self._last = {}
        for told in self._told.values():
            told[:] = 0.0
        sums = Outcome.none(len(self.over))
        for number in range(self.options.frame_skip):
            was_over = self.over.copy()
            sums = sums.joined(self._step_once(read))
            if self.over.all():
                break
            if number < self.options.frame_skip - 1:
                for row in np.flatnonzero(self.over & ~was_over):
                    self._last[int(row)] = self._moment_of(int(row))
        for row, last in self._last.items():
            self._conditions[row], self._actions[row] = last.conditions, last.action
        return sums

    def _step_once(self, read: Sequence[int | StepConditions | None]) -> Outcome:
        """Make the next frame of all games, under what is held."""
        for row, meant in enumerate(read):
            if self.over[row] or meant is None:
                self._actions[row], self._conditions[row] = None, StepConditions()
            elif isinstance(meant, int):
                self._actions[row] = meant
                self._conditions[row] = self._condition(row, meant)
            else:
                self._actions[row], self._conditions[row] = None, meant
        self._voices = []
        made = self._rollout.step(self._conditions)
        self._undecoded[:] = True
        outlook = self._outlook(made)
        told, plays = self._told_of(outlook), ~self.over
        self._told["cost"] += told.costs * plays
        self._told["expected_reward"] += outlook.expected_reward * plays
        for name, chance in (
            ("reward_probability", told.reward_probabilities),
            ("hit_probability", outlook.hit_probability),
            ("termination_probability", outlook.termination_probability),
        ):  # of one at least, while the action is held
            before = self._told[name]
            before += np.where(plays, chance - before * chance, 0.0)
        ends = told.ends.copy()
        if self.world.config.world.lives:
            self._lives -= told.hits & plays
            np.maximum(self._lives, 0, out=self._lives)
            if self.options.end is None and self.options.task != "care":
                ends |= self._lives == 0
        truncated = self._rollout.num_steps >= self.options.horizon
        outcome = Outcome(
            rewards=told.rewards * plays, terminated=ends & plays, truncated=truncated & plays
        )
        self.over |= ends | truncated
        return outcome

    def _told_of(self, outlook: Outlook) -> Told:
        """Return what comes of a step by the rules, and by the task."""
        told = self.options.apply(outlook, self._rollout.chance)
        if self.options.task != "goal":
            return told
        loop = self.world.config.world.conditions.camera.loop
        arrived = has_arrived(outlook.x, self.options.goal, loop=loop)
        return replace(told, rewards=arrived.astype(np.float64), ends=told.ends | arrived)

    def _outlook(self, made: RolloutStep) -> Outlook:
        """Return what the network told, and of which frames."""
        size = self.world.config.world.conditions.pose_size
        absent = np.full(size, np.nan, np.float32)
        poses = [absent if item.pose is None else item.pose for item in self._conditions]
        return Outlook(
            config=self.world.config.world,
            step=self._rollout.num_steps.copy(),
            pose=np.stack(poses),
            latents=self._rollout.latents.numpy(),
            expected_reward=made.reward.astype(np.float64),
            hit_probability=made.cost.astype(np.float64),
            termination_probability=made.termination_probability.astype(np.float64),
            entries=getattr(self._conditioners[0], "pose_entries", {}),
        )

    def _moment_of(self, row: int) -> _Last:
        is_seen = self.options.observation != "latent"
        return _Last(
            conditions=self._conditions[row],
            action=self._actions[row],
            latents=self._rollout.latents[row].numpy(),
            frame=self._rollout.frames([row])[0] if is_seen else None,
            step=int(self._rollout.num_steps[row]),
        )

    def observe(self) -> Any:
        """Return the present observations of all games: new arrays, (B, ...)."""
        seen = self._seen()
        if isinstance(seen, dict):
            return {name: rows.copy() for name, rows in seen.items()}
        return seen.copy()

    def observe_game(self, row: int) -> Any:
        """Return one game's present observation: new arrays."""
        seen = self._seen()
        if isinstance(seen, dict):
            return {name: rows[row].copy() for name, rows in seen.items()}
        return seen[row].copy()

    def frames(self) -> np.ndarray:
        """Return the present frames, uint8 (B, H, W, 3); not to be changed.

        Decodes those that were not decoded yet.
        """
        rows = np.flatnonzero(self._undecoded)
        if self._frames is None or len(rows) == len(self.over):
            self._frames = self._rollout.frames()
        elif len(rows):
            self._frames[rows] = self._rollout.frames(rows.tolist())
        self._undecoded[:] = False
        for row, last in self._last.items():
            if last.frame is not None:
                self._frames[row] = last.frame
        return self._frames

    def info(self, row: int) -> dict[str, Any]:
        """Return what there is to know about a game's present frame."""
        last = self._last.get(row)
        info: dict[str, Any] = {
            "step": last.step if last else int(self._rollout.num_steps[row]),
            "start_state": int(self._starts[row]),
            **{name: float(values[row]) for name, values in self._told.items()},
        }
        if self.world.config.world.lives:
            info["lives"] = int(self._lives[row])
        if (action := self._actions[row]) is not None:
            if self.options.infos == "all":
                info["action_name"] = self.world.keymap.actions[action]
            conditioner = self._conditioners[row]
            if isinstance(conditioner, SpeakingConditioner):
                info["spoken"] = conditioner.spoken
        conditions = self._conditions[row]
        if conditions.text is not None and self.options.infos == "all":
            info["text"] = conditions.text
        if conditions.pose is not None:
            info["pose"] = conditions.pose.copy()
        if conditions.audio is not None:
            info["audio"] = conditions.audio.copy()
        return info

    def set_prompt(self, text: str | None, rows: Sequence[int]) -> None:
        """Let words steer some games from the next step on; None gives their own words back.

        With the world's ``prompt_scenes``, words for another scene cut to a start state of it.

        Raises:
            ValueError: The text is no str, too long or not understood, or words come with each
                action; nothing was changed.
        """
        self._check_prompt(text)
        for row in rows:
            self._conditioners[row].set_prompt(text)
            if not self.over[row]:
                self._cut(row, text)

    def understand(self, text: str) -> str:
        """Return what of a player's words is understood, in words; changes nothing.

        Raises:
            ValueError: As with `set_prompt`.
        """
        self._check_prompt(text)
        return self._conditioners[0].understand(text)

    def _check_prompt(self, text: Any) -> None:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"prompt must be a str, got {type(text).__name__}")
        if isinstance(self.action_space, spaces.Dict):
            raise ValueError("with action='conditions' the words come with each action: no prompt")

    def set_voices(self, voices: Sequence[tuple[np.ndarray | None, np.ndarray | None]]) -> None:
        """Let live audio be each game's own and other voice in the next step only.

        Args:
            voices: (20,) features each; None leaves a voice to the conditioner.

        Raises:
            ValueError: Nobody speaks in this world, or the sounds come with each action.
        """
        if isinstance(self.action_space, spaces.Dict):
            raise ValueError("with action='conditions' the sounds come with each action")
        if not isinstance(self._conditioners[0], SpeakingConditioner):
            raise ValueError(f"nobody speaks in the world {self.world.folder.name}")
        self._voices = list(voices)

    def state(self, rngs: Sequence[np.random.Generator]) -> WorldState:
        """Return a copy of all that changes, with the streams that resets draw from."""
        assert self.has_begun
        tensors = {_ROLLOUT + name: value for name, value in self._rollout.state().items()}
        for name, rows in stack_rows([conditioner.state() for conditioner in self._conditioners]):
            tensors[_CONDITIONER + name] = torch.from_numpy(rows)
        tensors |= self._rows(rngs)
        self._fingerprint = self._fingerprint or fingerprint(self.world)
        return WorldState(tensors=tensors, world=self._fingerprint)

    def load_state(self, state: WorldState, rngs: Sequence[np.random.Generator]) -> None:
        """Go on exactly from a state of B games, or of one, from which then all go on.

        Args:
            state: What `state` gave, here or elsewhere.
            rngs: Changed to those of the state.

        Raises:
            ValueError: The state is of another world, engine or number of games, or damaged;
                nothing was changed.
        """
        num_games = len(self.over)
        self._fingerprint = self._fingerprint or fingerprint(self.world)
        if state.world != self._fingerprint:
            raise ValueError("the state is of another world than this environment's")
        if state.num_games == 1:
            state = state.select([0] * num_games)
        if state.num_games != num_games:
            raise ValueError(
                f"the state must be of 1 or {num_games} games, got {state.num_games}: pick some "
                "with its select()"
            )
        tensors = state.tensors
        rows = rows_like(tensors, self._rows(rngs))
        streams = [unpack_rng(words) for words in rows["rng"].numpy()]
        for name in ("starts", "scenes"):
            if not all(-1 <= index < len(self.world.start_states) for index in rows[name]):
                raise ValueError(f"{name} of the state are none of this world's")
        self._load_conditioners_and_rollout(tensors)
        for name, own in self._counts().items():
            own[:] = rows[name].numpy()
        for rng, stream in zip(rngs, streams, strict=True):
            rng.bit_generator.state = stream
        self._conditions = unpack_conditions(rows)
        self._actions = [None] * num_games
        for told in self._told.values():
            told[:] = 0.0
        self._last = {}
        self._undecoded[:] = True

    def _counts(self) -> dict[str, np.ndarray]:
        """Return this object's own arrays of what is kept of each game."""
        return {
            "over": self.over,
            "lives": self._lives,
            "starts": self._starts,
            "scenes": self._scenes,
        }

    def _rows(self, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """Return copies of what a state has beside the rollout and the conditioners."""
        return {
            **{name: torch.from_numpy(own.copy()) for name, own in self._counts().items()},
            "rng": torch.from_numpy(np.stack([pack_rng(rng) for rng in rngs])),
            **pack_conditions(self._conditions, self.engine.spec.config.conditions),
        }

    def _load_conditioners_and_rollout(self, tensors: Mapping[str, Tensor]) -> None:
        """Let both go on from a state, or neither; ValueError as `load_state`."""
        given = [(name, tensor.cpu().numpy()) for name, tensor in below(tensors, _CONDITIONER)]
        old = [conditioner.state() for conditioner in self._conditioners if self.has_begun]
        try:
            for row, conditioner in enumerate(self._conditioners):
                load_conditioner(conditioner, {name: rows[row] for name, rows in given})
            self._rollout.load_state(dict(below(tensors, _ROLLOUT)))
        except ValueError:
            for conditioner, state in zip(self._conditioners, old, strict=False):
                conditioner.load_state(state)
            raise

    def reseed(self, seeds: Sequence[int]) -> None:
        """Let each game's noise follow from a seed of its own from now on."""
        self._rollout.reseed(seeds)

    def _condition(self, row: int, action: int) -> StepConditions:
        """Advance a game's conditioner, under live voices if there are some."""
        conditioner = self._conditioners[row]
        if self._voices and isinstance(conditioner, SpeakingConditioner):
            own, other = self._voices[row]
            return conditioner.step(action, own_voice=own, other_voice=other)
        return conditioner.step(action)

    def _seen(self) -> np.ndarray | dict[str, np.ndarray]:
        """Return what all games show, (B, ...); not to be changed."""
        space = self.observation_space
        if isinstance(space, spaces.Dict):
            vectors = {name: self._vectors(name) for name in space.spaces if name != "pixels"}
            return {"pixels": self.frames(), **vectors}
        if space.dtype == np.uint8:
            return self.frames()
        latents = self._rollout.latents.numpy()
        for row, last in self._last.items():
            latents[row] = last.latents
        return latents.clip(-LATENT_LIMIT, LATENT_LIMIT)

    def _vectors(self, name: str) -> np.ndarray:
        """Return the present pose or audio of all games, cut to its space; zeros if absent."""
        assert isinstance(self.observation_space, spaces.Dict)
        space = self.observation_space[name]
        assert isinstance(space, spaces.Box)
        absent = np.zeros(space.shape, np.float32)
        given = [getattr(conditions, name) for conditions in self._conditions]
        rows = np.stack([absent if row is None else row for row in given])
        return np.clip(rows, space.low, space.high)

    def _with_own(self, given: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return the options of a reset, with what all episodes have that say nothing else."""
        own: dict[str, Any] = {}
        if self.options.prompt is not None:
            own["prompt"] = self.options.prompt
        starts = self.options.start_states
        if isinstance(starts, list | tuple):
            starts = starts[int(rng.integers(len(starts)))]
        if starts is not None:
            own["start_state"] = starts
        return own | dict(given)

    def _choose_start(
        self,
        option: Mapping[str, Any],
        rng: np.random.Generator,
        encoded: dict[int, tuple[int, StartState]],
    ) -> tuple[int, StartState]:
        """Return a game's start state; frames that several games share are encoded once."""
        check_names("reset option", option, OPTIONS)
        wanted = option.get("start_state")
        if id(wanted) in encoded:
            return encoded[id(wanted)]
        chosen = choose_start(wanted, self.world.start_states, rng=rng, engine=self.engine)
        if isinstance(wanted, Mapping):
            encoded[id(wanted)] = chosen
        return chosen

    def _begin(
        self, row: int, start: StartState, rng: np.random.Generator, prompt: str | None
    ) -> None:
        """Let a game's conditioner begin where a start state ends."""
        conditioner = self._conditioners[row]
        conditions = conditioner.reset(rng=rng, description=start.description)
        if start.conditioner_state:
            load_conditioner(conditioner, start.conditioner_state)
            conditions = start.conditions[-1]
        if prompt is not None:
            self.set_prompt(prompt, [row])
        self._conditions[row] = replace(conditions)
        self._actions[row] = None if isinstance(self.action_space, spaces.Dict) else 0
        for told in self._told.values():
            told[row] = 0.0
        self._last.pop(row, None)
        self._lives[row] = self.world.config.world.lives

    def _scene_for(self, row: int, prompt: str | None, *, present: int) -> int:
        """Return the start state of the scene that a prompt speaks of; else the present one."""
        starts = self.world.start_states
        if not isinstance(prompt, str) or present < 0:
            return present
        wanted = self._conditioners[row].describe(prompt, starts[present].description)
        return find_scene(wanted, starts, present=present)

    def _cut(self, row: int, prompt: str | None) -> None:
        """Let a game go on in the scene that a prompt speaks of, where the world wants it so.

        Pose and voices go on: what the conditioner says follows from actions and words alone, so
        that a teacher under the same ones stays beside the world.
        """
        if not self.world.config.world.prompt_scenes:
            return
        index = self._scene_for(row, prompt, present=int(self._scenes[row]))
        if index == self._scenes[row]:
            return
        self._scenes[row] = index
        self._rollout.replace_context([self.world.start_states[index]], rows=[row])
        self._undecoded[row] = True
