"""What was recorded: sessions and films, newest first; watched, exported, deleted."""

import logging
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from envs.play.game.film import Film
from envs.play.replay.recorded import Tape
from envs.play.studio.films import FilmLook, first_frame, open_film, save_film
from envs.recording.record import new_path
from midas_world.sessions.session import HEADER, VIDEO, load_session
from midas_world.types import MidasWorldError

_logger = logging.getLogger(__name__)

FILM_ENDINGS = (".mp4", ".gif")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Something that was recorded."""

    path: Path
    is_session: bool

    @property
    def made(self) -> str:
        """When it was made, for the player."""
        return f"{datetime.fromtimestamp(self.path.stat().st_mtime).astimezone():%d %b %H:%M}"

    @property
    def name(self) -> str:
        """When it was made, and what it is, for the player."""
        return f"{self.made}, {'session' if self.is_session else self.path.suffix[1:]}"

    def picture(self) -> np.ndarray:
        """Return its first frame, uint8 (H, W, 3).

        Raises:
            ValueError: It cannot be read.
        """
        return first_frame(self.path / VIDEO if self.is_session else self.path)

    def film(self) -> Film:
        """Return what it shows.

        Raises:
            ValueError: It cannot be read.
        """
        return Tape(load_session(self.path)).film() if self.is_session else open_film(self.path)

    def export(self, *, ending: str, shape: str | None, has_keys: bool) -> str:
        """Write it as a new film beside it; return words for the player.

        Raises:
            ValueError: It cannot be read.
            OSError: The film cannot be written.
        """
        target = new_path(self.path.parent, self.path.stem, ending)
        if not self.is_session:
            return save_film(open_film(self.path), target, FilmLook(shape=shape, grows=False))
        tape = Tape(load_session(self.path))
        keys = tape.session.header.action_keys if has_keys else None
        look = FilmLook(shape=shape, keys=keys, grows=ending != ".gif")
        return save_film(tape.film(), target, look)

    def delete(self) -> str:
        """Delete it; return words for the player.

        Raises:
            OSError: It cannot be deleted.
        """
        if self.is_session:
            shutil.rmtree(self.path)
        else:
            self.path.unlink()
        return f"deleted {self.path}"


def recordings(folder: Path) -> list[Recording]:
    """Return what lies in a folder, the newest first."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        is_session = (path / HEADER).is_file()
        if is_session or (path.suffix in FILM_ENDINGS and path.is_file()):
            found.append(Recording(path=path, is_session=is_session))
    return sorted(found, key=lambda item: item.path.stat().st_mtime, reverse=True)


class Jobs:
    """Work that takes long, such as writing a film, done piece by piece in a thread beside play.

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
