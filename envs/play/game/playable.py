"""What can be played, and what goes with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from envs.play.game.preparation import Preparation
    from midas_world.world import KeyMap


@dataclass(frozen=True, kw_only=True)
class TeacherLink:
    """How the teacher of a world can be put where an episode of that world began.

    Attributes:
        make: Makes the teacher, whose reset takes `start` as the option "conditioner_state".
        start: Returns the conditioner's state at the present step of the world.
    """

    make: Callable[[], gym.Env[np.ndarray, np.int64]]
    start: Callable[[], Mapping[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Playable:
    """An environment ready to be played.

    Attributes:
        env: With `set_prompt(text | None)` and `understand(text)` beside Gymnasium's own methods.
        keymap: Names of the actions, and the keys that call them.
        fps: Steps per second at full speed.
        title: For the window.
        backend: What makes the frames, in words.
        why: Why that was chosen, in words.
        num_starts: Start states to choose from; 0: the seed alone chooses.
        teacher: What the world can be compared with; None if that is not here.
        no_teacher: What the player is told then.
        preparation: Builds in the background what a faster engine takes; None: nothing to build.
        reopen: Opens the same once more, on what was built.
    """

    env: gym.Env[np.ndarray, np.int64]
    keymap: "KeyMap"
    fps: int
    title: str
    backend: str
    why: str = ""
    num_starts: int = 0
    teacher: TeacherLink | None = None
    no_teacher: str = "the teacher of this world is not here: there is nothing to compare with"
    preparation: "Preparation | None" = None
    reopen: "Callable[[], Playable] | None" = None
