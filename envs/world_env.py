"""A learned world as a Gymnasium environment: a network draws every frame.

Turns actions into conditions, lets a rollout make the frame, and keeps Gymnasium's contract. What
an episode begins from is chosen in starts.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded

from engine import Engine, make_engine
from engine.rollout import Rollout
from envs.conditioners import make_conditioner
from envs.starts import check_names, choose_start
from midas_world.types import StepConditions
from midas_world.world import KeyMap, StartState, World, load_world

if TYPE_CHECKING:
    from envs.play.picture import FrameWindow

DEFAULT_HORIZON = 1000

_OPTIONS = ("prompt", "start_state")
_REWARD_THRESHOLD = 0.5
_TERMINATION_THRESHOLD = 0.5
_ROLLOUT_PREFIX = "rollout."
_CONDITIONER_PREFIX = "conditioner."


class WorldEnv(gym.Env[np.ndarray, np.int64]):
    """A world that a network learned from a teacher, such as Stage.

    ## Description

    There is no game engine behind the picture: each step the network draws the next frame from what
    it drew before and from what the action means (a pose, words, sounds), and tells the reward and
    whether the episode is over.

    ## Action Space

    `Discrete(n)`; the names of the actions are in `action_names`. The shipped world `stage` has 15,
    each held for one step of 1/20 s:

    | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
    |---|---|---|---|---|---|---|---|
    | idle | walk_left | walk_right | run_left | run_right | jump | jump_left | jump_right |

    | 8 | 9 | 10 | 11 | 12 | 13 | 14 |
    |---|---|---|---|---|---|---|
    | leap_left | leap_right | crouch | wave | punch | kick | talk |

    ## Observation Space

    `Box(0, 255, (H, W, 3), uint8)`: the frame as RGB; 192 x 320 for `stage`.

    ## Rewards

    The reward that the network expects, or 0 if that is at most 0.5 in size: teachers give whole
    rewards at single steps, and the small expectations in between would add up to one that nobody
    earned. For `stage`, a coin is +1.

    ## Starting State

    One of the world's start states, short real contexts from the teacher, drawn by the seed.

    ## Episode End

    1. Termination: the network puts the probability of the end above 0.5 (`stage`: no heart left).
    2. Truncation: the episode is `horizon` steps long.

    ## Info

    `step`: steps since the reset. `action_name`, `termination_probability`. `text`, `pose`,
    `audio`: the conditions of this frame, those that the world has. `reset` adds `start_state`, the
    index of the start state, or -1 if it was given as frames.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import envs
    >>> env = gym.make("midas/Stage-v0", horizon=500)
    >>> frame, info = env.reset(seed=1, options={"prompt": "a beach at sunset"})
    ```

    | Parameter           | Type       | Default   | Description                                 |
    |---------------------|------------|-----------|---------------------------------------------|
    | `world`             | **str**    | `"stage"` | A shipped world's name or a folder          |
    | `render_mode`       | **str**    | `None`    | `"rgb_array"`, or `"human"` for a window    |
    | `horizon`           | **int**    | `1000`    | Steps after which an episode is truncated   |
    | `backend`           | **str**    | `"auto"`  | What runs the networks: `"torch"`           |
    | `num_denoise_steps` | **int**    | `None`    | Quality against speed; None: the world's    |
    | `engine`            | **Engine** | `None`    | A running engine of this world, to share it |

    | Option of `reset` | Type | Description                                                     |
    |-------------------|------|-----------------------------------------------------------------|
    | `prompt`          | str  | Words that change the start state's                             |
    | `start_state`     | int  | Index of a start state                                          |
    |                   | str  | Words; one of the start states that they fit best is drawn      |
    |                   | dict | Real frames to go on from, see below                            |

    The dict has `frames`, (F, H, W, 3) uint8, oldest first; `conditions`, F StepConditions, which
    may be left out if F is 1; and `conditioner_state`, the teacher's at the last frame, without
    which the conditioner starts anew.

    ## Version History
    * v0: Initial version
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 20}

    def __init__(
        self,
        world: str | Path | World = "stage",
        *,
        render_mode: str | None = None,
        horizon: int = DEFAULT_HORIZON,
        backend: str = "auto",
        num_denoise_steps: int | None = None,
        engine: Engine | None = None,
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            known = self.metadata["render_modes"]
            raise ValueError(f"render_mode must be None or one of {known}, got {render_mode!r}")
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        self.world = world if isinstance(world, World) else load_world(world)
        if engine is None:
            engine = make_engine(self.world, backend, num_denoise_steps=num_denoise_steps)
        self.engine = engine
        self.render_mode = render_mode
        self.horizon = horizon
        self.metadata = {
            **self.metadata,
            "render_fps": engine.spec.fps,
            "action_names": self.action_names,
        }
        self.action_space = spaces.Discrete(len(self.action_names))
        self.observation_space = spaces.Box(0, 255, engine.spec.frame_shape, np.uint8)
        self._conditioner = make_conditioner(self.world.config.data.env_id, self.keymap)
        self._rollout = Rollout(engine)
        self._frame: np.ndarray | None = None
        self._num_steps = 0
        self._needs_reset = True
        self._window: FrameWindow | None = None

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the actions, in the order of the action space."""
        return self.keymap.actions

    @property
    def keymap(self) -> KeyMap:
        """Which held keys mean which action."""
        return self.world.keymap

    @property
    def start_states(self) -> tuple[StartState, ...]:
        """What episodes begin from."""
        return self.world.start_states

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode and return its first frame and info.

        Raises:
            ValueError: An option is unknown or has a value that cannot be used.
        """
        super().reset(seed=seed)
        self._needs_reset = True  # should an option be wrong
        options = options or {}
        check_names("reset option", options, _OPTIONS)
        index, start = choose_start(
            options.get("start_state"), self.start_states, rng=self.np_random, engine=self.engine
        )
        conditions = self._conditioner.reset(rng=self.np_random, description=start.description)
        if start.conditioner_state:
            self._load_conditioner(start.conditioner_state)
            conditions = start.conditions[-1]
        if (prompt := options.get("prompt")) is not None:
            if not isinstance(prompt, str):
                raise ValueError(f"option prompt must be a str, got {type(prompt).__name__}")
            self._conditioner.set_prompt(prompt)
        self._rollout.reset([start], seeds=[int(self.np_random.integers(2**63))])
        self._num_steps = 0
        self._needs_reset = False
        frame = self._show_next()
        info = self._info(conditions, action=0, termination_probability=0.0)
        return frame, info | {"start_state": index}

    def step(
        self, action: np.int64 | int
    ) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Hold an action for one step; return frame, reward, terminated, truncated, info.

        Raises:
            ResetNeeded: There is no running episode.
            InvalidAction: The action is not in the action space.
        """
        if self._needs_reset:
            raise ResetNeeded("call reset() before step(), and again after an episode has ended")
        if not self.action_space.contains(action):
            raise InvalidAction(
                f"action must be an integer 0 to {len(self.action_names) - 1}, got {action!r}"
            )
        conditions = self._conditioner.step(int(action))
        made = self._rollout.step([conditions])
        self._num_steps += 1
        reward = float(made.reward[0])
        reward = reward if abs(reward) > _REWARD_THRESHOLD else 0.0
        probability = float(made.termination_probability[0])
        terminated = probability > _TERMINATION_THRESHOLD
        truncated = self._num_steps >= self.horizon
        self._needs_reset = terminated or truncated
        frame = self._show_next()
        info = self._info(conditions, action=int(action), termination_probability=probability)
        return frame, reward, terminated, truncated, info

    def set_prompt(self, text: str | None) -> None:
        """Let words steer the world from the next step on; None gives the old words back.

        Raises:
            ValueError: The text is too long.
        """
        self._conditioner.set_prompt(text)

    def state(self) -> dict[str, np.ndarray]:
        """Return a copy of all that changes in an episode, as numeric arrays.

        The random stream of start states is not part of it: it belongs to `reset`.

        Raises:
            ResetNeeded: There is no running episode.
        """
        if self._needs_reset:
            raise ResetNeeded("call reset() before state()")
        rollout = {_ROLLOUT_PREFIX + k: _to_numpy(v) for k, v in self._rollout.state().items()}
        own = self._conditioner.state()
        conditioner = {_CONDITIONER_PREFIX + k: v.copy() for k, v in own.items()}
        return rollout | conditioner | {"num_steps": np.array(self._num_steps)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Go on exactly from what `state` gave, and return the frame it was taken at.

        Raises:
            ValueError: The state is of another world, engine or version.
        """
        dtypes = {key: value.dtype for key, value in self._rollout.state().items()}
        rollout = {
            key: _to_tensor(array, dtypes.get(key)) for key, array in _below(state, _ROLLOUT_PREFIX)
        }
        self._rollout.load_state(rollout)
        self._load_conditioner(dict(_below(state, _CONDITIONER_PREFIX)))
        self._num_steps = int(state["num_steps"])
        self._needs_reset = False
        return self._show_next()

    def render(self) -> np.ndarray | None:
        """Return the last frame ("rgb_array") or show it in the window ("human").

        Raises:
            ResetNeeded: There is no frame yet.
        """
        if self.render_mode is None:
            gym.logger.warn('render() does nothing without a render_mode, such as "rgb_array"')
            return None
        frame = self._frame
        if frame is None:
            raise ResetNeeded("call reset() before render()")
        if self.render_mode == "rgb_array":
            return frame.copy()
        self._show(frame)
        return None

    def close(self) -> None:
        """Close the window if there is one; may be called twice."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _load_conditioner(self, state: Mapping[str, np.ndarray]) -> None:
        try:
            self._conditioner.load_state(state)
        except KeyError as error:
            raise ValueError(f"the conditioner's state lacks {error}") from error

    def _show_next(self) -> np.ndarray:
        """Decode and keep the present frame, show it if there is a window, and return it."""
        frame: np.ndarray = self._rollout.frames()[0]
        self._frame = frame
        if self.render_mode == "human":
            self._show(frame)
        return frame.copy()

    def _show(self, frame: np.ndarray) -> None:
        if self._window is None:
            # pygame is loaded by those who want a window.
            from envs.play.picture import FrameWindow

            self._window = FrameWindow(self.world.folder.name, self.engine.spec.frame_shape)
        self._window.show(frame, fps=self.metadata["render_fps"])

    def _info(
        self, conditions: StepConditions, *, action: int, termination_probability: float
    ) -> dict[str, Any]:
        info: dict[str, Any] = {
            "step": self._num_steps,
            "action_name": self.action_names[action],
            "termination_probability": termination_probability,
        }
        if conditions.text is not None:
            info["text"] = conditions.text
        if conditions.pose is not None:
            info["pose"] = conditions.pose.copy()
        if conditions.audio is not None:
            info["audio"] = conditions.audio.copy()
        return info


def _below(state: Mapping[str, np.ndarray], prefix: str) -> list[tuple[str, np.ndarray]]:
    """Return the entries below a prefix, without it."""
    return [(k.removeprefix(prefix), v) for k, v in state.items() if k.startswith(prefix)]


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array; bfloat16, which NumPy has not, as its bits in int16."""
    tensor = tensor.cpu()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _to_tensor(array: np.ndarray, dtype: torch.dtype | None) -> torch.Tensor:
    """Return what `_to_numpy` made an array of, as a tensor of its old dtype."""
    tensor = torch.from_numpy(array.copy())
    return tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor
