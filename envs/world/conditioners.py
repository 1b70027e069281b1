"""Conditioners: turn the history of actions into the conditions of each step of a world.

Which one a world needs follows from the teacher that it was trained on. Stage has a pose
controller and voices; any other teacher gets the action alone, unless its maker names one.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from envs.stage import STAGE_IDS
from midas_world.config import DataConfig
from midas_world.teachers.words import HearingConditioner, WordsConditioner
from midas_world.trust import import_function
from midas_world.types import StepConditions
from midas_world.world import World


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
            ValueError: The text is too long, or nothing of it is understood.
        """
        ...

    def understand(self, text: str) -> str:
        """Return what of a player's words is understood, in words; changes nothing.

        Raises:
            ValueError: Nothing is, or the text is too long.
        """
        ...

    def scene_after(self, prompt: str, present: str) -> str:
        """Return the scene that a prompt makes of the present one, described as start states."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that changes, as numeric arrays."""
        ...

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on exactly from what `state` gave."""
        ...


@runtime_checkable
class SpeakingConditioner(Conditioner, Protocol):
    """A conditioner of a world in which a character and another speaker speak."""

    @property
    def spoken(self) -> np.ndarray:
        """(2, 2) int64: sentence and its step of either at this frame; see `StageConditioner`."""
        ...

    def step(
        self,
        action: int,
        *,
        own_voice: np.ndarray | None = None,
        other_voice: np.ndarray | None = None,
    ) -> StepConditions:
        """As above; (20,) features of live audio may take the place of either voice."""
        ...


def make_conditioner(world: World) -> Conditioner:
    """Return the conditioner of a world: the one that its config names, or that of its teacher.

    Raises:
        UntrustedError: The config names a module, and the world was not loaded with trust.
        ValueError: The conditioner that it names cannot be had.
    """
    data = world.config.data
    if data.conditioner:
        given = {"source": world.folder, "trust": world.trust}
        return import_function(data.conditioner, field="data.conditioner", **given)(world.keymap)
    if _is_of_stage(data):
        # Stage's drawing loads pygame: worlds of other teachers do without.
        from envs.stage.conditioner import StageConditioner

        return StageConditioner()
    gives_pose = data.teacher is not None and data.teacher.conditions == "action"
    if hears_alone(world):
        size = world.config.world.conditions.audio_size
        return HearingConditioner(world.keymap.actions, gives_pose=gives_pose, audio_size=size)
    return WordsConditioner(world.keymap.actions, gives_pose=gives_pose)


def _is_of_stage(data: DataConfig) -> bool:
    return data.env_id.rpartition(":")[2].startswith(STAGE_IDS)


def hears_alone(world: World) -> bool:
    """Whether a world learned to hear from recordings, so that nothing but live voices is heard."""
    data = world.config.data
    has_sound = world.config.world.conditions.audio_size > 0
    return has_sound and not data.has_teacher and not data.conditioner


def takes_words(world: World) -> bool:
    """Whether a player's words mean something: what it learned from had some beside actions' names.

    What a conditioner of its own makes of them nobody knows, so that it is believed to.
    """
    data = world.config.data
    if data.conditioner or _is_of_stage(data):
        return True
    names = {name.replace("_", " ") for name in world.keymap.actions}
    told = {step.text for start in world.start_states for step in start.conditions}
    return bool(told - names - {None})


def load_conditioner(conditioner: Conditioner, state: Mapping[str, np.ndarray]) -> None:
    """Let a conditioner go on from a state.

    Raises:
        ValueError: The state lacks an entry, or one is of another shape or kind.
    """
    try:
        conditioner.load_state(state)
    except KeyError as error:
        raise ValueError(f"the conditioner's state lacks {error}") from error
    except (IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"the conditioner's state cannot be used: {error}") from error
