"""Bookmarks: up to nine moments of a game to jump back to, each the start of another branch."""

from dataclasses import replace

from envs.play.game.moments import Snapshot

NUM_BOOKMARKS = 9


class Bookmarks:
    """Numbered moments.

    Attributes:
        shown: Numbers and moments, in the order of the numbers. Replaced as a whole when a bookmark
            is dropped, so that another thread may look at it.
    """

    def __init__(self) -> None:
        self.shown: tuple[tuple[int, Snapshot], ...] = ()
        self._dropped: dict[int, Snapshot] = {}  # the oldest first

    @property
    def newest(self) -> int:
        """Number of the moment that was kept last; 0 if there is none."""
        return next(reversed(self._dropped), 0)

    def drop(self, snapshot: Snapshot) -> int:
        """Keep a moment and return its number: the lowest free one, or else the oldest one's."""
        free = [n for n in range(1, NUM_BOOKMARKS + 1) if n not in self._dropped]
        number = free[0] if free else next(iter(self._dropped))
        self._dropped.pop(number, None)
        self._dropped[number] = snapshot
        self._show()
        return number

    def drop_states(self) -> None:
        """Keep how moments were reached alone: another engine plays its way to them anew."""
        for number, snapshot in self._dropped.items():
            self._dropped[number] = replace(snapshot, state=None)
        self._show()

    def get(self, number: int) -> Snapshot | None:
        """Return a moment by its number; None if there is none."""
        return self._dropped.get(number)

    def _show(self) -> None:
        self.shown = tuple(sorted(self._dropped.items(), key=lambda item: item[0]))
