"""Films of what was played: saved from views, and read again.

Shapes: H W frame size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from envs.play.game.film import Film
from envs.play.game.moments import View
from envs.play.studio.saver import FrameSaver
from midas_world.data.sound import SAMPLES_PER_STEP, TRACKS, read_sound
from midas_world.data.video import fault_of, import_av, to_rgb
from midas_world.sessions.export.pictures import shaped, with_keys

_GOOD_HEIGHT = 540  # px, to which small frames grow by whole numbers


@dataclass(frozen=True, kw_only=True)
class FilmLook:
    """How frames are shown in a film.

    Attributes:
        shape: See `PictureOptions`.
        keys: Of actions by name, the keys to be drawn in; empty draws none.
    """

    shape: str | None = None
    keys: Mapping[str, Sequence[str]] | None = None
    grows: bool = True

    def picture(self, view: View) -> np.ndarray:
        """Return what is shown of a view, uint8 (H, W, 3)."""
        scale = max(1, _GOOD_HEIGHT // view.frame.shape[0]) if self.grows else 1
        picture = view.frame.repeat(scale, axis=0).repeat(scale, axis=1)
        if self.keys:
            picture = with_keys(picture, self.keys.get(view.action_name, ()))
        return shaped(picture, self.shape)


def save_film(film: Film, path: Path, look: FilmLook) -> str:
    """Write a film as an MP4 or a GIF, as the path ends; return words for the player.

    Raises:
        ValueError: There is something at the path, or the film cannot be read.
        OSError: It cannot be written.
    """
    with FrameSaver(path, fps=film.fps, num_frames=film.num_frames) as saver:
        for view in film.views():
            saver.add(replace(view, frame=look.picture(view)))
        saver.close()
    return f"saved {saver.words or f'{film.num_frames / film.fps:.0f} s'}: {path}"


def open_film(path: Path) -> Film:
    """Return an MP4 or a GIF, to be looked at in any order.

    Raises:
        ValueError: It is no film.
    """
    frames = _Frames(path)
    sounds = _read_sound(path)

    def view(number: int) -> View:
        return View(
            frame=frames.get(number),
            num_steps=number,
            action_name="",
            total_reward=0.0,
            is_over=False,
            sound=sounds[number] if number < len(sounds) else None,
        )

    return Film(num_frames=frames.count, fps=frames.fps, view=view)


class _Frames:
    """Frames of a film file: the next one is decoded, any other is looked for.

    Raises:
        ValueError: It is no film.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _reading(path) as film:
            stream = film.streams.video[0]
            self.fps = float(stream.average_rate or 20)
            self.count = stream.frames or sum(bool(packet.size) for packet in film.demux(stream))
        if not self.count:
            raise ValueError(f"{path} is no film that can be read: it has no frame")
        self._next, self._decoded = 0, self._from(0)

    def get(self, number: int) -> np.ndarray:
        """Return a frame, uint8 (H, W, 3).

        Raises:
            ValueError: It cannot be read.
        """
        if not self._next <= number < self._next + self.fps:
            self._decoded = self._from(number)
            self._next = 0
        while True:
            found = next(self._decoded, None)
            if found is None:
                raise ValueError(f"{self._path} is no film that can be read: it lacks {number}")
            self._next = found[0] + 1
            if found[0] >= number:
                return found[1]()

    def _from(self, number: int) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """Yield numbers and frames, from one on at which decoding can begin."""
        av = import_av()
        with _reading(self._path) as film:
            stream = film.streams.video[0]
            if number:
                film.seek(round(number / self.fps * av.time_base))
            for frame in film.decode(stream):
                yield round(frame.time * self.fps), partial(to_rgb, av, frame)


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Open a film to read it; what is wrong with it is a ValueError."""
    av = import_av()
    try:
        with av.open(str(path)) as film:
            yield film
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} is no film that can be read: {fault_of(error)}") from error


def first_frame(path: Path) -> np.ndarray:
    """Return the first frame of a film, uint8 (H, W, 3).

    Raises:
        ValueError: It has none.
    """
    return _Frames(path).get(0)


def _read_sound(path: Path) -> np.ndarray:
    """Return the sound of each frame, int16 (T, 3, 800), all of it on the first track."""
    with _reading(path) as film:
        if not film.streams.audio:
            return np.zeros((0, len(TRACKS), SAMPLES_PER_STEP), np.int16)
    samples = np.concatenate([*read_sound(path), np.zeros(SAMPLES_PER_STEP, np.int16)])
    count = len(samples) // SAMPLES_PER_STEP
    steps = np.zeros((count, len(TRACKS), SAMPLES_PER_STEP), np.int16)
    steps[:, 0] = samples[: count * SAMPLES_PER_STEP].reshape(count, SAMPLES_PER_STEP)
    return steps
