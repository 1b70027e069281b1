"""Moments of a game: what is seen of one, how it came about, and what it takes to go back to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from midas_world.sessions.log import Heard
from midas_world.types import StepConditions


@dataclass(frozen=True, kw_only=True)
class View:
    """What there is to see after a step.

    Attributes:
        frame: uint8 (H, W, 3).
        conditions: What the world was told of this frame.
        is_over: The episode has ended; only a reset goes on.
        sound: int16 (3, 800), what is heard at this frame; None is silence.
        score: Coins, in a game of coins; else the rewards' sum.
        lives: Hearts that are left; None in a game without.
        num_hits: How often the episode cost a life.
    """

    frame: np.ndarray
    num_steps: int
    action_name: str
    total_reward: float
    is_over: bool
    conditions: StepConditions = field(default_factory=StepConditions)
    sound: np.ndarray | None = None
    score: float = 0.0
    lives: int | None = None
    num_hits: int = 0

    @property
    def text(self) -> str:
        """The words that steer the world."""
        return self.conditions.text or ""


@dataclass(kw_only=True)
class Branch:
    """How an episode came about: all that it takes to play it again, named as in `Record.begin`.

    Only grows at its end. Going back starts a new branch of the old one's beginning, so whoever
    remembers a place by a branch, a number of steps and a number of prompts finds it unchanged.

    Attributes:
        prompt: The player's words at the reset.
        prompts: What was typed on the way: after how many steps, and the words.
        voices: Live ones: the step that they led to counts from 0.
        start_state: Index of the one that it began from, if the environment tells.
        teacher_start: Where the teacher has to begin to be compared; None without one.
    """

    seed: int
    options: dict[str, Any] | None = None
    prompt: str | None = None
    actions: list[int] = field(default_factory=list)
    prompts: list[tuple[int, str | None]] = field(default_factory=list)
    voices: dict[int, Heard] = field(default_factory=dict)
    start_state: int | None = None
    teacher_start: Mapping[str, np.ndarray] | None = None

    def prompt_after(self, num_prompts: int) -> str | None:
        """Return the player's words after so many prompts."""
        return self.prompts[num_prompts - 1][1] if num_prompts else self.prompt

    def beginning(self, num_steps: int, num_prompts: int) -> "Branch":
        """Return the first steps as a branch of its own."""
        voices = {step: heard for step, heard in self.voices.items() if step < num_steps}
        return replace(
            self,
            actions=self.actions[:num_steps],
            prompts=self.prompts[:num_prompts],
            voices=voices,
        )


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A moment of a game to go back to.

    Attributes:
        num_prompts: How many of the branch's prompts came before.
        state: Of the environment; None where it was not kept or the environment has none.
    """

    branch: Branch
    num_prompts: int
    view: View
    state: Any = None

    @property
    def num_steps(self) -> int:
        """Steps since the reset."""
        return self.view.num_steps
