"""``midas-world import qwen2 FOLDER``, ``import dc-ae FOLDER``: published weights as a skeleton.

Reads the command line and says what comes next; the work is importing/weights.py's.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from midas_world.commands.overrides import parse

WEIGHTS = {
    "qwen2": "The backbone of a Qwen2 or Qwen2.5, and its words: a folder with config.json, "
    "*.safetensors and, for the words, tokenizer.json, as transformers writes it.",
    "dc-ae": "The autoencoder of a DC-AE: a folder with config.json and *.safetensors, as "
    "diffusers writes it.",
}
"""Kinds of weights, and what is taken of them."""


def main(argv: Sequence[str]) -> int:
    """Run the command, whose first word is the kind of weights, and return the exit status.

    Raises:
        CheckpointError: The folder holds something else, or not all of it.
        ValueError: The sizes do not fit the preset.
    """
    kind, *words = argv
    parser = argparse.ArgumentParser(
        prog=f"midas-world import {kind}",
        description=f"{WEIGHTS[kind]} Nothing is downloaded.",
        epilog="Overrides of the preset's values may stand anywhere: world.height=384",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="on this machine")
    parser.add_argument(
        "--to", type=Path, required=True, metavar="SKELETON", help="a folder, for both kinds"
    )
    parser.add_argument("--preset", default="paper", help="to begin with; default: paper")
    arguments, overrides = parse(parser, words, has_pairs=True)
    # torch takes seconds to load: --help does not wait for it.
    from midas_world.importing.weights import import_dc_ae, import_qwen2
    from midas_world.teachers.project import preset_of

    run = {"qwen2": import_qwen2, "dc-ae": import_dc_ae}[kind]
    skeleton = arguments.to
    config = run(arguments.folder, skeleton, preset=arguments.preset, overrides=overrides)
    world, preset = config.world, preset_of(skeleton)
    has_model, has_coder = ((skeleton / part).is_dir() for part in ("init", "autoencoder"))
    words_are = "tokens of the Qwen2" if world.conditions.tokenizer else "hashed"
    other = "" if has_model and has_coder else "; the other kind of weights may follow"
    train = f"--preset {preset} --output {skeleton}"
    lines = [
        f"{skeleton}: {world.height}x{world.width} px, {world.tokens_per_frame} tokens a frame, "
        f"{world.backbone.num_layers} layers of {world.backbone.width}, words are {words_are}"
        f"{other}\n\nWhat comes next:\n",
        *([f"    midas-world collect --preset {preset}"] if config.data.has_teacher else []),
        *([] if has_coder else [f"    midas-world train autoencoder {train}"]),
        f"    midas-world train dynamics {train}" + f" --init-from {skeleton / 'init'}" * has_model,
        *([f"    midas-world train decoder {train}"] if config.train_decoder else []),
        f"    midas-world pack {train} --world worlds/{preset.stem}",
    ]
    print("\n".join(lines))
    return 0
