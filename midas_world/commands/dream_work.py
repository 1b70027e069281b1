"""What is asked of `midas-world dream`, and what of it is decided and done, on disk."""

import argparse
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from midas_world.files import write_whole
from midas_world.typed import read_values

logger = logging.getLogger(__name__)

Stage = Literal["autoencoder", "dynamics"]
# Of the time that is left when a part begins; the rest of it is for what comes after.
TIME_SHARES = {"collect": 0.15, "autoencoder": 0.3, "dynamics": 0.85}
# What packing and measuring take at least, where that leaves the dynamics most of the time.
_LAST_S = 25.0

STATE_FILE = "dream.json"
CPU_MINUTES, GPU_MINUTES = 120.0, 60.0


@dataclass(frozen=True, kw_only=True)
class DreamRequest:
    """What is asked for.

    Attributes:
        preset: Name or file of the preset to begin with.
        overrides: Dotted; they win over what is decided here.
        minutes: Time for everything; None: what suits the machine.
    """

    env_id: str
    options: argparse.Namespace
    preset: str
    overrides: tuple[str, ...]
    output: Path
    work: Path
    minutes: float | None = None
    train_steps: int | None = None
    num_workers: int = 1
    codec: Literal["h264", "raw"] = "h264"
    evaluation: Literal["full", "quick", "none"] = "full"

    @property
    def budget_s(self) -> float:
        """Seconds for everything."""
        usual = GPU_MINUTES if torch.cuda.is_available() else CPU_MINUTES
        return 60.0 * (self.minutes or usual)

    def gives(self, beginning: str) -> bool:
        """Whether an override begins with these letters."""
        return any(word.startswith(beginning) for word in self.overrides)

    def to_dict(self) -> dict[str, Any]:
        """Return what must be the same for a run to go on."""
        names = ("env_kwargs", "keymap", "size", "fit", "frames", "repeat", "conditions")
        names += ("conditioner", "policy", "episodes", "steps")
        settings = {name: getattr(self.options, name) for name in names}
        settings |= {"env_id": self.env_id, "preset": self.preset}
        settings |= {"overrides": self.overrides, "minutes": self.minutes}
        settings |= {"steps_budget": self.train_steps}
        return json.loads(json.dumps(settings, default=str))


class WorkFolder:
    """What is decided and done so far, on disk.

    Raises:
        ValueError: The folder was begun with another request.
    """

    def __init__(self, request: DreamRequest) -> None:
        self.folder = request.work
        self._started = time.monotonic()
        self._path = request.work / STATE_FILE
        wanted = request.to_dict()
        self._state: dict[str, Any] = {"request": wanted, "train_steps": {}, "done": {}}
        if kept := _read_state(self._path):
            self._state = kept
            begun = kept["request"]
            changed = sorted(key for key in wanted if wanted[key] != begun.get(key))
            if changed:
                words = ", ".join(f"{key} {begun.get(key)}, not {wanted[key]}" for key in changed)
                raise ValueError(f"{request.work} was begun with {words}; name another --work")
        self._budget_s = request.budget_s - sum(self._state["done"].values())

    @property
    def left_s(self) -> float:
        """Seconds of the budget that are left, those of parts done in earlier calls taken off."""
        return self._budget_s - (time.monotonic() - self._started)

    def seconds_for(self, part: str) -> float:
        """Return how long a part may take that begins now."""
        left = max(0.0, self.left_s)
        share = TIME_SHARES[part] * left
        return max(0.6 * left, min(share, left - _LAST_S)) if part == "dynamics" else share

    @property
    def train_steps(self) -> dict[str, int]:
        """Train steps of the stages for which they are decided."""
        return dict(self._state["train_steps"])

    def decide(self, stage: Stage, train_steps: int) -> None:
        """Keep the train steps of a stage for good."""
        self._state["train_steps"][stage] = train_steps
        self.save()

    def is_done(self, part: str, product: Path) -> bool:
        """Whether a part was finished and what it made is still there."""
        return part in self._state["done"] and product.exists()

    @contextmanager
    def doing(self, part: str) -> Iterator[None]:
        """Log a part's time and keep that it is done."""
        logger.info("--- %s", part)
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self._state["done"][part] = round(self._state["done"].get(part, 0.0) + seconds, 1)
        self.save()
        logger.info("--- %s took %.1f minutes", part, seconds / 60)

    def save(self) -> None:
        """Keep the request, and what is decided and done, for the next call."""
        write_whole(self._path, json.dumps(self._state, indent=1) + "\n")


def _read_state(path: Path) -> dict[str, Any] | None:
    """Return what a work folder knows of itself; None if there is nothing that can be read."""
    if not path.is_file():
        return None
    try:
        state = read_values(path)
        if all(isinstance(state[key], dict) for key in ("request", "train_steps", "done")):
            return state
        raise TypeError("it holds other things")
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("%s is of no use (%s): what is done is looked at again", path, error)
        return None
