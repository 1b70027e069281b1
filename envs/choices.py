"""What a learner may choose and is told in a teacher, as learned worlds have it by themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from envs.contract import check_action, check_names


class Choices(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """A teacher with the arguments `actions`, `frame_skip` and `infos` of a learned world.

    Rewards and costs of the steps for which an action is held add up.

    Args:
        env: With discrete actions whose names are its `action_names`.
        actions: Names of those that may be chosen; None: all.
        frame_skip: Steps for which an action is held.
        infos: "all", or "numeric": without words.

    Raises:
        ValueError: An argument cannot be used.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        *,
        actions: Sequence[str] | None = None,
        frame_skip: int = 1,
        infos: str = "all",
    ) -> None:
        RecordConstructorArgs.__init__(self, actions=actions, frame_skip=frame_skip, infos=infos)
        super().__init__(env)
        if frame_skip < 1:
            raise ValueError(f"frame_skip must be at least 1, got {frame_skip}")
        check_names("infos", [infos], ("all", "numeric"))
        names = env.get_wrapper_attr("action_names")
        self.action_names = tuple(names if actions is None else actions)
        check_names("action", self.action_names, names)
        self.action_space = spaces.Discrete(len(self.action_names))
        self._meant = [names.index(name) for name in self.action_names]
        self._frame_skip = frame_skip
        self._is_numeric = infos == "numeric"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; see the environment."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, self._told(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold an action for `frame_skip` steps, or until the episode ends.

        Raises:
            InvalidAction: The action is not in the action space.
        """
        check_action(action, self.action_space)
        total, cost, num_left = 0.0, 0.0, self._frame_skip
        while True:
            observation, reward, terminated, truncated, info = self.env.step(self._meant[action])
            total, cost = total + float(reward), cost + info.get("cost", 0.0)
            num_left -= 1
            if terminated or truncated or not num_left:
                told = self._told(info | {"cost": cost} if "cost" in info else info)
                return observation, total, terminated, truncated, told

    def _told(self, info: Mapping[str, Any]) -> dict[str, Any]:
        if not self._is_numeric:
            return dict(info)
        return {name: value for name, value in info.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    return not isinstance(value, str | Mapping) and np.asarray(value).dtype.kind in "biuf"
