"""Start states of a world from frames of its teacher: dreams that begin in real play."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
import numpy as np

import midas_world  # noqa: F401 - registers the ids
from engine import Engine
from envs.stage.policies import make_policy
from envs.world.starts import choose_start
from examples.actions import TEACHER_ID
from midas_world.types import StepConditions
from midas_world.world import StartState

# No policy is trained or judged on these seeds, and no world.
FIRST_SEED = 800_000
# Steps of play between two start states of an episode.
_APART = 25


class LastFrames:
    """Keeps what the teacher showed last, as far back as a world looks."""

    def __init__(self, num_frames: int) -> None:
        self._frames: deque[np.ndarray] = deque(maxlen=num_frames)
        self._conditions: deque[StepConditions] = deque(maxlen=num_frames)
        self._last: dict[str, Any] = {}

    def clear(self) -> None:
        """Forget all frames: an episode begins."""
        self._frames.clear()
        self._conditions.clear()

    def add(self, frame: np.ndarray, info: Mapping[str, Any]) -> None:
        """Remember a frame with the teacher's info of it."""
        self._frames.append(frame)
        self._conditions.append(
            StepConditions(pose=info["pose"], text=info["text"], audio=info["audio"])
        )
        self._last = {name: info[name] for name in ("conditioner_state", "things")}

    def start_state(self) -> dict[str, Any]:
        """Return the option `start_state` of a world's reset that goes on from here."""
        return {
            "frames": np.stack(self._frames),
            "conditions": tuple(self._conditions),
            **self._last,
        }


def make_real_starts(
    engine: Engine, count: int, *, num_steps: int, on_progress: Callable[[int], object]
) -> tuple[StartState, ...]:
    """Return start states from the midst of the teacher's episodes, always the same ones.

    The world's own start states lie where episodes begin, with nothing near that brings points.

    Args:
        engine: Of the world; its encoder sees the frames.
        count: How many.
        num_steps: Of an episode, which random actions play.
        on_progress: Called with the number of new start states.

    Raises:
        ValueError: Episodes are too short to begin from their midst.
    """
    if num_steps <= _APART:
        raise ValueError(f"num_steps must be above {_APART}, got {num_steps}")
    env = gym.make(TEACHER_ID, horizon=num_steps)
    policy = make_policy("random")
    last = LastFrames(engine.spec.config.backbone.context_frames)
    rng = np.random.default_rng(FIRST_SEED)
    starts: list[StartState] = []
    seed = FIRST_SEED
    while len(starts) < count:
        policy.reset(np.random.default_rng(seed))
        last.clear()
        frame, info = env.reset(seed=seed)
        last.add(frame, info)
        is_over, step = False, 0
        while not is_over and len(starts) < count:
            frame, _, terminated, truncated, info = env.step(policy.act(frame, info))
            last.add(frame, info)
            step += 1
            is_over = terminated or truncated
            if step % _APART == 0 and not is_over:
                starts.append(choose_start(last.start_state(), (), rng=rng, engine=engine)[1])
                on_progress(1)
        seed += 1
    env.close()
    return tuple(starts)
