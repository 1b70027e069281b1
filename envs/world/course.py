"""What changes while B games of a world are played, beside their networks: also as a value.

Games (games.py) move it on; here it is copied out and in.

Shapes: B games.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from engine.rollout import Rollout
from engine.spec import Engine
from envs.world.conditioners import Conditioner, load_conditioner
from envs.world.state import (
    WorldState,
    below,
    fingerprint,
    pack_conditions,
    pack_rng,
    rows_like,
    unpack_conditions,
    unpack_rng,
)
from midas_world.types import StepConditions
from midas_world.world import World

_TOLD = (
    "cost",
    "expected_reward",
    "reward_probability",
    "hit_probability",
    "termination_probability",
)
_ROLLOUT = "rollout."
_CONDITIONER = "conditioner."


class Course:
    """Where B games are.

    Attributes:
        rollout: Cache, latents and noise.
        conditions: Of each game's present frame.
        actions: That led to it; None where none did.
        told: Of the last step, (B,) each: what infos tell.
        over: (B,) bool: games that have ended, or have not begun.
        starts: (B,) start state where each episode began; -1 is none of the world's.
        scenes: (B,) start state that each game goes on from.
        goals: (B,) px: of the task "goal"; states of before goals had words leave them as they are.
    """

    def __init__(self, world: World, engine: Engine, conditioners: Sequence[Conditioner]) -> None:
        num_games = len(conditioners)
        self._world, self._fingerprint = world, ""
        self._sizes = engine.spec.config.conditions
        self.conditioners = conditioners
        self.rollout = Rollout(engine, num_games)
        self.conditions = [StepConditions()] * num_games
        self.actions: list[int | None] = [None] * num_games
        self.told = {name: np.zeros(num_games) for name in _TOLD}
        self.over = np.ones(num_games, bool)
        self.starts = np.full(num_games, -1)
        self.scenes = np.full(num_games, -1)
        self.goals = np.zeros(num_games)

    @property
    def has_begun(self) -> bool:
        """Whether there is a frame of every game."""
        return bool(self.rollout.started.all())

    def forget_told(self, rows: Sequence[int] | slice = slice(None)) -> None:
        """Let the last step of some games, or of all, have told nothing."""
        for told in self.told.values():
            told[rows] = 0.0

    def state(self, rngs: Sequence[np.random.Generator]) -> WorldState:
        """Return a copy of all that changes, with the streams that resets draw from."""
        assert self.has_begun
        tensors = {_ROLLOUT + name: value for name, value in self.rollout.state().items()}
        states = [conditioner.state() for conditioner in self.conditioners]
        for name in states[0]:
            rows = np.stack([state[name] for state in states])
            tensors[_CONDITIONER + name] = torch.from_numpy(rows)
        tensors |= self._rows(rngs)
        self._fingerprint = self._fingerprint or fingerprint(self._world)
        return WorldState(tensors=tensors, world=self._fingerprint)

    def load_state(self, state: WorldState, rngs: Sequence[np.random.Generator]) -> None:
        """Go on exactly from a state of B games, or of one, from which then all go on.

        Raises:
            ValueError: The state is of another world, engine or number of games, or damaged;
                nothing was changed.
        """
        num_games = len(self.over)
        self._fingerprint = self._fingerprint or fingerprint(self._world)
        if state.world != self._fingerprint:
            raise ValueError("the state is of another world than this environment's")
        if state.num_games == 1:
            state = state.select([0] * num_games)
        if state.num_games != num_games:
            raise ValueError(
                f"the state must be of 1 or {num_games} games, got {state.num_games}: pick some "
                "with its select()"
            )
        tensors = {"goals": torch.from_numpy(self.goals.copy()), **state.tensors}
        rows = rows_like(tensors, self._rows(rngs))
        streams = [unpack_rng(words) for words in rows["rng"].numpy()]
        for name in ("starts", "scenes"):
            if not all(-1 <= index < len(self._world.start_states) for index in rows[name]):
                raise ValueError(f"{name} of the state are none of this world's")
        self._load_conditioners_and_rollout(tensors)
        for name, own in self._counts().items():
            own[:] = rows[name].numpy()
        for rng, stream in zip(rngs, streams, strict=True):
            rng.bit_generator.state = stream
        self.conditions = unpack_conditions(rows)
        self.actions = [None] * num_games
        self.forget_told()

    def _counts(self) -> dict[str, np.ndarray]:
        """Return this object's own arrays of what is kept of each game."""
        return {name: getattr(self, name) for name in ("over", "starts", "scenes", "goals")}

    def _rows(self, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """Return copies of what a state has beside the rollout and the conditioners."""
        return {
            **{name: torch.from_numpy(own.copy()) for name, own in self._counts().items()},
            "rng": torch.from_numpy(np.stack([pack_rng(rng) for rng in rngs])),
            **pack_conditions(self.conditions, self._sizes),
        }

    def _load_conditioners_and_rollout(self, tensors: Mapping[str, Tensor]) -> None:
        """Let both go on from a state, or neither; ValueError as `load_state`."""
        given = [(name, tensor.cpu().numpy()) for name, tensor in below(tensors, _CONDITIONER)]
        old = [conditioner.state() for conditioner in self.conditioners if self.has_begun]
        try:
            for row, conditioner in enumerate(self.conditioners):
                load_conditioner(conditioner, {name: rows[row] for name, rows in given})
            self.rollout.load_state(dict(below(tensors, _ROLLOUT)))
        except ValueError:
            for conditioner, state in zip(self.conditioners, old, strict=False):
                conditioner.load_state(state)
            raise
