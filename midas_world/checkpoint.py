"""Weights on disk: safetensors and YAML, written to a temporary name and renamed, never pickled.

A checkpoint is a folder with ``weights.safetensors`` and ``config.yaml``. Loading is strict: every
key and shape must agree, or `CheckpointError` says which does not and nothing is changed.
"""

import hashlib
import json
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from midas_world.files import whole
from midas_world.types import CheckpointError

WEIGHTS_NAME = "weights.safetensors"
CONFIG_NAME = "config.yaml"
SCALE_SUFFIX = ":scale"
_CHECKSUM = "crc32"  # key of a file's metadata
# Entries below which a tensor is not worth compressing.
MIN_COMPRESSED = 4096


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to one safetensors file; the old file stays until the new one is whole.

    Raises:
        OSError: It cannot be written: a full disk, or a folder that is not ours.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    checksum = {_CHECKSUM: _checksum(contiguous)}
    with whole(path) as place:
        place.touch()
        mode = place.stat().st_mode  # the user's own; safetensors lets nobody else read
        try:
            save_file(contiguous, place, metadata={**(metadata or {}), **checksum})
        except SafetensorError as error:  # its word for a full disk
            raise OSError(f"{path} cannot be written: {error}") from error
        place.chmod(mode)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read every tensor of a safetensors file.

    Raises:
        CheckpointError: The file is missing, truncated or corrupt.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get(_CHECKSUM)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or corrupt: {error}") from error
    # Files that others wrote have none.
    if expected is not None and expected != _checksum(tensors):
        raise CheckpointError(f"{path} is corrupt: its values are not those that were written")
    return tensors


def load_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file; `CheckpointError` as in `load_tensors`."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is missing, truncated or corrupt: {error}") from error
    metadata.pop(_CHECKSUM, None)
    return metadata


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return the CRC-32 of all names and values, in hex."""
    value = 0
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copy tensors into a module, strictly; the module's dtypes stay.

    Args:
        module: What receives the weights.
        tensors: By the names of ``module.state_dict()``.
        source: Where they came from, for the error.

    Raises:
        CheckpointError: A key is missing or unknown, or a shape differs; nothing was changed.
    """
    own = module.state_dict()
    problems = [f"missing key {name}" for name in own if name not in tensors]
    problems += [f"unknown key {name}" for name in tensors if name not in own]
    problems += [
        f"{name} has shape {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:5])
        raise CheckpointError(f"{source} does not fit its config: {shown} ({len(problems)} in all)")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def load_part(folder: Path, part: str) -> dict[str, Tensor]:
    """Read one part ("autoencoder" or "model") of a world folder, or a checkpoint of it alone.

    Raises:
        CheckpointError: The weights are missing, truncated or corrupt.
    """
    tensors = expand(load_tensors(folder / WEIGHTS_NAME))
    return select(tensors, f"{part}.") or tensors


def compress(tensors: Mapping[str, Tensor], *, exact: Collection[str] = ()) -> dict[str, Tensor]:
    """Return tensors smaller: big matrices as int8 with a scale per row, what has a place in half.

    A matrix' weight becomes round(weight / scale) with scale = max |row| / 127, a row being all
    that leads to one output. `expand` undoes it, to within half a scale. Convolutions and tables
    become float16: in int8 rows the autoencoder lost 4.5 dB. Small tensors stay as they are, and so
    do those that are named as exact.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        is_small = tensor.ndim < 2 or tensor.numel() < MIN_COMPRESSED
        if is_small or name in exact or not tensor.is_floating_point():
            result[name] = tensor
            continue
        if tensor.ndim == 4:
            result[name] = tensor.half()
            continue
        rows = tensor.detach().float().flatten(1)
        # A bfloat16 scale times 127 is exact in float32, so compressing again changes nothing.
        scale = (rows.abs().amax(dim=1).clamp_min(1e-12) / 127.0).to(torch.bfloat16)
        steps = (rows / scale.float()[:, None]).round().clamp(-127, 127)
        result[name] = steps.to(torch.int8).view(tensor.shape)
        result[name + SCALE_SUFFIX] = scale
    return result


def expand(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the float32 tensors that `compress` was given; others as they are."""
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE_SUFFIX):
            continue
        scale = tensors.get(name + SCALE_SUFFIX)
        if tensor.dtype == torch.float16:
            tensor = tensor.float()
        if scale is not None:
            shape = (-1, *[1] * (tensor.ndim - 1))
            tensor = tensor.float() * scale.float().view(shape)
        result[name] = tensor
    return result


def select(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors below a prefix, without it."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return 16 hex digits that change whenever any name, shape or value does."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(json.dumps(list(tensor.shape)).encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
