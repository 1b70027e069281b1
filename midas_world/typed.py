"""JSON and YAML as dataclasses: every value is checked against its field's type, a wrong one named.

Types are those of the fields: numbers, texts, booleans, literals, arrays, other dataclasses, and
tuples, lists and mappings of them. A whole number will do where a fraction may be. Never the other
way round, but in YAML, which is written by hand: there, 1e4 is a whole number, and 1 is a text.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")

_LARGEST = 2**63
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def read_values(path: Path) -> dict[str, Any]:
    """Return the values by name that a JSON file holds.

    Raises:
        ValueError: It cannot be read, or holds something else; the message names it.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold values by name")
    return values


def from_values(cls: type[T], values: Any, place: str = "", *, is_yaml: bool = False) -> T:
    """Return a dataclass of values by name.

    Args:
        cls: The dataclass.
        values: By the names of its fields.
        place: Where they are, for errors.
        is_yaml: Whether they were written by hand.

    Raises:
        ValueError: A value is missing, unknown or of another type; the message names the field.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{place} must be values by name, got {values!r:.60}".strip())
    hints = get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}  # pyright: ignore[reportArgumentType]
    inside = f"{place}." * bool(place)
    for name in values:
        if name not in known:
            nearest = difflib.get_close_matches(str(name)[:60], known, n=1, cutoff=0.0)
            raise ValueError(
                f"no key {inside}{name!s:.60}; did you mean {inside}{nearest[0]}? "
                f"Keys here: {', '.join(known)}"
            )
    made = {name: _value(hints[name], v, inside + name, is_yaml) for name, v in values.items()}
    for name, item in known.items():
        if name not in made and item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{inside}{name} is missing")
    return cls(**made)


def _value(hint: Any, value: Any, name: str, is_yaml: bool) -> Any:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        return _value(next(item for item in inner if item is not NoneType), value, name, is_yaml)
    if kind is Any:
        return value
    if kind is Literal:
        if value in inner:
            return value
        raise ValueError(f"{name} must be one of {', '.join(map(str, inner))}, got {value!r:.60}")
    if kind is Sequence:
        kind, inner = tuple, (inner[0], ...)
    if kind in (tuple, list):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name} must be a list, got {value!r:.60}")
        if kind is tuple and inner[-1] is not Ellipsis and len(value) != len(inner):
            raise ValueError(f"{name} must have {len(inner)} entries, got {value!r:.60}")
        hints = inner if kind is tuple and inner[-1] is not Ellipsis else inner[:1] * len(value)
        pairs = zip(hints, value, strict=True)
        return kind(_value(each, item, name, is_yaml) for each, item in pairs)
    if isinstance(kind, type) and issubclass(kind, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be values by name, got {value!r:.60}")
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{name} must have texts as names, got {key!r:.60}")
        return {key: _value(inner[1], v, f"{name}.{key}", is_yaml) for key, v in value.items()}
    if is_dataclass(kind):
        return from_values(kind, value, name, is_yaml=is_yaml)  # pyright: ignore
    if kind is np.ndarray:
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise ValueError(f"{name} must be an array of numbers, got {value!r:.60}")
        return value
    if is_yaml and not isinstance(value, bool):
        if kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        elif kind is str and isinstance(value, int | float):
            value = str(value)
    allowed = (int, float) if kind is float else (kind,)
    is_right = isinstance(value, allowed) and isinstance(value, bool) == (kind is bool)
    if not is_right or (isinstance(value, int) and not -_LARGEST <= value < 2 * _LARGEST):
        raise ValueError(f"{name} must be {_WORDS[kind]}, got {value!r:.60}")
    return float(value) if kind is float else value
