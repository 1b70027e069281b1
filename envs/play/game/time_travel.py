"""Going back in a game that is played: running backwards, bookmarks, films of what was shown."""

import time
from collections.abc import Callable
from dataclasses import replace

from envs.play.game.film import Film, Projector
from envs.play.game.game import Game
from envs.play.game.goals import Goals
from envs.play.game.moments import Snapshot, View
from envs.play.game.rewind import Rewind
from envs.play.game.stepper import Status, StepClock, Stepper, in_turn

NUM_BOOKMARKS = 9


class Bookmarks(dict[int, Snapshot]):
    """Moments by their numbers, the oldest first."""

    @property
    def shown(self) -> list[tuple[int, Snapshot]]:
        """Numbers and moments, in the order of the numbers; another thread may ask."""
        return sorted(self.copy().items(), key=lambda item: item[0])

    def drop(self, snapshot: Snapshot) -> int:
        """Keep a moment and return its number: the lowest free one, or else the oldest one's."""
        free = (number for number in range(1, NUM_BOOKMARKS + 1) if number not in self)
        number = next(free, None) or next(iter(self))
        self.pop(number, None)
        self[number] = snapshot
        return number

    def drop_states(self) -> None:
        """Keep how moments were reached alone: another engine plays its way to them anew."""
        self.update({number: replace(moment, state=None) for number, moment in self.items()})


class Past:
    """Goes back in the game of a thread.

    Args:
        goals: What is played for; a run that goes back is not counted.
        seconds: How far one can run backwards.
        arrive: Lets the game go on from a moment that does not follow from the one before, and
            that may be known already.

    Attributes:
        rewind: What was shown lately; None while loading.
    """

    def __init__(
        self,
        thread: Stepper,
        goals: Goals,
        *,
        seconds: float,
        arrive: Callable[[Game, View, bool], object],
        on_back: Callable[[View], object],
    ) -> None:
        self.bookmarks = Bookmarks()
        self.rewind: Rewind | None = None
        self.put = thread.put
        self._thread, self._goals, self._arrive = thread, goals, arrive
        self._seconds, self._on_back = seconds, on_back
        self._was_paused = False

    def begin(self, fps: float) -> None:
        """Forget what was shown, and keep what is from now on."""
        self.rewind = Rewind(max(1, round(self._seconds * fps)))

    @in_turn
    def start_rewind(self, _: Game) -> None:
        """Run backwards until `stop_rewind`."""
        if self._thread.status in ("playing", "paused", "over"):
            self._was_paused = self._thread.status == "paused"
            self._goals.spoil()
            self._thread.clock.restart()
            self._thread.set_status("rewinding")
            self.step_back()

    def step_back(self) -> None:
        """Show the moment before, if there is one; only in the thread."""
        assert self.rewind is not None
        self._thread.clock.start_step(time.perf_counter())
        if (view := self.rewind.back()) is not None:
            self._thread.view = view
            self._on_back(view)
            self._thread.tell()

    @in_turn
    def stop_rewind(self, game: Game) -> None:
        """Go on from where running backwards has come to, if it runs."""
        if self._thread.status != "rewinding":
            return
        assert self.rewind is not None
        self._arrive(game, self.rewind.resume(game, on_step=self._thread.tell_progress), True)
        if self._was_paused:
            self._thread.set_status("paused")

    @in_turn
    def drop_bookmark(self, game: Game) -> None:
        """Keep the present moment to jump back to."""
        thread = self._thread
        if thread.view is None or thread.status == "rewinding":
            return
        is_full = len(self.bookmarks) == NUM_BOOKMARKS
        number = self.bookmarks.drop(game.snapshot(thread.view))
        thread.message = f"bookmark {number}: key {number} comes back here"
        if is_full:
            thread.message += ", in the place of the oldest"
        thread.tell()

    @in_turn
    def jump(self, game: Game, number: int) -> None:
        """Go on from a bookmark; 0 is the one that was dropped last."""
        thread, number = self._thread, number or next(reversed(self.bookmarks), 0)
        snapshot = self.bookmarks.get(number)
        if snapshot is None:
            words = f"bookmark {number}" if number else "bookmark yet"
            thread.message = f"there is no {words}: B drops one"
            thread.tell()
            return
        view = game.restore(snapshot, on_step=thread.tell_progress)
        self._goals.spoil()
        thread.message = f"back at bookmark {number}"
        self._arrive(game, view, False)

    @in_turn
    def take_film(self, _: Game, seconds: float, use: Callable[[Film], object]) -> None:
        """Call something, in the thread, with what was shown in the last seconds."""
        if self.rewind is not None and len(self.rewind):
            period_s = self._thread.clock.period_s
            use(self.rewind.film(max(1, round(seconds / period_s)), fps=1.0 / period_s))


class Screening:
    """Shows films in a thread that plays, by its projector; the game waits meanwhile."""

    def __init__(self, thread: Stepper, past: Past) -> None:
        self.projector: Projector | None = None
        self._clock = StepClock(1.0)
        self.put = thread.put
        self._thread, self._past = thread, past
        self._before: tuple[Status, View | None] = "paused", None

    @in_turn
    def watch(self, _: Game, film: Film | None = None) -> None:
        """Show a film, or again what was shown of the present episode; the game waits."""
        thread, rewind = self._thread, self._past.rewind
        if thread.status in ("playing", "paused", "over") and rewind is not None:
            self._before = "over" if thread.status == "over" else "paused", thread.view
            self.show(film or rewind.film(fps=1.0 / thread.clock.period_s))

    @in_turn
    def control(self, _: Game, change: Callable[[Projector], object]) -> None:
        """Pause the film that is shown, or go to another place of it, by its projector."""
        self._control(change)

    def end(self) -> bool:
        """Go back from a film to the game; return whether there is one."""
        has_game = self._past.rewind is not None
        if has_game:
            self.put(lambda _: self._end())
        return has_game

    def show(self, film: Film) -> None:
        """Show a film from its beginning; only in the thread, as `show_next`."""
        self.projector = Projector(film)
        self._thread.status = "watching"
        self._control(lambda _: None)

    @property
    def clock(self) -> StepClock | None:
        """When its frames are due; None where it stands still."""
        is_moving = self.projector is not None and not self.projector.is_paused
        return self._clock if is_moving else None

    def show_next(self, now: float) -> None:
        """Show the film's next frame."""
        self._clock.start_step(now)
        self._control(Projector.advance)

    def _control(self, change: Callable[[Projector], object]) -> None:
        thread, projector = self._thread, self.projector
        if thread.status != "watching" or projector is None:
            return
        change(projector)
        if self._clock.period_s != projector.period_s or projector.is_paused:
            self._clock = StepClock(projector.period_s)
        try:
            thread.view = projector.film.view(projector.number)
        except ValueError as error:
            thread.message = str(error)
            self._end()
        thread.tell()

    def _end(self) -> None:
        if self._thread.status == "watching":
            status, self._thread.view = self._before
            self.projector = None
            self._thread.set_status(status)
