"""``midas-world pack``: make a world folder of a trained run."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from midas_world.arguments import add_trust_option
from midas_world.commands.overrides import OF_EPISODES, add_preset, episodes_of, folder_of, parse


def main(argv: Sequence[str]) -> int:
    """Run the command and return the exit status.

    Raises:
        ValueError: The preset, its run or an option cannot be used.
    """
    arguments, overrides = parse(_parser(), argv)
    from midas_world.checkpoint import WEIGHTS_NAME
    from midas_world.config import load_preset
    from midas_world.train.pack import pack_world
    from midas_world.trust import check_data

    config = load_preset(arguments.preset, overrides)
    check_data(config.data, source=Path(arguments.preset), trust=arguments.trust)
    output = folder_of(arguments.output, "runs", arguments.preset)
    # The decoder's stage may not have been run.
    last = "decoder" if (output / "decoder" / WEIGHTS_NAME).is_file() else "autoencoder"
    autoencoder = arguments.autoencoder or output / last
    pack_world(
        config,
        arguments.world,
        autoencoder=autoencoder,
        dynamics=output / "dynamics",
        data=episodes_of(arguments.data, arguments.preset),
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="midas-world pack")
    add_preset(parser)
    add = parser.add_argument
    add("--output", type=Path, help="the run's folder; default: runs/PRESET")
    add("--autoencoder", type=Path, help="default: OUTPUT/autoencoder")
    add("--data", type=Path, help=f"recordings, of a world without a teacher; {OF_EPISODES}")
    add("--world", type=Path, required=True, help="folder to write")
    add_trust_option(parser)
    return parser
