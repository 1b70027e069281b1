"""A key that is heard while another window has the focus. Off unless the player asks for it.

Listens to the whole keyboard, as such a key must, and looks at nothing but that key.
"""

from collections.abc import Callable

from envs.keyboard import KeyboardError as HotkeyError
from envs.keyboard import listen

__all__ = ["GlobalHotkey", "HotkeyError"]


class GlobalHotkey:
    """Calls something whenever a key is pressed, whatever has the focus.

    Args:
        key: In pynput's notation, such as "<f9>".
        on_press: Called in a thread of its own.

    Raises:
        HotkeyError: It cannot be had here; see `listen`.
    """

    def __init__(self, key: str, on_press: Callable[[], None]) -> None:
        self._listener = listen(
            lambda keyboard: keyboard.GlobalHotKeys({key: on_press}),
            what="a global hotkey",
            extra="hotkey",
        )

    def close(self) -> None:
        """Stop listening; may be called twice."""
        self._listener.stop()
