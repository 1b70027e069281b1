"""Which of a few named keys are held on the whole desktop; all others are neither kept nor told."""

import threading
import time
from collections.abc import Collection
from typing import Any

from envs.keyboard import listen

# What pynput calls a key -> what pygame, and so key maps and tables, call it.
_NAMES = {
    "shift": "left shift",
    "shift_l": "left shift",
    "shift_r": "right shift",
    "ctrl": "left ctrl",
    "ctrl_l": "left ctrl",
    "ctrl_r": "right ctrl",
    "alt": "left alt",
    "alt_l": "left alt",
    "alt_r": "right alt",
    "alt_gr": "right alt",
    "enter": "return",
    "esc": "escape",
    "page_up": "page up",
    "page_down": "page down",
    "caps_lock": "caps lock",
}


class DesktopKeys:
    """Notes when which of some keys are held; close it.

    Raises:
        KeyboardError: The keyboard cannot be heard here.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._changes: list[tuple[float, frozenset[str]]] = []
        self._listener = listen(
            lambda keyboard: keyboard.Listener(
                on_press=lambda key: self._note(key, is_down=True),
                on_release=lambda key: self._note(key, is_down=False),
            ),
            what="recording keys",
            extra="capture",
        )

    def take(self) -> list[tuple[float, frozenset[str]]]:
        """Return what was held from when on, by time.monotonic(), since the last call."""
        with self._lock:
            taken, self._changes = self._changes, []
            return taken

    def close(self) -> None:
        """Stop listening; may be called twice."""
        self._listener.stop()

    def _note(self, key: Any, *, is_down: bool) -> None:
        """Keep what pynput tells of a key, if it is one of those named."""
        name = name_of(key)
        if name not in self._names or (name in self._held) == is_down:
            return
        with self._lock:
            (self._held.add if is_down else self._held.discard)(name)
            self._changes.append((time.monotonic(), frozenset(self._held)))


def name_of(key: Any) -> str:
    """Return what pygame calls a key of pynput's."""
    name = getattr(key, "name", None) or getattr(key, "char", None) or ""
    return _NAMES.get(name, name.lower())
