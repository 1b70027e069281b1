"""Bookmarks: up to nine moments of a game to jump back to, each the start of another branch."""

from dataclasses import replace

from envs.play.game.moments import Snapshot

NUM_BOOKMARKS = 9


class Bookmarks(dict[int, Snapshot]):
    """Moments by their numbers, the oldest first."""

    @property
    def shown(self) -> list[tuple[int, Snapshot]]:
        """Numbers and moments, in the order of the numbers; another thread may ask."""
        return sorted(self.copy().items(), key=lambda item: item[0])

    @property
    def newest(self) -> int:
        """Number of the moment that was kept last; 0 if there is none."""
        return next(reversed(self), 0)

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
