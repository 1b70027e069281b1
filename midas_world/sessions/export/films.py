"""Sessions to look at: an MP4 that plays everywhere, a GIF, or every frame as PNG."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from midas_world.data.gif import MAX_GIF_WIDTH, shrunk, write_small_gif
from midas_world.files import whole
from midas_world.sessions.export.pictures import PictureOptions, pictures
from midas_world.sessions.session import RecordedSession
from midas_world.sessions.video import copy_film, write_film

MAX_GIF_FRAMES = 1200
_FAST_GIF_FPS = 50  # browsers slow down what is faster


def export_mp4(session: RecordedSession, output: Path, options: PictureOptions) -> None:
    """Write an MP4 with its sound; frames that stay as they are are not encoded again."""
    fps, reader = session.header.fps, session.sound()
    sounds = reader and (reader.step(number) for number in range(options.start, options.stop))
    if options.is_plain and options.start == 0:
        path, index = session.film
        copy_film(path, index, output, stop=options.stop, fps=fps, sounds=sounds)
        return
    size = options.size(session.header)
    write_film(output, pictures(session, options), size, fps=fps, crf=16, sounds=sounds)


def export_gif(session: RecordedSession, output: Path, options: PictureOptions) -> None:
    """Write a looping GIF with a palette of the film's own colours, in a size that can be sent.

    Raises:
        ValueError: It would be too long.
    """
    count = options.stop - options.start
    if count > MAX_GIF_FRAMES:
        raise ValueError(
            f"a GIF of {count} frames would be huge: choose at most {MAX_GIF_FRAMES} with --start "
            "and --stop, or write an MP4"
        )
    fps = session.header.fps
    every = max(1, round(fps / _FAST_GIF_FPS))
    frames = [
        shrunk(picture, MAX_GIF_WIDTH)
        for number, picture in enumerate(pictures(session, options))
        if number % every == 0
    ]
    write_small_gif(output, frames, fps=fps / every)


def export_frames(session: RecordedSession, output: Path, options: PictureOptions) -> None:
    """Write every frame as PNG into a new folder, numbered as in the session."""
    with whole(output) as place:
        place.mkdir()
        for number, picture in _numbered(pictures(session, options), options.start):
            Image.fromarray(picture).save(place / f"frame_{number:06d}.png")


def _numbered(frames: Iterator[np.ndarray], start: int) -> Iterator[tuple[int, np.ndarray]]:
    return enumerate(frames, start=start)
