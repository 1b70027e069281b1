"""What takes long and need not hold up the game, such as writing a film: in a thread beside it."""

import threading
from collections.abc import Callable

from midas_world.types import MidasWorldError


class Jobs:
    """Work that is done one piece after the other.

    Args:
        tell: Called in the thread with words for the player, at the end of each.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._threads: list[threading.Thread] = []
        self._turn = threading.Lock()

    def start(self, work: Callable[[], str]) -> None:
        """Do some work that returns words for the player."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(threading.Thread(target=self._do, args=(work,), name="studio"))
        self._threads[-1].start()

    def close(self) -> None:
        """Wait until everything is done; may be called twice."""
        for thread in self._threads:
            thread.join()

    def _do(self, work: Callable[[], str]) -> None:
        with self._turn:
            try:
                words = work()
            except (MidasWorldError, OSError, ValueError, ImportError) as error:
                words = f"not saved: {error}"
        self._tell(words)
