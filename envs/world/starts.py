"""Choosing what an episode of a world begins from: by seed, index, words, or given frames."""

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from engine.spec import Engine
from envs.contract import check_names
from midas_world.types import StepConditions
from midas_world.world import StartState, things_in_view

_KEYS = ("frames", "conditions", "conditioner_state", "things")
_NUM_SHOWN = 8


def choose_start(
    option: Any, start_states: Sequence[StartState], *, rng: np.random.Generator, engine: Engine
) -> tuple[int, StartState]:
    """Return a start state and its index, which is -1 for one made of given frames.

    Args:
        option: None, an index, words, a start state, or a dict of frames; see `WorldEnv`.
        start_states: The world's.
        rng: Draws the start state if the option leaves it open.
        engine: Encodes given frames.

    Raises:
        ValueError: The option cannot be used; the message says why.
    """
    if isinstance(option, StartState):
        return -1, option
    if isinstance(option, Mapping):
        return -1, _from_frames(option, engine)
    if option is None:
        candidates = range(len(start_states))
    elif isinstance(option, str):
        candidates = _search(option, start_states)
    elif isinstance(option, int | np.integer) and not isinstance(option, bool):
        if not 0 <= option < len(start_states):
            raise ValueError(f"start_state must be 0 to {len(start_states) - 1}, got {option}")
        candidates = [int(option)]
    else:
        raise ValueError(
            "start_state must be an int, a str, a dict or a StartState, got "
            f"{type(option).__name__}"
        )
    if not candidates:
        raise ValueError("this world has no start states: give frames")
    index = candidates[int(rng.integers(len(candidates)))]
    return index, start_states[index]


def find_scene(wanted: str, start_states: Sequence[StartState], *, present: int) -> int:
    """Return the start state that is most like a scene; the present one if none is more like it.

    Descriptions are read as phrases between commas, the most important one first: Stage's are
    place, time of day, weather and outfit; no other place is taken for the sake of the weather.
    """
    asked = _phrases(wanted)

    def likeness(index: int) -> tuple[list[bool], bool]:
        phrases = _phrases(start_states[index].description)
        has = [phrase == other for phrase, other in zip_longest(asked, phrases)]
        return has, index == present

    return max(range(len(start_states)), key=likeness)


def _search(words: str, start_states: Sequence[StartState]) -> list[int]:
    """Return the start states whose descriptions share the most words with a search."""
    wanted = _words(words)
    scores = [len(wanted & _words(start.description)) for start in start_states]
    best = max(scores, default=0)
    if best == 0:
        shown = "; ".join([start.description for start in start_states][:_NUM_SHOWN])
        raise ValueError(f"no start state speaks of {words!r}; there are: {shown}")
    return [index for index, score in enumerate(scores) if score == best]


def _phrases(text: str) -> list[str]:
    return [phrase.strip().lower() for phrase in text.split(",")]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower())) - {"a", "an", "the", "in", "at", "of"}


def _from_frames(option: Mapping[str, Any], engine: Engine) -> StartState:
    """Return the start state that frames, their conditions and a conditioner's state make."""
    check_names("key of start_state", option, _KEYS)
    frames = np.asarray(option.get("frames", ()))
    if frames.ndim != 4 or not len(frames):
        raise ValueError(f"frames must have shape (F, H, W, 3), got {frames.shape}")
    given = option.get("conditions")
    if given is None and len(frames) > 1:
        raise ValueError("start_state needs conditions, one per frame, for more than one frame")
    conditions = (StepConditions(),) if given is None else tuple(given)
    state = option.get("conditioner_state") or {}
    width = frames.shape[2]
    things = np.asarray(option.get("things", np.zeros((0, 6))), np.float32)
    if things.ndim != 2 or things.shape[1] != 6:
        raise ValueError(f"things must have shape (O, 6), as info has them, got {things.shape}")
    num_classes = engine.spec.config.entries.num_classes
    if num_classes and (things[:, 0] >= num_classes).any():
        raise ValueError(f"things must be of classes below {num_classes}, got {things[:, 0].max()}")
    return StartState(
        latents=engine.encode(frames),
        conditions=conditions,
        conditioner_state={key: np.asarray(value) for key, value in state.items()},
        things=things_in_view(things, width=width),
        description=conditions[-1].text or "" if conditions else "",
    )
