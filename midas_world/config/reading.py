"""Reading and writing configs: YAML and dotted overrides become frozen dataclasses, or one error.

What a file holds is only data: nothing in it is resolved, and a value of another kind than its
field's is told with the field's name.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from midas_world.files import write_whole

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
        _check_keys(cls, values)
        return _merged(cls, values, _changes(cls, overrides))
    except (*_UNREADABLE, YAMLError) as error:
        raise ValueError(f"{path}: {_in_words(error)}") from error


def override_config(config: T, overrides: Sequence[str]) -> T:
    """Return a config with dotted overrides; see `load_config` for the errors."""
    try:
        return _merged(config, _changes(type(config), overrides))
    except _UNREADABLE as error:
        raise ValueError(f"{' '.join(overrides)}: {_in_words(error)}") from error


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


def _changes(cls: type, overrides: Sequence[str]) -> Any:
    changes = OmegaConf.from_dotlist([*overrides])
    _check_keys(cls, OmegaConf.to_container(changes))
    return changes


def _merged(base: T | type[T], *changes: Any) -> T:
    made = _tupled(OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(base), *changes)))
    _check_finite(made)
    return cast("T", made)


def _check_finite(value: Any, place: str = "") -> None:
    """Raise ValueError for a number in a config that is infinite or none, naming its field."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place} must be finite, got {value}")
    if is_dataclass(value):
        value = {item.name: getattr(value, item.name) for item in fields(value)}
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            _check_finite(item, place)


def _tupled(value: Any) -> Any:
    """Change a new config's tuples of lists to tuples of tuples, which OmegaConf makes lists."""
    if isinstance(value, tuple):
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    if is_dataclass(value):
        for item in fields(value):
            object.__setattr__(value, item.name, _tupled(getattr(value, item.name)))
    return value


def _check_keys(hint: Any, values: Any, place: str = "") -> None:
    """Check keys, containers and texts against what a config's field may hold.

    OmegaConf's own errors for containers name no field, and it would fill in "${oc.env:NAME}".

    Raises:
        ValueError: A key is unknown (the message names the nearest), a value is of another kind, or
            a text refers to something.
    """
    if isinstance(values, str) and "${" in values:
        raise ValueError(f"{place} must be a plain value, got {values!r}, which is not resolved")
    options = [item for item in (get_args(hint) or (hint,)) if item is not NoneType]
    if get_origin(hint) in (Union, UnionType):
        if values is None or len(options) > 1:
            return
        hint = options[0]
    kind = get_origin(hint) or hint
    is_config = is_dataclass(kind)
    if is_config or kind is dict:
        if not isinstance(values, dict):
            raise ValueError(f"{place} must hold keys and values, got {values!r:.80}")
        hints = get_type_hints(kind) if is_config else {}
        names = list(hints)
        for key, value in values.items():
            if is_config and key not in names:
                nearest = difflib.get_close_matches(str(key), names, n=1, cutoff=0.0)
                prefix = f"{place}." * bool(place)
                raise ValueError(
                    f"no key {prefix}{key}; did you mean {prefix}{nearest[0]}? "
                    f"Keys here: {', '.join(names)}"
                )
            inner = hints[key] if is_config else get_args(hint)[1]
            _check_keys(inner, value, f"{place}.{key}" if place else str(key))
    elif kind in (tuple, list):
        if not isinstance(values, list):
            raise ValueError(f"{place} must be a list, got {values!r:.80}")
        for item in values:
            _check_keys(get_args(hint)[0], item, place)
    elif isinstance(values, dict | list):
        if hint is not Any:
            raise ValueError(f"{place} must be a single value, got {values!r:.80}")
        for item in values.values() if isinstance(values, dict) else values:
            _check_keys(Any, item, place)
