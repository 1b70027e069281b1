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

from engine import Engine, make_engine
from engine.rollout import Rollout
from engine.shared import shared_engine, shared_world
from envs.recording.header import weights_hash
from envs.world.conditioners import (
    SpeakingConditioner,
    load_conditioner,
    make_conditioner,
)
from envs.world.spaces import LATENT_LIMIT, action_space, key_names, observation_space, read_action
from envs.world.starts import check_names, choose_start, find_scene
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

DEFAULT_HORIZON = 1000
REWARD_THRESHOLD = 0.5
COST_THRESHOLD = 0.5
TERMINATION_THRESHOLD = 0.5
OPTIONS = ("prompt", "start_state")

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


class Games:
    """B games of one world; each has its own start state, conditioner, noise and clock.

    Args:
        world: A shipped world's name, a folder, or a loaded world.
        num_games: B.
        observation: "pixels", "latent" or "dict".
        action: "discrete", "keys" or "conditions".
        horizon: Steps after which a game is truncated.
        backend: What runs the networks.
        num_denoise_steps: Quality against speed; None takes the world's.
        reward_threshold: Expected rewards of at most this size are paid as 0.
        infos: "all" or "numeric", which leaves out words.
        weights_sha256: What the world's weights must have, if it matters.
        engine: A running engine of this world, instead of the one that all games of a world that
            is given by its name share.
        trust: Whether modules that the world's config names may be imported.

    Attributes:
        world: As loaded.
        engine: What runs it.
        horizon: As given.
        reward_threshold: As given.
        observation_space: Of one game.
        action_space: Of one game.
        keys: Names of the keys, in the order in which action="keys" holds them.
        over: (B,) bool: games that have ended, or have not begun.

    Raises:
        ValueError: An argument cannot be used; the message says why.
    """

    def __init__(
        self,
        world: str | Path | World,
        *,
        num_games: int,
        observation: str,
        action: str,
        horizon: int,
        backend: str,
        num_denoise_steps: int | None,
        reward_threshold: float,
        infos: str,
        weights_sha256: str | None,
        engine: Engine | None,
        trust: bool = False,
    ) -> None:
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        if not reward_threshold >= 0:
            raise ValueError(f"reward_threshold must be at least 0, got {reward_threshold}")
        is_named = not isinstance(world, World)
        self.world = shared_world(world, trust=trust) if is_named else world
        found = weights_sha256 and weights_hash(self.world.folder)
        if found != weights_sha256:
            raise ValueError(
                f"the world {self.world.folder.name} here is not the one that is asked for: its "
                f"weights have the SHA-256 {found}, not {weights_sha256}"
            )
        # First of all, for what they name may be refused.
        self._conditioners = [make_conditioner(self.world) for _ in range(num_games)]
        if engine is None and is_named:
            engine = shared_engine(world, self.world, backend, num_denoise_steps=num_denoise_steps)
        elif engine is None:
            engine = make_engine(self.world, backend, num_denoise_steps=num_denoise_steps)
        self.engine = engine
        self.horizon = horizon
        self.reward_threshold = reward_threshold
        check_names("infos", [infos], ("all", "numeric"))
        self._has_words = infos == "all"
        keymap = self.world.keymap
        self.observation_space = observation_space(observation, engine.spec)
        self.action_space = action_space(action, engine.spec, keymap)
        self.keys = key_names(keymap)
        self.over = np.ones(num_games, bool)
        self._rollout = Rollout(engine, num_games)
        self._conditions = [StepConditions()] * num_games
        self._actions: list[int | None] = [None] * num_games
        self._voices: list[tuple[np.ndarray | None, np.ndarray | None]] = []
        self._termination = np.zeros(num_games)
        self._cost = np.zeros(num_games)
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
        for row, rng, option in zip(rows, rngs, options, strict=True):
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
        for row, meant in enumerate(read):
            is_index = isinstance(meant, int)
            self._actions[row] = meant if is_index else None
            if is_index:
                self._conditions[row] = self._condition(row, meant)
            else:
                self._conditions[row] = meant or StepConditions()
        self._voices = []
        made = self._rollout.step(self._conditions)
        self._undecoded[:] = True
        self._termination[:] = made.termination_probability
        is_hit = (made.cost > COST_THRESHOLD) & ~self.over
        self._cost[:] = is_hit
        rewards = made.reward.astype(np.float64)
        rewards[np.abs(rewards) <= self.reward_threshold] = 0.0
        terminated = self._termination > TERMINATION_THRESHOLD
        if self.world.config.world.lives:
            self._lives -= is_hit
            terminated |= self._lives == 0
        truncated = self._rollout.num_steps >= self.horizon
        rewards[self.over], terminated[self.over], truncated[self.over] = 0.0, False, False
        self.over |= terminated | truncated
        return Outcome(rewards=rewards, terminated=terminated, truncated=truncated)

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
        return self._frames

    def info(self, row: int) -> dict[str, Any]:
        """Return what there is to know about a game's present frame."""
        info: dict[str, Any] = {
            "step": int(self._rollout.num_steps[row]),
            "start_state": int(self._starts[row]),
            "cost": float(self._cost[row]),
            "termination_probability": float(self._termination[row]),
        }
        if self.world.config.world.lives:
            info["lives"] = int(self._lives[row])
        if (action := self._actions[row]) is not None:
            if self._has_words:
                info["action_name"] = self.world.keymap.actions[action]
            conditioner = self._conditioners[row]
            if isinstance(conditioner, SpeakingConditioner):
                info["spoken"] = conditioner.spoken
        conditions = self._conditions[row]
        if conditions.text is not None and self._has_words:
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
        self._termination[:] = self._cost[:] = 0.0
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
        return self._rollout.latents.clamp_(-LATENT_LIMIT, LATENT_LIMIT).numpy()

    def _vectors(self, name: str) -> np.ndarray:
        """Return the present pose or audio of all games, cut to its space; zeros if absent."""
        assert isinstance(self.observation_space, spaces.Dict)
        space = self.observation_space[name]
        assert isinstance(space, spaces.Box)
        absent = np.zeros(space.shape, np.float32)
        given = [getattr(conditions, name) for conditions in self._conditions]
        rows = np.stack([absent if row is None else row for row in given])
        return np.clip(rows, space.low, space.high)

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
        self._termination[row] = self._cost[row] = 0.0
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
