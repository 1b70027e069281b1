"""The show while nobody plays: after a while an agent does, until somebody touches something."""

import time

import pygame

from envs.play.game.game_thread import GameThread
from envs.play.game.goals import FREE_PLAY

IDLE_S = 60.0

_TOUCHES = frozenset(
    (
        pygame.KEYDOWN,
        pygame.MOUSEBUTTONDOWN,
        pygame.JOYBUTTONDOWN,
        pygame.JOYHATMOTION,
        pygame.CONTROLLERBUTTONDOWN,
    )
)


class Attract:
    """Lets an agent play when nobody has touched anything for a while."""

    def __init__(self) -> None:
        self.is_on = False
        self._touched_at = time.perf_counter()

    def notice(self, event: pygame.Event, thread: GameThread) -> bool:
        """Look at an event; return whether it ended the show, and means nothing else."""
        return event.type in _TOUCHES and self._touch(thread)

    def follow(self, thread: GameThread, *, is_busy: bool, is_held: bool) -> None:
        """Begin the show if it is time, and let it go on after an episode's end.

        A key or a stick that is held tells nothing as long as it is.
        """
        if is_held:
            self._touch(thread)
        elif self.is_on:
            if thread.status == "over":
                thread.reset_to_next_start()
        elif (
            time.perf_counter() - self._touched_at >= IDLE_S
            and thread.status in ("playing", "over")
            and thread.goals.mode is FREE_PLAY
            and thread.recording.status is None
            and not is_busy
        ):
            self.is_on = True
            thread.fly(True)

    def _touch(self, thread: GameThread) -> bool:
        """Somebody is there; return whether that ended the show."""
        self._touched_at = time.perf_counter()
        was_on, self.is_on = self.is_on, False
        if was_on:
            thread.fly(False)
        return was_on
