"""The menus of settings: sound, picture, language, keys, gamepad."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pygame

from envs.play.game.game_thread import GameThread
from envs.play.game.inputs import PAD_BUTTONS, aliases_of, buttons_of
from envs.play.game.settings import MAX_VOLUME, SettingsFile
from envs.play.voice.sentences import language_name, languages
from envs.play.window.hud import COMMANDS, FIXED
from envs.play.window.keys import place_of
from envs.play.window.menu import Entry, Menu
from envs.play.window.pads import pressed_button
from midas_world.sessions.export.pictures import SHAPES


class SettingScreens:
    """Menus that change a player's settings."""

    def __init__(
        self, settings: SettingsFile, *, apply: Callable[[], object], show: Callable[[Menu], object]
    ) -> None:
        self._file = settings
        self._apply = apply
        self._show = show
        self._wanted: tuple[str, str] | None = None  # which setting, and the key to be moved

    def handle(self, event: pygame.Event) -> bool:
        """Take the key or button that was asked for; return whether the event was that."""
        if self._wanted is None:
            return False
        kind, name = self._wanted
        if event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE:
            self._wanted = None
            return True
        button, is_key = pressed_button(event), event.type == pygame.KEYDOWN
        key = place_of(event) if is_key else None
        place = key if kind == "keys" else button
        if place is not None:
            self._wanted = None
            # A place stands for one key: whichever had it goes back to its own.
            known: Mapping[str, str] = getattr(self._file.settings, kind)
            kept = {n: p for n, p in known.items() if p != place}
            self._change(**{kind: kept | {name: place}})
        return is_key or button is not None

    def open(self, thread: GameThread, *, back: Callable[[], object]) -> None:
        """Open the settings."""
        file = self._file

        def switch(name: str, words: str) -> Entry:
            def turn(_: int) -> None:
                self._change(**{name: not getattr(file.settings, name)})

            return Entry(
                label=lambda: f"{words}:  < {'on' if getattr(file.settings, name) else 'off'} >",
                change=turn,
            )

        def choice(name: str, words: str, known: tuple[str, ...], own: str) -> Entry:
            def turn(step: int) -> None:
                now = getattr(file.settings, name)
                place = known.index(now) if now in known else 0
                self._change(**{name: known[(place + step) % len(known)]})
                if name == "language":
                    thread.voices.speak(file.settings.language)

            def label() -> str:
                return f"{words}:  < {language_name(getattr(file.settings, name)) or own} >"

            return Entry(label=label, change=turn)

        def louder(step: int) -> None:
            thread.speaker.change_volume(louder=step > 0)
            file.change(volume=round(MAX_VOLUME * thread.speaker.volume))

        def reopen() -> None:
            self.open(thread, back=back)

        known = ("", *languages())
        language = choice("language", "the character speaks (L)", known, "as the world has it")
        speaks = thread.playable is not None and thread.playable.speaks
        entries = [
            Entry(label=lambda: f"sound (M, -, +):  < {thread.speaker.words} >", change=louder),
            *([language] if speaks else []),
            switch("is_fullscreen", "full screen (F11)"),
            switch("fills_window", "picture fills the window"),
            switch("shows_bookmarks", "pictures of bookmarks"),
            switch("shows_held_keys", "keys that are held (F4)"),
            choice("film_shape", "saved films (F8)", ("", *SHAPES), "as played"),
            switch("uses_pads", "gamepads"),
            Entry("Keys", lambda: self._open_keys(thread, "keys", back=reopen)),
            Entry("Gamepad", lambda: self._open_keys(thread, "pad", back=reopen)),
            Entry("Back", back),
        ]
        notes = [file.problem] if file.problem else []
        self._show(Menu("Settings", entries, back=back, notes=notes))

    def _open_keys(self, thread: GameThread, kind: str, *, back: Callable[[], object]) -> None:
        """Open the keys of game and commands, to be moved to other places or buttons."""
        keys = thread.playable.keymap.keys if thread.playable is not None else {}
        alone = {
            held[0]: action.replace("_", " ") for action, held in keys.items() if len(held) == 1
        }
        names = dict.fromkeys(name for held in keys.values() for name in held)
        together = {
            name: f"{action.replace('_', ' ')} and others"
            for action, held in reversed(keys.items())
            for name in held
        }
        meanings = {name: alone.get(name, together[name]) for name in names}
        commands = {name: words for row in COMMANDS for name, words in row.items()}
        meanings |= {name: commands[name] for name in commands if name not in {*names, *FIXED}}
        is_pad = kind == "pad"
        own = buttons_of(PAD_BUTTONS, aliases_of(keys)) if is_pad else {n: n for n in meanings}

        def label(name: str) -> str:
            if self._wanted == (kind, name):
                wanted = "key" if kind == "keys" else "button"
                return f"{meanings[name]}:  press the {wanted} that you want"
            moved: Mapping[str, str] = getattr(self._file.settings, kind)
            is_taken = own.get(name) in moved.values()
            return f"{meanings[name]}:  {moved.get(name, '-' if is_taken else own.get(name, '-'))}"

        def want(name: str) -> None:
            self._wanted = kind, name

        entries = [
            *(Entry(partial(label, n), partial(want, n)) for n in meanings),
            Entry("as they were", lambda: self._change(**{kind: {}})),
            Entry("Back", back),
        ]
        self._show(Menu("Keys" if kind == "keys" else "Gamepad", entries, back=back))

    def _change(self, **changes: Any) -> None:
        self._file.change(**changes)
        self._apply()
