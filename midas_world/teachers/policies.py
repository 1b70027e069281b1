"""Policies that play any env, knowing nothing but its action space, to collect what it can show.

"random" draws every action anew, which leaves a character where it stands; "sticky" holds actions
and has a taste for some of them, so that games go somewhere.
"""

import difflib
from collections.abc import Callable
from typing import Any, Protocol

import gymnasium
import numpy as np

_TASTE = 0.6
_TASTE_CHANGES = 0.06
_MEAN_STEPS = (2.0, 6.0, 16.0)


class Policy(Protocol):
    """Chooses actions; made anew for every episode."""

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; rng is the policy's only source of chance."""
        ...

    def act(self, observation: Any, info: dict[str, Any]) -> Any:
        """Return the next action, given what the env gave last."""
        ...


class RandomPolicy:
    """Samples the action space at every step."""

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self._space = space

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._space.seed(int(rng.integers(2**31)))

    def act(self, observation: Any, info: dict[str, Any]) -> Any:  # noqa: ARG002
        """Return any action."""
        return self._space.sample()


class StickyPolicy:
    """Holds each action for some steps, and for a while prefers some actions to others.

    Where actions are numbered, the preference is drawn from a Dirichlet distribution, so that now
    one and now another action leads; elsewhere all that the space samples is held alike.
    """

    def __init__(self, space: gymnasium.Space[Any]) -> None:
        self._space = space

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode."""
        self._rng = rng
        self._space.seed(int(rng.integers(2**31)))
        self._num_left = 0
        self._taste = self._draw_taste()

    def act(self, observation: Any, info: dict[str, Any]) -> Any:  # noqa: ARG002
        """Return the action that is being held."""
        if self._num_left == 0:
            if self._rng.random() < _TASTE_CHANGES:
                self._taste = self._draw_taste()
            self._action = self._draw_action()
            mean = float(self._rng.choice(_MEAN_STEPS))
            self._num_left = int(self._rng.geometric(1.0 / mean))
        self._num_left -= 1
        return self._action

    def _draw_taste(self) -> np.ndarray | None:
        if not isinstance(self._space, gymnasium.spaces.Discrete):
            return None
        return self._rng.dirichlet(np.full(int(self._space.n), _TASTE))

    def _draw_action(self) -> Any:
        if self._taste is None or not isinstance(self._space, gymnasium.spaces.Discrete):
            return self._space.sample()
        return int(self._space.start + self._rng.choice(len(self._taste), p=self._taste))


POLICIES: dict[str, Callable[[gymnasium.Space[Any]], Policy]] = {
    "random": RandomPolicy,
    "sticky": StickyPolicy,
}


def make_policy(name: str, space: gymnasium.Space[Any]) -> Policy:
    """Return a policy by its name; call its `reset` before the first action.

    Raises:
        ValueError: There is no such policy; the message names the nearest.
    """
    if name not in POLICIES:
        near = difflib.get_close_matches(name, POLICIES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"no policy {name!r} among {list(POLICIES)}, did you mean {near!r}? Policies of your "
            'own are named by policy_factory, "module:function"'
        )
    return POLICIES[name](space)
