"""Watching a recorded session, and taking it over: from there on the player plays.

The thread that steps a game shows the film first. Draws nothing and knows no keys.
"""

from collections.abc import Callable
from typing import Any

from envs.play.game.game import Game
from envs.play.game.inputs import Inputs
from envs.play.game.moments import View
from envs.play.game.playable import Playable
from envs.play.game.session import Session
from envs.play.replay.recorded import Tape
from midas_world.sessions.log import hash_frame
from midas_world.types import MidasWorldError


class ReplaySession(Session):
    """A recorded session that is shown, and can be played on from any frame."""

    def __init__(
        self, tape: Tape, open_game: Callable[[], Playable], inputs: Inputs, **options: Any
    ) -> None:
        super().__init__(open_game, inputs, fps=tape.fps, **options)
        self.tape = tape
        self._takes_over = False

    def take_over(self) -> None:
        """Play on from the frame that is shown."""
        self._commands.put(lambda _: setattr(self, "_takes_over", True))

    def end_film(self) -> bool:
        """Go back from a film to the game, once the recorded session is taken over."""
        return self.rewind is not None and super().end_film()

    def _play(self) -> None:
        self._open_speaker(self.tape.fps)
        self._project(self.tape.film())
        while not self._closing.is_set():
            # None of the commands that come while a film is shown look at the game.
            self._turn(None)  # pyright: ignore[reportArgumentType]
            if self._takes_over and not self._closing.is_set():
                self._try_to_play()
        self.speaker.close()
        self._set_status("closed")

    def _try_to_play(self) -> None:
        """Take over, or say why that cannot be and show the film again."""
        self._takes_over = False
        self.progress = "loading the world, then it is your turn"
        self._set_status("loading")
        try:
            super()._play()
        except (MidasWorldError, ValueError, OSError) as error:
            if self.projector is None:
                raise
            self.message = f"cannot take over: {error}"
            self.projector.is_paused = True
            self.rewind = None
            self._set_status("watching")

    def _first_view(self, game: Game) -> View:
        assert self.projector is not None
        number = self.projector.number
        goal, base = self.tape.snapshots(number)
        view = game.restore(goal, base=base, on_step=self._tell_progress)
        is_equal = hash_frame(view.frame) == self.tape.marks[number].record.frame_hash
        self.message = (
            "your turn" if is_equal else "your turn; the frame is not bit-equal to the recorded one"
        )
        self.projector = None
        return view

    def _tell_progress(self, done: int, total: int) -> None:
        if self.projector is not None:
            self.progress = f"playing {total} steps again, {total - done} to go"
        super()._tell_progress(done, total)
