"""Going back in a game that is played: running backwards, bookmarks, and the film of an episode.

What makes steps, and what else can be asked for, is up to the thread that derives from it.
"""

import time
from collections.abc import Callable

from envs.play.game.bookmarks import NUM_BOOKMARKS, Bookmarks
from envs.play.game.compare import Comparison
from envs.play.game.film import Film, Projector
from envs.play.game.game import Game
from envs.play.game.goals import Goals
from envs.play.game.moments import View
from envs.play.game.rewind import Rewind
from envs.play.game.stepper import Status, StepClock, Stepper, in_turn

# Playing so many steps again is worth a word to the player.
_LONG_WAY_STEPS = 40


class TimeTraveller(Stepper):
    """A stepper that can go back.

    Attributes:
        view: The newest frame and what belongs to it; None while loading.
        message: What the player should be told, such as why a prompt was refused.
        goals: What is played for; a run that goes back is not counted.
        bookmarks: Moments that the player can jump back to.
        rewind: What was shown lately; None while loading.
        comparison: The teacher beside the world; None while that is off.
        projector: Shows a film; None while none is shown.
    """

    def __init__(
        self, goals: Goals, *, rewind_seconds: float, notify: Callable[[], object]
    ) -> None:
        super().__init__(notify=notify)
        self.view: View | None = None
        self.message = ""
        self.progress = ""  # what the player waits for, while a film is on
        self.goals = goals
        self.bookmarks = Bookmarks()
        self.rewind: Rewind | None = None
        self.comparison: Comparison | None = None
        self._rewind_seconds = rewind_seconds
        self._was_paused = False
        self.projector: Projector | None = None
        self._film_clock = StepClock(1.0)
        self._before_film: tuple[Status, View | None] = "paused", None

    @in_turn
    def start_rewind(self, game: Game) -> None:
        """Run backwards until `stop_rewind`."""
        if self.status in ("playing", "paused", "over"):
            self._was_paused = self.status == "paused"
            self.goals.spoil()
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

    @in_turn
    def stop_rewind(self, game: Game) -> None:
        """Go on from where running backwards has come to, if it runs."""
        if self.status != "rewinding":
            return
        assert self.rewind is not None
        view = self.rewind.resume(game, on_step=self._tell_progress)
        self._arrive(game, view, is_known=True)
        if self._was_paused:
            self._set_status("paused")

    @in_turn
    def drop_bookmark(self, game: Game) -> None:
        """Keep the present moment to jump back to."""
        if self.view is None or self.status == "rewinding":
            return
        is_full = len(self.bookmarks) == NUM_BOOKMARKS
        number = self.bookmarks.drop(game.snapshot(self.view))
        self.message = f"bookmark {number}: key {number} comes back here"
        if is_full:
            self.message += ", in the place of the oldest"
        self._tell()

    @in_turn
    def jump(self, game: Game, number: int) -> None:
        """Go on from a bookmark; 0 is the one that was dropped last."""
        number = number or self.bookmarks.newest
        snapshot = self.bookmarks.get(number)
        if snapshot is None:
            words = f"bookmark {number}" if number else "bookmark yet"
            self.message = f"there is no {words}: B drops one"
            self._tell()
            return
        view = game.restore(snapshot, on_step=self._tell_progress)
        self.goals.spoil()
        self.message = f"back at bookmark {number}"
        self._arrive(game, view)

    @in_turn
    def watch(self, _: Game, film: Film | None = None) -> None:
        """Show a film, or again what was shown of the present episode; the game waits."""
        if self.status not in ("playing", "paused", "over") or self.rewind is None:
            return
        self._before_film = "over" if self.status == "over" else "paused", self.view
        self._project(film or self.rewind.film(fps=1.0 / self.period_s))

    @in_turn
    def control_film(self, _: Game, change: Callable[[Projector], object]) -> None:
        """Pause the film that is shown, or go to another place of it, by its projector."""
        self._control_film(change)

    def end_film(self) -> bool:
        """Go back from a film to the game; return whether there is one."""
        if self.rewind is not None:
            self._commands.put(lambda _: self._end_film())
        return self.rewind is not None

    def _project(self, film: Film) -> None:
        """Show a film from its beginning."""
        self.projector = Projector(film)
        self.status = "watching"
        self._control_film(lambda _: None)

    def _control_film(self, change: Callable[[Projector], object]) -> None:
        if self.status != "watching" or self.projector is None:
            return
        change(self.projector)
        if self._film_clock.period_s != self.projector.period_s or self.projector.is_paused:
            self._film_clock = StepClock(self.projector.period_s)
        try:
            self.view = self.projector.film.view(self.projector.number)
        except ValueError as error:
            self.message = str(error)
            self._end_film()
        self._tell()

    def _show_next(self) -> None:
        self._film_clock.start_step(time.perf_counter())
        self._control_film(Projector.advance)

    def _end_film(self) -> None:
        if self.status == "watching":
            status, self.view = self._before_film
            self.projector = None
            self._set_status(status)

    def _moving_clock(self) -> StepClock | None:
        """Return the clock of what moves: the game, or a film; None while nothing does."""
        if self.status == "watching" and self.projector is not None:
            return None if self.projector.is_paused else self._film_clock
        return self._clock if self.status in ("playing", "rewinding") else None

    @in_turn
    def take_film(self, _: Game, seconds: float, use: Callable[[Film], object]) -> None:
        """Call something, in the thread, with what was shown in the last seconds."""
        if self.rewind is not None and len(self.rewind):
            num_steps = max(1, round(seconds / self.period_s))
            use(self.rewind.film(num_steps, fps=1.0 / self.period_s))

    def _num_rewind_steps(self, fps: float) -> int:
        return max(1, round(self._rewind_seconds * fps))

    def _arrive(self, game: Game, view: View, *, is_known: bool = False) -> None:
        """Go on from a moment that does not follow from the one before."""
        raise NotImplementedError

    def _tell_progress(self, done: int, total: int) -> None:
        """Tell the player about a long way; end it if the window is closed meanwhile."""
        self._end_if_closing()
        if self.projector is not None:
            self.progress = f"playing {total} steps again, {total - done} to go"
        if total >= _LONG_WAY_STEPS and done % 10 == 0:
            self.message = f"playing {total} steps again: {done} done"
            self._tell()
