"""What is played for: free play, a run for coins, staying alive; and the best that was done.

Knows no window. The best are kept in the player's settings folder.
"""

import json
import logging
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Literal

from envs.play.game.moments import View
from envs.play.game.playable import Playable
from midas_world.files import write_whole
from midas_world.typed import read_values

NUM_BEST = 10

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Mode:
    """A way to play.

    Attributes:
        counts: What is counted: the rewards, or how long it lasts.
        limit_s: Seconds of the game after which it ends; None has no end of its own.
        is_daily: Whether all who play it on a day begin alike, and the list is that day's.
    """

    name: str
    words: str
    counts: Literal["score", "seconds"] = "score"
    limit_s: float | None = None
    is_daily: bool = False


FREE_PLAY = Mode(name="free play", words="no goal and no clock")
COIN_RUN = Mode(
    name="coin run", words="best score in 60 seconds; today's start", limit_s=60.0, is_daily=True
)
SURVIVE = Mode(name="survive", words="how long do you last?", counts="seconds")
MODES = (FREE_PLAY, COIN_RUN, SURVIVE)


class BestList:
    """The best results of each kind of game, the best first; without a path, in memory alone."""

    def __init__(self, path: Path | None) -> None:
        self.problem = ""
        self._path = path

    @cached_property
    def _lists(self) -> dict[str, list[float]]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            read = read_values(self._path).items()
            return {key: sorted(map(float, values), reverse=True) for key, values in read}
        except (ValueError, TypeError) as error:
            self.problem = f"the best list cannot be read and stays as it is: {self._path}: {error}"
            return {}

    def best(self, key: str) -> tuple[float, ...]:
        """Return the best results of a kind of game."""
        return tuple(self._lists.get(key, ()))

    def add(self, key: str, value: float) -> int | None:
        """Keep a result if it is among the best; return its place from 1 on, or None."""
        listed = [*self.best(key)]
        place = sum(other >= value for other in listed) + 1
        if place > NUM_BEST or value <= 0:
            return None
        listed.insert(place - 1, value)
        self._lists[key] = listed[:NUM_BEST]
        if self._path is not None and not self.problem:
            try:
                write_whole(self._path, json.dumps(self._lists, indent=1))
            except OSError as error:
                self.problem = f"the best list cannot be kept: {error}"
                _logger.warning("%s", self.problem)
        return place


class Run:
    """One try at a mode's goal, from a reset to its end.

    Args:
        title: Of what is played; results of different games are kept apart.
        fps: Steps per second of the game at full speed.
        today: Names the daily start.
        is_counted: False for one that nobody else could compare with, such as in slow motion.
    """

    def __init__(
        self,
        mode: Mode,
        *,
        title: str,
        fps: float,
        best: BestList,
        today: date,
        is_counted: bool = True,
    ) -> None:
        self.mode = mode
        self.place: int | None = None
        self.is_counted = is_counted
        self._fps = fps
        self._best = best
        self._key = f"{title}, {mode.name}" + (f", {today.isoformat()}" if mode.is_daily else "")
        self._has_ended = False

    @property
    def best(self) -> tuple[float, ...]:
        """The best results of this kind of run, the best first."""
        return self._best.best(self._key)

    def value(self, view: View) -> float:
        """Return what has been reached."""
        return view.score if self.mode.counts == "score" else round(self.seconds(view), 1)

    def seconds(self, view: View) -> float:
        """Return how long the run has lasted, in seconds of the game."""
        return view.num_steps / self._fps

    def seconds_left(self, view: View) -> float | None:
        """Return how long it still lasts; None if it has no end of its own."""
        limit = self.mode.limit_s
        return None if limit is None else max(0.0, limit - self.seconds(view))

    def is_done(self, view: View) -> bool:
        """Return whether the run has ended: the game has, or the time is up."""
        return view.is_over or self.seconds_left(view) == 0.0

    def finish(self, view: View) -> None:
        """Keep the result of a run that has ended, or of one without a limit that is left."""
        if self._has_ended or not (self.is_done(view) or self.mode.limit_s is None):
            return
        self._has_ended = True
        if self.is_counted:
            self.place = self._best.add(self._key, self.value(view))


class Goals:
    """What is played for at present, from try to try."""

    def __init__(self, best: BestList) -> None:
        self.mode = FREE_PLAY
        self.run: Run | None = None
        self._best = best

    def choose(self, mode: Mode) -> int | None:
        """Let the next tries be for a mode; return the seed to begin with, if it has its own."""
        self.mode = mode
        return date.today().toordinal() if mode.is_daily else None

    def begin(self, playable: Playable, *, is_counted: bool) -> None:
        """Begin a try."""
        self.run = Run(
            self.mode,
            title=playable.title,
            fps=playable.fps,
            best=self._best,
            today=date.today(),
            is_counted=is_counted,
        )

    def is_done(self, view: View) -> bool:
        """Return whether the present try has ended."""
        return view.is_over if self.run is None else self.run.is_done(view)

    def finish(self, view: View | None) -> None:
        """Keep the present try's result, if it is one."""
        if self.run is not None and view is not None:
            self.run.finish(view)

    def spoil(self) -> None:
        """Let the present try's result not be kept: not all of it is the player's own."""
        if self.run is not None:
            self.run.is_counted = False
