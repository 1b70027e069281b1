"""What takes long and need not hold up the game, such as writing a film: in a thread beside it."""

import logging
import threading
from collections.abc import Callable

from midas_world.types import MidasWorldError

_logger = logging.getLogger(__name__)


class Jobs:
    """Work that is done one piece after the other.

    Attributes:
        words: What is being done, for the player; empty if nothing is.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self.words = ""
        self._tell = tell
        self._threads: list[threading.Thread] = []
        self._turn = threading.Lock()

    def start(self, work: Callable[[], str], *, words: str) -> None:
        """Do some work that returns words for the player; until then, these say what it is."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self.words = words
        thread = threading.Thread(target=self._do, args=(work,), name="studio", daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Wait until everything is done; may be called twice."""
        if self.words:
            _logger.info("%s, and then it ends", self.words)
        for thread in self._threads:
            thread.join()

    def _do(self, work: Callable[[], str]) -> None:
        with self._turn:
            try:
                words = work()
            except (MidasWorldError, OSError, ValueError, ImportError) as error:
                words = f"not saved: {error}"
        if self._threads[-1] is threading.current_thread():
            self.words = ""
        self._tell(words)
