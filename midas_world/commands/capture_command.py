"""``midas-world capture``: record your own game, its window's picture and the keys you hold.

Reads the command line, says what will be recorded and asks; the work is envs/capture's.
"""

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from midas_world.arguments import positive


def main(argv: Sequence[str]) -> int:
    """Run the command and return the exit status: 0 recorded, 1 not wanted.

    Raises:
        ValueError: There is no such window or key, or the file is there already.
    """
    arguments = _parser().parse_args(argv)
    film = arguments.to.with_suffix(".mp4")
    if film.exists() or film.with_suffix(".csv").exists():
        raise ValueError(f"{film} is there already: name another file")
    from envs.capture.capture import capture
    from envs.capture.screen import Part, Region, Screen, XWindow
    from envs.play.game.inputs import unknown_keys

    keys = [key.strip().lower() for key in arguments.keys.split(",") if key.strip()]
    with warnings.catch_warnings(action="ignore"):  # what keys are called hangs on no window
        if unknown := unknown_keys({"": keys}):
            raise ValueError(unknown)
    if arguments.window is not None:
        subject = XWindow(arguments.window)
        what = f"the window {subject.title!r}, while it has the focus its keys"
    else:
        region = arguments.region and Region(**arguments.region)
        if region is None:
            with Screen() as screen:
                region = screen.whole
        subject = Part(region)
        size, place = f"{region.width}x{region.height}", f"{region.left},{region.top}"
        what = f"{size} px of the screen at {place}; keys"
    print(
        f"This records {what} {', '.join(keys) or '(none)'},\n{arguments.fps:g} pictures a second, "
        f"into {film} and {film.with_suffix('.csv')}, on this machine only.\nNo other keys are "
        "looked at, no sound is heard. A red light is on meanwhile; a click on it, or Ctrl-C here, "
        "ends it."
    )
    if not arguments.yes and not _agreed():
        print("Nothing was recorded.")
        return 1
    stopped: list[bool] = []
    earlier = signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
    try:
        made = capture(
            subject,
            film,
            keys=keys,
            fps=arguments.fps,
            seconds=arguments.seconds,
            stop=lambda: bool(stopped),
        )
    finally:
        signal.signal(signal.SIGINT, earlier)
    late = 100 * made.num_late / max(1, made.num_frames)
    print(
        f"{film}: {made.num_frames} pictures, {made.num_frames / arguments.fps:.0f} s, "
        f"{made.num_changes} changes of keys; {made.why}."
    )
    if keys and not made.num_changes:
        print("None of the keys was held while the window had the focus.")
    if late > 5:
        print(f"{late:.0f} % of the pictures came too late and are shown twice: a smaller --fps?")
    print(f"\n    midas-world import {film} --to data/{film.stem}")
    return 0


def _agreed() -> bool:
    """Ask whether to record; without a terminal nobody can agree.

    Raises:
        ValueError: There is no terminal.
    """
    if not sys.stdin.isatty():
        raise ValueError("nobody is there to agree to be recorded: --yes says that you do")
    return input("Record? [y/N] ").strip().lower() in ("y", "yes")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="midas-world capture",
        description="Record a window's picture and the keys held, for `midas-world import`.",
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FILM", help="a new MP4")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--window", metavar="TITLE", help="a window with this in its title (X11)")
    what.add_argument("--region", type=_region, metavar="LEFT,TOP,WIDTH,HEIGHT", help="px")
    parser.add_argument(
        "--keys",
        required=True,
        metavar="KEY[,KEY]",
        help="the keys of the game, as pygame names them: left,right,space. No others are noted",
    )
    parser.add_argument("--fps", type=positive, default=20.0, help="default: 20")
    parser.add_argument("--seconds", type=positive, help="default: until it is stopped")
    parser.add_argument(
        "--yes", action="store_true", help="agree to be recorded, without being asked"
    )
    return parser


def _region(text: str) -> dict[str, int]:
    names = ("left", "top", "width", "height")
    try:
        return dict(zip(names, map(int, text.split(",")), strict=True))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be LEFT,TOP,WIDTH,HEIGHT in px, got {text!r}"
        ) from None
