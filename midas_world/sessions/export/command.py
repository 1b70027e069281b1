"""`midas-world export SESSION --to mp4|gif|minari|lerobot|frames`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from midas_world.arguments import add_trust_option, count
from midas_world.sessions.export.pictures import SHAPES, PictureOptions
from midas_world.sessions.session import RecordedSession, load_session

FORMATS = ("mp4", "gif", "frames", "minari", "lerobot")
_FILMS = ("mp4", "gif", "frames")
_HUD_SCALE = 3  # letters need more room than a frame has


def main(argv: Sequence[str] | None = None) -> int:
    """Export a session as the command line says; return the exit status."""
    args = _parser().parse_args(argv)
    session = load_session(args.session)
    if session.problems:
        print(f"{args.session}: {session}")
    start, stop = _range(session, args.start, args.stop)
    if args.to in _FILMS:
        print(f"wrote {_export_film(session, args, start, stop)}")
        return 0
    pictured = {
        f"--{name}": getattr(args, name) for name in ("hud", "teacher", "keys", "shape", "scale")
    }
    for option, given in pictured.items():
        if given:
            raise ValueError(f"{option} is for {', '.join(_FILMS)}; {args.to} holds the frames")
    if args.to == "minari":
        from midas_world.sessions.export.minari_dataset import export_minari

        root = args.output or Path("datasets")
        name = export_minari(
            session,
            root,
            start=start,
            stop=stop,
            is_lossless=args.lossless,
            trust=args.trust,
            dataset_id=args.name,
            algorithm_name=args.algorithm_name,
        )
        print(
            f'wrote {root / name}; load it with minari.load_dataset("{name}") where '
            f"MINARI_DATASETS_PATH={root.resolve()}"
        )
    else:
        from midas_world.sessions.export.lerobot_dataset import export_lerobot

        output = _new(args.output or Path(f"{_name(session)}-lerobot"))
        export_lerobot(session, output, start=start, stop=stop)
        print(f"wrote {output}; load it with LeRobotDataset(repo_id, root={str(output)!r})")
    return 0


def _export_film(session: RecordedSession, args: argparse.Namespace, start: int, stop: int) -> str:
    """Write a film or its frames; return where it is, and what is left out."""
    from midas_world.sessions.export import films

    options = PictureOptions(
        start=start,
        stop=stop,
        has_hud=args.hud,
        has_teacher=args.teacher,
        has_keys=args.keys,
        shape=args.shape,
        scale=args.scale or (_HUD_SCALE if args.hud or args.keys else 1),
    )
    if args.to == "frames":
        output = _new(args.output or Path(f"{_name(session)}-frames"))
        films.export_frames(session, output, options)
        return str(output)
    output = args.output or Path(f"{_name(session)}.{args.to}")
    if output.suffix != f".{args.to}":
        raise ValueError(f"--output must end in .{args.to}, got {output.name!r}")
    write = films.export_mp4 if args.to == "mp4" else films.export_gif
    left_out = write(session, _new(output), options)
    return f"{output}{left_out and f' ({left_out})'}"


def _name(session: RecordedSession) -> str:
    return session.folder.resolve().name


def _new(path: Path) -> Path:
    """Return a path at which nothing lies yet."""
    if path.exists():
        raise ValueError(f"{path} exists already")
    return path


def _range(
    session: RecordedSession, start_s: float | None, stop_s: float | None
) -> tuple[int, int]:
    """Return the frames between two moments, in seconds of the film."""
    fps, count = session.header.fps, session.num_frames
    start = round((start_s or 0.0) * fps)
    stop = count if stop_s is None else min(count, round(stop_s * fps))
    if not 0 <= start < stop:
        raise ValueError(
            f"there is nothing from {start / fps:g} s to {stop / fps:g} s: {session.folder} is "
            f"{session.seconds:g} s long"
        )
    return start, stop


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="midas-world export", description="Write a recorded session in another format."
    )
    parser.add_argument("session", type=Path, help="the session's folder; cut off ones work too")
    parser.add_argument("--to", choices=FORMATS, required=True, help="the format")
    parser.add_argument(
        "--output",
        type=Path,
        help="a new file or folder (minari: the folder of all datasets; default: datasets)",
    )
    parser.add_argument("--start", type=float, metavar="SECONDS", help="leave out what is before")
    parser.add_argument("--stop", type=float, metavar="SECONDS", help="leave out what is after")
    films = parser.add_argument_group("for mp4, gif and frames")
    films.add_argument("--hud", action="store_true", help="burn in action, step, return and prompt")
    films.add_argument(
        "--teacher", action="store_true", help="the teacher on the right, under the same actions"
    )
    films.add_argument("--keys", action="store_true", help="draw in the keys that were held")
    films.add_argument(
        "--shape", choices=SHAPES, help="put the picture into this shape, as telephones show it"
    )
    films.add_argument(
        "--scale",
        type=count,
        help="whole number that frames grow by (default: 1, with --hud or --keys 3)",
    )
    minari = parser.add_argument_group("for minari")
    minari.add_argument(
        "--lossless", action="store_true", help="the film's own pixels instead of JPEG"
    )
    minari.add_argument(
        "--name",
        metavar="ID",
        help='of the data set, such as "stage/mine-v0" (default: session\'s)',
    )
    minari.add_argument(
        "--algorithm-name", default="player", metavar="NAME", help="who played (default: player)"
    )
    add_trust_option(parser)
    return parser
