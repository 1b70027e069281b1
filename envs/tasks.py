"""What is asked of an agent in Stage, by the same rules in the game and in worlds learned from it.

"coins": coins before death. "care": coins, and hits that cost but never end an episode. "goal": to
arrive at a place along the loop; coins pay nothing.
"""

import re
from typing import Any

import numpy as np

TASKS = ("coins", "care", "goal")
# px of the 192 x 320 frame, whatever a world's own are: the loop, and half of the track on which
# one has arrived.
LOOP = 1600
GOAL_REACH = 20.0
DEFAULT_GOAL = 800.0


_WAY = re.compile(r"(\d+(?:\.\d+)?) ?(?:px )?(?:to the )?(left|right)")


def check_task(task: str | None, goal: float | str) -> None:
    """Check what an environment is given.

    Raises:
        ValueError: There is no such task, or the goal is not a place.
    """
    if task is not None and task not in TASKS:
        raise ValueError(f"task must be None or one of {', '.join(TASKS)}, got {task!r}")
    goal_x(goal, 0.0)


def goal_x(goal: float | str, start: float) -> float:
    """Return where along the loop a goal is, in px.

    Args:
        goal: That, or in words how far it is from where the episode begins.
        start: Where it begins, in px.

    Raises:
        ValueError: Neither is said, or it begins nowhere.
    """
    way = _WAY.fullmatch(goal.strip().lower()) if isinstance(goal, str) else None
    x = goal if way is None else start + float(way[1]) * (1 if way[2] == "right" else -1)
    if isinstance(x, str) or not np.isfinite(x):
        raise ValueError(f"goal must be x in px, or like '300 px to the right', got {goal!r}")
    return float(x)


def has_arrived(x: Any, goal: Any) -> Any:
    """Return whether places along the loop, in px, are at a goal: bool, of the shape of x."""
    away = (np.asarray(x) - goal) % LOOP
    return np.minimum(away, LOOP - away) <= GOAL_REACH
