"""``midas-world train``: train the autoencoder, the dynamics, the decoder."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from midas_world.commands.overrides import OF_EPISODES, add_preset, episodes_of, folder_of, parse


def main(argv: Sequence[str]) -> int:
    """Run the command and return the exit status.

    Raises:
        ValueError: The preset, its episodes or an option cannot be used.
    """
    arguments, overrides = parse(_parser(), argv)
    from midas_world.config import load_preset
    from midas_world.train.autoencoder import train_autoencoder
    from midas_world.train.decoder import train_decoder
    from midas_world.train.dynamics import train_dynamics

    config = load_preset(arguments.preset, overrides)
    data = episodes_of(arguments.data, arguments.preset)
    output = folder_of(arguments.output, "runs", arguments.preset)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="midas-world train")
    add = parser.add_argument
    add("stage", choices=("autoencoder", "dynamics", "decoder", "all"))
    add_preset(parser)
    add("--data", type=Path, help=OF_EPISODES)
    add("--output", type=Path, help="default: runs/PRESET")
    add("--autoencoder", type=Path, help="default: OUTPUT/autoencoder")
    add("--init-from", type=Path, help="checkpoint folder to start a new run from")
    add("--stop-at", type=int, help="stop at this train step; resume by running again")
    return parser
