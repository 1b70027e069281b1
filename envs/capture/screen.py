"""Pictures of a part of the screen, by mss, and where a window of X11 lies and whether it is used.

Shapes: H W px of the part.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from midas_world.types import MidasWorldError


class CaptureError(MidasWorldError, ValueError):
    """A part of the screen cannot be recorded; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of the screen, px."""

    left: int
    top: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 16 or self.height < 16:
            raise CaptureError(f"at least 16x16 px can be recorded, got {self.width}x{self.height}")


class Part:
    """A part of the screen that stays where it is; keys count whatever has the focus."""

    def __init__(self, region: Region) -> None:
        self._region = region

    def region(self) -> Region:
        """Return it."""
        return self._region

    def has_focus(self) -> bool:
        """Whether keys go to it: nobody knows."""
        return True


class XWindow:
    """A window of X11, found by its title.

    Raises:
        CaptureError: There is none, or there are several, or no X server is to be asked.
    """

    def __init__(self, title: str) -> None:
        try:
            # pynput brings it where it talks to X11.
            from Xlib import display, error
        except ImportError as missing:
            system = "" if sys.platform.startswith("linux") else ", which finds them on X11 only"
            raise CaptureError(
                f"windows are found by python-xlib{system}: name a --region, or "
                "pip install 'midas-world[capture]'"
            ) from missing
        try:
            self._display: Any = display.Display()
        except error.DisplayError as missing:
            raise CaptureError(f"no X server to be asked for windows: {missing}") from missing
        self._gone = (error.BadWindow, error.BadDrawable)
        found = {window.id: (window, name) for window, name in self._windows() if title in name}
        exact = {key: item for key, item in found.items() if item[1] == title}
        found = exact if len(found) > 1 and exact else found
        if len(found) != 1:
            names = sorted({name for _, name in (found.values() or self._windows())})
            what = f"{len(found)} windows have" if found else "no window has"
            raise CaptureError(f"{what} {title!r} in the title: {', '.join(names) or 'none'}")
        [(self._window, self.title)] = found.values()

    def region(self) -> Region | None:
        """Return where its content lies now; None when it is gone."""
        try:
            size = self._window.get_geometry()
            place = self._window.translate_coords(self._display.screen().root, 0, 0)
        except self._gone:
            return None
        # The other way round: how far the root lies from the window.
        return Region(left=-place.x, top=-place.y, width=size.width, height=size.height)

    def has_focus(self) -> bool:
        """Whether it, or a part of it, has the focus; without a window manager nobody may have."""
        focus: Any = self._display.get_input_focus().focus
        if isinstance(focus, int):
            return True
        try:
            while focus and focus.id != self._window.id:
                focus = focus.query_tree().parent
        except self._gone:
            return False
        return bool(focus)

    def _windows(self) -> list[tuple[Any, str]]:
        """Return all windows that have titles."""
        title, text = (self._display.intern_atom(n) for n in ("_NET_WM_NAME", "UTF8_STRING"))
        found, left = [], [self._display.screen().root]
        while left:
            window = left.pop()
            try:
                left += window.query_tree().children
                given = window.get_full_property(title, text)
                name = given.value.decode(errors="replace") if given else window.get_wm_name()
            except self._gone:
                continue
            if isinstance(name, str) and name:
                found.append((window, name))
        return found


class Screen:
    """Takes pictures; close it, or use it in a ``with``.

    Raises:
        CaptureError: mss is missing, or there is no screen.
    """

    def __init__(self) -> None:
        try:
            import mss  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise CaptureError("capturing needs mss: pip install 'midas-world[capture]'") from error
        try:
            self._mss: Any = mss.MSS()
        except mss.ScreenShotError as error:
            raise CaptureError(f"there is no screen to record: {error}") from error
        self._error = mss.ScreenShotError
        monitor = self._mss.monitors[0]
        self.whole = Region(**{name: monitor[name] for name in ("left", "top", "width", "height")})

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        self._mss.close()

    def picture(self, region: Region) -> np.ndarray | None:
        """Return what a part shows now, (H, W, 3) uint8; None where it lies off the screen."""
        try:
            shot = self._mss.grab(vars(region))
        except self._error:
            return None
        rows = np.frombuffer(bytes(shot.raw), np.uint8).reshape(shot.height, shot.width, 4)
        return np.ascontiguousarray(rows[..., 2::-1])
