"""The menus of the window: what they offer, and what choosing does. Lists are drawn by menu.py."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pygame

from envs.play.game.goals import MODES, Mode
from envs.play.game.session import Session
from envs.play.game.settings import MAX_VOLUME, SettingsFile
from envs.play.window.keys import place_of
from envs.play.window.menu import Entry, Menu
from envs.play.window.scoreboard import amount

_AGAIN = "Start again?"
_PICTURE_SIZE = (240, 144)


class Screens:
    """The menu that is open, if one is.

    Args:
        settings: Changed here.
        apply: Called after each change of a setting.
        show_keys: Shows the list of all keys.

    Attributes:
        menu: What is open.
        quits: Whether the player has chosen to quit.
    """

    def __init__(
        self,
        settings: SettingsFile,
        *,
        apply: Callable[[], object],
        show_keys: Callable[[], object],
    ) -> None:
        self.menu: Menu | None = None
        self.quits = False
        self._settings = settings
        self._apply = apply
        self._show_keys = show_keys
        self._wanted_key: str | None = None  # the key of the game that gets a new place
        self._is_pausing = False
        self._is_end = False
        self._scene: dict[str, str] = {}
        self._start = 0
        self._drawn: tuple[object, pygame.Surface] | None = None

    def handle(self, event: pygame.Event) -> bool:
        """Obey an event; return whether it was meant for what is open."""
        if self.menu is None:
            return False
        if self._wanted_key is not None and event.type == pygame.KEYDOWN:
            self._bind(event)
            return True
        return self.menu.handle(event)

    def follow(self, session: Session) -> None:
        """Open the end of a run when it comes, and close it when it is gone."""
        if session.status == "over" and self.menu is None:
            self._open_end(session)
        elif self._is_end and session.status not in ("over", "failed"):
            self.menu, self._is_end = None, False

    def open_main(self, session: Session) -> None:
        """Open the main menu; the game waits meanwhile."""
        if session.status == "playing":
            session.toggle_pause()
            self._is_pausing = True
        self._is_end = False
        entries = [
            Entry(label=lambda: "Go on", take=lambda: self.close(session)),
            *(self._mode_entry(session, mode) for mode in MODES),
            Entry(label=lambda: "Scenes", take=lambda: self._open_scenes(session)),
            Entry(label=lambda: "Watch an agent play (G)", take=lambda: self._fly(session)),
            Entry(label=lambda: "Settings", take=lambda: self._open_settings(session)),
            Entry(label=lambda: "All keys (F1)", take=lambda: self._list_keys(session)),
            Entry(label=lambda: "Quit", take=self._quit),
        ]
        self.menu = Menu("Menu", entries, back=lambda: self.close(session))

    def ask_again(self, session: Session) -> None:
        """Ask whether to begin anew; to be asked twice is a yes."""
        if self.menu is not None and self.menu.title == _AGAIN:
            self._do(session, session.reset)
            return
        entries = [
            Entry(label=lambda: "Start again", take=lambda: self._do(session, session.reset)),
            Entry(
                label=lambda: "Another scene",
                take=lambda: self._do(session, session.reset_to_next_start),
            ),
            Entry(label=lambda: "Go on", take=lambda: self.close(session)),
        ]
        self._is_end = False
        self.menu = Menu(_AGAIN, entries, back=lambda: self.close(session))

    def close(self, session: Session) -> None:
        """Close what is open and let the game go on if it waits for that."""
        self.menu = None
        if self._is_pausing:
            self._is_pausing = False
            if session.status == "paused":
                session.toggle_pause()

    def _do(self, session: Session, act: Callable[[], object]) -> None:
        self.menu, self._is_pausing = None, False
        act()

    def _mode_entry(self, session: Session, mode: Mode) -> Entry:
        name = mode.name.capitalize()
        return Entry(
            label=lambda: f"{name}: {mode.words}",
            take=lambda: self._do(session, partial(session.begin_mode, mode)),
        )

    def _fly(self, session: Session) -> None:
        self.close(session)
        session.fly(True)

    def _list_keys(self, session: Session) -> None:
        self.close(session)
        self._show_keys()

    def _quit(self) -> None:
        self.quits = True

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
            Entry(label=lambda: "Again", take=lambda: self._do(session, self._again(session))),
            Entry(
                label=lambda: "Another scene",
                take=lambda: self._do(session, session.reset_to_next_start),
            ),
            Entry(label=lambda: "Watch the replay", take=lambda: self._do(session, session.watch)),
            Entry(label=lambda: "Menu", take=lambda: self.open_main(session)),
        ]
        title = "The end" if view.is_over else "Time!"
        self.menu = Menu(title, entries, back=lambda: self.open_main(session), notes=notes)
        self._is_end = True

    def _again(self, session: Session) -> Callable[[], object]:
        mode = session.goals.mode
        return partial(session.begin_mode, mode) if mode.is_daily else session.reset

    def _open_scenes(self, session: Session) -> None:
        playable = session.playable
        if playable is None:
            return
        entries = []
        if (choices := playable.scenes) is not None:
            text = session.view.text if session.view is not None else ""
            self._scene = dict(choices.read(text))
            entries += [
                Entry(
                    label=lambda name=name: f"{name.replace('_', ' ')}:  < {self._scene[name]} >",
                    change=lambda step, name=name, known=known: self._turn(name, known, step),
                    picture=lambda: self._picture(tuple(self._scene.items()), self._draw(session)),
                )
                for name, known in choices.fields.items()
            ]
            entries.append(
                Entry(
                    label=lambda: "Go there",
                    take=lambda: self._go_there(session),
                    picture=lambda: self._picture(tuple(self._scene.items()), self._draw(session)),
                )
            )
        if playable.starts:
            count = len(playable.starts)
            session.ask_for_start(self._start)

            def turn(step: int) -> None:
                self._start = (self._start + step) % count
                session.ask_for_start(self._start)

            entries.append(
                Entry(
                    label=lambda: f"begin at:  < {playable.starts[self._start]} >",
                    take=lambda: self._do(session, partial(session.begin_at, self._start)),
                    change=turn,
                    picture=lambda: self._picture(
                        ("start", self._start, self._start in session.start_pictures),
                        lambda: session.start_pictures.get(self._start),
                    ),
                )
            )
        entries.append(Entry(label=lambda: "Back", take=lambda: self.open_main(session)))
        self.menu = Menu("Scenes", entries, back=lambda: self.open_main(session))

    def _turn(self, name: str, known: tuple[str, ...], step: int) -> None:
        self._scene[name] = known[(known.index(self._scene[name]) + step) % len(known)]

    def _draw(self, session: Session) -> Callable[[], np.ndarray | None]:
        choices = session.playable.scenes if session.playable is not None else None
        return lambda: choices.draw(self._scene) if choices is not None else None

    def _go_there(self, session: Session) -> None:
        session.set_prompt(", ".join(self._scene.values()))
        self.close(session)

    def _picture(self, key: object, make: Callable[[], np.ndarray | None]) -> pygame.Surface | None:
        """Return a small picture of a frame, drawn once for each key."""
        if self._drawn is None or self._drawn[0] != key:
            frame = make()
            if frame is None:
                return None
            height, width, _ = frame.shape
            picture = pygame.image.frombytes(frame.tobytes(), (width, height), "RGB")
            self._drawn = key, pygame.transform.smoothscale(picture, _PICTURE_SIZE)
        return self._drawn[1]

    def _open_settings(self, session: Session) -> None:
        settings = self._settings

        def is_on(name: str) -> str:
            return "on" if getattr(settings.settings, name) else "off"

        def switch(name: str) -> None:
            settings.change(**{name: not getattr(settings.settings, name)})
            self._apply()

        def louder(step: int) -> None:
            session.speaker.change_volume(louder=step > 0)
            settings.change(volume=round(MAX_VOLUME * session.speaker.volume))

        switches = {
            "is_fullscreen": "full screen (F11)",
            "fills_window": "picture fills the window",
            "uses_pads": "gamepads",
        }
        entries = [
            Entry(label=lambda: f"sound (M, -, +):  < {session.speaker.words} >", change=louder),
            *(
                Entry(
                    label=lambda name=name, words=words: f"{words}:  < {is_on(name)} >",
                    change=lambda _, name=name: switch(name),
                )
                for name, words in switches.items()
            ),
            Entry(label=lambda: "Keys", take=lambda: self._open_keys(session)),
            Entry(label=lambda: "Back", take=lambda: self.open_main(session)),
        ]
        notes = [settings.problem] if settings.problem else []
        self.menu = Menu("Settings", entries, back=lambda: self.open_main(session), notes=notes)

    def _open_keys(self, session: Session) -> None:
        keymap = session.playable.keymap if session.playable is not None else None
        used = keymap.keys.values() if keymap is not None else ()
        names = list(dict.fromkeys(name for held in used for name in held))

        def label(name: str) -> str:
            if self._wanted_key == name:
                return f"{name}:  press the key that you want"
            return f"{name}:  {self._settings.settings.keys.get(name, name)}"

        def want(name: str) -> None:
            self._wanted_key = name

        def reset() -> None:
            self._settings.change(keys={})
            self._apply()

        entries = [
            *(Entry(label=lambda n=name: label(n), take=lambda n=name: want(n)) for name in names),
            Entry(label=lambda: "as they were", take=reset),
            Entry(label=lambda: "Back", take=lambda: self._open_settings(session)),
        ]
        self.menu = Menu("Keys", entries, back=lambda: self._open_settings(session))

    def _bind(self, event: pygame.Event) -> None:
        """Give the wanted key a new place; Esc keeps the old one."""
        name, self._wanted_key = self._wanted_key, None
        if name is not None and event.key != pygame.K_ESCAPE:
            place = place_of(event)
            # A place stands for one key: whichever had it goes back to its own.
            kept = {n: p for n, p in self._settings.settings.keys.items() if p != place}
            self._settings.change(keys=kept | {name: place})
            self._apply()
