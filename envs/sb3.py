"""B games, of a world or of its teacher, as a vector environment of Stable-Baselines3.

Both go through the same code: what a policy sees, chooses and is paid for is alike.

Shapes: B games, N latent tokens per frame, C latent channels.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

import midas_world  # noqa: F401 - registers the ids
from envs.choices import Choices
from envs.world.latents import LatentVectorObservation
from midas_world.packages import needs
from midas_world.world import World

with needs("make_sb3_vec_env", extra="rl"):
    from stable_baselines3.common.vec_env import VecEnv


def make_sb3_vec_env(
    env_id: str,
    num_envs: int = 1,
    *,
    observation: str = "pixels",
    world: str | Path | World = "stage",
    actions: Sequence[str] | None = None,
    frame_skip: int = 1,
    **options: Any,
) -> "Sb3Games":
    """Return games for learners of Stable-Baselines3.

    Args:
        env_id: Of a world, all of whose games are played in one pass, or of a teacher.
        num_envs: B.
        observation: "pixels", "latent" or, of worlds, "dict"; a teacher's frames are seen through
            the world's encoder.
        world: Which one.
        actions: Names of the actions that may be chosen; None: all.
        frame_skip: Steps for which an action is held.
        options: All else that the environment takes.

    Raises:
        ValueError: An argument cannot be used.
    """
    spec = gym.spec(env_id)
    if spec.vector_entry_point is not None:
        games = gym.make_vec(
            env_id,
            num_envs,
            "vector_entry_point",
            world=world,
            observation=observation,
            actions=actions,
            frame_skip=frame_skip,
            autoreset_mode=AutoresetMode.SAME_STEP,
            **options,
        )
        return Sb3Games(games)
    if observation not in ("pixels", "latent"):
        raise ValueError(f"observation of a teacher must be pixels or latent, got {observation!r}")
    games = gym.make_vec(
        env_id,
        num_envs,
        "sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        wrappers=[partial(Choices, actions=actions, frame_skip=frame_skip)],
        **options,
    )
    if observation == "latent":
        games = LatentVectorObservation(games, world)
    return Sb3Games(games)


class Sb3Games(VecEnv):
    """A vector environment of Gymnasium as one of Stable-Baselines3; latents are flat, (B, N * C).

    Args:
        games: In same-step autoreset mode.

    Raises:
        ValueError: They are in another one.
    """

    def __init__(self, games: VectorEnv[Any, Any, Any]) -> None:
        if games.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
            raise ValueError("games must be in the autoreset mode AutoresetMode.SAME_STEP")
        self.games = games
        space = games.single_observation_space
        self._is_flat = isinstance(space, spaces.Box) and len(space.shape) == 2
        space = spaces.flatten_space(space) if self._is_flat else space
        super().__init__(games.num_envs, space, games.single_action_space)
        self._wanted: Any = None

    def reset(self) -> Any:
        """Begin all games anew, with the seeds and options that `seed` and `set_options` gave.

        Raises:
            ValueError: Options are not the same for all games.
        """
        if any(options != self._options[0] for options in self._options):
            raise ValueError("options must be the same for all games")
        # Gymnasium's base class knows one seed only, its vector environments take a list.
        seen, infos = self.games.reset(
            seed=list(self._seeds),  # pyright: ignore[reportArgumentType]
            options=self._options[0],
        )
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = self._rows(infos)
        return self._see(seen)

    def start(self, seeds: Sequence[int]) -> Any:
        """Begin all games anew from one seed each."""
        self._seeds = list(seeds)
        return self.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Remember what the policy wants."""
        self._wanted = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all games; one that has ended has begun anew, and its info is of its last moment."""
        seen, rewards, terminated, truncated, told = self.games.step(self._wanted)
        infos = self._rows(told)
        for row in np.flatnonzero(terminated | truncated):
            self.reset_infos[row] = infos[row]
            final = infos[row].pop("final_obs")
            infos[row] = infos[row].pop("final_info") | {
                "terminal_observation": final.reshape(-1) if self._is_flat else final,
                "TimeLimit.truncated": bool(truncated[row] and not terminated[row]),
            }
        return self._see(seen), rewards.astype(np.float32), terminated | truncated, infos

    def close(self) -> None:
        """Close the games."""
        self.games.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return the games' frames, where they were made with render_mode="rgb_array"."""
        return self.games.render() or [None] * self.num_envs  # pyright: ignore[reportReturnType]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the vector environment, once per game."""
        return [getattr(self.games, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """The games share their attributes: there is none to set for one."""
        raise AttributeError(f"games of one vector environment share {attr_name!r}")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """The games are no environments of their own: there is no method to call on one."""
        raise AttributeError(f"games of one vector environment have no own method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return False: games have no wrappers."""
        return [False] * len(list(self._get_indices(indices)))

    def _see(self, seen: Any) -> Any:
        return seen.reshape(self.num_envs, -1) if self._is_flat else seen

    def _rows(self, infos: dict[str, Any]) -> list[dict[str, Any]]:
        return [_row(infos, row) for row in range(self.num_envs)]


def _row(infos: dict[str, Any], row: int) -> dict[str, Any]:
    """Return what a vector's infos tell of one game."""
    names = [name for name in infos if f"_{name}" in infos and infos[f"_{name}"][row]]
    told = {name: infos[name] for name in names}
    return {
        name: _row(all_, row) if isinstance(all_, dict) else all_[row]
        for name, all_ in told.items()
    }
