"""One game being played: an environment, its episodes and what a window shows of them.

The same class runs under the window's stepping thread and without any display. Knows no keys, no
clock and no pixels beyond the frame that the environment gives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from midas_world.world import KeyMap

ENDLESS = 10**9


@dataclass(frozen=True, kw_only=True)
class Playable:
    """An environment ready to be played.

    Attributes:
        env: With a `set_prompt(text | None)` beside Gymnasium's own methods.
        keymap: Names of the actions, and the keys that call them.
        fps: Steps per second at full speed.
        title: For the window.
        backend: What makes the frames, in words.
        num_starts: Start states to choose from; 0: the seed alone chooses.
    """

    env: gym.Env[np.ndarray, np.int64]
    keymap: "KeyMap"
    fps: int
    title: str
    backend: str
    num_starts: int = 0


@dataclass(frozen=True, kw_only=True)
class View:
    """What there is to see after a step.

    Attributes:
        frame: uint8 (H, W, 3).
        num_steps: Steps of this episode.
        action_name: The action that led here.
        text: The words that steer the world.
        total_reward: Sum of the episode's rewards.
        is_over: The episode has ended; only a reset goes on.
    """

    frame: np.ndarray
    num_steps: int
    action_name: str
    text: str
    total_reward: float
    is_over: bool


class Game:
    """Plays episodes of an environment, one step at a time.

    Args:
        playable: What to play.
        seed: Of the first episode.
        prompt: The player's words, kept over resets.
    """

    def __init__(self, playable: Playable, *, seed: int, prompt: str | None = None) -> None:
        self.playable = playable
        self.prompt = prompt
        self._env: Any = playable.env.unwrapped
        self._seed = seed
        self._start: int | None = None
        self._options: dict[str, Any] | None = None
        self._num_steps = 0
        self._total_reward = 0.0
        self.is_over = True

    def reset(self) -> View:
        """Begin the same episode again."""
        frame, info = self._env.reset(seed=self._seed, options=self._options)
        if self.prompt:
            self._env.set_prompt(self.prompt)
        self._start = info.get("start_state")
        self._num_steps, self._total_reward, self.is_over = 0, 0.0, False
        return self._view(frame, info, self.playable.keymap.actions[0])

    def reset_to_next_start(self) -> View:
        """Begin an episode from the next start state, or of the next seed."""
        if self.playable.num_starts and self._start is not None:
            self._options = {"start_state": (self._start + 1) % self.playable.num_starts}
        else:
            self._seed += 1
        return self.reset()

    def step(self, action: int) -> View:
        """Hold an action for one step."""
        frame, reward, terminated, truncated, info = self._env.step(action)
        self._num_steps += 1
        self._total_reward += float(reward)
        self.is_over = bool(terminated or truncated)
        return self._view(frame, info, self.playable.keymap.actions[action])

    def set_prompt(self, text: str | None) -> None:
        """Let the player's words steer; None or nothing gives the world's own back.

        Raises:
            ValueError: The text is too long.
        """
        self._env.set_prompt(text or None)
        self.prompt = text or None

    def close(self) -> None:
        """Close the environment."""
        self.playable.env.close()

    def _view(
        self,
        frame: np.ndarray,
        info: Mapping[str, Any],
        action_name: str,
    ) -> View:
        return View(
            frame=frame,
            num_steps=self._num_steps,
            action_name=action_name,
            text=str(info.get("text", "")),
            total_reward=self._total_reward,
            is_over=self.is_over,
        )


def open_world(
    name: str, *, backend: str = "auto", num_denoise_steps: int | None = None
) -> Playable:
    """Load a world to play, by its shipped name or its folder.

    Raises:
        CheckpointError: A file is missing, corrupt or does not fit.
        BackendUnavailableError: The backend cannot run here.
    """
    # torch takes seconds to load: the window is up by then.
    from envs.world_env import WorldEnv

    env = WorldEnv(name, horizon=ENDLESS, backend=backend, num_denoise_steps=num_denoise_steps)
    return Playable(
        env=env,
        keymap=env.keymap,
        fps=env.engine.spec.fps,
        title=env.world.folder.name,
        backend=str(env.engine.spec),
        num_starts=len(env.start_states),
    )


def open_teacher() -> Playable:
    """Open Stage itself, the game that the shipped world learned from."""
    from envs.stage.env import StageEnv
    from midas_world.world import KeyMap

    env = StageEnv(horizon=ENDLESS)
    return Playable(
        env=env,
        keymap=KeyMap(actions=env.action_names, keys=env.action_keys),
        fps=env.metadata["render_fps"],
        title="stage (the teacher)",
        backend="pygame drawing",
    )
