"""``midas-world collect``: record episodes of a teacher."""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from midas_world.arguments import add_trust_option, count
from midas_world.commands.overrides import DEFAULT_PRESET, add_preset, folder_of, parse
from midas_world.machine import num_cores
from midas_world.teachers.options import add_teacher_options, given_options


def main(argv: Sequence[str]) -> int:
    """Run the command and return the exit status.

    Raises:
        ValueError: The preset, its teacher or an option cannot be used.
    """
    arguments, overrides = parse(_parser(), argv)
    from midas_world.config import load_preset
    from midas_world.teachers.collect import collect
    from midas_world.teachers.project import collect_configs, episodes_root
    from midas_world.trust import check_data

    if arguments.env is not None:
        if is_by_hand := arguments.policy == ["human"]:
            arguments.policy = []
        arguments.preset = str(_fit_preset(arguments, overrides))
        if is_by_hand:
            episodes = Path(arguments.preset).parent / "train"
            words = ["--teacher", arguments.preset, "--episodes", str(episodes), "--trust"]
            return importlib.import_module("play").main(words)
        overrides = []
    elif words := given_options(arguments):
        raise ValueError(f"{', '.join(words)}: only with --env")
    data = load_preset(arguments.preset, overrides).data
    # What --env has just been asked for, the user has named; else the file has.
    check_data(
        data, source=Path(arguments.preset), trust=arguments.trust or arguments.env is not None
    )
    folder = episodes_root(data, folder_of(arguments.data, "data", arguments.preset))
    configs = collect_configs(data, folder, num_workers=arguments.workers, codec=arguments.codec)
    return max([collect(config).exit_code for config in configs])


def _fit_preset(arguments: argparse.Namespace, overrides: Sequence[str]) -> Path:
    """Write a preset fitted to the env that --env names into its data folder; return its path."""
    from midas_world.teachers.project import (
        CPU_TOKENS,
        episodes_root,
        keep_preset,
        name_of,
        preset_of,
        project_for,
        summary_of,
    )

    name = name_of(arguments.env)
    config = project_for(
        arguments.env,
        arguments,
        preset="dream" if arguments.preset == DEFAULT_PRESET else arguments.preset,
        overrides=overrides,
        max_tokens=CPU_TOKENS,
        is_to_play=False,
    )
    folder = episodes_root(config.data, arguments.data or Path("data") / name)
    path = preset_of(folder)
    keep_preset(config, path)
    print(f"{summary_of(config)}\n  preset   {path}")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="midas-world collect")
    add_preset(parser)
    parser.add_argument("--data", type=Path, help="default: data/PRESET")
    parser.add_argument("--workers", type=count, default=num_cores())
    parser.add_argument("--codec", choices=("h264", "raw"), default="h264")
    parser.add_argument("--env", metavar="ID", help="any Gymnasium env as the teacher")
    add_teacher_options(parser)
    add_trust_option(parser)
    return parser
