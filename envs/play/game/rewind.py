"""The last minute of a game in bounded memory: run backwards through it, and play on from there.

Of every step the shown frame is kept, as JPEG, and of every n-th the environment's whole state, of
which n follows from the state's size. To play on between two states, the few steps since the
earlier one are played again, which gives the same frames bit for bit. Knows no keys and no clock.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from envs.picture import pack_frame, unpack_frame
from envs.play.game.film import Film
from envs.play.game.game import Game
from envs.play.game.moments import Snapshot, View

DEFAULT_SECONDS = 60.0
DEFAULT_BUDGET_BYTES = 256 * 2**20

# So many steps at most are played again when the player lets go: half a second.
_MAX_GAP_STEPS = 20
_NO_FRAME = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One shown moment."""

    snapshot: Snapshot
    packed: bytes
    is_jump: bool
    num_bytes: int

    @property
    def view(self) -> View:
        return replace(self.snapshot.view, frame=unpack_frame(self.packed))


class Rewind:
    """What was shown lately, in the order in which it was shown.

    Attributes:
        num_bytes: Memory taken by frames and states.
        steps_per_state: A whole state is kept every so many steps; 0 before the first one.
    """

    def __init__(self, num_steps: int, *, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        self.num_bytes = 0
        self.steps_per_state = 0
        self._capacity = num_steps + 1
        self._budget_bytes = budget_bytes
        self._entries: deque[_Entry] = deque()
        self._since_state = 0
        self._place = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_before(self) -> int:
        """How many moments lie before the one that is shown."""
        return self._place

    def add(self, game: Game, view: View, *, is_jump: bool = False) -> None:
        """Keep the present moment of a game, of which `view` is what is to be seen."""
        self._since_state += 1
        wants_state = is_jump or not self._entries or self._since_state >= self.steps_per_state
        snapshot = game.snapshot(replace(view, frame=_NO_FRAME), with_state=wants_state)
        packed = pack_frame(view.frame)
        num_bytes = len(packed) + (0 if view.sound is None else view.sound.nbytes)
        if snapshot.state is not None:
            state_bytes = _num_bytes(snapshot.state)
            num_bytes += state_bytes
            self._since_state = 0
            if not self.steps_per_state:
                self.steps_per_state = self._choose_gap(state_bytes, len(packed))
        self._entries.append(
            _Entry(snapshot=snapshot, packed=packed, is_jump=is_jump, num_bytes=num_bytes)
        )
        self.num_bytes += num_bytes
        self._place = len(self._entries) - 1
        self._shrink(needs_states=game.saves_states)

    def back(self) -> View | None:
        """Go one moment back and return what was to be seen; None if there is none before."""
        if self._place == 0:
            return None
        self._place -= 1
        return self._entries[self._place].view

    def film(self, num_steps: int | None = None, *, fps: float) -> Film:
        """Return the last moments up to the present one; None: all of the present episode."""
        entries = list(self._entries)[: self._place + 1]
        begins = [place for place, entry in enumerate(entries) if entry.is_jump]
        shown = entries[-num_steps if num_steps else begins[-1] if begins else 0 :]
        return Film(
            num_frames=len(shown),
            fps=fps,
            view=lambda number: shown[number].view,
            beginnings=[number for number, entry in enumerate(shown) if entry.is_jump],
        )

    def resume(
        self, game: Game, *, on_step: Callable[[int, int], object] = lambda *_: None
    ) -> View:
        """Let a game go on from the moment that `back` has come to, and forget what came later.

        Raises:
            ValueError: Nothing was ever added.
        """
        if not self._entries:
            raise ValueError("there is no moment to go on from: add one first")
        while len(self._entries) > self._place + 1:
            self.num_bytes -= self._entries.pop().num_bytes
        place = self._place
        while self._entries[place].snapshot.state is None and not self._entries[place].is_jump:
            if place == 0:
                break
            place -= 1
        base = self._entries[place].snapshot
        self._since_state = self._place - place
        goal = replace(self._entries[self._place].snapshot, view=self._entries[self._place].view)
        return game.restore(goal, base=base, on_step=on_step)

    def _choose_gap(self, state_bytes: int, frame_bytes: int) -> int:
        """Return the least distance between states at which all wanted steps fit the budget."""
        left = self._budget_bytes - self._capacity * frame_bytes
        gap = math.ceil(state_bytes * self._capacity / left) if left > 0 else _MAX_GAP_STEPS
        return min(max(gap, 1), _MAX_GAP_STEPS)

    def _shrink(self, *, needs_states: bool) -> None:
        """Forget the oldest moments until the rest fits; the first one kept can be gone on from."""
        entries = self._entries
        while len(entries) > 1 and (
            len(entries) > self._capacity
            or self.num_bytes > self._budget_bytes
            or (needs_states and entries[0].snapshot.state is None)
        ):
            self.num_bytes -= entries.popleft().num_bytes
            self._place -= 1


def _num_bytes(state: Any) -> int:
    """Return what a state takes: arrays by name, or an object with such `tensors`."""
    arrays = getattr(state, "tensors", state)
    return sum(array.nbytes for array in arrays.values())
