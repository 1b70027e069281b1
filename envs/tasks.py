"""What is asked of an agent in Stage, by the same rules in the game and in worlds learned from it.

"coins": coins before death. "care": coins, and hits that cost but never end an episode. "goal": to
arrive at a place along the loop; coins pay nothing.
"""

from typing import Any

import numpy as np

TASKS = ("coins", "care", "goal")
# px of the 192 x 320 frame, whatever a world's own are: the loop, and half of the track on which
# one has arrived.
LOOP = 1600
GOAL_REACH = 20.0
DEFAULT_GOAL = 800.0


def check_task(task: str | None, goal: float) -> None:
    """Check what an environment is given.

    Raises:
        ValueError: There is no such task, or the goal is not a place.
    """
    if task is not None and task not in TASKS:
        raise ValueError(f"task must be None or one of {', '.join(TASKS)}, got {task!r}")
    if not np.isfinite(goal):
        raise ValueError(f"goal must be x in px, got {goal!r}")


def has_arrived(x: Any, goal: float) -> Any:
    """Return whether places along the loop, in px, are at a goal: bool, of the shape of x."""
    away = (np.asarray(x) - goal) % LOOP
    return np.minimum(away, LOOP - away) <= GOAL_REACH
