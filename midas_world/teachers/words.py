"""The conditions that an action alone gives: its name as words, and itself as a pose.

For any teacher without a pose controller. Teacher and world run this same code, so that a world is
steered by just what it was trained on.
"""

from collections.abc import Mapping
from dataclasses import replace

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

    def scene_after(self, prompt: str, present: str) -> str:  # noqa: ARG002
        """Return the prompt: nothing more is known of what words mean."""
        return prompt

    def load_text(self, text: str) -> None:
        """Go on from the words that it gave for a frame."""
        told = [w for w in self._words if text == w or text.endswith(f", {w}")]
        words = max(told, key=len, default="")
        self._action = self._words.index(words) if words else 0
        self.set_prompt(text.removesuffix(words).removesuffix(", "))

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


class HearingConditioner(WordsConditioner):
    """The same for a world that hears: its character says what a live voice says.

    For films with sound: what nobody says is silence.

    Args:
        audio_size: Of both voices together: the character's own, and another's.
    """

    def __init__(self, actions: tuple[str, ...], *, gives_pose: bool, audio_size: int) -> None:
        super().__init__(actions, gives_pose=gives_pose)
        self._audio = np.zeros(audio_size, np.float32)

    @property
    def spoken(self) -> np.ndarray:
        """(2, 2) int64: no sentence of a bank; see envs/world/conditioners.py."""
        return np.array(((-1, 0), (-1, 0)))

    def reset(self, *, rng: np.random.Generator, description: str = "") -> StepConditions:
        """Start anew, in silence."""
        self._audio = np.zeros_like(self._audio)
        return super().reset(rng=rng, description=description)

    def step(
        self,
        action: int,
        *,
        own_voice: np.ndarray | None = None,
        other_voice: np.ndarray | None = None,
    ) -> StepConditions:
        """Return the conditions of the frame that an action leads to, and what is heard with it."""
        silence = np.zeros(len(self._audio) // 2, np.float32)
        voices = [silence if voice is None else voice for voice in (own_voice, other_voice)]
        self._audio = np.concatenate(voices).astype(np.float32)
        return super().step(action)

    def conditions(self) -> StepConditions:
        """Return the conditions of the present frame."""
        return replace(super().conditions(), audio=self._audio)
