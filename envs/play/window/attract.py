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
    """Lets an agent play when nobody has touched anything for a while."""

    def __init__(self) -> None:
        self.is_on = False
        self._touched_at = time.perf_counter()

    def notice(self, event: pygame.Event, session: Session) -> bool:
        """Look at an event; return whether it ended the show, and means nothing else."""
        return event.type in _TOUCHES and self._touch(session)

    def follow(self, session: Session, *, is_busy: bool, is_held: bool) -> None:
        """Begin the show if it is time, and let it go on after an episode's end.

        Args:
            session: What is played.
            is_busy: Whether the player is in the middle of something else, such as typing.
            is_held: Whether a key or a stick is held, which tells nothing as long as it is.
        """
        if is_held:
            self._touch(session)
        elif self.is_on:
            if session.status == "over":
                session.reset_to_next_start()
        elif (
            time.perf_counter() - self._touched_at >= IDLE_S
            and session.status in ("playing", "over")
            and session.goals.mode is FREE_PLAY
            and session.recording is None
            and not is_busy
        ):
            self.is_on = True
            session.fly(True)

    def _touch(self, session: Session) -> bool:
        """Somebody is there; return whether that ended the show."""
        self._touched_at = time.perf_counter()
        was_on, self.is_on = self.is_on, False
        if was_on:
            session.fly(False)
        return was_on
