"""Weights that others trained, as what a world of one's own begins with: its skeleton.

    NAME/
        NAME.yaml        preset: the sizes of the files, and all else of the preset begun with
        autoencoder/     checkpoint of the first stage, of a DC-AE
        init/            what the dynamics begin from: backbone and words of a Qwen2, else random
        tokenizer.json   that of the Qwen2, by which the world reads words

The two kinds may come in either order. What is called how is model/foreign_weights.py's business.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midas_world.checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    load_part,
    load_weights,
    save_tensors,
    select,
)
from midas_world.config import ProjectConfig, load_preset, override_config, save_config, save_preset
from midas_world.model.foreign_weights import load_autoencoder_dc, read_qwen2
from midas_world.model.world_model import WorldModel
from midas_world.teachers.project import preset_of
from midas_world.tokenizing import TOKENIZER_NAME, hash_of, know_tokenizer, vocabulary_size
from midas_world.train.loop import seeded_weights
from midas_world.types import CheckpointError

BACKBONE, WORDS = "backbone.", "conditions.words."


def import_dc_ae(
    folder: Path, skeleton: Path, *, preset: str, overrides: Sequence[str]
) -> ProjectConfig:
    """Write the autoencoder of an AutoencoderDC folder into a skeleton; return its config.

    The folder is as diffusers writes it; of a skeleton that is there its own preset counts.

    Raises:
        CheckpointError: The folder holds something else, or not all of it.
        ValueError: The sizes do not fit the preset.
    """
    coder = load_autoencoder_dc(folder)
    config = _fitted(skeleton, preset, _words_of("world.autoencoder", coder.config), overrides)
    save_tensors(coder.state_dict(), skeleton / "autoencoder" / WEIGHTS_NAME)
    save_config(config, skeleton / "autoencoder" / CONFIG_NAME)
    if (skeleton / "init" / WEIGHTS_NAME).is_file():
        # The rest of the model is of other sizes now.
        model = load_part(skeleton / "init", "model")
        _write_model(config, skeleton, {part: select(model, part) for part in (BACKBONE, WORDS)})
    save_preset(config, preset_of(skeleton))
    return config


def import_qwen2(
    folder: Path, skeleton: Path, *, preset: str, overrides: Sequence[str]
) -> ProjectConfig:
    """Write the backbone of a Qwen2 folder into a skeleton, and its words if they are there.

    Arguments and errors are those of `import_dc_ae`; the folder is as transformers writes it.

    Raises:
        ImportError: The package tokenizers is missing.
    """
    base = _base(skeleton, preset)
    theirs = read_qwen2(folder, context_frames=base.world.backbone.context_frames)
    fitted = _words_of("world.backbone", theirs.config)
    parts = {BACKBONE: theirs.backbone}
    if theirs.embeddings is not None and (folder / TOKENIZER_NAME).is_file():
        name, (count, width) = hash_of(folder / TOKENIZER_NAME), theirs.embeddings.shape
        know_tokenizer(name, folder)
        if vocabulary_size(name) > count:
            raise CheckpointError(
                f"{folder} has {count} embeddings, and {vocabulary_size(name)} tokens"
            )
        fitted += [
            f'world.conditions.tokenizer="{name}"',
            f"world.conditions.text_buckets={count + 1}",
            f"world.conditions.word_width={width}",
        ]
        nothing = theirs.embeddings.new_zeros(1, width)
        parts[WORDS] = {"weight": torch.cat((nothing, theirs.embeddings))}
    config = _fitted(skeleton, preset, fitted, overrides)
    _write_model(config, skeleton, parts)
    save_preset(config, preset_of(skeleton))
    return config


def _base(skeleton: Path, preset: str) -> ProjectConfig:
    path = preset_of(skeleton)
    return load_preset(str(path) if path.is_file() else preset)


def _fitted(
    skeleton: Path, preset: str, fitted: Sequence[str], overrides: Sequence[str]
) -> ProjectConfig:
    """Return the skeleton's config with other sizes, crops no larger than its frames."""
    try:
        config = override_config(_base(skeleton, preset), overrides, fitted=fitted)
    except ValueError as error:
        raise ValueError(f"it does not fit the preset: {error}") from error
    most = min(config.world.height, config.world.width)
    crops = [
        f"{stage}.crop_size={most}"
        for stage in ("train_autoencoder", "train_dynamics")
        if getattr(config, stage).crop_size > most
    ]
    return override_config(config, crops)


def _words_of(place: str, config: Any) -> list[str]:
    """Return a config as dotted overrides."""
    return [
        f"{place}.{name}={json.dumps(value)}" for name, value in dataclasses.asdict(config).items()
    ]


def _write_model(
    config: ProjectConfig, skeleton: Path, parts: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Write a model with given parts and the rest random, but for words of other sizes."""
    with seeded_weights(config.seed):
        model = WorldModel(config.world)
    load_weights(model.backbone, parts[BACKBONE], source=BACKBONE)
    if config.world.conditions.tokenizer and WORDS in parts:
        load_weights(model.conditions.words, parts[WORDS], source=WORDS)
    save_tensors(model.state_dict(), skeleton / "init" / WEIGHTS_NAME)
    save_config(config, skeleton / "init" / CONFIG_NAME)
