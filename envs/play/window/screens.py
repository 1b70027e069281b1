"""The menus of the window: what they offer, and what choosing does. Lists are drawn by menu.py."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import pygame

from envs.play.game.goals import MODES, Mode
from envs.play.game.session import Session
from envs.play.game.settings import SettingsFile
from envs.play.window.gallery import Gallery
from envs.play.window.menu import Entry, Menu
from envs.play.window.scoreboard import amount
from envs.play.window.setting_screens import SettingScreens
from envs.play.window.tiles import Pictures, Row, Tiles

_AGAIN = "Start again?"
_MEANT_IN_MENUS = frozenset(("f8", "f9", "f10", "f12", "m", "=", "+", "-", "[+]", "[-]"))
_SCENES_HINT = "arrows choose, Enter goes there"


class _Screen(Protocol):
    title: str

    def handle(self, event: pygame.Event) -> bool: ...

    def draw(self, surface: pygame.Surface, area: pygame.Rect) -> None: ...


class Screens:
    """The menu that is open, if one is."""

    def __init__(
        self,
        settings: SettingsFile,
        *,
        apply: Callable[[], object],
        show_keys: Callable[[], object],
        gallery: Gallery,
    ) -> None:
        self.menu: _Screen | None = None
        self.quits = False
        self.pictures = Pictures()
        self._gallery = gallery
        self._settings = SettingScreens(settings, apply=apply, show=self._show)
        self._show_keys = show_keys
        self._is_pausing = False
        self._is_end = False

    def handle(self, event: pygame.Event) -> bool:
        """Obey an event; return whether it was meant for what is open."""
        if self.menu is None:
            return False
        return self._settings.handle(event) or self.menu.handle(event)

    @property
    def takes_all(self) -> bool:
        """Whether the game waits for what is open, and keys of the game mean nothing."""
        return self.menu is not None and not self._is_end

    @property
    def is_behind(self) -> bool:
        """Whether pictures of what is open are still to be made."""
        return isinstance(self.menu, Tiles) and self.pictures.is_behind

    def lets_through(self, name: str) -> bool:
        """Return whether a command is obeyed while a menu is open."""
        return name in _MEANT_IN_MENUS or (name == "r" and self._asks_again)

    def follow(self, session: Session) -> None:
        """Open the end of a run when it comes, and close it when it is gone."""
        if session.status == "over" and self.menu is None:
            self._open_end(session)
        elif self._is_end and session.status not in ("over", "failed"):
            self.menu, self._is_end = None, False

    def open_main(self, session: Session) -> None:
        """Open the main menu; the game waits meanwhile."""
        self._pause(session)
        entries = [
            Entry("Go on", lambda: self.close(session)),
            *(self._mode_entry(session, mode) for mode in MODES),
            Entry("Scenes", lambda: self.open_scenes(session)),
            Entry("Recordings (F10)", lambda: self.open_gallery(session)),
            Entry("Watch an agent play (G)", lambda: self._fly(session)),
            Entry("Settings", lambda: self._open_settings(session)),
            Entry("All keys (F1)", lambda: self._list_keys(session)),
            Entry("Quit", self._quit),
        ]
        self.menu = Menu("Menu", entries, back=lambda: self.close(session))

    def ask_again(self, session: Session) -> None:
        """Ask whether to begin anew; to be asked twice is a yes."""
        if self._asks_again:
            self._do(session, session.reset)
            return
        entries = [
            Entry("Start again", lambda: self._do(session, session.reset)),
            Entry("Another scene", lambda: self._do(session, session.reset_to_next_start)),
            Entry("Go on", lambda: self.close(session)),
        ]
        self._pause(session)
        self.menu = Menu(_AGAIN, entries, back=lambda: self.close(session))

    @property
    def _asks_again(self) -> bool:
        return self.menu is not None and self.menu.title == _AGAIN

    def open_gallery(self, session: Session) -> None:
        """Open what was recorded."""
        self._pause(session)
        self._gallery.open(
            session,
            show=self._show,
            leave=lambda: self._show(None),
            back=lambda: self.open_main(session),
            pictures=self.pictures,
        )

    def close(self, session: Session) -> None:
        """Close what is open and let the game go on if it waits for that."""
        self.menu = None
        if self._is_pausing:
            self._is_pausing = False
            session.set_paused(False)

    def _show(self, menu: _Screen | None) -> None:
        self.menu = menu

    def _pause(self, session: Session) -> None:
        if session.status == "playing":
            session.set_paused(True)
            self._is_pausing = True
        self._is_end = False

    def _do(self, session: Session, act: Callable[[], object]) -> None:
        self.menu, self._is_pausing = None, False
        act()

    def _mode_entry(self, session: Session, mode: Mode) -> Entry:
        name = mode.name.capitalize()
        return Entry(
            f"{name}: {mode.words}", lambda: self._do(session, partial(session.begin_mode, mode))
        )

    def _fly(self, session: Session) -> None:
        self.close(session)
        session.fly(True)

    def _list_keys(self, session: Session) -> None:
        self.close(session)
        self._show_keys()

    def _quit(self) -> None:
        self.quits = True

    def _open_settings(self, session: Session) -> None:
        self._settings.open(session, back=lambda: self.open_main(session))

    def _open_end(self, session: Session) -> None:
        run, view = session.goals.run, session.view
        if run is None or view is None:
            return
        value = amount(run, run.value(view))
        notes = [f"{run.mode.name}: {value}"]
        if run.place is not None:
            notes[0] += f", number {run.place} of the best"
        elif not run.is_counted:
            notes[0] += ", not counted: not all of it was played in one go"
        if run.best:
            notes.append("best: " + ", ".join(amount(run, best) for best in run.best[:5]))
        entries = [
            Entry("Again", lambda: self._do(session, self._again(session))),
            Entry("Another scene", lambda: self._do(session, session.reset_to_next_start)),
            Entry("Watch the replay", lambda: self._do(session, session.watch)),
            Entry("Menu", lambda: self.open_main(session)),
        ]
        title = "The end" if view.is_over else "Time!"
        self.menu = Menu(title, entries, back=lambda: self.open_main(session), notes=notes)
        self._is_end = True

    def _again(self, session: Session) -> Callable[[], object]:
        mode = session.goals.mode
        return partial(session.begin_mode, mode) if mode.is_daily else session.reset

    def open_scenes(self, session: Session) -> None:
        """Open the tiles of scenes and start states."""
        playable = session.playable
        if playable is None:
            return
        self._pause(session)
        rows: list[Row] = []
        if (choices := playable.scenes) is not None:
            here = dict(choices.read(session.view.text if session.view is not None else ""))
            fields = list(choices.fields.items())

            def scene(row: int, index: int) -> dict[str, str]:
                """Return what is chosen in the other rows, and a tile of this one."""
                chosen = {name: known[rows[n].chosen] for n, (name, known) in enumerate(fields)}
                name, known = fields[row]
                return chosen | {name: known[index]}

            def draw(row: int, index: int) -> np.ndarray:
                return choices.draw(scene(row, index))

            def go(row: int, index: int) -> None:
                session.set_prompt(", ".join(scene(row, index).values()))
                self.close(session)

            rows += [
                Row(
                    title=name.replace("_", " "),
                    labels=known,
                    key=lambda index, row=row: ("scene", *scene(row, index).values()),
                    draw=partial(draw, row),
                    take=partial(go, row),
                    chosen=known.index(here[name]),
                    is_choice=True,
                )
                for row, (name, known) in enumerate(fields)
            ]
        rows.append(
            Row(
                title="begin at",
                labels=playable.starts,
                key=lambda index: ("start", index),
                draw=lambda index: _start_picture(session, index),
                take=lambda index: self._do(session, partial(session.begin_at, index)),
            )
        )
        self.menu = Tiles(
            "Scenes",
            rows,
            back=lambda: self.open_main(session),
            pictures=self.pictures,
            hint=_SCENES_HINT,
        )


def _start_picture(session: Session, index: int) -> np.ndarray | None:
    session.ask_for_start(index)
    return session.start_pictures.get(index)
