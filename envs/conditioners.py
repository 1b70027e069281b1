"""Conditioners: turn the history of actions into the conditions of each step of a world.

Which one a world needs follows from the teacher that it was trained on. Stage has a pose
controller and voices; any other teacher gets words only.
"""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from midas_world.types import StepConditions
from midas_world.world import KeyMap

PROMPT_BYTES = 512

_STAGE_IDS = ("midas/StageTeacher-v0", "midas/Stage-v0")


class Conditioner(Protocol):
    """Turns actions into conditions; all that it draws at random comes from its reset."""

    def reset(self, *, rng: np.random.Generator, description: str = "") -> StepConditions:
        """Start anew and return the conditions of the first frame.

        Args:
            rng: Seeds whatever is random.
            description: What the first frame shows, in words.
        """
        ...

    def step(self, action: int) -> StepConditions:
        """Return the conditions of the frame that an action leads to."""
        ...

    def set_prompt(self, text: str | None) -> None:
        """Let a player's words steer from the next step on; None gives it back.

        Raises:
            ValueError: The text is too long.
        """
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that changes, as numeric arrays."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on exactly from what `state` gave."""
        ...


class StageWorldConditioner:
    """The teacher's own conditioner behind the calls that every world's conditioner answers."""

    def __init__(self) -> None:
        # Stage's drawing loads pygame: worlds of other teachers do without.
        from envs.stage.conditioner import StageConditioner

        self._inner = StageConditioner()

    def reset(self, *, rng: np.random.Generator, description: str = "") -> StepConditions:
        """Start anew in the scene that the description speaks of."""
        from envs.stage.scene import Scene, scene_from_text

        return self._inner.reset(scene=scene_from_text(description, Scene()), rng=rng)

    def step(self, action: int) -> StepConditions:
        """Return the conditions of the frame that an action leads to."""
        return self._inner.step(action)

    def set_prompt(self, text: str | None) -> None:
        """Let a player's words replace the scene's, as the teacher does."""
        from envs.stage.scene import scene_from_text

        self._inner.set_prompt(text)
        if text:
            self._inner.set_scene(scene_from_text(text, self._inner.scene))

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that changes, as numeric arrays."""
        return self._inner.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on exactly from what `state` gave."""
        self._inner.load_state(state)


class WordsConditioner:
    """For any teacher without a pose controller: the action's name and the prompt, as text.

    Args:
        actions: Names of the actions.
    """

    def __init__(self, actions: tuple[str, ...]) -> None:
        self._words = tuple(name.replace("_", " ") for name in actions)
        self._action = 0
        self._prompt = ""

    def reset(self, *, rng: np.random.Generator, description: str = "") -> StepConditions:
        """Start anew without a prompt."""
        self._action, self._prompt = 0, ""
        return self._conditions()

    def step(self, action: int) -> StepConditions:
        """Return the conditions of the frame that an action leads to."""
        self._action = action
        return self._conditions()

    def set_prompt(self, text: str | None) -> None:
        """Put a player's words in front of the action's."""
        text = (text or "").replace("\0", "").strip()
        size = len(text.encode())
        if size > PROMPT_BYTES:
            raise ValueError(f"a prompt must have at most {PROMPT_BYTES} bytes, got {size}")
        self._prompt = text

    def state(self) -> dict[str, np.ndarray]:
        """Return the last action and the prompt's bytes."""
        prompt = np.zeros(PROMPT_BYTES, np.uint8)
        text = self._prompt.encode()
        prompt[: len(text)] = np.frombuffer(text, np.uint8)
        return {"action": np.array(self._action, np.int64), "prompt": prompt}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on exactly from what `state` gave."""
        self._action = int(state["action"])
        self._prompt = bytes(state["prompt"].astype(np.uint8)).rstrip(b"\0").decode()

    def _conditions(self) -> StepConditions:
        words = self._words[self._action]
        return StepConditions(text=f"{self._prompt}, {words}" if self._prompt else words)


def make_conditioner(env_id: str, keymap: KeyMap) -> Conditioner:
    """Return the conditioner of worlds that learned from a teacher.

    Args:
        env_id: Gymnasium id of the teacher, such as "envs:midas/StageTeacher-v0".
        keymap: Names the world's actions.
    """
    if env_id.rpartition(":")[2] in _STAGE_IDS:
        return StageWorldConditioner()
    return WordsConditioner(keymap.actions)
