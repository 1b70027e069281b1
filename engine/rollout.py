"""Rollouts: play B games in step on an engine.

Holds all that changes while a world is played (cache, last latents, what is known of things, a
random generator per game, step counters) and nothing else; conditions come from above. A game's
chance depends on its seed and its course only, so a game of a batch is the game alone, up to the
rounding of another batch size. What the caller has set in torch changes nothing; games of several
threads may share an engine.

Shapes: B games, R rows of them, F frames, N tokens per frame, C their channels, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.spec import Engine
from midas_world.model.conditions import Conditions
from midas_world.model.diffusion import sample_noise
from midas_world.model.entry_book import EntryBook
from midas_world.plain_torch import plain_torch
from midas_world.types import StepConditions
from midas_world.world import StartState

_CACHE_PREFIX = "cache."
_BOOK_PREFIX = "book."
# Entries of a state that belong to all games together.
SHARED_PREFIX = "shared."


@dataclass(frozen=True, kw_only=True)
class RolloutStep:
    """What one step brought.

    Attributes:
        reward: (B,) float32 expected rewards.
        cost: (B,) float32 probability of a hit.
        termination_probability: (B,) float32.
    """

    reward: np.ndarray
    cost: np.ndarray
    termination_probability: np.ndarray


class Rollout:
    """B games of one world.

    Attributes:
        engine: As given.
        batch_size: As given.
        num_steps: (B,) int64 steps since each game's reset.
        started: (B,) bool: games that were ever reset.
    """

    @plain_torch()
    def __init__(self, engine: Engine, batch_size: int = 1) -> None:
        self.engine = engine
        self.batch_size = batch_size
        self.num_steps = np.zeros(batch_size, np.int64)
        self._cache = engine.new_cache(batch_size)
        self._latents = torch.zeros(batch_size, *engine.spec.latent_shape)
        self._noise = torch.zeros(batch_size, *engine.spec.latent_shape)
        self._book = EntryBook(engine.spec.config, batch_size)
        self._generators = [torch.Generator() for _ in range(batch_size)]
        self.started = np.zeros(batch_size, bool)
        self._layout: dict[str, tuple[int | None, Tensor]] = {}

    @property
    @plain_torch()
    def latents(self) -> Tensor:
        """A copy of the last frames' latents, (B, N, C) float32."""
        return self._latents.clone()

    @plain_torch()
    def reset(
        self,
        start_states: Sequence[StartState],
        *,
        seeds: Sequence[int],
        rows: Sequence[int] | None = None,
        things: Sequence[bool] | None = None,
    ) -> None:
        """Begin games anew; the other games go on untouched.

        Args:
            start_states: One per game; its last frame becomes the game's first.
            seeds: One per game, of its chance.
            rows: Which games; None is all of them.
            things: Whether each has the things that codes stand for; None: all have.

        Raises:
            ValueError: The counts differ, a row does not exist or comes twice, or latents have
                another shape than the world's.
        """
        rows = range(self.batch_size) if rows is None else rows
        if len(seeds) != len(start_states):
            raise ValueError(
                f"there must be one seed per start state ({len(start_states)}), got {len(seeds)}"
            )
        self._check_rows(rows, start_states)
        self._book.shows_things[list(rows)] = True if things is None else things
        self.replace_context(start_states, rows=rows)
        self._book.refill(rows)
        for row, seed in zip(rows, seeds, strict=True):
            self._generators[row].manual_seed(seed)
            self.num_steps[row] = 0
            self.started[row] = True

    @plain_torch()
    def replace_context(self, start_states: Sequence[StartState], *, rows: Sequence[int]) -> None:
        """Let games go on from start states: a cut; their clocks and their chance go on.

        Raises:
            ValueError: As `reset`.
        """
        self._check_rows(rows, start_states)
        if len(rows) == self.batch_size:
            # From here on positions count from zero again, so that equal games are bit-equal.
            self._cache.reset()
        by_length: dict[int, list[int]] = {}
        for place, start in enumerate(start_states):
            by_length.setdefault(len(start.latents), []).append(place)
        for places in by_length.values():
            self._prefill([start_states[place] for place in places], [rows[p] for p in places])
        last = [start.conditions[-1] for start in start_states]
        latents = torch.stack([start.latents[-1] for start in start_states]).float()
        self._latents[list(rows)] = latents
        things = [start.things for start in start_states]
        self._book.begin(rows, self._cameras(last, np.zeros(len(rows))), things)

    @plain_torch()
    def step(self, conditions: Sequence[StepConditions]) -> RolloutStep:
        """Make the next frame of every game from the conditions of that frame, one per game.

        Raises:
            ValueError: The count differs from B, or a game was never reset.
        """
        if len(conditions) != self.batch_size:
            raise ValueError(
                f"conditions must be one per game ({self.batch_size}), got {len(conditions)}"
            )
        if not self.started.all():
            row = int(np.argmin(self.started))
            raise ValueError(f"game {row} has no start state yet: call reset first")
        config = self.engine.spec.config
        if config.head.temperature > 0:
            for noise, generator in zip(self._noise, self._generators, strict=True):
                sample_noise(noise.shape, config.head, generator, out=noise)
        cameras = self._cameras(conditions, self._book.loop_camera)
        told = self._book.advance(cameras, self.chance)
        stacked = replace(
            self.engine.spec.stack(conditions),
            entries=torch.from_numpy(told)[:, None],
            tally=torch.from_numpy(self._book.tally())[:, None],
        )
        made = self.engine.step(self._cache, self._latents, stacked, self._noise)
        self._book.observe(made.entries.numpy(), made.gone.numpy())
        self._latents.copy_(made.latents)
        self.num_steps += 1
        return RolloutStep(
            reward=made.reward.numpy(),
            cost=made.cost.numpy(),
            termination_probability=made.termination.numpy(),
        )

    @property
    def lives(self) -> np.ndarray:
        """(B,) int64 that each game has left, where the world counts any; not to be changed."""
        return self._book.lives

    def things(self, row: int) -> np.ndarray:
        """Return what a game knows to be near, (O, 2): class, and px from the picture's middle."""
        codes = self._book.codes[row]
        return codes[codes[:, 0] >= 0] - (0.0, self._book.camera[row])

    def hit(self, hits: np.ndarray) -> None:
        """Let hits of the last step count, (B,) bool: each takes a life, and shows from now on."""
        self._book.hit(hits)

    @plain_torch()
    def frames(self, rows: Sequence[int] | None = None) -> np.ndarray:
        """Return the present frames as a new array, uint8 (B, H, W, 3)."""
        return self.engine.decode(self._latents if rows is None else self._latents[list(rows)])

    @plain_torch()
    def state(self) -> dict[str, Tensor]:
        """Return a copy of all that changes: equal states and conditions give equal frames.

        Entries are (B, ...), one row per game, but for those whose names begin with SHARED_PREFIX.
        """
        state = {
            "latents": self._latents.clone(),
            "num_steps": torch.from_numpy(self.num_steps.copy()),
            "started": torch.from_numpy(self.started.copy()),
            "generators": torch.stack([item.get_state() for item in self._generators]),
        }
        state |= {_BOOK_PREFIX + k: torch.from_numpy(v) for k, v in self._book.state().items()}
        cache = self._cache.state()
        for name, (dim, _) in self._cache_layout().items():
            if dim is None:
                state[SHARED_PREFIX + name] = cache[name]
            else:
                state[_CACHE_PREFIX + name] = cache[name].movedim(dim, 0)
        return state

    @plain_torch()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on exactly from what `state` gave, on the same world and backend.

        Raises:
            ValueError: The state is of another world, engine, batch size or version; nothing was
                changed.
        """
        cache: dict[str, Tensor] = {}
        try:
            check_alike("latents", state["latents"], self._latents)
            for name, (dim, own) in self._cache_layout().items():
                if dim is None:
                    cache[name] = state[SHARED_PREFIX + name]
                else:
                    cache[name] = state[_CACHE_PREFIX + name].movedim(0, dim)
                check_alike(name, cache[name], own)
            book = {name: state[_BOOK_PREFIX + name] for name in self._book.state()}
            for name, own in self._book.state().items():
                check_alike(name, book[name], torch.from_numpy(own))
            self._book.check_codes(book["codes"].numpy())
            num_steps, started = state["num_steps"].numpy(), state["started"].numpy()
            generators = [row.clone() for row in state["generators"]]
        except KeyError as error:
            raise ValueError(f"the state lacks {error}") from error
        if not len(num_steps) == len(started) == len(generators) == self.batch_size:
            raise ValueError(f"every entry of the state must be of {self.batch_size} games")
        try:
            for generator in generators:
                torch.Generator().set_state(generator)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"generators of the state cannot be used: {error}") from error
        self._cache.load_state(cache)
        self._book.load_state({name: tensor.numpy() for name, tensor in book.items()})
        self._latents.copy_(state["latents"])
        self.num_steps[:] = num_steps
        self.started[:] = started
        for generator, own in zip(self._generators, generators, strict=True):
            generator.set_state(own)

    def reseed(self, seeds: Sequence[int]) -> None:
        """Let the chance of every game, from the next step on, follow from a seed of its own."""
        for generator, seed in zip(self._generators, seeds, strict=True):
            generator.manual_seed(seed)

    def chance(self, row: int) -> float:
        """Return a number in [0, 1) of a game's own chance, which goes on by it."""
        return float(torch.rand(1, generator=self._generators[row], dtype=torch.float32))

    def _cameras(self, conditions: Sequence[StepConditions], otherwise: np.ndarray) -> np.ndarray:
        """Return the cameras' places within their loop, (R,) px; `otherwise` without a pose."""
        camera = self.engine.spec.config.conditions.camera
        cameras = otherwise.copy()
        for place, given in enumerate(conditions):
            if camera.is_declared and given.pose is not None:
                cameras[place] = float(given.pose[camera.index]) * camera.loop
        return cameras

    def _cache_layout(self) -> dict[str, tuple[int | None, Tensor]]:
        """Return, for each entry of the cache, which dimension counts games, and its likeness.

        Only the engine knows its cache; but games are what another number of games changes.
        """
        if not self._layout:
            one, two = (self.engine.new_cache(batch_size).state() for batch_size in (1, 2))
            for name, tensor in one.items():
                dim, shape = _differing_dim(tensor, two[name]), list(tensor.shape)
                if dim is not None:
                    shape[dim] = self.batch_size
                self._layout[name] = dim, tensor.new_empty(shape, device="meta")
        return self._layout

    def _prefill(self, start_states: Sequence[StartState], rows: Sequence[int]) -> None:
        """Let the cache hold what came before the last frame of start states of one length."""
        spec = self.engine.spec
        # The present frame takes one place of the context: older ones could not be seen.
        kept = min(len(start_states[0].latents), spec.config.backbone.context_frames)
        context = torch.stack([start.latents[-kept:-1] for start in start_states]).float()
        # Frame t's conditions go with the latents of frame t - 1.
        per_frame = [
            spec.stack([start.conditions[frame] for start in start_states])
            for frame in range(-kept + 1, 0)
        ]
        if per_frame:
            conditions = Conditions.join(per_frame)
        else:
            conditions = spec.stack([StepConditions()] * len(start_states)).frames(0, 0)
        self.engine.prefill(self._cache, context, conditions, rows=rows)

    def _check_rows(self, rows: Sequence[int], start_states: Sequence[StartState]) -> None:
        if len(rows) != len(start_states):
            raise ValueError(
                f"there must be one start state per game ({len(rows)}), got {len(start_states)}"
            )
        if len(set(rows)) != len(rows) or not set(rows) <= set(range(self.batch_size)):
            raise ValueError(
                f"rows must be different games of 0 to {self.batch_size - 1}, got {list(rows)}"
            )
        for start in start_states:
            if tuple(start.latents.shape[1:]) != self.engine.spec.latent_shape:
                raise ValueError(
                    f"start states must have latents of shape (F, *{self.engine.spec.latent_shape})"
                    f", got {tuple(start.latents.shape)}"
                )


def _differing_dim(tensor: Tensor, other: Tensor) -> int | None:
    """Return the dimension in which two tensors differ in size; None if in none."""
    differing = [dim for dim, size in enumerate(tensor.shape) if size != other.shape[dim]]
    assert len(differing) < 2, "a cache must count games in one dimension"
    return differing[0] if differing else None


def check_alike(name: str, given: Tensor, own: Tensor) -> None:
    """Raise ValueError for an entry of a state that is of another shape or type than it must be."""
    if given.shape != own.shape or given.dtype != own.dtype:
        raise ValueError(
            f"{name} must have shape {tuple(own.shape)} and be {own.dtype}, "
            f"got {tuple(given.shape)} and {given.dtype}"
        )
