"""Watching a recorded session, and taking it over: from there on the player plays.

The thread that steps a game shows the film first. Draws nothing and knows no keys.
"""

import time
from collections.abc import Callable

from envs.play.game.clock import StepClock
from envs.play.game.game import Game
from envs.play.game.inputs import Inputs
from envs.play.game.moments import View
from envs.play.game.playable import Playable
from envs.play.game.rewind import DEFAULT_SECONDS
from envs.play.game.session import Session
from envs.play.replay.recorded import Mark, Tape
from envs.play.voice.speaker import Speaker
from midas_world.sessions.log import hash_frame
from midas_world.types import MidasWorldError

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class ReplaySession(Session):
    """A recorded session that is shown, and can be played on from any frame.

    Args:
        tape: What was recorded.
        open_game: Makes what it was played with; called when the player takes over.
        inputs: What the player holds down.
        rewind_seconds: How far the player can go back after taking over.
        speaker: Where the sound goes; None plays nothing.
        notify: See `Session`.

    Attributes:
        tape: As given.
        number: Of the frame that is shown.
        speed: Of the film; 1 is that of play.
        progress: What the player waits for, while the status is "loading".
        is_replaying: Whether the film is shown; not any more after taking over.
    """

    def __init__(
        self,
        tape: Tape,
        open_game: Callable[[], Playable],
        inputs: Inputs,
        *,
        rewind_seconds: float = DEFAULT_SECONDS,
        speaker: Speaker | None = None,
        notify: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(
            open_game,
            inputs,
            fps=tape.fps,
            rewind_seconds=rewind_seconds,
            speaker=speaker,
            notify=notify,
        )
        self.tape = tape
        self.number = 0
        self.speed = 1.0
        self.progress = ""
        self.is_replaying = True
        self._takes_over = False

    @property
    def mark(self) -> Mark:
        """What is known of the frame that is shown."""
        return self.tape.marks[self.number]

    def seek(self, number: int) -> None:
        """Show a frame, the nearest there is."""
        self._commands.put(lambda _: self._show(number))

    def skip(self, num_frames: int, *, pauses: bool = False) -> None:
        """Go so many frames on, or back."""

        def go(_: Game | None) -> None:
            if pauses and self.status == "playing":
                self._set_status("paused")
            self._show(self.number + num_frames)

        self._commands.put(go)

    def change_speed(self, *, faster: bool) -> None:
        """Show the film at the next higher or lower speed."""

        def change(_: Game | None) -> None:
            place = SPEEDS.index(self.speed) + (1 if faster else -1)
            self.speed = SPEEDS[min(max(place, 0), len(SPEEDS) - 1)]
            self._clock = StepClock(1.0 / (self.tape.fps * self.speed))
            self._tell()

        self._commands.put(change)

    def take_over(self) -> None:
        """Play on from the frame that is shown."""

        def take(_: Game | None) -> None:
            self._takes_over = True

        self._commands.put(take)

    def _play(self) -> None:
        self._clock = StepClock(1.0 / self.tape.fps)
        self._open_speaker(self.tape.fps)
        self._show(0)
        self._set_status("playing")
        while not self._closing.is_set():
            self._replay()
            if not self._closing.is_set():
                self._try_to_play()
        self.speaker.close()
        self._set_status("closed")

    def _replay(self) -> None:
        """Show the film until the player takes over or leaves."""
        while not (self._takes_over or self._closing.is_set()):
            command = self._next_command(is_moving=self.status == "playing")
            if command is not None:
                # None of the commands that come while a film is shown look at the game.
                command(None)  # pyright: ignore[reportArgumentType]
                continue
            self._clock.start_step(time.perf_counter())
            self._show(self.number + 1)
            if self.speed == 1.0 and self.view is not None:
                self.speaker.play(self.view.sound)
            if self.number == len(self.tape) - 1:
                self._set_status("paused")

    def _try_to_play(self) -> None:
        """Take over, or say why that cannot be and show the film again."""
        self._takes_over = False
        self.progress = "loading the world, then it is your turn"
        self._set_status("loading")
        try:
            super()._play()
        except (MidasWorldError, ValueError, OSError) as error:
            if not self.is_replaying:
                raise
            self.message = f"cannot take over: {error}"
            self._clock = StepClock(1.0 / (self.tape.fps * self.speed))
            self._set_status("paused")

    def _first_view(self, game: Game) -> View:
        number = self.number
        goal, base = self.tape.snapshots(number)
        view = game.restore(goal, base=base, on_step=self._tell_progress)
        is_equal = hash_frame(view.frame) == self.tape.marks[number].record.frame_hash
        self.message = (
            "your turn" if is_equal else "your turn; the frame is not bit-equal to the recorded one"
        )
        self.is_replaying = False
        return view

    def _tell_progress(self, done: int, total: int) -> None:
        if self.is_replaying:
            self.progress = f"playing {total} steps again, {total - done} to go"
        super()._tell_progress(done, total)

    def _toggle_pause(self, game: Game) -> None:
        if self.is_replaying and self.number == len(self.tape) - 1:
            self._show(0)  # from its end, a film begins again
        super()._toggle_pause(game)

    def _show(self, number: int) -> None:
        self.number = min(max(number, 0), len(self.tape) - 1)
        self.view = self.tape.view(self.number)
        self.prompt = self.mark.prompt
        self._tell()
