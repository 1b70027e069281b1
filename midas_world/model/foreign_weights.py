"""Weights that others trained: transformers' Qwen2 and diffusers' AutoencoderDC, under our names.

The tables say which of their names is which of ours; the functions below them read a folder as
those libraries write it (config.json and safetensors), and fill our modules strictly. Neither
library is imported.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midas_world.checkpoint import load_tensors, load_weights
from midas_world.config import AutoencoderConfig, BackboneConfig
from midas_world.model.autoencoder import Autoencoder
from midas_world.types import CheckpointError

# Their prefix -> ours. The names below the layers are Qwen2's on our side too.
QWEN2_PREFIXES = {
    "model.layers.": "layers.",
    "layers.": "layers.",
    "model.norm.": "norm.",
    "norm.": "norm.",
}
# A backbone reads latents and conditions; words come to it as one of the latter.
QWEN2_EMBEDDINGS = ("model.embed_tokens.weight", "embed_tokens.weight")
QWEN2_LEFT_OUT = (*QWEN2_EMBEDDINGS, "lm_head.weight")

# Their name of a layer inside a stage -> ours, by prefix; the first that fits counts.
DC_LAYER_PREFIXES = {
    "conv1.": "conv_1.",
    "conv2.": "conv_2.",
    "norm.": "norm.",
    "conv.": "conv.",
    "attn.to_q.": "attention.q.",
    "attn.to_k.": "attention.k.",
    "attn.to_v.": "attention.v.",
    "attn.to_qkv_multiscale.": "attention.scales.",
    "attn.to_out.": "attention.out.",
    "attn.norm_out.": "attention.norm.",
    "conv_out.conv_inverted.": "feed_forward.expand.",
    "conv_out.conv_depth.": "feed_forward.depthwise.",
    "conv_out.conv_point.": "feed_forward.project.",
    "conv_out.norm.": "feed_forward.norm.",
}
DC_INNER_NAMES = {".proj_in.": ".depthwise.", ".proj_out.": ".mix."}
# Ours -> the parts that are stacked to make it, in this order.
DC_STACKED = {"attention.qkv.weight": ("attention.q", "attention.k", "attention.v")}
# Matrices of theirs that are 1x1 convolutions of ours.
DC_MATRICES = ("attention.qkv.weight", "attention.out.weight")

DC_BLOCK_TYPES = {"ResBlock": "res", "EfficientViTBlock": "efficient_vit"}


def qwen2_weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return Qwen2 or Qwen2.5 weights under the names of `Backbone`."""
    return {
        _renamed(name, QWEN2_PREFIXES): tensor
        for name, tensor in tensors.items()
        if name not in QWEN2_LEFT_OUT
    }


def qwen2_config(values: Mapping[str, Any], *, context_frames: int) -> BackboneConfig:
    """Return the backbone of a Qwen2 ``config.json``.

    Args:
        values: What the file holds.
        context_frames: Frames that attention reaches back to; Qwen2 knows none.
    """
    rope = values.get("rope_parameters") or {}
    return BackboneConfig(
        num_layers=values["num_hidden_layers"],
        width=values["hidden_size"],
        num_heads=values["num_attention_heads"],
        num_kv_heads=values["num_key_value_heads"],
        head_dim=values.get("head_dim") or values["hidden_size"] // values["num_attention_heads"],
        mlp_width=values["intermediate_size"],
        context_frames=context_frames,
        rope_theta=float(rope.get("rope_theta", values.get("rope_theta", 10_000.0))),
        norm_eps=values["rms_norm_eps"],
    )


@dataclass(frozen=True, kw_only=True)
class Qwen2:
    """What a Qwen2 folder holds.

    Attributes:
        config: Of the backbone.
        backbone: Its weights, under our names.
        embeddings: Of its tokens, (count, D); None: the folder has none.
    """

    config: BackboneConfig
    backbone: dict[str, Tensor]
    embeddings: Tensor | None


def read_qwen2(folder: Path, *, context_frames: int) -> Qwen2:
    """Return what a Qwen2 folder holds, for a backbone that reaches so many frames back.

    Raises:
        CheckpointError: A file is missing or corrupt, or it is another kind of model.
    """
    values = _read_config(folder, "model_type", "qwen2")
    try:
        config = qwen2_config(values, context_frames=context_frames)
    except KeyError as error:
        raise CheckpointError(f"{folder / 'config.json'} says no {error}") from error
    tensors = _read_tensors(folder)
    embeddings = next((tensors[name] for name in QWEN2_EMBEDDINGS if name in tensors), None)
    return Qwen2(config=config, backbone=qwen2_weights(tensors), embeddings=embeddings)


def autoencoder_dc_weights(
    tensors: Mapping[str, Tensor], config: AutoencoderConfig
) -> dict[str, Tensor]:
    """Return AutoencoderDC weights under the names of `Autoencoder`, statistics left out.

    Raises:
        CheckpointError: A name is not one of such a model.
    """
    places = _layer_places(config)
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = re.match(r"(encoder\.down|decoder\.up)_blocks\.\d+\.\d+\.", name)
        if not match:
            renamed[name] = tensor  # conv_in, norm_out and conv_out are called the same
        elif match[0] in places:
            inner = _renamed(name.removeprefix(match[0]), DC_LAYER_PREFIXES)
            for theirs, ours in DC_INNER_NAMES.items():
                inner = inner.replace(theirs, ours)
            renamed[places[match[0]] + inner] = tensor
        else:
            raise CheckpointError(f"{name} lies outside the stages that the config has")
    for ours, parts in DC_STACKED.items():
        for name in [name for name in renamed if name.endswith(f"{parts[0]}.weight")]:
            prefix = name.removesuffix(f"{parts[0]}.weight")
            stacked = [renamed.pop(f"{prefix}{part}.weight") for part in parts]
            renamed[prefix + ours] = torch.cat(stacked)
    return {
        name: tensor[:, :, None, None] if name.endswith(DC_MATRICES) else tensor
        for name, tensor in renamed.items()
    }


