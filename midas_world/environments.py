"""The environments by one path that no other project has: what `gymnasium.make` makes.

The package `envs` has them; other projects have one of that name, too. Each is imported when it is
asked for, beside the modules of another `envs` or `engine` where one comes first.
"""

import importlib
from typing import TYPE_CHECKING, Any

from midas_world.packages import join_packages

if TYPE_CHECKING:
    from envs.choices import Choices
    from envs.sb3 import make_sb3_vec_env
    from envs.stage.env import StageEnv
    from envs.vizdoom_chase import DoomChaseEnv
    from envs.world.env import WorldEnv
    from envs.world.latents import LatentObservation, LatentVectorObservation
    from envs.world.state import WorldState
    from envs.world.vector_env import WorldVectorEnv

_MODULES = {
    "Choices": "envs.choices",
    "DoomChaseEnv": "envs.vizdoom_chase",
    "LatentObservation": "envs.world.latents",
    "LatentVectorObservation": "envs.world.latents",
    "StageEnv": "envs.stage.env",
    "WorldEnv": "envs.world.env",
    "WorldState": "envs.world.state",
    "WorldVectorEnv": "envs.world.vector_env",
    "make_sb3_vec_env": "envs.sb3",
}
__all__ = [
    "Choices",
    "DoomChaseEnv",
    "LatentObservation",
    "LatentVectorObservation",
    "StageEnv",
    "WorldEnv",
    "WorldState",
    "WorldVectorEnv",
    "make_sb3_vec_env",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    join_packages("engine", "envs")
    return getattr(importlib.import_module(_MODULES[name]), name)
