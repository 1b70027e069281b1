"""Frames of a game into a film, a GIF, or pictures."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from envs.play.game.moments import View
from midas_world.data.gif import MAX_GIF_WIDTH, gif_frames, shrunk, write_small_gif
from midas_world.files import whole
from midas_world.sessions.video import FilmWriter

_STRIP_FRAMES = 12
_STRIP_COLUMNS = 4


class FrameSaver:
    """Writes the frames of a run: an MP4 with its sound, a GIF, PNG files, or a strip of some.

    Args:
        path: Ends in ".mp4", ".gif", in ".png" for a strip, or has no ending for a folder.
        fps: Of MP4 and GIF.

    Raises:
        ValueError: The path has another ending, or something lies there.
    """

    def __init__(self, path: Path, *, fps: float, num_frames: int) -> None:
        if path.suffix not in ("", ".mp4", ".gif", ".png"):
            raise ValueError(
                "--save takes an .mp4, a .gif, a .png (a strip of frames) or a folder, "
                f"got {path.name!r}"
            )
        if path.exists() and (path.suffix or any(path.iterdir())):
            raise ValueError(f"--save: {path} exists already")
        self.path = path
        self._fps = fps
        self._count = 0
        self._frames: list[np.ndarray] = []
        self._film: FilmWriter | None = None
        self._place = contextlib.ExitStack()
        shown = min(num_frames, _STRIP_FRAMES)
        self._wanted = set(np.linspace(0, num_frames - 1, shown).round().astype(int).tolist())
        self.words = ""
        if path.suffix == ".gif":
            kept, self.words = gif_frames(num_frames, fps)
            self._wanted, self._fps = set(kept), fps / kept.step

    def add(self, view: View) -> None:
        """Keep the next frame, and in an MP4 its sound."""
        frame = view.frame
        if self.path.suffix == ".mp4":
            self._film = self._film or self._begin_film(frame)
            self._film.add(frame, view.sound)
        elif not self.path.suffix:
            _write_png(frame, self.path / f"frame_{self._count:06d}.png")
        elif self._count in self._wanted:
            is_gif = self.path.suffix == ".gif"
            self._frames.append(shrunk(frame, MAX_GIF_WIDTH) if is_gif else frame)
        self._count += 1

    def close(self) -> None:
        """Write what is not written yet."""
        if self._film is not None:
            self._film.close()
            self._place.close()
        elif self.path.suffix == ".gif":
            write_small_gif(self.path, self._frames, fps=self._fps)
        elif self.path.suffix == ".png":
            _write_png(_strip(self._frames), self.path)

    def __enter__(self) -> "FrameSaver":
        return self

    def __exit__(self, *error: Any) -> None:
        """Leave no film that was not closed."""
        self._place.__exit__(*error)

    def _begin_film(self, frame: np.ndarray) -> FilmWriter:
        height, width, _ = frame.shape
        place = self._place.enter_context(whole(self.path))
        return FilmWriter(place, (height, width), fps=self._fps, has_sound=True)


def _strip(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Return frames side by side in rows, as one picture."""
    columns = min(_STRIP_COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    height, width, _ = frames[0].shape
    picture = np.zeros((rows * height, columns * width, 3), np.uint8)
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        picture[row * height :, column * width :][:height, :width] = frame
    return picture


def _write_png(frame: np.ndarray, path: Path) -> None:
    with whole(path) as place:
        Image.fromarray(frame).save(place)