def autoencoder_dc_config(values: Mapping[str, Any]) -> AutoencoderConfig:
    """Return the autoencoder of an AutoencoderDC ``config.json``.

    Raises:
        ValueError: A layout that no published model has: encoder and decoder of other sizes, or
            attention with other scales in one stage than in the next.
    """
    for name in ("block_types", "block_out_channels"):
        if values[f"encoder_{name}"] != values[f"decoder_{name}"]:
            raise ValueError(f"encoder_{name} and decoder_{name} must be the same")
    widths = tuple(values["encoder_block_out_channels"])

    def each(name: str) -> tuple[str, ...]:
        given = values[name]
        return (given,) * len(widths) if isinstance(given, str) else tuple(given)

    blocks = tuple(DC_BLOCK_TYPES[block] for block in each("encoder_block_types"))
    scales = {
        tuple(stage)
        for side in ("encoder", "decoder")
        for stage, block in zip(values[f"{side}_qkv_multiscales"], blocks, strict=True)
        if block == "efficient_vit"
    }
    if len(scales) > 1:
        raise ValueError(f"qkv_multiscales must be the same in all stages, got {sorted(scales)}")
    return AutoencoderConfig(
        widths=widths,
        encoder_depths=tuple(values["encoder_layers_per_block"]),
        decoder_depths=tuple(values["decoder_layers_per_block"]),
        latent_channels=values["latent_channels"],
        patch_size=1,
        block_types=blocks,
        latent_norm=False,
        attention_head_dim=values["attention_head_dim"],
        attention_scales=scales.pop() if scales else (),
        decoder_norms=each("decoder_norm_types"),
        decoder_activations=each("decoder_act_fns"),
        decoder_out_activation=values.get("decoder_conv_act_fn", "relu"),
        downsample_type=values["downsample_block_type"],
        upsample_type=values["upsample_block_type"],
        encoder_out_shortcut=values.get("encoder_out_shortcut", True),
        decoder_in_shortcut=values.get("decoder_in_shortcut", True),
    )


def load_autoencoder_dc(folder: Path) -> Autoencoder:
    """Return the autoencoder of an AutoencoderDC folder, in float32 and evaluation mode.

    Its latents are standardised by the published scaling factor.

    Raises:
        CheckpointError: A file is missing or corrupt, or does not fit its config.
    """
    values = _read_config(folder, "_class_name", "AutoencoderDC")
    try:
        autoencoder = Autoencoder(autoencoder_dc_config(values))
    except KeyError as error:
        raise CheckpointError(f"{folder / 'config.json'} says no {error}") from error
    weights = autoencoder_dc_weights(_read_tensors(folder), autoencoder.config)
    weights["latent_mean"] = autoencoder.latent_mean
    weights["latent_std"] = autoencoder.latent_std / values.get("scaling_factor", 1.0)
    load_weights(autoencoder, weights, source=str(folder))
    return autoencoder.eval()


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    """Return a name with its prefix exchanged; one that is not in the table stays."""
    for theirs, ours in prefixes.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _layer_places(config: AutoencoderConfig) -> dict[str, str]:
    """Return which of our layers each of their layers in stages is, by prefix.

    Theirs are numbered inside each stage, ours through all stages in the order they run; a change
    of resolution ends a stage of their encoder and begins one of their decoder.
    """
    last = len(config.widths) - 1
    theirs: dict[str, list[str]] = {"encoder": [], "decoder": []}
    for stage in range(config.first_stage(config.encoder_depths), last + 1):
        count = config.encoder_depths[stage] + (stage < last)
        theirs["encoder"] += [f"encoder.down_blocks.{stage}.{index}." for index in range(count)]
    for stage in reversed(range(config.first_stage(config.decoder_depths), last + 1)):
        count = config.decoder_depths[stage] + (stage < last)
        theirs["decoder"] += [f"decoder.up_blocks.{stage}.{index}." for index in range(count)]
    return {
        prefix: f"{side}.layers.{place}."
        for side, prefixes in theirs.items()
        for place, prefix in enumerate(prefixes)
    }


def _read_config(folder: Path, key: str, kind: str) -> dict[str, Any]:
    """Return what a folder's config.json says, if what it says of itself is the kind wanted."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is missing or corrupt: {error}") from error
    found = values.get(key) if isinstance(values, dict) else None
    if found != kind:
        raise CheckpointError(f"{path} is of no {kind}: its {key} is {found!r}")
    return values


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of all safetensors files of a folder."""
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise CheckpointError(f"no safetensors in {folder}; pickled weights are not read")
    for index in folder.glob("*.safetensors.index.json"):
        try:
            wanted = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{index} is corrupt: {error!r}") from error
        if missing := sorted(wanted - {path.name for path in paths}):
            raise CheckpointError(f"{folder} lacks {', '.join(map(str, missing))}")
    tensors: dict[str, Tensor] = {}
    for path in paths:
        tensors |= load_tensors(path)
    return tensors
