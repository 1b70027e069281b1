"""What command keys do, but for those of menus and of what is typed."""

from collections.abc import Callable
from functools import partial

from envs.play.game.game_thread import GameThread
from envs.play.game.settings import MAX_VOLUME, SettingsFile
from envs.play.window.gallery import Gallery
from envs.play.window.overlays import Overlays
from envs.play.window.screens import Screens

NOBODY_SPEAKS = "nobody speaks in this game"
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
        ask: Callable[[GameThread], object],
    ) -> None:
        self._settings = settings
        self._overlays = overlays
        self._screens = screens
        self._gallery = gallery
        self._ask = ask

    def obey(self, name: str, thread: GameThread) -> bool:
        """Do what a command key stands for; return whether it is one."""
        act = self._acts(thread).get(name)
        if act is not None and not (thread.view is None and name in _NEED_A_GAME):
            act()
        return act is not None

    def _acts(self, thread: GameThread) -> dict[str, Callable[[], object]]:
        pilot, overlays = thread.pilot, self._overlays
        louder, quieter = (
            partial(self._change_volume, thread, partial(thread.speaker.change_volume, louder=up))
            for up in (True, False)
        )
        return {
            "return": lambda: _go_on(thread),
            "enter": lambda: _go_on(thread),
            "r": lambda: self._screens.ask_again(thread),
            "shift r": thread.reset_to_next_start,
            "g": lambda: thread.fly(pilot is not None and not pilot.is_flying),
            "p": thread.toggle_pause,
            "n": thread.single_step,
            "t": lambda: self._ask(thread),
            "backspace": thread.past.start_rewind,
            "b": thread.past.drop_bookmark,
            **{number: partial(thread.past.jump, int(number)) for number in "0123456789"},
            "l": lambda: self._next_language(thread),
            "m": lambda: self._change_volume(thread, thread.speaker.toggle_mute),
            **dict.fromkeys(("=", "+", "[+]"), louder),
            **dict.fromkeys(("-", "[-]"), quieter),
            "f1": overlays.toggle_keys,
            "f2": thread.toggle_compare,
            "f3": overlays.toggle_measurements,
            "f4": self._toggle_held_keys,
            "f8": lambda: self._gallery.save_last(thread),
            "f9": thread.toggle_recording,
            "f10": lambda: self._screens.open_gallery(thread),
            "f12": overlays.wish_screenshot,
        }

    def _next_language(self, thread: GameThread) -> None:
        if thread.playable is None or not thread.playable.speaks:
            self._overlays.say(NOBODY_SPEAKS)
            return
        self._overlays.say(thread.voices.next_language())
        self._settings.change(language=thread.voices.language)

    def _change_volume(self, thread: GameThread, change: Callable[[], object]) -> None:
        change()
        self._settings.change(volume=round(MAX_VOLUME * thread.speaker.volume))
        self._overlays.say(thread.speaker.words)

    def _toggle_held_keys(self) -> None:
        is_on = not self._settings.settings.shows_held_keys
        self._settings.change(shows_held_keys=is_on)
        self._overlays.say(f"keys that are held: {'shown' if is_on else 'hidden'}")


def _go_on(thread: GameThread) -> None:
    if thread.status == "over":
        thread.reset()
    elif thread.status == "paused":
        thread.toggle_pause()
