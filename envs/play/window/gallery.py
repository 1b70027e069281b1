"""The studio at the window: screenshots, the last seconds as a film, what was recorded."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pygame

from envs.play.game.film import Film, Projector
from envs.play.game.game_thread import GameThread
from envs.play.game.settings import SettingsFile
from envs.play.studio.films import FilmLook, save_film
from envs.play.studio.gallery import Jobs, Recording, recordings
from envs.play.window.menu import Entry, Menu
from envs.play.window.tiles import Pictures, Row, Tiles
from envs.recording.record import RECORDINGS_FOLDER, new_path
from midas_world.files import whole
from midas_world.sessions.export.pictures import SHAPES

FILM_SECONDS = 30.0
SCREENSHOTS_FOLDER = Path("screenshots")


class Gallery:
    """Saves, lists, shows, exports and deletes what was recorded.

    Attributes:
        jobs: What is being saved and exported.
    """

    def __init__(self, settings: SettingsFile, *, tell: Callable[[str], object]) -> None:
        self._settings = settings
        self._tell = tell
        self.jobs = Jobs(tell)
        self._tiles: Tiles | None = None
        self._shown: Film | None = None
        self._reopen: Callable[[], object] = lambda: None

    def save_last(self, thread: GameThread) -> None:
        """Save what was shown in the last seconds as a film."""
        playable, settings = thread.playable, self._settings.settings
        if playable is None:
            return
        look = FilmLook(
            shape=settings.film_shape or None,
            keys=playable.keymap.keys if settings.shows_held_keys else None,
        )
        path = new_path(RECORDINGS_FOLDER, playable.title, ".mp4")

        def use(film: Film) -> None:
            words = f"saving the last {min(film.num_frames / film.fps, FILM_SECONDS):.0f} seconds"
            self.jobs.start(lambda: f"{save_film(film, path, look)} (F10 shows it)", words=words)

        thread.past.take_film(FILM_SECONDS, use)

    def open(
        self,
        thread: GameThread,
        *,
        show: Callable[[Any], object],
        back: Callable[[], object],
        pictures: Pictures,
    ) -> None:
        """Open the tiles of all recordings."""
        found = recordings(RECORDINGS_FOLDER)

        def reopen() -> None:
            self.open(thread, show=show, back=back, pictures=pictures)

        def watch(item: Recording) -> None:
            try:
                film = item.film()
            except (ValueError, OSError) as error:
                self._tell(str(error))
                return
            show(None)
            self._shown = film
            thread.films.watch(film)

        def export(item: Recording, ending: str, shape: str | None) -> None:
            has_keys = self._settings.settings.shows_held_keys
            self.jobs.start(
                lambda: item.export(ending=ending, shape=shape, has_keys=has_keys),
                words=f"exporting {item.name} as {ending[1:]}",
            )
            reopen()

        def delete(item: Recording) -> None:
            recorded = thread.recording.status
            try:
                if recorded is not None and recorded.folder.resolve() == item.path.resolve():
                    raise OSError("it is being recorded, F9 ends that")
                self._tell(item.delete())
            except OSError as error:
                self._tell(f"not deleted: {error}")
            reopen()

        def ask(item: Recording) -> None:
            entries = [
                Entry("Keep it", partial(choose, item)),
                Entry("Delete it for good", partial(delete, item)),
            ]
            show(Menu(f"Delete {item.name}?", entries, back=partial(choose, item)))

        def choose(item: Recording) -> None:
            ways = [("MP4", ".mp4", None), *((f"MP4, {name}", ".mp4", name) for name in SHAPES)]
            ways.append(("GIF", ".gif", None))
            entries = [
                Entry("Watch", partial(watch, item)),
                *(
                    Entry(f"Export as {name}", partial(export, item, ending, shape))
                    for name, ending, shape in ways
                ),
                Entry("Delete", partial(ask, item)),
                Entry("Back", reopen),
            ]
            replay = f"to play on from it: python play.py --replay {item.path}"
            notes = [replay] if item.is_session else []
            show(Menu(item.name, entries, back=reopen, notes=notes))

        def row(title: str, items: list[Recording]) -> Row:
            def draw(index: int) -> np.ndarray:
                try:
                    return items[index].picture()
                except (ValueError, OSError):
                    return np.full((6, 10, 3), 40, np.uint8)  # it is there, and cannot be read

            return Row(
                title=title,
                labels=[item.made for item in items],
                key=lambda index: items[index].path,
                draw=draw,
                take=lambda index: choose(items[index]),
            )

        rows = [
            row("films", [item for item in found if not item.is_session]),
            row("recorded sessions", [item for item in found if item.is_session]),
        ]
        hint = "arrows choose, Enter opens"
        self._tiles = Tiles("Recordings", rows, back=back, pictures=pictures, hint=hint)
        self._reopen = reopen
        show(self._tiles)

    def has_shown(self, projector: Projector | None) -> bool:
        """Return whether a film that is shown was picked here."""
        return projector is not None and projector.film is self._shown

    def refresh(self, menu: object) -> None:
        """Look again for what was recorded, if a menu is the tiles of that."""
        if menu is self._tiles and menu is not None:
            self._reopen()


def save_screenshot(picture: pygame.Surface) -> str:
    """Write a picture as PNG; return where it is, or why it is not, in words."""
    path = new_path(SCREENSHOTS_FOLDER, "picture", ".png")
    try:
        with whole(path) as place:
            pygame.image.save(picture, str(place))
    except (OSError, pygame.error) as error:  # a full disk, a folder that is not ours
        return f"no screenshot: {error}"
    return f"saved {path}"
