"""JSON as dataclasses: every value is checked against its field's type, and a wrong one is named.

Types are those of the fields: numbers, texts, booleans, literals, arrays, and tuples, lists and
mappings of them. A whole number will do where a fraction may be, never the other way round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")

_LARGEST = 2**63
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def from_values(cls: type[T], values: Any) -> T:
    """Return a dataclass of values by name.

    Raises:
        ValueError: A value is missing, unknown or of another type; the message names the field.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"must be values by name, got {values!r:.60}")
    hints = get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}  # pyright: ignore[reportArgumentType]
    for name in values:
        if name not in known:
            raise ValueError(f"there is no {name!r:.60}")
    for name, item in known.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{name} is missing")
    return cls(**{name: _value(hints[name], value, name) for name, value in values.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        return _value(next(item for item in inner if item is not NoneType), value, name)
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
        return kind(_value(each, item, name) for each, item in zip(hints, value, strict=True))
    if isinstance(kind, type) and issubclass(kind, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be values by name, got {value!r:.60}")
        return {key: _value(inner[1], item, f"{name}.{key}") for key, item in value.items()}
    if is_dataclass(kind):
        return from_values(kind, value)  # pyright: ignore[reportArgumentType]
    if kind is np.ndarray:
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise ValueError(f"{name} must be an array of numbers, got {value!r:.60}")
        return value
    allowed = (int, float) if kind is float else (kind,)
    is_right = isinstance(value, allowed) and isinstance(value, bool) == (kind is bool)
    if not is_right or (isinstance(value, int) and not -_LARGEST <= value < 2 * _LARGEST):
        raise ValueError(f"{name} must be {_WORDS[kind]}, got {value!r:.60}")
    return value
