"""The keyboard of the whole desktop, by pynput: what is pressed whatever window has the focus."""

import os
import threading
from collections.abc import Callable
from typing import Any

from midas_world.types import MidasWorldError

_READY_TIMEOUT_S = 2.0


class KeyboardError(MidasWorldError):
    """The desktop's keyboard cannot be heard here; the message says why."""


def listen(make: Callable[[Any], Any], *, what: str, extra: str) -> Any:
    """Return a listener of pynput's that has begun to listen.

    Args:
        make: Makes it of pynput.keyboard.
        what: Needs it, for messages: "a global hotkey".
        extra: Of this package, that brings pynput.

    Raises:
        KeyboardError: pynput is not installed, or there is no display server, or none that lets a
            program hear the keys of others, or no permission.
    """
    # Through X11 it would hear the windows of old programs only, and seem to work.
    on_wayland = (
        f"{what} is not to be had on Wayland, which keeps keys from other windows: log in to "
        "an X11 session for it"
    )
    is_wayland = bool(os.environ.get("WAYLAND_DISPLAY")) or (
        os.environ.get("XDG_SESSION_TYPE") == "wayland"
    )
    if is_wayland and "PYNPUT_BACKEND" not in os.environ:
        raise KeyboardError(on_wayland)
    try:
        # Connects to the display server when it is imported.
        from pynput import keyboard
    except ModuleNotFoundError as error:
        raise KeyboardError(f"{what} needs pynput: pip install 'midas-world[{extra}]'") from error
    except Exception as error:  # Each platform has its own: Xlib's, OSError, ImportError.
        raise KeyboardError(
            f"{what} needs a display server that pynput can talk to: {error}"
        ) from error
    if _is_for_old_programs_only():
        raise KeyboardError(on_wayland)
    listener = make(keyboard)
    listener.start()
    # Whether there is permission is known once it listens, which a refusal may keep it from.
    waiter = threading.Thread(target=listener.wait, daemon=True)
    waiter.start()
    waiter.join(_READY_TIMEOUT_S)
    if getattr(listener, "IS_TRUSTED", True) is False:
        listener.stop()
        raise KeyboardError(
            f"{what} needs permission: allow this program under Privacy & Security, "
            "Accessibility and Input Monitoring"
        )
    return listener


def hotkey(key: str, on_press: Callable[[], None]) -> Any:
    """Return a listener that calls something, in its own thread, whenever a key is pressed.

    Args:
        key: In pynput's notation, such as "<f9>"; no other is looked at.
        on_press: Called whatever has the focus.

    Raises:
        KeyboardError: See `listen`.
    """
    made = {"what": "a global hotkey", "extra": "hotkey"}
    return listen(lambda keyboard: keyboard.GlobalHotKeys({key: on_press}), **made)


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
