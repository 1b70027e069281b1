"""``midas-world import``: recordings become episodes to train on, other projects' weights a world.

`midas-world import SOURCE --to FOLDER` takes recordings; a first word that `WEIGHTS` knows stands
for weights (import_weights.py).
"""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from midas_world.arguments import count, percentage, positive
from midas_world.commands.import_weights import WEIGHTS
from midas_world.commands.import_weights import main as import_weights
from midas_world.commands.overrides import parse
from midas_world.teachers.options import FITS, frame_size


def main(argv: Sequence[str]) -> int:
    """Run the command and return the exit status.

    Raises:
        ValueError: What is to be imported cannot be read, or an option does not fit it.
    """
    if argv and argv[0] in WEIGHTS:
        return import_weights(argv)
    arguments, overrides = parse(_parser(), argv, has_pairs=True)
    # What reads recordings loads torch: --help does not wait for it.
    from midas_world.importing.opening import ImportRequest
    from midas_world.importing.plan import plan_import
    from midas_world.importing.writing import write_plan
    from midas_world.teachers.project import preset_of

    given = {name: value for name, value in vars(arguments).items() if name != "dry_run"}
    plan = plan_import(ImportRequest(**given, overrides=tuple(overrides)))
    print(plan)
    if arguments.dry_run:
        return 0
    write_plan(plan)
    folder, world = plan.request.to, Path("worlds") / preset_of(plan.request.to).stem
    preset, data, made = (shlex.quote(str(path)) for path in (preset_of(folder), folder, world))
    print(
        f"\nWritten to {folder}. What comes next:\n\n"
        f"    midas-world train all --preset {preset}\n"
        f"    midas-world pack --preset {preset} --world {made}\n"
        f"    midas-world eval --world {made} --data {data}\n"
        f"    python play.py --world {made}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="midas-world import",
        description="Make training episodes of recordings: films, folders of pictures, sessions, "
        "Minari and LeRobot datasets. docs/recordings.md has an example of each. "
        f"{''.join(f'`{kind} --help`: weights. ' for kind in WEIGHTS)}",
        epilog="Overrides of the preset's values may stand anywhere: world.backbone.num_layers=4",
    )
    parser.add_argument(
        "sources", nargs="+", type=Path, metavar="SOURCE", help="one, or several of one kind"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--add", action="store_true", help="to a folder of an earlier import")
    parser.add_argument("--dry-run", action="store_true", help="say what there is, write nothing")
    group = parser.add_argument_group("what was done")
    group.add_argument(
        "--actions",
        type=Path,
        metavar="TABLE",
        help="CSV or JSONL of actions or held keys; default: the one beside the film",
    )
    group.add_argument("--watch", action="store_true", help="nobody steers: there is no table")
    group.add_argument(
        "--keymap", type=Path, metavar="YAML", help="names, values and keys of the actions"
    )
    group.add_argument("--text", default="", help="words that hold for all of it")
    group.add_argument("--keypoints", type=Path, metavar="TABLE", help="of the character, in px")
    group.add_argument("--sound", action="store_true", help="of film or session; it steers, too")
    group.add_argument("--pose", action="store_true", help="a session's own steers, not the action")
    group = parser.add_argument_group("pictures and time")
    group.add_argument("--size", type=frame_size, metavar="HxW", help="of the frames")
    group.add_argument("--fit", choices=FITS, help="bars (pad, the default), cut, or distorted")
    group.add_argument(
        "--fps", type=positive, help="steps a second; default: near 20, of whole pictures"
    )
    group.add_argument(
        "--source-fps", type=positive, help="of pictures that do not say how fast they are"
    )
    group.add_argument("--camera", default="", help="of a LeRobot dataset; default: the first")
    group = parser.add_argument_group("episodes")
    group.add_argument("--steps", type=count, metavar="N", help="of an episode at most")
    group.add_argument(
        "--held-out",
        type=percentage,
        default=0.05,
        metavar="PERCENT",
        help="of the episodes, to be measured on; default: 5, and at least one",
    )
    group.add_argument("--codec", choices=("h264", "raw"), default="h264")
    group.add_argument("--preset", default="dream", help="a preset's name or a YAML file")
    return parser
