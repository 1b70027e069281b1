"""The show while nobody plays: after a while an agent does, until somebody touches something."""

import time

import pygame

from envs.play.game.goals import FREE_PLAY
from envs.play.game.session import Session

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
    """Lets an agent play when nobody has touched anything for a while.

    Attributes:
        is_on: Whether it does.
    """

    def __init__(self) -> None:
        self.is_on = False
        self._touched_at = time.perf_counter()

    def notice(self, event: pygame.Event, session: Session) -> bool:
        """Look at an event; return whether it ended the show, and means nothing else."""
        if event.type not in _TOUCHES:
            return False
        self._touched_at = time.perf_counter()
        was_on, self.is_on = self.is_on, False
        if was_on:
            session.fly(False)
        return was_on

    def follow(self, session: Session, *, is_busy: bool) -> None:
        """Begin the show if it is time, and let it go on after an episode's end.

        Args:
            session: What is played.
            is_busy: Whether the player is in the middle of something else, such as typing.
        """
        if self.is_on:
            if session.status == "over":
                session.reset_to_next_start()
            return
        may_begin = session.status in ("playing", "over") and session.goals.mode is FREE_PLAY
        if is_busy or not may_begin or session.recording is not None:
            return
        if time.perf_counter() - self._touched_at >= IDLE_S:
            self.is_on = True
            session.fly(True)
