"""All that needs a GPU, in one go: tests, TensorRT plans, benchmarks, and training.

    python -m examples.gpu --output results --list     # the pieces, and what became of each
    python -m examples.gpu --output results            # works for 9.5 minutes; call it again
    python -m examples.gpu --output results --only train --scale 4

For a GPU machine that one has for minutes at a time: a call ends before `--minutes` are over, and
the next one goes on. What must survive from call to call lies in `--work`; every call writes all
results so far into `--output`: a summary, the state, and one archive (reports, logs, weights) in
parts of 15 MiB, which `python -m examples.parts join` puts together again. No network is needed.

Training is that of midas_world/commands/train_shipped.py, each part a piece of its own; what was
trained is evaluated. `--scale` multiplies the preset's episodes and train steps; any value of the
preset can be overridden after it. Exit status: 0 all is done, 1 something failed, 3 call it again.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from examples.gpu_pieces import GROUPS, ROOT, GpuConfig, all_pieces
from examples.parts import PART_BYTES, pack, split
from examples.resumable import Piece, Run, State, open_state, run_process, work_through

SUMMARY_NAME, STATE_NAME, ARCHIVE_NAME = "summary.md", "state.json", "results.tar"


def deliver(config: GpuConfig, state: State, *, part_bytes: int = PART_BYTES) -> None:
    """Write all that is there so far into the output folder."""
    files = {
        path.relative_to(config.results).as_posix(): path
        for path in config.results.rglob("*")
        if path.is_file() and not path.name.startswith(".tmp-")
    }
    runs = config.work / "runs"
    for part in ("autoencoder", "dynamics", "refiner"):
        files |= {
            f"training/{part}/{path.name}": path
            for path in (runs / part / "log.csv", runs / part / "config.yaml")
            if path.is_file()
        }
    if state.of("train/pack").status == "done":
        files |= {f"world/{p.name}": p for p in config.trained.iterdir() if p.is_file()}
    else:  # what there is of unfinished training can be gone on from with --init-from
        files |= {
            f"training/{path.parent.name}/{path.name}": path
            for path in runs.glob("*/weights.safetensors")
        }
    archive = config.work / ARCHIVE_NAME
    pack(files, archive)
    manifest = split(archive, config.output, part_bytes=part_bytes)
    if state.path.is_file():
        (config.output / STATE_NAME).write_bytes(state.path.read_bytes())
    (config.output / SUMMARY_NAME).write_text(_summary(config, state, manifest), encoding="utf-8")


def _summary(config: GpuConfig, state: State, manifest: Path) -> str:
    lines = ["# Results of a GPU", "", f"Settings: {state.settings}", ""]
    lines += [
        "Reports, logs and weights:",
        "",
        f"    python -m examples.parts join {manifest.name}",
    ]
    lines[-1] += " FOLDER"
    lines += ["", "| piece | status | seconds | |", "|---|---|---|---|"]
    for piece in all_pieces(config):
        record = state.of(piece)
        words = record.words.replace("|", "\\|")
        lines.append(f"| {piece.name} | {record.status} | {record.seconds:.0f} | {words} |")
    reports = [
        *sorted(config.results.glob("bench/*/bench.md")),
        *sorted(config.results.glob("evaluation/evaluation.md")),
    ]
    for report in reports:
        text = report.read_text(encoding="utf-8")
        lines += ["", "---", "", text.strip()]
    return "\n".join(lines) + "\n"


def main(
    argv: Sequence[str] | None = None,
    *,
    run: Run | None = None,
    tell: Callable[[str], None] = print,
) -> int:
    """Work for the time given; return 0 if all is done, 1 if something failed, 3 if more is left.

    Raises:
        ValueError: An argument is outside its limits, or the work was begun with other settings.
    """
    arguments = _parser().parse_args(argv)
    config = GpuConfig(
        output=arguments.output,
        work=arguments.work.resolve(),
        preset=arguments.preset,
        scale=arguments.scale,
        overrides=tuple(arguments.overrides),
        save_every=arguments.save_every,
        data=arguments.data and arguments.data.resolve(),
        init_from=arguments.init_from and arguments.init_from.resolve(),
        world=arguments.world,
        workers=arguments.workers,
    )
    state = open_state(config.work / STATE_NAME, config.settings())
    # Groups are done in the order in which they were asked for.
    pieces = [
        piece for group in arguments.only for piece in all_pieces(config) if piece.group == group
    ]
    if arguments.list:
        for piece in pieces:
            record = state.of(piece)
            tell(f"{piece.name:32} {record.status:10} {record.seconds:6.0f} s  {record.words}")
        return 0
    if arguments.retry:
        for piece in pieces:
            if state.of(piece).status == "failed":
                state.note(piece, status="open", starts=0, cut_after_s=0.0, words="")
    config.results.mkdir(parents=True, exist_ok=True)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        # What is built by one piece is found by another, and survives as the work folder does.
        "XDG_CACHE_HOME": str(config.work / "cache"),
    }
    work_through(
        pieces,
        state,
        logs=config.results / "logs",
        seconds=60.0 * arguments.minutes,
        run=run or partial(run_process, environment=environment),
        tell=tell,
        after_each=lambda: deliver(config, state),
    )
    deliver(config, state)
    statuses = [state.of(piece).status for piece in pieces]
    failed = [piece.name for piece in pieces if state.of(piece).status == "failed"]
    done = statuses.count("done")
    tell(f"{done} of {len(pieces)} pieces done; failed: {', '.join(failed) or 'none'}")
    if done == len(pieces):
        return 0
    return 3 if _is_more_left(pieces, state) else 1


def _is_more_left(pieces: Sequence[Piece], state: State) -> bool:
    """Return whether another call could do anything: what needs a failed piece never begins."""
    lost: set[str] = set()
    is_left = False
    for piece in pieces:
        status = state.of(piece).status
        if status == "failed" or lost.intersection(piece.needs):
            lost.add(piece.name)
        elif status != "done":
            is_left = True
    return is_left


def _groups(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in GROUPS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"unknown groups {', '.join(unknown)}; there are {', '.join(GROUPS)}"
        )
    return list(dict.fromkeys(names))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.gpu", description="All that needs a GPU, in resumable pieces."
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "midas-gpu",
        help="folder that is there in the next call again; default: %(default)s",
    )
    parser.add_argument("--minutes", type=float, default=9.5, help="of this call; default: 9.5")
    parser.add_argument(
        "--only",
        type=_groups,
        default=list(GROUPS),
        metavar="GROUP[,GROUP]",
        help=f"of {', '.join(GROUPS)}, in the order given; default: all, in this order",
    )
    parser.add_argument("--list", action="store_true", help="tell what became of the pieces")
    parser.add_argument("--retry", action="store_true", help="do again what failed")
    parser.add_argument("--preset", default="stage", help="what is trained; default: stage")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of the preset's episodes and train steps"
    )
    parser.add_argument(
        "--save-every", type=int, default=100, metavar="N", help="train steps; default: 100"
    )
    parser.add_argument("--data", type=Path, help="episodes that are there; default: WORK/data")
    parser.add_argument("--init-from", type=Path, metavar="WORLD", help="go on from its weights")
    parser.add_argument("--world", default="stage", help="for plans and benchmarks")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="such as train_dynamics.optimizer.batch_size=32",
    )
    return parser


def _end_by_signal(number: int, _: object) -> None:
    sys.exit(128 + number)  # through every `finally`, so that no process is left behind


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end_by_signal)
    sys.exit(main())
