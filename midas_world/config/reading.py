"""Reading and writing configs: YAML and dotted overrides become frozen dataclasses, or one error.

What a file holds is only data: nothing in it is resolved. A value of another kind than its field's
is told with the field's name (typed.py).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from midas_world.files import write_whole
from midas_world.typed import from_values

T = TypeVar("T")

# What YAML of the wrong kind ends in.
_UNREADABLE = (OmegaConfBaseException, ValueError, TypeError, OverflowError, RecursionError)


def load_config(cls: type[T], path: Path, overrides: Sequence[str] = ()) -> T:
    """Return the config that a YAML file and dotted overrides describe.

    Args:
        cls: The config's dataclass.
        path: A YAML file.
        overrides: Strings such as ``"world.backbone.num_layers=4"``.

    Raises:
        ValueError: The file or an override has an unknown key (the message names the nearest
            valid one), a value of the wrong type, or a value outside its limits.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
        if not isinstance(values, dict):
            raise ValueError("must hold keys and values")
        _drop_refiner(values)
        return _made(cls, values, overrides)
    except (*_UNREADABLE, YAMLError) as error:
        raise ValueError(f"{path}: {_in_words(error)}") from error


def override_config(config: T, overrides: Sequence[str], *, fitted: Sequence[str] = ()) -> T:
    """Return a config with dotted overrides; see `load_config` for the errors.

    Those that were fitted to something come first, and errors do not name them.
    """
    try:
        values = asdict(config)  # pyright: ignore[reportArgumentType]
        return _made(type(config), values, [*fitted, *overrides])
    except _UNREADABLE as error:
        given = f"{' '.join(overrides)}: " if overrides else ""
        raise ValueError(f"{given}{_in_words(error)}") from error


def save_config(config: Any, path: Path) -> None:
    """Write a config as YAML, whole or not at all."""
    write_whole(path, OmegaConf.to_yaml(OmegaConf.structured(config)))


def _drop_refiner(values: dict[Any, Any]) -> None:
    """Take out what older files say of a refiner, a part that worlds no longer have.

    Raises:
        ValueError: They have one.
    """
    values.pop("train_refiner", None)
    world = values.get("world")
    gone = world.pop("refiner", None) if isinstance(world, dict) else None
    if gone and not (isinstance(gone, dict) and not gone.get("widths")):
        raise ValueError("world.refiner: worlds with a refiner can no longer be played or trained")


def _in_words(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _made(cls: type[T], values: Mapping[Any, Any], overrides: Sequence[str]) -> T:
    changes = OmegaConf.to_container(OmegaConf.from_dotlist([*overrides]))
    values = _merged(values, changes)
    for place, value in _leaves(values):
        if isinstance(value, str) and "${" in value:  # as OmegaConf refers to variables
            raise ValueError(f"{place} must be a plain value, got {value!r}, which is not resolved")
    made = from_values(cls, values, is_yaml=True)
    for place, value in _leaves(values):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{place} must be finite, got {value}")
    return made


def _merged(value: Any, change: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(change, dict):
        return change
    return value | {key: _merged(value.get(key), item) for key, item in change.items()}


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the single values in a container, and the keys that lead to each."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves([*item.values()] if isinstance(item, dict) else item, place)
    else:
        yield place, value
