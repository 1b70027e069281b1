"""What command keys do, but for those of menus and of what is typed."""

from collections.abc import Callable
from functools import partial

from envs.play.game.session import Session
from envs.play.game.settings import MAX_VOLUME, SettingsFile
from envs.play.window.gallery import Gallery
from envs.play.window.overlays import Overlays
from envs.play.window.screens import Screens

_NEED_A_GAME = frozenset(("r", "t", "f8", "f10", "f12"))  # and do nothing while it is loaded


class Commands:
    """Obeys command keys."""

    def __init__(
        self,
        settings: SettingsFile,
        *,
        overlays: Overlays,
        screens: Screens,
        gallery: Gallery,
        ask: Callable[[Session], object],
    ) -> None:
        self._settings = settings
        self._overlays = overlays
        self._screens = screens
        self._gallery = gallery
        self._ask = ask

    def obey(self, name: str, session: Session) -> bool:
        """Do what a command key stands for; return whether it is one."""
        act = self._acts(session).get(name)
        if act is not None and not (session.view is None and name in _NEED_A_GAME):
            act()
        return act is not None

    def _acts(self, session: Session) -> dict[str, Callable[[], object]]:
        pilot, overlays = session.pilot, self._overlays
        louder, quieter = (
            partial(self._change_volume, session, partial(session.speaker.change_volume, louder=up))
            for up in (True, False)
        )
        return {
            "return": lambda: _go_on(session),
            "enter": lambda: _go_on(session),
            "r": lambda: self._screens.ask_again(session),
            "shift r": session.reset_to_next_start,
            "g": lambda: session.fly(pilot is not None and not pilot.is_flying),
            "p": session.toggle_pause,
            "n": session.single_step,
            "t": lambda: self._ask(session),
            "backspace": session.start_rewind,
            "b": session.drop_bookmark,
            **{number: partial(session.jump, int(number)) for number in "0123456789"},
            "l": lambda: self._next_language(session),
            "m": lambda: self._change_volume(session, session.speaker.toggle_mute),
            **dict.fromkeys(("=", "+", "[+]"), louder),
            **dict.fromkeys(("-", "[-]"), quieter),
            "f1": overlays.toggle_keys,
            "f2": session.toggle_compare,
            "f3": overlays.toggle_measurements,
            "f4": self._toggle_held_keys,
            "f8": lambda: self._gallery.save_last(session),
            "f9": session.toggle_recording,
            "f10": lambda: self._screens.open_gallery(session),
            "f12": overlays.wish_screenshot,
        }

    def _next_language(self, session: Session) -> None:
        self._overlays.say(session.voices.next_language())
        self._settings.change(language=session.voices.language)

    def _change_volume(self, session: Session, change: Callable[[], object]) -> None:
        change()
        self._settings.change(volume=round(MAX_VOLUME * session.speaker.volume))
        self._overlays.say(session.speaker.words)

    def _toggle_held_keys(self) -> None:
        is_on = not self._settings.settings.shows_held_keys
        self._settings.change(shows_held_keys=is_on)
        self._overlays.say(f"keys that are held: {'shown' if is_on else 'hidden'}")


def _go_on(session: Session) -> None:
    if session.status == "over":
        session.reset()
    elif session.status == "paused":
        session.toggle_pause()
