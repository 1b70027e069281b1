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


def check_header(path: Path, own: Mapping[str, Tensor]) -> None:
    """Check names and shapes in a safetensors file's header; reads none of its values.

    Args:
        path: The file.
        own: What it must hold; tensors on the device "meta" will do.

    Raises:
        CheckpointError: The file is missing or corrupt, or does not fit.
    """
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if not name.endswith(SCALE_SUFFIX)]  # noqa: SIM118
            shapes = {name: torch.Size(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is truncated or corrupt: {error}") from error
    _refuse(
        _misfits(shapes, {name: tensor.shape for name, tensor in own.items()}), source=str(path)
    )


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

    Raises:
        CheckpointError: A key is missing or unknown, a shape or a kind of number differs, or a
            number is not finite; nothing was changed.
    """
    own = module.state_dict()
    shapes, wanted = ({n: t.shape for n, t in each.items()} for each in (tensors, own))
    problems = _misfits(shapes, wanted)
    for name, tensor in tensors.items():
        if name in own and tensor.is_floating_point() != own[name].is_floating_point():
            problems.append(f"{name} is of {tensor.dtype}, not {own[name].dtype}")
        elif not tensor.isfinite().all():
            problems.append(f"{name} holds numbers that are not finite")
    _refuse(problems, source=source)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def _misfits(shapes: Mapping[str, torch.Size], wanted: Mapping[str, torch.Size]) -> list[str]:
    problems = [f"missing key {name}" for name in wanted if name not in shapes]
    problems += [f"unknown key {name}" for name in shapes if name not in wanted]
    return problems + [
        f"{name} has shape {tuple(shapes[name])}, not {tuple(wanted[name])}"
        for name in wanted
        if name in shapes and shapes[name] != wanted[name]
    ]


def _refuse(problems: list[str], *, source: str) -> None:
    if problems:
        shown = "; ".join(problems[:5])
        raise CheckpointError(f"{source} does not fit its config: {shown} ({len(problems)} in all)")


def load_part(folder: Path, part: str) -> dict[str, Tensor]:
    """Read one part ("autoencoder" or "model") of a world folder, or a checkpoint of it alone.

    Raises:
        CheckpointError: The weights are missing, truncated or corrupt.
    """
    tensors = load_expanded(folder / WEIGHTS_NAME)
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


def load_expanded(path: Path) -> dict[str, Tensor]:
    """Read weights that may be compressed; `CheckpointError` names the file and the tensor."""
    try:
        return expand(load_tensors(path))
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def expand(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the float32 tensors that `compress` was given; others as they are.

    Raises:
        ValueError: A tensor lacks its scales, or scales are of another kind or lack their tensor.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE_SUFFIX):
            if tensors.get(name.removesuffix(SCALE_SUFFIX), tensor).dtype != torch.int8:
                raise ValueError(f"{name} scales no tensor of int8")
            continue
        scale = tensors.get(name + SCALE_SUFFIX)
        if tensor.dtype == torch.int8:
            rows = tensor.shape[:1]
            if scale is None or scale.shape != rows or not scale.is_floating_point():
                was = "none" if scale is None else f"{tuple(scale.shape)} {scale.dtype}"
                raise ValueError(f"{name} needs {tuple(rows)} scales, there are {was}")
            tensor = tensor.float() * scale.float().view(-1, *[1] * (tensor.ndim - 1))
        elif tensor.dtype == torch.float16:
            tensor = tensor.float()
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
