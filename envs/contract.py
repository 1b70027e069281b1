"""When a call of `step` or `render` is an error, and in which words: the same for all environments.

What Gymnasium's contract asks of the caller. Knows no game.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded


def check_running(is_over: bool) -> None:
    """Check that an episode is running, for `step`.

    Raises:
        ResetNeeded: None has begun, or it has ended.
    """
    if is_over:
        raise ResetNeeded("call reset() before step(), and again after an episode has ended")


def check_begun(has_begun: bool, what: str) -> None:
    """Check that there is something for the method `what`; an episode that has ended will do.

    Raises:
        ResetNeeded: No episode has begun.
    """
    if not has_begun:
        raise ResetNeeded(f"call reset() before {what}()")


def check_action(action: Any, space: spaces.Space[Any]) -> None:
    """Check that an action is in a `Discrete` space that begins at 0.

    Raises:
        InvalidAction: It is not.
    """
    assert isinstance(space, spaces.Discrete)
    if not space.contains(action):
        raise InvalidAction(f"action must be an integer 0 to {space.n - 1}, got {action!r}")


def check_names(what: str, names: Iterable[str], known: Sequence[str]) -> None:
    """Check that names are known.

    Raises:
        ValueError: One is not; the message names the nearest known one.
    """
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"unknown {what} {name!r}, did you mean {nearest!r}? Known: {', '.join(known)}"
            )


def may_render(render_mode: str | None, *, has_begun: bool) -> bool:
    """Return whether there is a way to render; warn if not.

    Raises:
        ResetNeeded: There is no frame yet.
    """
    if render_mode is None:
        message = 'render() does nothing without a render_mode, such as "rgb_array"'
        gym.logger.warn(message, stacklevel=2)  # it is the environment's `render` that warns
        return False
    check_begun(has_begun, "render")
    return True
