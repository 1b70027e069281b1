"""The conditions that an action alone gives: its name as words, and itself as a pose.

For any teacher without a pose controller. Teacher and world run this same code, so that a world is
steered by just what it was trained on.
"""

from collections.abc import Mapping

import numpy as np

from midas_world.types import StepConditions

PROMPT_BYTES = 512


def clean_prompt(text: str) -> str:
    """Return a player's words without what is no letter, such as NUL or half a surrogate pair.

    Raises:
        ValueError: They are too long.
    """
    text = "".join(letter if letter.isprintable() or letter.isspace() else " " for letter in text)
    text = " ".join(text.split())
    size = len(text.encode())
    if size > PROMPT_BYTES:
        raise ValueError(f"a prompt must have at most {PROMPT_BYTES} bytes, got {size}")
    return text


class WordsConditioner:
    """Turns an action into its name and the prompt, as text, and where asked into a pose.

    Args:
        actions: Names of the actions.
        gives_pose: Whether the pose is the action: 1 at its place, 0 elsewhere. What words mean
            is learned for each; a pose says it plainly.
    """

    def __init__(self, actions: tuple[str, ...], *, gives_pose: bool = False) -> None:
        self._words = tuple(name.replace("_", " ") for name in actions)
        self._gives_pose = gives_pose
        self._action = 0
        self._prompt = ""

    def reset(self, *, rng: np.random.Generator, description: str = "") -> StepConditions:  # noqa: ARG002
        """Start anew without a prompt."""
        self._action, self._prompt = 0, ""
        return self.conditions()

    def step(self, action: int) -> StepConditions:
        """Return the conditions of the frame that an action leads to."""
        self._action = action
        return self.conditions()

    def set_prompt(self, text: str | None) -> None:
        """Put a player's words in front of the action's.

        Raises:
            ValueError: The text is too long.
        """
        self._prompt = clean_prompt(text or "")

    def understand(self, text: str) -> str:
        """Return the words as they are sent: what they mean is the network's business.

        Raises:
            ValueError: The text is too long.
        """
        return clean_prompt(text)

    def conditions(self) -> StepConditions:
        """Return the conditions of the present frame."""
        words = self._words[self._action]
        pose = None
        if self._gives_pose:
            pose = np.zeros(len(self._words), np.float32)
            pose[self._action] = 1.0
        return StepConditions(text=f"{self._prompt}, {words}" if self._prompt else words, pose=pose)

    def describe(self, prompt: str, present: str) -> str:  # noqa: ARG002
        """Return the prompt: nothing more is known of what words mean."""
        return prompt

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
