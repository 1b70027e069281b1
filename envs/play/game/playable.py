"""What can be played, what goes with it, and how far opening it has come."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np

from envs.play.voice.voices import TALK
from midas_world.teachers.policies import Policy

if TYPE_CHECKING:
    from envs.play.game.background_build import BackgroundBuild
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
class SceneChoices:
    """Scenes that can be put together, and asked for by their names.

    Attributes:
        fields: Of each field, such as the weather, the names to choose from.
        read: Returns the names of the scene that a description speaks of.
        draw: Returns a picture of the scene of some names, uint8 (H, W, 3).
    """

    fields: Mapping[str, tuple[str, ...]]
    read: Callable[[str], Mapping[str, str]]
    draw: Callable[[Mapping[str, str]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Playable:
    """An environment ready to be played.

    Attributes:
        env: With `set_prompt(text | None)` and `understand(text)` beside Gymnasium's own methods.
        keymap: Names of the actions, and the keys that call them.
        fps: Steps per second at full speed.
        backend: What makes the frames, in words.
        starts: What each start state shows, in words; without any the seed alone chooses.
        teacher: What the world can be compared with; None if that is not here.
        background_build: Of what a faster engine takes; None: there is nothing to build.
        hears: Whether a live voice steers it, without an action for that.
        takes_words: Whether words that are typed mean something in it.
        counts_coins: Whether a reward is a coin; a learned world pays nearly 1 for one.
        make_agent: Makes an agent that plays this well; None: none does.
        show_start: Returns the frame of a start state, uint8 (H, W, 3).
        scenes: Scenes to choose from; None where there are only start states.
    """

    env: gym.Env[np.ndarray, np.int64]
    keymap: "KeyMap"
    fps: int
    title: str
    backend: str
    why: str = ""
    teacher: TeacherLink | None = None
    no_teacher: str = "the teacher of this world is not here: there is nothing to compare with"
    background_build: "BackgroundBuild | None" = None
    reopen: "Callable[[], Playable] | None" = None
    hears: bool = False
    takes_words: bool = True
    counts_coins: bool = False
    make_agent: Callable[[], Policy] | None = None
    starts: tuple[str, ...] = ()
    show_start: Callable[[int], np.ndarray] | None = None
    scenes: SceneChoices | None = None

    @property
    def speaks(self) -> bool:
        """Whether somebody speaks in it: live voices are heard nowhere else."""
        return self.hears or TALK in self.keymap.actions


class Loading:
    """How far opening has come, told by the thread that opens to the window that waits."""

    def __init__(self, stage: str = "loading") -> None:
        self.stage = stage
        self.keys: Mapping[str, Sequence[str]] = {}

    def tell(self, stage: str, *, keys: Mapping[str, Sequence[str]] | None = None) -> None:
        """Say what is done now."""
        self.stage = stage
        if keys is not None:
            self.keys = keys
