"""A film that is looked at: any of its frames, at several speeds. Knows no thread and no window."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from envs.play.game.game import Game
from envs.play.game.moments import View

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True, kw_only=True)
class Film:
    """Frames in their order, each to be had by its number.

    Attributes:
        view: Returns what is seen and heard at a frame; ValueError: it cannot be read.
        beginnings: Numbers of the frames that do not follow from the one before.
        facts: Returns what is known of a frame: what, and how much.
        go_to: Brings a game to a frame, from where it goes on, as `Game.restore` does; returns
            what is seen, and whether it is bit-equal. None: that cannot be done.
    """

    num_frames: int
    fps: float
    view: Callable[[int], View]
    beginnings: Sequence[int] = ()
    facts: Callable[[int], Sequence[tuple[str, str]]] = lambda _: ()
    go_to: Callable[[Game, int, Callable[[int, int], object]], tuple[View, bool]] | None = None

    def views(self) -> Iterator[View]:
        """Yield what is seen and heard, from the first frame on."""
        return map(self.view, range(self.num_frames))


class Projector:
    """Shows a film."""

    def __init__(self, film: Film) -> None:
        self.film = film
        self.number = 0
        self.speed = 1.0
        self.is_paused = False

    @property
    def period_s(self) -> float:
        """Seconds from frame to frame."""
        return 1.0 / (self.film.fps * self.speed)

    @property
    def last(self) -> int:
        """Number of the last frame."""
        return self.film.num_frames - 1

    def seek(self, number: int) -> None:
        """Show a frame, the nearest there is."""
        self.number = min(max(number, 0), self.last)

    def skip(self, num_frames: int, *, pauses: bool = False) -> None:
        """Go so many frames on, or back."""
        self.is_paused |= pauses
        self.seek(self.number + num_frames)

    def advance(self) -> None:
        """Show the next frame; the last one stays."""
        self.seek(self.number + 1)
        self.is_paused |= self.number == self.last

    def toggle_pause(self) -> None:
        """Pause, or go on; from its end, a film begins again."""
        self.is_paused = not self.is_paused
        if not self.is_paused and self.number == self.last:
            self.number = 0

    def change_speed(self, *, faster: bool) -> None:
        """Show the film at the next higher or lower speed."""
        place = SPEEDS.index(self.speed) + (1 if faster else -1)
        self.speed = SPEEDS[min(max(place, 0), len(SPEEDS) - 1)]
