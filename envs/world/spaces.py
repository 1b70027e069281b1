"""What agents see of a world and do in it: the spaces of each mode, and how an action is read.

Shapes: H W pixels, N latent tokens per frame, C latent channels, P pose size, A audio size.
"""

import string
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction

from engine.spec import EngineSpec
from envs.contract import check_action, check_names
from midas_world.types import StepConditions
from midas_world.world import KeyMap

OBSERVATIONS = ("pixels", "latent", "dict")
ACTIONS = ("discrete", "keys", "conditions")

# Latents are standardised, so that this is far outside of all pictures; observations are cut there.
LATENT_LIMIT = 32.0
TEXT_CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " "
TEXT_LENGTH = 512


def observation_space(mode: str, spec: EngineSpec) -> spaces.Space[Any]:
    """Return what one game shows.

    Args:
        mode: "pixels", "latent" or "dict": pixels, and the pose and audio that the world has.
        spec: Of the engine that runs the world.

    Raises:
        ValueError: There is no such mode.
    """
    check_names("observation", [mode], OBSERVATIONS)
    if mode == "latent":
        return spaces.Box(-LATENT_LIMIT, LATENT_LIMIT, spec.latent_shape, np.float32)
    pixels = spaces.Box(0, 255, spec.frame_shape, np.uint8)
    if mode == "pixels":
        return pixels
    return spaces.Dict({"pixels": pixels, **_vector_spaces(spec)})


def action_space(mode: str, spec: EngineSpec, keymap: KeyMap) -> spaces.Space[Any]:
    """Return what may be done in one game at one step.

    Args:
        mode: "discrete": one of the named actions; "keys": which keys are held, in the order of
            `key_names`; "conditions": the conditions themselves.
        spec: Of the engine that runs the world.
        keymap: The world's.

    Raises:
        ValueError: There is no such mode, or the world has no keys.
    """
    check_names("action", [mode], ACTIONS)
    if mode == "discrete":
        return spaces.Discrete(len(keymap.actions))
    if mode == "keys":
        if not keymap.keys:
            raise ValueError("action='keys' needs a world with a key map, and this one has no keys")
        return spaces.MultiBinary(len(key_names(keymap)))
    text = spaces.Text(TEXT_LENGTH, min_length=0, charset=TEXT_CHARACTERS)
    return spaces.Dict({"text": text, **_vector_spaces(spec)})


def key_names(keymap: KeyMap) -> tuple[str, ...]:
    """Return the keys of a key map, in the order in which it first names them."""
    return tuple(dict.fromkeys(chain.from_iterable(keymap.keys.values())))


def read_action(
    action: Any, *, space: spaces.Space[Any], keymap: KeyMap, keys: Sequence[str]
) -> int | StepConditions:
    """Return which named action is meant, or the conditions if they are given as they are.

    Raises:
        InvalidAction: The action is not in the space.
    """
    if isinstance(space, spaces.Dict):
        return _read_conditions(action, space)
    if isinstance(space, spaces.MultiBinary):
        if not space.contains(action):
            raise InvalidAction(
                f"action must be {len(keys)} zeros or ones, for {', '.join(keys)}; got {action!r}"
            )
        return keymap.action_of({key for key, is_held in zip(keys, action, strict=True) if is_held})
    check_action(action, space)
    return int(action)


def _read_conditions(action: Any, space: spaces.Dict) -> StepConditions:
    """Return given conditions; a left out one, and an empty text, is absent."""
    if not isinstance(action, Mapping):
        raise InvalidAction(f"action must be a dict of conditions, got {type(action).__name__}")
    for name, value in action.items():
        if name not in space.spaces:
            raise InvalidAction(f"action may have {', '.join(space.spaces)}; got {name!r}")
        if not space[name].contains(value):
            raise InvalidAction(f"action {name!r} must be in {space[name]}, got {value!r}")
    return StepConditions.of({**action, "text": action.get("text") or None})


def _vector_spaces(spec: EngineSpec) -> dict[str, spaces.Space[Any]]:
    """Return the spaces of the pose and audio that a world has."""
    sizes = spec.config.conditions
    vectors: dict[str, spaces.Space[Any]] = {}
    if sizes.pose_size:
        vectors["pose"] = spaces.Box(-1.0, 1.0, (sizes.pose_size,), np.float32)
    if sizes.audio_size:
        vectors["audio"] = spaces.Box(0.0, 1.0, (sizes.audio_size,), np.float32)
    return vectors
