"""The console command ``midas-world``: one verb per task, each thin over the room that does it."""

import argparse
import difflib
import importlib
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from midas_world import __version__
from midas_world.arguments import add_trust_option, count
from midas_world.commands.overrides import find_overrides
from midas_world.edge import DEBUG, DEBUG_HELP, run_command
from midas_world.machine import num_cores
from midas_world.packages import check_packages
from midas_world.teachers.options import add_teacher_options, given_options
from midas_world.terminal import leave


def run() -> NoReturn:
    """Run the verb of the command line and end the process; what a terminal calls."""
    leave(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 fine, 1 something failed; see edge.py."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv == ["--version"]:
        print(f"midas-world {__version__}")
        return 0
    name = f"midas-world {argv[0]}" if argv else "midas-world"
    if status := run_command(name, _check, argv):
        return status
    if argv and argv[0] == "play":
        # The window opens before anything slow is imported.
        return _play(argv[1:])
    return run_command(name, _run, argv)


def _play(argv: Sequence[str]) -> int:
    return importlib.import_module("play").main(argv)


def _check(_: list[str]) -> int:
    check_packages("envs", "engine")
    return 0


def _run(argv: list[str]) -> int:
    _suggest_verb(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if argv and argv[0] == "bench" and any(word.startswith("--soak") for word in argv):
        # The window is no business of the engines' room.
        return importlib.import_module("envs.play.window.soak").main(argv[1:])
    if argv and argv[0] in OF_ROOMS:
        return importlib.import_module(OF_ROOMS[argv[0]][0]).main(argv[1:])
    # Overrides may stand anywhere among the options, which argparse cannot say.
    overrides = find_overrides(argv)
    arguments = _parser().parse_args([word for word in argv if word not in overrides])
    arguments.overrides = overrides
    return arguments.run(arguments)


DEFAULT_PRESET = "stage"
OF_ROOMS = {
    "capture": ("midas_world.commands.capture_command", "record your own game, to import it"),
    "import": (
        "midas_world.commands.import_command",
        "episodes of recordings, of any game or film",
    ),
    "eval": ("midas_world.evaluate.command", "measure a world against its teacher"),
    "dream": ("midas_world.commands.dream_command", "a world of any Gymnasium env, by one command"),
    "bench": ("engine.bench.command", "measure a world's speed"),
    "build": ("engine.build_command", "what faster backends start from"),
    "export": ("midas_world.sessions.export.command", "a recorded session as film or dataset"),
    "shards": ("midas_world.train.shards_command", "episodes in large files that training streams"),
}
"""Verbs whose parser stands in the room that does the work: its module, and a line of help."""

VERBS = (
    *("play", "collect", "capture", "import", "train", "pack", "eval", "dream", "bench", "build"),
    *("export", "shards"),
)

_OF = "default: the preset's own folder if it has episodes, else data/PRESET"


def _suggest_verb(argv: Sequence[str]) -> None:
    """Name the nearest verb for an unknown one."""
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        nearest = difflib.get_close_matches(argv[0], VERBS, n=1, cutoff=0.0)
        print(f"no verb {argv[0]!r}; did you mean {nearest[0]!r}?", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="midas-world", description=__doc__, epilog=f"{DEBUG}, with any verb: {DEBUG_HELP}"
    )
    verbs = parser.add_subparsers(required=True, metavar="{" + ",".join(VERBS) + "}")

    collect = verbs.add_parser("collect", help="record episodes of the teacher")
    _add_preset(collect)
    collect.add_argument("--data", type=Path, help="default: data/PRESET")
    collect.add_argument("--workers", type=count, default=num_cores())
    collect.add_argument("--codec", choices=("h264", "raw"), default="h264")
    collect.add_argument("--env", metavar="ID", help="any Gymnasium env as the teacher")
    add_teacher_options(collect)
    add_trust_option(collect)
    collect.set_defaults(run=_collect)

    train = verbs.add_parser("train", help="train the autoencoder, the dynamics, the decoder")
    train.add_argument("stage", choices=("autoencoder", "dynamics", "decoder", "all"))
    _add_preset(train)
    train.add_argument("--data", type=Path, help=_OF)
    train.add_argument("--output", type=Path, help="default: runs/PRESET")
    train.add_argument("--autoencoder", type=Path, help="default: OUTPUT/autoencoder")
    train.add_argument("--init-from", type=Path, help="checkpoint folder to start a new run from")
    train.add_argument(
        "--stop-at", type=int, help="stop at this train step; resume by running again"
    )
    train.set_defaults(run=_train)

    pack = verbs.add_parser("pack", help="make a world folder of a trained run")
    _add_preset(pack)
    pack.add_argument("--output", type=Path, help="the run's folder; default: runs/PRESET")
    pack.add_argument("--autoencoder", type=Path, help="default: OUTPUT/autoencoder")
    pack.add_argument("--data", type=Path, help=f"recordings, of a world without a teacher; {_OF}")
    pack.add_argument("--world", type=Path, required=True, help="folder to write")
    add_trust_option(pack)
    pack.set_defaults(run=_pack)

    # For the help alone.
    helps = {"play": "play a world"} | {verb: words for verb, (_, words) in OF_ROOMS.items()}
    for verb, words in helps.items():
        verbs.add_parser(verb, help=f"{words}; see midas-world {verb} --help")
    return parser


def _add_preset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="a preset's name or a YAML file")
    parser.epilog = "Overrides of the preset's values stand after it: world.backbone.num_layers=4"


def _folder(given: Path | None, root: str, preset: str) -> Path:
    return given or Path(root) / Path(preset).stem


def _episodes(given: Path | None, preset: str) -> Path:
    """Return the folder of a preset's episodes: the given one, or its own, or that of its name."""
    own = Path(preset).parent
    if given is None and Path(preset).is_file() and (own / "train").is_dir():
        return own
    return _folder(given, "data", preset)


def _collect(arguments: argparse.Namespace) -> int:
    from midas_world.config import load_preset
    from midas_world.teachers.collect import collect
    from midas_world.teachers.project import collect_configs, episodes_root
    from midas_world.trust import check_data

    if arguments.env is not None:
        if is_by_hand := arguments.policy == ["human"]:
            arguments.policy = []
        arguments.preset = str(_fit_preset(arguments))
        if is_by_hand:
            episodes = Path(arguments.preset).parent / "train"
            words = ["--teacher", arguments.preset, "--episodes", str(episodes), "--trust"]
            return _play(words)
        arguments.overrides = []
    elif words := given_options(arguments):
        raise ValueError(f"{', '.join(words)}: only with --env")
    data = load_preset(arguments.preset, arguments.overrides).data
    # What --env has just been asked for, the user has named; else the file has.
    check_data(
        data, source=Path(arguments.preset), trust=arguments.trust or arguments.env is not None
    )
    folder = episodes_root(data, _folder(arguments.data, "data", arguments.preset))
    configs = collect_configs(data, folder, num_workers=arguments.workers, codec=arguments.codec)
    return max([collect(config).exit_code for config in configs])


def _fit_preset(arguments: argparse.Namespace) -> Path:
    """Write a preset fitted to the env that --env names into its data folder; return its path."""
    from midas_world.teachers.project import (
        CPU_TOKENS,
        episodes_root,
        keep_preset,
        name_of,
        project_for,
        summary_of,
    )

    name = name_of(arguments.env)
    config = project_for(
        arguments.env,
        arguments,
        preset="dream" if arguments.preset == DEFAULT_PRESET else arguments.preset,
        overrides=arguments.overrides,
        max_tokens=CPU_TOKENS,
        is_to_play=False,
    )
    folder = episodes_root(config.data, arguments.data or Path("data") / name)
    path = folder / f"{folder.name}.yaml"
    keep_preset(config, path)
    print(f"{summary_of(config)}\n  preset   {path}")
    return path


def _train(arguments: argparse.Namespace) -> int:
    from midas_world.config import load_preset
    from midas_world.train.autoencoder import train_autoencoder
    from midas_world.train.decoder import train_decoder
    from midas_world.train.dynamics import train_dynamics

    config = load_preset(arguments.preset, arguments.overrides)
    data = _episodes(arguments.data, arguments.preset)
    output = _folder(arguments.output, "runs", arguments.preset)
    autoencoder = arguments.autoencoder or output / "autoencoder"
    stop_at = arguments.stop_at
    options = {"init_from": arguments.init_from, "stop_at": stop_at}
    if arguments.stage in ("autoencoder", "all"):
        train_autoencoder(config, data, autoencoder, **options)
    if arguments.stage in ("dynamics", "all"):
        train_dynamics(config, data, output / "dynamics", autoencoder=autoencoder, **options)
    if arguments.stage == "decoder" or (arguments.stage == "all" and config.train_decoder):
        parts = {"autoencoder": autoencoder, "dynamics": output / "dynamics"}
        train_decoder(config, data, output / "decoder", **parts, stop_at=stop_at)
    return 0


def _pack(arguments: argparse.Namespace) -> int:
    from midas_world.checkpoint import WEIGHTS_NAME
    from midas_world.config import load_preset
    from midas_world.train.pack import pack_world
    from midas_world.trust import check_data

    config = load_preset(arguments.preset, arguments.overrides)
    check_data(config.data, source=Path(arguments.preset), trust=arguments.trust)
    output = _folder(arguments.output, "runs", arguments.preset)
    # The decoder's stage may not have been run.
    last = "decoder" if (output / "decoder" / WEIGHTS_NAME).is_file() else "autoencoder"
    autoencoder = arguments.autoencoder or output / last
    pack_world(
        config,
        arguments.world,
        autoencoder=autoencoder,
        dynamics=output / "dynamics",
        data=_episodes(arguments.data, arguments.preset),
    )
    return 0


if __name__ == "__main__":
    run()
