"""The teacher beside the world: it plays the same actions from the same moment, in its own thread.

The thread follows what the game reports; the window looks at `pair`, a frame of the world and the
teacher's of the same step. Neither waits for the other. Draws nothing on a window, knows no keys.
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import gymnasium as gym
import numpy as np

from envs.picture import pack_frame, unpack_frame
from envs.play.game.game import Game
from envs.play.game.moments import Branch, Snapshot, View
from envs.play.game.playable import TeacherLink
from envs.stage.twin import StageTwin
from midas_world.psnr import psnr as psnr_of_frames
from midas_world.sessions.log import UNHEARD, Turn
from midas_world.teachers.env import fit_frame

TRACE_STEPS = 200

_PAST_STEPS = 2000
_TELL_EVERY = 20
_MAX_PSNR = 60.0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The world and its teacher at the same step.

    Attributes:
        teacher_frame: uint8, of the world's frame's shape.
        psnr: Of the world's frame against the teacher's, in dB; at most 60, NaN if not measured.
        trace: (num_steps, psnr) of the last steps up to this one, oldest first.
    """

    view: View
    teacher_frame: np.ndarray
    psnr: float
    trace: tuple[tuple[int, float], ...]


class Twin(StageTwin):
    """A teacher that is taken along a branch of a world, step by step."""

    def __init__(self, env: gym.Env[np.ndarray, np.int64]) -> None:
        super().__init__(env)
        self.num_steps = 0
        self._branch: Branch | None = None
        self._num_prompts = 0

    def is_on(self, branch: Branch, num_steps: int) -> bool:
        """Return whether so many steps of a branch can be reached by going on."""
        return (
            self.num_steps <= num_steps
            and self.shares(branch, self.num_steps)
            and all(after >= self.num_steps for after, _ in branch.prompts[self._num_prompts :])
        )

    def shares(self, branch: Branch, num_steps: int) -> bool:
        """Return whether a branch begins with the same steps as the one taken last."""
        mine, prompts = self._branch, slice(self._num_prompts)
        if mine is None or mine is branch:
            return mine is branch
        return (
            mine.teacher_start is branch.teacher_start
            and mine.actions[:num_steps] == branch.actions[:num_steps]
            and mine.prompts[prompts] == branch.prompts[prompts]
            and _voices(mine, num_steps) == _voices(branch, num_steps)
        )

    def begin(self, moment: Snapshot) -> None:
        """Go to a moment whose state is the conditioner's."""
        branch = self._branch = moment.branch
        self.num_steps, self._num_prompts = moment.num_steps, moment.num_prompts
        prompt = branch.prompt_after(moment.num_prompts)
        self.put(moment.state, seed=branch.seed, prompt=prompt)

    def step(self, branch: Branch) -> None:
        """Play the next step of a branch."""
        self._branch = branch
        step, later = self.num_steps, branch.prompts[self._num_prompts :]
        words = [text for after, text in later if after <= step]
        self.play(Turn(words, branch.voices.get(step, UNHEARD), branch.actions[step]))
        self._num_prompts += len(words)
        self.num_steps += 1


class Comparison:
    """A teacher that follows a game, in a thread of its own.

    Attributes:
        pair: The newest; None until the teacher has caught up for the first time.
        num_behind: Steps that the teacher still has to play to come to the newest.
        error: What ended the thread; None if all is well.
    """

    def __init__(
        self, teacher: TeacherLink, *, notify: Callable[[], object] = lambda: None
    ) -> None:
        self.pair: Pair | None = None
        self.num_behind = 0
        self.error: Exception | None = None
        self._teacher = teacher
        self._notify = notify
        self._goal: tuple[Branch, View] | None = None
        self._origin: Snapshot | None = None
        self._changed = threading.Condition()
        self._is_closing = False
        self._trace: deque[tuple[int, float]] = deque(maxlen=_PAST_STEPS)
        self._past: dict[int, bytes] = {}
        self._thread = threading.Thread(target=self._run, name="teacher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def begin(self, game: Game, view: View) -> None:
        """Put the teacher where a game is now, unless it can go on to there from where it is."""
        moment = replace(game.snapshot(view, with_state=False), state=self._teacher.start())
        with self._changed:
            self._origin = moment
        self.follow(game.branch, view)

    def follow(self, branch: Branch, view: View) -> None:
        """Bring the teacher to a moment after the last `begin`; the last call counts."""
        with self._changed:
            self._goal = (branch, view)
            self._changed.notify()

    def show_past(self, view: View) -> None:
        """Show what the teacher drew at an earlier step of its branch, if it is still known."""
        with self._changed:
            self._goal = None
            packed = self._past.get(view.num_steps)
            past = [item for item in self._trace if item[0] <= view.num_steps]
        if packed is not None:
            is_measured = bool(past) and past[-1][0] == view.num_steps
            self.pair = Pair(
                view=view,
                teacher_frame=unpack_frame(packed),
                psnr=past[-1][1] if is_measured else float("nan"),
                trace=tuple(past[-TRACE_STEPS:]),
            )

    def close(self) -> None:
        """Stop the thread; may be called twice."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        try:
            env = self._teacher.make()
            try:
                self._follow(Twin(env))
            finally:
                env.close()
        # The thread's edge: whatever it was, the window must hear of it.
        except Exception as error:
            self.error = error
            self._notify()

    def _follow(self, twin: Twin) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._goal is not None or self._is_closing)
                if self._is_closing:
                    return
                assert self._goal is not None
                (branch, view), origin = self._goal, self._origin
                self._goal = None
            assert origin is not None, "begin() comes first"
            self._go(twin, branch, view, origin)

    def _go(self, twin: Twin, branch: Branch, view: View, origin: Snapshot) -> None:
        """Bring the teacher to a moment, unless something newer is asked for far from it."""
        if not twin.is_on(branch, view.num_steps):
            is_same = twin.shares(branch, view.num_steps)
            twin.begin(origin)
            with self._changed:
                # What a new branch shares with the old one was measured already.
                kept = [item for item in self._trace if is_same and item[0] <= view.num_steps]
                self._trace.clear()
                self._trace.extend(kept)
                self._past.clear()
            self._keep(twin)
        while twin.num_steps < view.num_steps:
            if self._is_closing or (self._goal is not None and self._goal[0] is not branch):
                return
            twin.step(branch)
            self._keep(twin)
            self.num_behind = view.num_steps - twin.num_steps
            if self.num_behind and self.num_behind % _TELL_EVERY == 0:
                self._notify()
        self.num_behind = 0
        teacher_frame = fit_frame(twin.frame, view.frame.shape[:2], fit="stretch")
        psnr = min(_MAX_PSNR, float(psnr_of_frames(view.frame[None], teacher_frame[None])[0]))
        with self._changed:
            if not self._trace or self._trace[-1][0] < view.num_steps:
                self._trace.append((view.num_steps, psnr))
            trace = tuple(self._trace)[-TRACE_STEPS:]
        self.pair = Pair(view=view, teacher_frame=teacher_frame, psnr=psnr, trace=trace)
        self._notify()

    def _keep(self, twin: Twin) -> None:
        """Remember the teacher's frame, for when the game runs backwards."""
        packed = pack_frame(twin.frame)
        with self._changed:
            self._past[twin.num_steps] = packed
            if len(self._past) > _PAST_STEPS:
                del self._past[next(iter(self._past))]


def _voices(branch: Branch, num_steps: int) -> dict[int, int]:
    """Return which live voices a branch's first steps had: going back keeps the arrays."""
    return {step: id(heard) for step, heard in branch.voices.items() if step < num_steps}
