"""What passes between the rooms: one step's conditions, and the errors of our own.

Knows NumPy only, so that environments and drawing code need no torch to import it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# A hit so many steps ago is forgotten.
LONGEST_SINCE_HIT = 64


class MidasWorldError(Exception):
    """Base of the errors that only this project raises."""


class BackendUnavailableError(MidasWorldError):
    """A backend was named that cannot run here; the message says which extra to install."""


class CheckpointError(MidasWorldError):
    """A checkpoint cannot be loaded; the message names the file and the key or field."""


@dataclass(frozen=True, kw_only=True)
class StepConditions:
    """What steers one frame. A modality that is None is absent.

    Attributes:
        pose: (P,) float32, about [-1, 1]: what the character means to do, as the env lays it out.
        text: Words that describe the scene and the action.
        audio: (A,) float32, about [0, 1]: log-mel features of this step's sound; 0 is silence.
    """

    pose: np.ndarray | None = None
    text: str | None = None
    audio: np.ndarray | None = None

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "StepConditions":
        """Return those that an env's info, or whatever else has them by name, gives."""
        return cls(pose=info.get("pose"), text=info.get("text"), audio=info.get("audio"))

    def given(self) -> dict[str, Any]:
        """Return those that are not absent, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


def stack_vectors(
    steps: Sequence[StepConditions], name: str, size: int, *, absent: float = 0.0
) -> np.ndarray:
    """Return poses or sounds side by side, (F, size) float32; those that are None are `absent`.

    Raises:
        ValueError: One has another size.
    """
    missing = np.full(size, absent, np.float32)
    vectors = [getattr(step, name) for step in steps]
    for vector in vectors:
        if vector is not None and vector.shape != (size,):
            raise ValueError(
                f"{name} must have shape ({size},), got {vector.shape}; a game that gives another "
                "size than its world takes is of another version"
            )
    rows = [missing if vector is None else vector for vector in vectors]
    return np.stack(rows).astype(np.float32, copy=False)
