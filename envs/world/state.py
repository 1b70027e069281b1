"""Everything that changes while games of a world are played, as a value: copy, pick, save, load.

Shapes: B games.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.rollout import SHARED_PREFIX, check_alike
from midas_world.checkpoint import load_metadata, load_tensors, save_tensors
from midas_world.config import ConditionsConfig
from midas_world.types import CheckpointError, StepConditions, stack_vectors
from midas_world.world import World

_FORMAT = "1"
_NUM_HASHED = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class WorldState:
    """The state of B games of one world. Nothing that an environment does later changes it.

    Attributes:
        tensors: Under fixed names, (B, ...) each; those whose names begin with "rollout.shared."
            belong to all games together.
        world: What tells the world from others; see `fingerprint`.
    """

    tensors: Mapping[str, Tensor]
    world: str

    @property
    def num_games(self) -> int:
        """B."""
        return len(self.tensors["over"])

    def select(self, games: Sequence[int]) -> "WorldState":
        """Return the state of some of the games, in this order; a game may come several times.

        Raises:
            ValueError: There is no game of such an index, or none is asked for.
        """
        if not len(games) or not all(0 <= game < self.num_games for game in games):
            raise ValueError(f"games must be indices 0 to {self.num_games - 1}, got {list(games)}")
        index = torch.from_numpy(np.array(games))  # whatever the default device is
        shared = f"rollout.{SHARED_PREFIX}"
        return WorldState(
            tensors={
                name: tensor if name.startswith(shared) else tensor[index.to(tensor.device)]
                for name, tensor in self.tensors.items()
            },
            world=self.world,
        )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; an old file stays until the new one is whole."""
        metadata = {"midas_world_state": _FORMAT, "world": self.world}
        save_tensors(self.tensors, Path(path), metadata=metadata)

    @classmethod
    def load(cls, path: str | Path) -> "WorldState":
        """Read what `save` wrote.

        Raises:
            CheckpointError: The file is missing, truncated, corrupt or no state.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointError(f"there is no state at {path}")
        metadata, tensors = load_metadata(path), load_tensors(path)
        if metadata.get("midas_world_state") != _FORMAT or "over" not in tensors:
            raise CheckpointError(f"{path} holds no state of a world, or one of another version")
        for name, tensor in tensors.items():
            if not tensor.is_floating_point():
                continue
            # Not a number says that there is no pose or sound.
            wrong = tensor.isinf() if name in ("pose", "audio") else ~tensor.isfinite()
            if wrong.any():
                raise CheckpointError(f"{path}: {name} is not finite")
        return cls(tensors=tensors, world=metadata.get("world", ""))


def fingerprint(world: World) -> str:
    """Return 16 hex digits that differ between worlds with different weights or shapes.

    Reads the beginning of every weight only, which is fast, and which training changes.
    """
    digest = hashlib.sha256()
    for name, tensor in world.tensors().items():
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten()[:_NUM_HASHED].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def pack_rng(rng: np.random.Generator) -> np.ndarray:
    """Return the whole state of a generator as (6,) int64."""
    state: Any = rng.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise ValueError(f"np_random must be a PCG64 generator, got {state['bit_generator']}")
    halves = [
        word
        for number in (state["state"]["state"], state["state"]["inc"])
        for word in (number >> 64, number % 2**64)
    ]
    words = np.array([*halves, state["has_uint32"], state["uinteger"]], np.uint64)
    return words.view(np.int64)


def unpack_rng(words: np.ndarray) -> dict[str, Any]:
    """Return the state of a PCG64 generator that `pack_rng` gave.

    Raises:
        ValueError: No generator has such a state.
    """
    high, low, inc_high, inc_low, has_uint32, uinteger = (int(w) for w in words.view(np.uint64))
    if not inc_low % 2 or has_uint32 > 1 or uinteger >= 2**32:
        raise ValueError("rng of the state is no generator's")
    return {
        "bit_generator": "PCG64",
        "state": {"state": high << 64 | low, "inc": inc_high << 64 | inc_low},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }


def rows_like(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return entries of a state, on the CPU.

    Raises:
        ValueError: An entry is missing or another.
    """
    if missing := sorted(set(own) - set(tensors)):
        raise ValueError(f"the state lacks {', '.join(missing)}")
    for name, rows in own.items():
        check_alike(name, tensors[name], rows)
    return {name: tensors[name].cpu() for name in own}


def pack_conditions(
    conditions: Sequence[StepConditions], config: ConditionsConfig
) -> dict[str, Tensor]:
    """Return the poses (B, P) and sounds (B, A) of B games; not a number where there is none."""
    poses = stack_vectors(conditions, "pose", config.pose_size, absent=np.nan)
    sounds = stack_vectors(conditions, "audio", config.audio_size, absent=np.nan)
    return {"pose": torch.from_numpy(poses), "audio": torch.from_numpy(sounds)}


def unpack_conditions(tensors: Mapping[str, Tensor]) -> list[StepConditions]:
    """Return what `pack_conditions` was given, without the words."""
    poses, sounds = (tensors[name].cpu().numpy().copy() for name in ("pose", "audio"))
    return [
        StepConditions(
            pose=None if np.isnan(pose).any() else pose,
            audio=None if np.isnan(audio).any() else audio,
        )
        for pose, audio in zip(poses, sounds, strict=True)
    ]


def below(tensors: Mapping[str, Tensor], prefix: str) -> list[tuple[str, Tensor]]:
    """Return the entries below a prefix, without it."""
    return [(k.removeprefix(prefix), v) for k, v in tensors.items() if k.startswith(prefix)]
