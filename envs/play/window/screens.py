"""The menus of the window: what they offer, and what choosing does. Lists are drawn by menu.py."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pygame

from envs.play.game.game_thread import GameThread
from envs.play.game.goals import MODES
from envs.play.game.settings import SettingsFile
from envs.play.window.gallery import Gallery
from envs.play.window.menu import Entry, Menu
from envs.play.window.scoreboard import amount
from envs.play.window.setting_screens import SettingScreens
from envs.play.window.tiles import Pictures, Row, Tiles

_AGAIN = "Start again?"
_MEANT_IN_MENUS = frozenset(("f8", "f9", "f10", "f12", "m", "=", "+", "-", "[+]", "[-]"))


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
        self.menu: Menu | Tiles | None = None
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

    def follow(self, thread: GameThread) -> None:
        """Open the end of a run when it comes, and close it when it is gone."""
        if thread.status == "over" and self.menu is None:
            self._open_end(thread)
        elif self._is_end and thread.status not in ("over", "failed"):
            self.menu, self._is_end = None, False

    def open_main(self, thread: GameThread) -> None:
        """Open the main menu; the game waits meanwhile."""
        self._pause(thread)
        playable = thread.playable
        has_scenes = playable is not None and (playable.scenes is not None or playable.starts)
        entries = [
            Entry("Go on", lambda: self.close(thread)),
            *(
                Entry(
                    f"{mode.name.capitalize()}: {mode.words}",
                    partial(self._do, partial(thread.begin_mode, mode)),
                )
                for mode in MODES
            ),
            *([Entry("Scenes", lambda: self.open_scenes(thread))] if has_scenes else []),
            Entry("Recordings (F10)", lambda: self.open_gallery(thread)),
            Entry("Watch an agent play (G)", lambda: self._fly(thread)),
            Entry(
                "Settings",
                lambda: self._settings.open(thread, back=lambda: self.open_main(thread)),
            ),
            Entry("All keys (F1)", lambda: self._list_keys(thread)),
            Entry("Quit", self._quit),
        ]
        self.menu = Menu("Menu", entries, back=lambda: self.close(thread))

    def ask_again(self, thread: GameThread) -> None:
        """Ask whether to begin anew; to be asked twice is a yes."""
        if self._asks_again:
            self._do(thread.reset)
            return
        entries = [
            Entry("Start again", lambda: self._do(thread.reset)),
            Entry("Another scene", lambda: self._do(thread.reset_to_next_start)),
            Entry("Go on", lambda: self.close(thread)),
        ]
        self._pause(thread)
        self.menu = Menu(_AGAIN, entries, back=lambda: self.close(thread))

    @property
    def _asks_again(self) -> bool:
        return self.menu is not None and self.menu.title == _AGAIN

    def open_gallery(self, thread: GameThread) -> None:
        """Open what was recorded."""
        self._pause(thread)
        self._gallery.open(
            thread,
            show=self._show,
            back=lambda: self.open_main(thread),
            pictures=self.pictures,
        )

    def close(self, thread: GameThread) -> None:
        """Close what is open and let the game go on if it waits for that."""
        self.menu = None
        if self._is_pausing:
            self._is_pausing = False
            thread.toggle_pause("paused")

    def _show(self, menu: Menu | Tiles | None) -> None:
        self.menu = menu

    def _pause(self, thread: GameThread) -> None:
        if thread.status == "playing":
            thread.toggle_pause("playing")
            self._is_pausing = True
        self._is_end = False

    def _do(self, act: Callable[[], object]) -> None:
        self.menu, self._is_pausing = None, False
        act()

    def _fly(self, thread: GameThread) -> None:
        self.close(thread)
        thread.fly(True)

    def _list_keys(self, thread: GameThread) -> None:
        self.close(thread)
        self._show_keys()

    def _quit(self) -> None:
        self.quits = True

    def _open_end(self, thread: GameThread) -> None:
        run, view = thread.goals.run, thread.view
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
            Entry("Again", lambda: self._do(self._again(thread))),
            Entry("Another scene", lambda: self._do(thread.reset_to_next_start)),
            Entry("Watch the replay", lambda: self._do(thread.films.watch)),
            Entry("Menu", lambda: self.open_main(thread)),
        ]
        title = "The end" if view.is_over else "Time!"
        self.menu = Menu(title, entries, back=lambda: self.open_main(thread), notes=notes)
        self._is_end = True

    def _again(self, thread: GameThread) -> Callable[[], object]:
        mode = thread.goals.mode
        return partial(thread.begin_mode, mode) if mode.is_daily else thread.reset

    def open_scenes(self, thread: GameThread) -> None:
        """Open the tiles of scenes and start states."""
        playable = thread.playable
        if playable is None:
            return
        self._pause(thread)
        rows: list[Row] = []
        if (choices := playable.scenes) is not None:
            here = dict(choices.read(thread.view.text if thread.view is not None else ""))
            fields = list(choices.fields.items())

            def scene(row: int, index: int) -> dict[str, str]:
                """Return what is chosen in the other rows, and a tile of this one."""
                chosen = {name: known[rows[n].chosen] for n, (name, known) in enumerate(fields)}
                name, known = fields[row]
                return chosen | {name: known[index]}

            def draw(row: int, index: int) -> np.ndarray:
                return choices.draw(scene(row, index))

            def go(row: int, index: int) -> None:
                thread.set_prompt(", ".join(scene(row, index).values()))
                self.close(thread)

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
                draw=lambda index: _start_picture(thread, index),
                take=lambda index: self._do(partial(thread.begin_at, index)),
            )
        )
        self.menu = Tiles(
            "Scenes",
            rows,
            back=lambda: self.open_main(thread),
            pictures=self.pictures,
            hint="arrows choose, Enter goes there",
        )


def _start_picture(thread: GameThread, index: int) -> np.ndarray | None:
    thread.ask_for_start(index)
    return thread.start_pictures.get(index)
