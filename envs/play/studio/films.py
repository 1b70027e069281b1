"""Films of what was played: saved from views, and read again.

Shapes: H W frame size.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from envs.play.game.moments import View
from envs.play.studio.saver import FrameSaver
from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, TRACKS
from midas_world.data.video import import_av, to_rgb
from midas_world.sessions.export.pictures import shaped, with_keys

_GOOD_HEIGHT = 540  # px, to which small frames grow by whole numbers


@dataclass(frozen=True, kw_only=True)
class FilmLook:
    """How frames are shown in a film.

    Attributes:
        shape: See `PictureOptions`.
        keys: Of actions by name, the keys to be drawn in; empty draws none.
        grows: Whether small frames grow.
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


def free_path(folder: Path, name: str, ending: str) -> Path:
    """Return a path in a folder at which nothing lies, named after something and the time."""
    words = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-") or "film"
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S-%f")
    return folder / f"{words}-{stamp}{ending}"


def save_film(views: Iterable[View], path: Path, look: FilmLook, *, fps: float) -> str:
    """Write views as an MP4 or a GIF, as the path ends; return words for the player.

    Raises:
        ValueError: There is something at the path.
        OSError: It cannot be written.
    """
    count = 0
    with FrameSaver(path, fps=fps, num_frames=1) as saver:
        for view in views:
            saver.add(replace(view, frame=look.picture(view)))
            count += 1
        saver.close()
    return f"saved {count / fps:.0f} s: {path}"


def view_of(frame: np.ndarray, number: int, sound: np.ndarray | None) -> View:
    """Return a frame of a film and its sound as what is seen and heard."""
    return View(
        frame=np.ascontiguousarray(frame),
        num_steps=number,
        action_name="",
        total_reward=0.0,
        is_over=False,
        sound=sound,
    )


def film_fps(path: Path) -> float:
    """Return the frames per second of a film."""
    with import_av().open(str(path)) as film:
        return float(film.streams.video[0].average_rate or 20)


def read_views(path: Path) -> Iterator[View]:
    """Yield the frames of a film with their sound.

    Raises:
        ValueError: It is no film.
    """
    av = import_av()
    try:
        sounds = _read_sound(path)
        with av.open(str(path)) as film:
            for number, frame in enumerate(film.decode(video=0)):
                yield view_of(to_rgb(av, frame), number, next(sounds, None))
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"{path} is no film that can be read: {error}") from error


def first_frame(path: Path) -> np.ndarray:
    """Return the first frame of a film, uint8 (H, W, 3).

    Raises:
        ValueError: It has none.
    """
    av = import_av()
    try:
        with av.open(str(path)) as film:
            return to_rgb(av, next(film.decode(video=0)))
    except (av.error.FFmpegError, IndexError, StopIteration) as error:
        raise ValueError(f"{path} is no film that can be read: {error}") from error


def _read_sound(path: Path) -> Iterator[np.ndarray]:
    """Return the sound of each frame, int16 (3, 800): all of it on the first track."""
    av = import_av()
    with av.open(str(path)) as film:
        if not film.streams.audio:
            return iter(())
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        parts = [
            part.to_ndarray()[0]
            for frame in [*film.decode(audio=0), None]
            for part in resampler.resample(frame)
        ]
    samples = np.concatenate([*parts, np.zeros(SAMPLES_PER_STEP, np.int16)])
    count = len(samples) // SAMPLES_PER_STEP
    steps = np.zeros((count, len(TRACKS), SAMPLES_PER_STEP), np.int16)
    steps[:, 0] = samples[: count * SAMPLES_PER_STEP].reshape(count, SAMPLES_PER_STEP)
    return iter(steps)
