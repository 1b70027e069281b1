"""The switch that F9 is: a recording begins, or ends and says where it is."""

import time
from collections.abc import Callable
from pathlib import Path

from envs.play.game.recorder import GameRecorder
from envs.recording.record import RECORDINGS_FOLDER, new_path
from midas_world.sessions.writer import RecordingStatus

# The window and a global hotkey may both report one press of a key.
_KEY_BOUNCE_S = 0.3


class RecordSwitch:
    """Starts and stops recordings of a game."""

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
