"""What environments of a learned world take beside the world, and what is wrong with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.spec import Engine
from envs.contract import check_names
from envs.tasks import DEFAULT_GOAL, check_task
from envs.world.outcomes import OutcomeRule

DEFAULT_HORIZON = 1000


@dataclass(frozen=True, kw_only=True)
class GameOptions(OutcomeRule):
    """What environments of a learned world take beside the world; see `WorldEnv`.

    Raises:
        ValueError: An argument cannot be used; the message says why.
    """

    observation: str = "pixels"
    action: str = "discrete"
    actions: Sequence[str] | None = None
    frame_skip: int = 1
    horizon: int = DEFAULT_HORIZON
    task: str | None = None
    goal: float | str = DEFAULT_GOAL
    start_states: Any = None
    prompt: str | None = None
    backend: str = "auto"
    num_denoise_steps: int | None = None
    infos: str = "all"
    weights_sha256: str | None = None
    engine: Engine | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        """Check what needs no world."""
        super().__post_init__()
        check_task(self.task, self.goal)
        for name in ("horizon", "frame_skip"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.actions is not None and (self.action != "discrete" or not self.actions):
            raise ValueError("actions must be names of actions, and goes with action='discrete'")
        check_names("infos", [self.infos], ("all", "numeric"))

    def of_reset(self, given: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return the options of a reset, with what all episodes have that say nothing else."""
        own: dict[str, Any] = {}
        if self.prompt is not None:
            own["prompt"] = self.prompt
        starts = self.start_states
        if isinstance(starts, list | tuple):
            starts = starts[int(rng.integers(len(starts)))]
        if starts is not None:
            own["start_state"] = starts
        return own | dict(given)
