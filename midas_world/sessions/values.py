"""What a session's JSON holds beside words and numbers: arrays, and the spaces of actions."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

_ARRAY = "__array__"
_MOST_ENTRIES = 2**20


def to_json(value: Any) -> Any:
    """Return a value as JSON can hold it: arrays keep their bits, tuples become lists.

    Raises:
        ValueError: There is something else in it.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {_ARRAY: data, "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    raise ValueError(f"a session cannot hold a {type(value).__name__}: {value!r}")


def from_json(value: Any) -> Any:
    """Return what `to_json` was given."""
    if isinstance(value, Mapping):
        if _ARRAY in value:
            data = np.frombuffer(base64.b64decode(value[_ARRAY]), np.dtype(value["dtype"]))
            return data.reshape(value["shape"]).copy()
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value


def space_to_json(space: spaces.Space[Any]) -> dict[str, Any]:
    """Return an action space as JSON; of an unknown kind, its words only."""
    if isinstance(space, spaces.Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.Box):
        low, high = to_json(space.low), to_json(space.high)
        return {"kind": "Box", "low": low, "high": high, "dtype": np.dtype(space.dtype).str}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "MultiBinary", "n": to_json(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": to_json(space.nvec)}
    return {"kind": "other", "words": str(space)}


def space_from_json(value: Mapping[str, Any]) -> spaces.Space[Any]:
    """Return the space that `space_to_json` was given.

    Raises:
        ValueError: It was of an unknown kind.
    """
    try:
        return _space(value)
    except (KeyError, TypeError, AttributeError, AssertionError, OverflowError) as error:
        raise ValueError(f"action_space cannot be read: {error!r:.100}") from error


def _space(value: Mapping[str, Any]) -> spaces.Space[Any]:
    kind = value["kind"]
    if kind == "Discrete":
        return spaces.Discrete(value["n"], start=value["start"])
    if kind == "Box":
        low, high = from_json(value["low"]), from_json(value["high"])
        return spaces.Box(low, high, dtype=np.dtype(value["dtype"]).type)
    if kind == "MultiBinary":
        if not 0 < np.prod(value["n"], dtype=float) <= _MOST_ENTRIES:
            raise ValueError(f"action_space: n must be 1 to {_MOST_ENTRIES}, got {value['n']}")
        return spaces.MultiBinary(value["n"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(from_json(value["nvec"]))
    raise ValueError(f"actions are of a space that cannot be written down: {value['words']}")
