"""A key that is heard while another window has the focus. Off unless the player asks for it.

Listens to the whole keyboard, as such a key must, and looks at nothing but that key.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

from midas_world.types import MidasWorldError

_READY_TIMEOUT_S = 2.0
# Through X11 it would hear the windows of old programs only, and seem to work.
_ON_WAYLAND = (
    "a global hotkey is not to be had on Wayland, which keeps keys from other windows: log in to "
    "an X11 session for it"
)


class HotkeyError(MidasWorldError):
    """A global hotkey cannot be had here; the message says why."""


class GlobalHotkey:
    """Calls something whenever a key is pressed, whatever has the focus.

    Args:
        key: In pynput's notation, such as "<f9>".
        on_press: Called in a thread of its own.

    Raises:
        HotkeyError: pynput is not installed, or there is no display server, or none that lets a
            program hear the keys of others, or no permission.
    """

    def __init__(self, key: str, on_press: Callable[[], None]) -> None:
        is_wayland = bool(os.environ.get("WAYLAND_DISPLAY")) or (
            os.environ.get("XDG_SESSION_TYPE") == "wayland"
        )
        if is_wayland and "PYNPUT_BACKEND" not in os.environ:
            raise HotkeyError(_ON_WAYLAND)
        try:
            # Connects to the display server when it is imported.
            from pynput import keyboard
        except ModuleNotFoundError as error:
            raise HotkeyError(
                "a global hotkey needs pynput: pip install 'midas-world[hotkey]'"
            ) from error
        except Exception as error:  # Each platform has its own: Xlib's, OSError, ImportError.
            raise HotkeyError(
                f"a global hotkey needs a display server that pynput can talk to: {error}"
            ) from error
        if _is_for_old_programs_only():
            raise HotkeyError(_ON_WAYLAND)
        self._listener: Any = keyboard.GlobalHotKeys({key: on_press})
        self._listener.start()
        # Whether there is permission is known once it listens, which a refusal may keep it from.
        waiter = threading.Thread(target=self._listener.wait, daemon=True)
        waiter.start()
        waiter.join(_READY_TIMEOUT_S)
        if getattr(self._listener, "IS_TRUSTED", True) is False:
            self.close()
            raise HotkeyError(
                "a global hotkey needs permission: allow this program under Privacy & Security, "
                "Accessibility and Input Monitoring"
            )

    def close(self) -> None:
        """Stop listening; may be called twice."""
        self._listener.stop()


def _is_for_old_programs_only() -> bool:
    """Return whether the X server is one that Wayland runs for them, whatever the session says."""
    try:
        # pynput brings it where it talks to X11.
        from Xlib import display
        from Xlib.error import DisplayError
    except ImportError:
        return False
    try:
        server = display.Display()
    except DisplayError:
        return False
    try:
        return server.query_extension("XWAYLAND") is not None
    finally:
        server.close()
