"""Playing a game at a fixed rate, in a thread beside the window that shows it.

The window's thread never waits for the network: it asks for things by the methods here and looks
at `view`, the newest frame made. Keys are read right before each step.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from envs.play.game.bookmarks import Bookmarks
from envs.play.game.clock import StepClock
from envs.play.game.compare import Comparison
from envs.play.game.game import Game
from envs.play.game.inputs import Inputs, unknown_keys
from envs.play.game.moments import View
from envs.play.game.playable import Playable
from envs.play.game.recorder import GameRecorder
from envs.play.game.rewind import DEFAULT_SECONDS, Rewind
from envs.play.game.samples import Samples
from envs.play.game.stepper import Stepper
from envs.play.voice.speaker import Speaker
from envs.play.voice.voices import LiveVoices
from envs.recording.record import new_session_folder
from midas_world.sessions.writer import RecordingStatus
from midas_world.types import MidasWorldError

# Playing so many steps again is worth a word to the player.
_LONG_WAY_STEPS = 40
# The window and a global hotkey may both report one press of a key.
_KEY_BOUNCE_S = 0.3


class Session(Stepper):
    """A game in its own thread.

    Args:
        open_game: Makes what is played; called in the thread, since loading takes seconds.
        inputs: What the player holds down.
        seed: Of the first episode.
        prompt: The player's words.
        fps: Steps per second; None takes the game's own number.
        rewind_seconds: How far the player can go back.
        record: Folder of a session to record from the start; None waits for the player.
        voices: Live ones, in place of the world's.
        speaker: Where the sound goes; None plays nothing.
        notify: Called in the thread after each new view and each change of status.

    Attributes:
        status: What the thread does.
        view: The newest frame and what belongs to it; None while loading.
        playable: What is played; None while loading.
        prompt: The player's words at present.
        error: What ended the thread, if its status is "failed".
        message: What the player should be told, such as why a prompt was refused.
        step_times: Seconds of each step.
        step_intervals: Seconds between the starts of steps.
        bookmarks: Moments that the player can jump back to.
        rewind: What was shown lately; None while loading.
        comparison: The teacher beside the world; None while that is off.
        voices: As given.
        speaker: As given, or one that is never opened.
        recording_error: Why the last recording ended by itself; empty if it did not.
    """

    def __init__(
        self,
        open_game: Callable[[], Playable],
        inputs: Inputs,
        *,
        seed: int = 0,
        prompt: str | None = None,
        fps: float | None = None,
        rewind_seconds: float = DEFAULT_SECONDS,
        record: Path | None = None,
        voices: LiveVoices | None = None,
        speaker: Speaker | None = None,
        notify: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(notify=notify)
        self.view: View | None = None
        self.playable: Playable | None = None
        self.prompt = prompt
        self.message = ""
        self.step_times = Samples()
        self.step_intervals = Samples()
        self.bookmarks = Bookmarks()
        self.rewind: Rewind | None = None
        self.comparison: Comparison | None = None
        self.recording_error = ""
        self.voices = voices
        self.speaker = speaker or Speaker()
        self._is_heard = speaker is not None
        self._record = record
        self._recorder: GameRecorder | None = None
        self._toggled_at = -_KEY_BOUNCE_S
        self._rewind_seconds = rewind_seconds
        self._was_paused = False
        self._open_game = open_game
        self._inputs = inputs
        self._seed = seed
        self._fps = fps
        self._last_start: float | None = None
        self._lock = threading.Lock()
        self._presses: list[float] = []

    def newest(self) -> tuple[View | None, list[float]]:
        """Return the newest view, and when each key press was that it is the first to show."""
        with self._lock:
            presses, self._presses = self._presses, []
            return self.view, presses

    @property
    def recording(self) -> RecordingStatus | None:
        """How the recording is doing; None if nothing is recorded."""
        return self._recorder.status if self._recorder is not None else None

    def toggle_pause(self) -> None:
        """Pause, or go on."""
        self._commands.put(self._toggle_pause)

    def single_step(self) -> None:
        """Pause if need be, and make one step."""
        self._commands.put(self._single_step)

    def reset(self) -> None:
        """Begin the same episode again."""
        self._commands.put(lambda game: self._begin(game, game.reset))

    def reset_to_next_start(self) -> None:
        """Begin an episode from the next start state."""
        self._commands.put(lambda game: self._begin(game, game.reset_to_next_start))

    def set_prompt(self, text: str | None) -> None:
        """Let the player's words steer from the next step on."""
        self._commands.put(lambda game: self._set_prompt(game, text))

    def start_rewind(self) -> None:
        """Run backwards until `stop_rewind`."""
        self._commands.put(self._start_rewind)

    def stop_rewind(self) -> None:
        """Go on from where running backwards has come to, if it runs."""
        self._commands.put(self._stop_rewind)

    def drop_bookmark(self) -> None:
        """Keep the present moment to jump back to."""
        self._commands.put(self._drop_bookmark)

    def jump(self, number: int) -> None:
        """Go on from a bookmark."""
        self._commands.put(lambda game: self._jump(game, number))

    def toggle_recording(self) -> None:
        """Record from now on into a new session, or stop that."""
        now = time.perf_counter()
        if now - self._toggled_at >= _KEY_BOUNCE_S:
            self._toggled_at = now
            self._commands.put(self._toggle_recording)

    def toggle_compare(self) -> None:
        """Let the teacher play beside the world, or stop it."""
        self._commands.put(self._toggle_compare)

    def _play(self) -> None:
        self._is_opening = True
        self._end_if_closing()
        self.playable = self._open_game()
        self._is_opening = False
        game = Game(self.playable, seed=self._seed, prompt=self.prompt, voices=self.voices)
        try:
            self._end_if_closing()  # and its window is no more
            self._inputs.use_keys(self.playable.keymap.keys)
            self.message = unknown_keys(self.playable.keymap.keys) or self.message
            fps = self._fps or self.playable.fps
            self._open_speaker(fps)
            self._clock = StepClock(1.0 / fps)
            self.rewind = Rewind(self._num_rewind_steps(fps))
            self._recorder = game.recorder
            if self._record is not None:
                self._start_recording(game, self._record)
            self._arrive(game, self._first_view(game))
            if game.prompt and not self.message:
                self.message = game.understand(game.prompt)
            while not self._closing.is_set():
                self._turn(game)
        finally:
            self._stop_comparison()
            self.speaker.close()
            game.close()
        self._set_status("closed")

    def _turn(self, game: Game) -> None:
        """Obey a command if there is one before the next step is due; else make that step."""
        command = self._next_command(is_moving=self.status in ("playing", "rewinding"))
        if command is not None:
            command(game)
        elif self.status == "rewinding":
            self._step_back()
        else:
            self._step(game)

    def _step(self, game: Game) -> None:
        started = time.perf_counter()
        self._clock.start_step(started)
        held = self._inputs.take()
        action = game.playable.keymap.action_of(held.keys)
        view = game.step(action)
        with self._lock:
            self.view = view
            if held.pressed_at is not None:
                self._presses.append(held.pressed_at)
        self.speaker.play(view.sound)
        if self.voices is not None:
            self.message = self.voices.take_problem() or self.message
        self._remember(game, view)
        self.step_times.add(time.perf_counter() - started)
        if self._last_start is not None:
            self.step_intervals.add(started - self._last_start)
        self._last_start = started
        if game.is_over:
            self._set_status("over")
        else:
            self._tell()

    def _open_speaker(self, fps: float) -> None:
        if self._is_heard:
            self.speaker.open(fps)
            self.message = self.speaker.problem or self.message

    def _first_view(self, game: Game) -> View:
        """Bring a game to where playing begins."""
        return game.reset()

    def _remember(self, game: Game, view: View, *, is_jump: bool = False) -> None:
        """Keep what is shown now, to go back to, and let the teacher follow."""
        assert self.rewind is not None
        self.rewind.add(game, view, is_jump=is_jump)
        if self.comparison is not None:
            self.comparison.follow(game.branch, view)

    def _go_on(self) -> None:
        self._clock.restart()
        self._last_start = None
        self._inputs.take()  # what was tapped meanwhile is not meant for the game
        self._set_status("playing")

    def _toggle_pause(self, game: Game) -> None:
        if self.status == "playing":
            self._set_status("paused")
        elif self.status == "paused":
            self._go_on()

    def _single_step(self, game: Game) -> None:
        if self.status == "playing":
            self._set_status("paused")
        if self.status == "paused":
            self._last_start = None
            self._clock.restart()
            self._step(game)

    def _start_rewind(self, game: Game) -> None:
        if self.status in ("playing", "paused", "over"):
            self._was_paused = self.status == "paused"
            self._clock.restart()
            self._set_status("rewinding")
            self._step_back()

    def _step_back(self) -> None:
        assert self.rewind is not None
        self._clock.start_step(time.perf_counter())
        view = self.rewind.back()
        if view is None:
            return
        self.view = view
        if self.comparison is not None:
            self.comparison.show_past(view)
        self._tell()

    def _stop_rewind(self, game: Game) -> None:
        if self.status != "rewinding":
            return
        assert self.rewind is not None
        view = self.rewind.resume(game, on_step=self._tell_progress)
        self._arrive(game, view, is_known=True)
        if self._was_paused:
            self._set_status("paused")

    def _drop_bookmark(self, game: Game) -> None:
        if self.view is None or self.status == "rewinding":
            return
        number = self.bookmarks.drop(game.snapshot(self.view))
        self.message = f"bookmark {number}: key {number} comes back here"
        self._tell()

    def _jump(self, game: Game, number: int) -> None:
        snapshot = self.bookmarks.get(number)
        if snapshot is None:
            self.message = f"there is no bookmark {number}: B drops one"
            self._tell()
            return
        view = game.restore(snapshot, on_step=self._tell_progress)
        self.message = f"back at bookmark {number}"
        self._arrive(game, view)

    def _begin(self, game: Game, begin: Callable[[], View]) -> None:
        """Begin an episode, on a faster engine if one was made meanwhile."""
        if game.can_change_over:
            self._change_over(game)
        self._arrive(game, begin())

    def _change_over(self, game: Game) -> None:
        self.message = "changing over to a faster engine"
        self._tell()
        try:
            game.change_over()
        except MidasWorldError as error:
            self.message = f"still on {game.playable.backend}: {error}"
            return
        self.playable, self._recorder = game.playable, game.recorder
        # What the old engine saved is not the new one's.
        self.bookmarks.drop_states()
        self.rewind = Rewind(self._num_rewind_steps(1.0 / self._clock.period_s))
        self.step_times, self.step_intervals = Samples(), Samples()
        self.message = f"now on {game.playable.backend}"

    def _num_rewind_steps(self, fps: float) -> int:
        return max(1, round(self._rewind_seconds * fps))

    def _arrive(self, game: Game, view: View, *, is_known: bool = False) -> None:
        """Go on from a moment that does not follow from the one before."""
        self.view, self.prompt = view, game.prompt
        if not is_known:
            self._remember(game, view, is_jump=True)
        elif self.comparison is not None:
            self.comparison.follow(game.branch, view)
        if game.is_over:
            self._set_status("over")
        else:
            self._go_on()

    def _toggle_recording(self, game: Game) -> None:
        status = game.recorder.status
        if status is not None and status.error is None:
            game.recorder.stop()
            self.message = f"recorded {status.seconds:.0f} s: {status.folder}"
            self._tell()
        elif self.status != "rewinding":
            self._start_recording(game, new_session_folder(game.playable.title))

    def _start_recording(self, game: Game, folder: Path) -> None:
        game.recorder.stop()
        self.recording_error = ""
        game.recorder.start(folder, fps=1.0 / self._clock.period_s, on_error=self._end_recording)
        self._tell()

    def _end_recording(self, words: str) -> None:
        """Let the player know at once; called from the recorder's thread."""
        self.recording_error = words
        self._tell()

    def _toggle_compare(self, game: Game) -> None:
        if self.comparison is not None:
            self._stop_comparison()
        elif game.playable.teacher is None:
            self.message = game.playable.no_teacher
        else:
            self.comparison = Comparison(game.playable.teacher.make, notify=self._tell)
            self.comparison.start()
            if self.view is not None:
                self.comparison.follow(game.branch, self.view)
        self._tell()

    def _stop_comparison(self) -> None:
        if self.comparison is not None:
            self.comparison.close()
            self.comparison = None

    def _set_prompt(self, game: Game, text: str | None) -> None:
        try:
            game.set_prompt(text)
        except ValueError as error:
            self.message = str(error)
        else:
            self.prompt = game.prompt
            self.message = game.understand(game.prompt) if game.prompt else "the world's own words"
        self._tell()

    def _tell_progress(self, done: int, total: int) -> None:
        """Tell the player about a long way; end it if the window is closed meanwhile."""
        self._end_if_closing()
        if total >= _LONG_WAY_STEPS and done % 10 == 0:
            self.message = f"playing {total} steps again: {done} done"
            self._tell()
