"""A window's picture as a film, and the keys that are held as a table beside it.

The film has a steady rate: a picture that came too late is shown twice, and counted. The table says
from when on which keys are held (importing/tables.py reads it). Both are whole, or not there.
"""

import csv
import io
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from envs.capture.keys import DesktopKeys
from envs.capture.light import Light
from envs.capture.screen import CaptureError, Part, Screen, XWindow
from midas_world.files import write_whole
from midas_world.sessions.video import write_film

_LIGHT_S = 0.2


@dataclass(frozen=True, kw_only=True)
class Captured:
    """What came of a recording."""

    num_frames: int
    num_late: int
    num_changes: int
    why: str


def capture(
    subject: Part | XWindow,
    film: Path,
    *,
    keys: Collection[str],
    fps: float,
    seconds: float | None,
    stop: Callable[[], bool],
) -> Captured:
    """Record until the time is over, the subject gone, the light clicked or `stop` says so.

    Args:
        subject: What is recorded.
        film: MP4; the table lies beside it, as CSV.
        keys: The only ones that are looked at, as pygame has them.
        fps: Pictures per second.
        seconds: At most; None: without end.
        stop: Asked before every picture.

    Raises:
        CaptureError: There is nothing to be recorded.
        KeyboardError: Keys cannot be heard here.
    """
    with Screen() as screen:
        region = subject.region()
        first = screen.picture(region) if region is not None else None
        if region is None or first is None:
            raise CaptureError("what is to be recorded is not on the screen")
        with Light(region, screen.whole) as light:
            taking = _Taking(subject, screen, light, first)
            listening = DesktopKeys(keys)
            try:
                frames = taking.frames(listening, fps=fps, seconds=seconds, stop=stop)
                # Twice what is needed: import makes it smaller.
                num_frames = write_film(film, frames, first.shape[:2], fps=fps, crf=12)
            finally:
                listening.close()
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(("time_s", "keys"))
    writer.writerows((f"{at:.3f}", "+".join(sorted(held))) for at, held in taking.changes)
    write_whole(film.with_suffix(".csv"), table.getvalue())
    return Captured(
        num_frames=num_frames,
        num_late=taking.num_late,
        num_changes=len(taking.changes) - 2,  # but for its begin and end
        why=taking.why,
    )


class _Taking:
    """Takes one picture after another, and notes what is held meanwhile."""

    def __init__(
        self, subject: Part | XWindow, screen: Screen, light: Light, first: np.ndarray
    ) -> None:
        self._subject, self._screen, self._light = subject, screen, light
        self._picture, self._held = first, frozenset[str]()
        self.changes: list[tuple[float, frozenset[str]]] = [(0.0, frozenset())]
        self.num_late = 0
        self.why = "the time was over"

    def frames(
        self, keys: DesktopKeys, *, fps: float, seconds: float | None, stop: Callable[[], bool]
    ) -> Iterator[np.ndarray]:
        """Yield pictures, each when it is due."""
        started = lit = time.monotonic()
        number = 0
        while seconds is None or number < seconds * fps:
            due = started + number / fps
            time.sleep(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if stop():
                self.why = "it was stopped"
                break
            if now - lit > _LIGHT_S:
                lit = now
                self._light.show(now - started)
                if self._light.is_clicked():
                    self.why = "the light was clicked"
                    break
            if now - due > 1.0 / fps:
                self.num_late += 1
            elif not self._take():
                break
            self._note(keys, started)
            yield self._picture
            number += 1
        self._note(keys, started)
        # What is held to the end is held no longer than it.
        self.changes.append((max(number / fps, self.changes[-1][0]), frozenset()))

    def _take(self) -> bool:
        """Take a picture; False when there is none of the same size any more."""
        region = self._subject.region()
        picture = self._screen.picture(region) if region is not None else None
        if picture is None:
            self.why = "the window is gone"
        elif picture.shape != self._picture.shape:
            self.why = "the window has another size now"
        else:
            self._picture = picture
            return True
        return False

    def _note(self, keys: DesktopKeys, started: float) -> None:
        """Keep what changed; while another window has the focus, nothing is held."""
        changes = keys.take()
        if changes:
            self._held = changes[-1][1]
        now = time.monotonic()
        if not self._subject.has_focus():
            changes = [(now, frozenset[str]())]
        elif not changes and self._held != self.changes[-1][1]:
            changes = [(now, self._held)]
        for at, held in changes:
            if held != self.changes[-1][1]:
                self.changes.append((max(0.0, at - started), held))
