"""Recording of a game that is played: started and stopped at any moment, in step with the game.

Follows what the game reports, jumps included; what a session looks like on disk, and that writing
it does not hold up the game, is the business of envs/recording/record.py and what lies below it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from envs.play.game.moments import Branch
from envs.play.game.playable import Playable
from envs.recording.record import RECORDINGS_FOLDER, EnvRecorder, Outcome, new_path
from midas_world.sessions.log import Kind
from midas_world.sessions.writer import RecordingStatus

# To take over anywhere, so much is played again at most.
STATE_EVERY_S = 10.0

# The window and a global hotkey may both report one press of a key.
_KEY_BOUNCE_S = 0.3


class GameRecorder:
    """Records what a game does while it is asked to."""

    def __init__(self, playable: Playable) -> None:
        self._playable = playable
        self._recorder: EnvRecorder | None = None
        self._stopped: list[EnvRecorder] = []
        self._last: tuple[np.ndarray, Mapping[str, Any], Branch] | None = None
        self._is_over = False
        self._is_jumping = False
        self._since_state = 0

    @property
    def status(self) -> RecordingStatus | None:
        """How the session that is recorded now is doing; None if none is, or before its start."""
        recorder = self._recorder
        return recorder.status if recorder is not None else None

    def start(
        self, folder: Path, *, fps: float | None = None, on_error: Callable[[str], object]
    ) -> None:
        """Record from the present moment on, or from the first one that comes.

        If recording has to end, `on_error` is told so, in words for the player, from any thread.
        """
        self.stop()
        env: Any = self._playable.env.unwrapped
        teacher = env.world.config.data.env_id if self._playable.teacher is not None else None
        self._recorder = EnvRecorder(
            env, folder, fps=fps or self._playable.fps, teacher=teacher, on_error=on_error
        )
        self._begin("start")

    def stop(self, *, wait: bool = False) -> None:
        """End the session; its last frames are written meanwhile, unless `wait`."""
        if self._recorder is not None:
            self._stopped.append(self._recorder)
            self._recorder = None
        # One that has ended holds 10 MB.
        self._stopped = [item for item in self._stopped if not item.close(wait=wait)]

    def begin(
        self,
        kind: Kind,
        frame: np.ndarray,
        info: Mapping[str, Any],
        branch: Branch,
        *,
        is_over: bool = False,
    ) -> None:
        """Follow the game to a frame that follows from no action: of a reset, or an earlier one."""
        self._last, self._is_over = (frame, info, branch), is_over
        if not self._is_jumping:
            self._begin(kind)

    def step(
        self,
        action: int,
        outcome: Outcome,
        branch: Branch,
        *,
        step_time: float,
        sound: np.ndarray | None,
        live: Sequence[str],
    ) -> None:
        """Follow the game by a step."""
        frame, _, terminated, truncated, info = outcome
        self._last, self._is_over = (frame, info, branch), terminated or truncated
        if self._recorder is not None and not self._is_jumping:
            self._since_state += 1
            is_due = self._since_state >= STATE_EVERY_S * self._playable.fps
            self._recorder.step(
                action,
                outcome,
                step_time=step_time,
                sound=sound,
                live=live,
                state=self._state() if is_due else None,
            )

    def prompt(self, text: str | None) -> None:
        """Follow a change of the player's words."""
        if self._recorder is not None and not self._is_jumping:
            self._recorder.prompt(text)

    @contextmanager
    def jump(self) -> Iterator[None]:
        """Record nothing of what the game does to get somewhere; `begin` says where it got."""
        self._is_jumping = True
        try:
            yield
        finally:
            self._is_jumping = False

    def _begin(self, kind: Kind) -> None:
        """Record the last frame as one that follows from no action, if there is one."""
        if self._recorder is None or self._last is None:
            return
        frame, info, branch = self._last
        voices = [[step, *heard] for step, heard in branch.voices.items()]
        self._since_state = 0
        self._recorder.begin(
            frame,
            info,
            kind=kind,
            begin=vars(branch) | {"voices": voices},
            episode_step=len(branch.actions),
            # A reset follows from its seed; anywhere else it would take all the steps since.
            state=self._state() if kind != "reset" else None,
        )

    def _state(self) -> Any:
        """Return the environment's state; None where it has none to be kept."""
        env: Any = self._playable.env.unwrapped
        self._since_state = 0
        return env.save_state() if hasattr(env, "save_state") and not self._is_over else None


class RecordSwitch:
    """What F9 does: a recording begins, or ends and says where it is.

    Attributes:
        error: Why the last recording ended by itself; empty if it did not.
    """

    def __init__(self, *, notify: Callable[[], object]) -> None:
        self.recorder: GameRecorder | None = None
        self.error = ""
        self._notify = notify
        self._pressed_at = -_KEY_BOUNCE_S

    @property
    def status(self) -> RecordingStatus | None:
        """How the recording is doing; None if nothing is recorded."""
        return self.recorder.status if self.recorder is not None else None

    def is_new_press(self) -> bool:
        """Return whether a press of the key is not the one that was just told."""
        now = time.perf_counter()
        is_new = now - self._pressed_at >= _KEY_BOUNCE_S
        if is_new:
            self._pressed_at = now
        return is_new

    def start(self, folder: Path, *, fps: float) -> None:
        """Record into a new folder from now on."""
        assert self.recorder is not None
        self.recorder.stop()
        self.error = ""
        self.recorder.start(folder, fps=fps, on_error=self._end)
        self._notify()

    def toggle(self, title: str, *, fps: float, may_start: bool) -> str:
        """Stop, or start a session named after what is played; return words for the player."""
        assert self.recorder is not None
        status = self.status
        if status is not None and status.error is None:
            self.recorder.stop()
            return f"recorded {status.seconds:.0f} s: {status.folder}"
        if may_start:
            self.start(new_path(RECORDINGS_FOLDER, title), fps=fps)
        return ""

    def _end(self, words: str) -> None:
        """Let the player know at once; called from the recorder's thread."""
        self.error = words
        self._notify()
