"""The console command ``midas-world``: one verb per task, each thin over the room that does it."""

import argparse
import dataclasses
import difflib
import importlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from midas_world.types import MidasWorldError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0 fine, 1 something failed, 2 bad input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] == "play":
        # The window has its own options, and opens before anything slow is imported.
        return importlib.import_module("play").main(argv[1:])
    _suggest_verb(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        if argv and argv[0] == "eval":
            return importlib.import_module("midas_world.evaluate.command").main(argv[1:])
        # Overrides may stand anywhere among the options, which argparse cannot say.
        overrides = [word for word in argv if _OVERRIDE.match(word)]
        arguments = _parser().parse_args([word for word in argv if word not in overrides])
        arguments.overrides = overrides
        return arguments.run(arguments)
    except (MidasWorldError, ValueError, FileNotFoundError) as error:
        print(f"midas-world {argv[0]}: {error}", file=sys.stderr)
        return 2


_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_0-9]+)*=")
VERBS = ("play", "collect", "train", "pack", "eval")


def _suggest_verb(argv: Sequence[str]) -> None:
    """Name the nearest verb for an unknown one."""
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        nearest = difflib.get_close_matches(argv[0], VERBS, n=1, cutoff=0.0)
        print(f"no verb {argv[0]!r}; did you mean {nearest[0]!r}?", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="midas-world", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="{" + ",".join(VERBS) + "}")

    collect = verbs.add_parser("collect", help="record episodes of the teacher")
    _add_preset(collect)
    collect.add_argument("--data", type=Path, help="default: data/PRESET")
    collect.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    collect.add_argument("--codec", choices=("h264", "raw"), default="h264")
    collect.set_defaults(run=_collect)

    train = verbs.add_parser("train", help="train the autoencoder, then the dynamics")
    train.add_argument("stage", choices=("autoencoder", "dynamics", "all"))
    _add_preset(train)
    train.add_argument("--data", type=Path, help="default: data/PRESET")
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
    pack.add_argument("--world", type=Path, required=True, help="folder to write")
    pack.set_defaults(run=_pack)

    # These have parsers of their own, and are here for the help alone.
    verbs.add_parser("play", help="play a world; see midas-world play --help")
    verbs.add_parser(
        "eval", help="measure a world against its teacher; see midas-world eval --help"
    )
    return parser


def _add_preset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="stage", help="a preset's name or a YAML file")
    parser.epilog = "Overrides of the preset's values stand after it: world.backbone.num_layers=4"


def _folder(given: Path | None, root: str, preset: str) -> Path:
    return given or Path(root) / Path(preset).stem


def _collect(arguments: argparse.Namespace) -> int:
    from midas_world.collect import CollectConfig, collect
    from midas_world.config import load_preset
    from midas_world.video import VideoOptions

    data = load_preset(arguments.preset, arguments.overrides).data
    output = _folder(arguments.data, "data", arguments.preset)
    common = CollectConfig(
        env_id=data.env_id,
        output=output / "train",
        num_episodes=data.num_episodes,
        first_seed=data.first_seed,
        num_steps=data.num_steps,
        policy_factory=data.policy_factory,
        policies=data.policy_weights,
        num_workers=arguments.workers,
        video=VideoOptions(codec=arguments.codec),
    )
    held = dataclasses.replace(
        common,
        output=output / "validation",
        num_episodes=data.num_validation_episodes,
        first_seed=data.first_validation_seed,
    )
    failures = [result for config in (held, common) if (result := collect(config)).failed]
    return 1 if failures else 0


def _train(arguments: argparse.Namespace) -> int:
    from midas_world.config import load_preset
    from midas_world.train.autoencoder import train_autoencoder
    from midas_world.train.dynamics import train_dynamics

    config = load_preset(arguments.preset, arguments.overrides)
    data = _folder(arguments.data, "data", arguments.preset)
    output = _folder(arguments.output, "runs", arguments.preset)
    autoencoder = arguments.autoencoder or output / "autoencoder"
    options = {"init_from": arguments.init_from, "stop_at": arguments.stop_at}
    if arguments.stage in ("autoencoder", "all"):
        train_autoencoder(config, data, autoencoder, **options)
    if arguments.stage in ("dynamics", "all"):
        train_dynamics(config, data, output / "dynamics", autoencoder=autoencoder, **options)
    return 0


def _pack(arguments: argparse.Namespace) -> int:
    from midas_world.config import load_preset
    from midas_world.train.pack import pack_world

    config = load_preset(arguments.preset, arguments.overrides)
    output = _folder(arguments.output, "runs", arguments.preset)
    autoencoder = arguments.autoencoder or output / "autoencoder"
    pack_world(config, arguments.world, autoencoder=autoencoder, dynamics=output / "dynamics")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
