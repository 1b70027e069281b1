"""Sessions to look at: an MP4 that plays everywhere, a GIF, or every frame as PNG."""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from midas_world.data.gif import MAX_GIF_WIDTH, gif_frames, shrunk, write_small_gif
from midas_world.files import whole
from midas_world.sessions.export.pictures import PictureOptions, pictures
from midas_world.sessions.session import RecordedSession
from midas_world.sessions.video import copy_film, write_film


def export_mp4(session: RecordedSession, output: Path, options: PictureOptions) -> str:
    """Write an MP4 with its sound; frames that stay as they are are not encoded again.

    Returns:
        Words on what is left out: none.
    """
    fps, reader = session.header.fps, session.sound()
    sounds = reader and (reader.step(number) for number in range(options.start, options.stop))
    if options.is_plain and options.start == 0:
        path, index = session.film
        copy_film(path, index, output, stop=options.stop, fps=fps, sounds=sounds)
        return ""
    size = options.size(session.header)
    write_film(output, pictures(session, options), size, fps=fps, crf=16, sounds=sounds)
    return ""


def export_gif(session: RecordedSession, output: Path, options: PictureOptions) -> str:
    """Write a looping GIF with a palette of the film's own colours, in a size that can be sent.

    Returns:
        Words on what is left out, if it is long.
    """
    kept, words = gif_frames(options.stop - options.start, session.header.fps)
    shown = replace(options, stop=options.start + kept[-1] + 1)
    frames = [
        shrunk(picture, MAX_GIF_WIDTH)
        for number, picture in enumerate(pictures(session, shown))
        if number in kept
    ]
    write_small_gif(output, frames, fps=session.header.fps / kept.step)
    return words


def export_frames(session: RecordedSession, output: Path, options: PictureOptions) -> None:
    """Write every frame as PNG into a new folder, numbered as in the session."""
    with whole(output) as place:
        place.mkdir()
        for number, picture in enumerate(pictures(session, options), start=options.start):
            Image.fromarray(picture).save(place / f"frame_{number:06d}.png")
