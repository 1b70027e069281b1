"""Stage as a Gymnasium environment: the teacher that worlds learn from.

Puts the parts together: the conditioner moves the character, the game knows the rules, the picture
draws. Holds no rules and no shapes of its own.

All positions are px of the 192 x 320 frame; the picture turns them into the pixels of the frame, of
which there are `scale` to each px. So rules, conditions and random draws know no scale.
"""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.contract import check_action, check_names, check_running, may_render
from envs.picture import FrameWindow
from envs.stage.conditioner import StageConditioner
from envs.stage.controller import ACTIONS, WORLD_LENGTH
from envs.stage.game import StageGame
from envs.stage.picture import FRAME_HEIGHT, FRAME_WIDTH, StagePicture, objects_of
from envs.stage.scene import Scene
from envs.stage.speech import load_speech_bank
from envs.tasks import DEFAULT_GOAL, check_task, goal_x, has_arrived
from midas_world.types import StepConditions

SCALES = (0.25, 1, 2)
DEFAULT_HORIZON = 1000

# Held keys that mean an action; the first entry whose keys are all held wins, none is idle.
ACTION_KEYS: dict[str, list[str]] = {
    "leap_left": ["space", "left shift", "left"],
    "leap_right": ["space", "left shift", "right"],
    "jump_left": ["space", "left"],
    "jump_right": ["space", "right"],
    "jump": ["space"],
    "kick": ["k"],
    "punch": ["j"],
    "wave": ["h"],
    "talk": ["e"],
    "run_left": ["left shift", "left"],
    "run_right": ["left shift", "right"],
    "walk_left": ["left"],
    "walk_right": ["right"],
    "crouch": ["down"],
}

_DRAWN = ("_picture", "_window")
_OPTIONS = ("scene", "x", "facing", "scene_changes", "things", "conditioner_state")
_SCENE_CHANGE_STEPS = 100
_SCENE_CHANGE_CHANCE = 0.25


class StageEnv(gym.Env[np.ndarray, np.int64]):
    """A digital human walks, jumps and talks through a looping world; coins count, rocks hurt.

    ## Description

    The teacher that the world `stage` learned from, drawn with pygame from the side. The character
    does at once what it is told, and the words that describe scene and clothes may change on the
    way.

    ## Action Space

    `Discrete(15)`; an action is held for one step of 1/20 s:

    | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
    |---|---|---|---|---|---|---|---|
    | idle | walk_left | walk_right | run_left | run_right | jump | jump_left | jump_right |

    | 8 | 9 | 10 | 11 | 12 | 13 | 14 |
    |---|---|---|---|---|---|---|
    | leap_left | leap_right | crouch | wave | punch | kick | talk |

    ## Observation Space

    `Box(0, 255, (192 * scale, 320 * scale, 3), uint8)`: the frame as RGB. The character stays in
    the middle. At scale 2 everything is drawn with twice the detail, at the same places; at 0.25,
    for quick tests of training, four px are averaged along each side.

    ## Rewards

    +1 for each coin. 0 otherwise.

    ## Starting State

    A random scene, a random x in [0, 1600) and 3 hearts; no object lies near the start.

    ## Episode End

    Terminated when no heart is left: a rock or a fire costs one, after which nothing hurts for 20
    steps. Truncated after `horizon` steps.

    ## Info

    `pose` (39,), `text`, `audio` (40,): the conditions of this frame. `objects` (16, 4): kind (0
    coin, 1 rock, 2 fire; -1 fills up), dx from the character, dy from the ground, variant. `cost`:
    1 where a heart was lost in this step, else 0. `hearts`, and `lives`, which is the same;
    `score`, `action_name`, `scene`, and `conditioner_state`, from which a learned world can go on.
    `mouth`: how far it is open, 0 to 1. `gaze`: how far the eyes are turned to the other speaker,
    likewise. `language`: of what the character says, such as "de".
    `spoken` (2, 2): sentence of the speech bank and its step, of the character and of the other
    speaker; -1 is silence, or live audio (`set_voices`).
    They and all rewards are the same at every scale: lengths are in px of the 192 x 320 frame.

    In pixels of the frame, for training: `keypoints` (15, 2) as drawn. `things` (16, 6), the
    objects: class (0 to 2 coins from low to high, 3 to 5 rocks by variant, 6 fires; -1 fills up),
    centre x and y, half width, half height, and a number that it keeps and that no other of its
    class has. `regions` (2, 4), where else small things matter, the hearts and the portrait:
    centre x and y, half width, half height; zeros where there is none. `eyes` (4,), likewise, the
    portrait's.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import midas_world
    >>> env = gym.make("midas/StageTeacher-v0", horizon=500)
    >>> frame, info = env.reset(seed=1, options={"facing": -1})
    ```

    | Parameter     | Type    | Default | Description                                        |
    |---------------|---------|---------|----------------------------------------------------|
    | `render_mode` | **str** | `None`  | `"rgb_array"`, or `"human"`: a window              |
    | `horizon`     | **int** | `1000`  | Steps until an episode is truncated                |
    | `scale`       | **float** | `1`   | 1: frames of 192 x 320; 2: 384 x 640; 0.25: 48 x 80 |
    | `task`        | **str** | `None`  | `"coins"`, `"care"`, `"goal"`; see `envs.tasks`    |
    | `goal`        | **int** | `800`   | Of the task goal: x in px along the loop, or words |

    | Option of `reset`   | Type          | Description                                       |
    |---------------------|---------------|---------------------------------------------------|
    | `scene`             | Scene or dict | All or some of its fields                         |
    | `x`                 | float         | World x in px of the 192 x 320 frame              |
    | `facing`            | int           | 1 or -1                                           |
    | `scene_changes`     | bool          | Whether it changes in mid-episode (default True)  |
    | `things`            | bool          | False: nothing lies anywhere (default True)       |
    | `conditioner_state` | dict          | As in info: goes on from that pose, scene, voice  |

    ## Version History
    * v0: Initial version

    Raises:
        ValueError: The render mode is unknown, the horizon is below 1 or the scale none of
            these.
    """

    metadata = {
        "render_modes": ["rgb_array", "human"],
        "render_fps": 20,
        "extra_keys": ("hearts",),  # of info, to be recorded
    }
    action_names = ACTIONS
    action_keys = ACTION_KEYS

    def __init__(
        self,
        render_mode: str | None = None,
        horizon: int = DEFAULT_HORIZON,
        scale: float = 1,
        *,
        task: str | None = None,
        goal: float | str = DEFAULT_GOAL,
    ) -> None:
        check_task(task, goal)
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            known = self.metadata["render_modes"]
            raise ValueError(f"render_mode must be None or one of {known}, got {render_mode!r}")
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}")
        if isinstance(scale, bool) or scale not in SCALES:
            raise ValueError(
                f"scale must be 1 (192x320), 2 (384x640) or 0.25 (48x80), got {scale!r}"
            )
        self.render_mode = render_mode
        self.horizon = horizon
        self.task, self.goal = task, goal
        self.scale = scale
        self.action_space = spaces.Discrete(len(ACTIONS))
        shape = int(FRAME_HEIGHT * scale), int(FRAME_WIDTH * scale), 3
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self._make_picture()
        self._conditioner = StageConditioner()
        self._game = StageGame(seed=0, start_x=0.0)
        self._goal_x = goal_x(goal, 0.0)
        self._num_steps = 0
        self._cost = 0.0
        self._needs_reset = True
        self._voices: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
        self._scene_changes = True
        self._scene_change_step: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return all but surfaces and windows, which are drawn anew."""
        return {name: value for name, value in vars(self).items() if name not in _DRAWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on from what `__getstate__` gave."""
        vars(self).update(state)
        self._make_picture()
        if self._num_steps or not self._needs_reset:
            self._draw()

    @property
    def scene(self) -> Scene:
        """What the stage looks like now."""
        return self._conditioner.scene

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode and return its first frame and info.

        Raises:
            ValueError: An option is unknown or has a value that cannot be used.
        """
        super().reset(seed=seed)
        options = options or {}
        check_names("reset option", options, _OPTIONS)
        rng = self.np_random
        scene = _scene_from_option(options.get("scene", {}), Scene.sample(rng))
        random_x, random_facing = float(rng.integers(WORLD_LENGTH)), int(rng.choice((-1, 1)))
        x, facing = float(options.get("x", random_x)), int(options.get("facing", random_facing))
        if facing not in (-1, 1):
            raise ValueError(f"facing must be 1 or -1, got {facing}")
        conditions = self._conditioner.reset(scene=scene, rng=rng, x=x, facing=facing)
        if (state := options.get("conditioner_state")) is not None:
            self._conditioner.load_state(state)
            conditions, x = self._conditioner.conditions(), self._conditioner.controller.x
        self._game = StageGame(
            seed=int(rng.integers(2**31)), start_x=x, has_things=bool(options.get("things", True))
        )
        self._goal_x = goal_x(self.goal, x)
        self._num_steps = 0
        self._cost = 0.0
        self._needs_reset = False
        self._scene_changes = bool(options.get("scene_changes", True))
        self._plan_scene_change()
        frame = self._draw()
        if self.render_mode == "human":
            self.render()
        return frame, self._info(conditions)

    def step(
        self, action: np.int64 | int
    ) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Hold an action for 1/20 s; return frame, reward, terminated, truncated, info.

        Raises:
            ResetNeeded: There is no running episode.
            InvalidAction: The action is not in the action space.
        """
        check_running(self._needs_reset)
        check_action(action, self.action_space)
        self._num_steps += 1
        if self._num_steps == self._scene_change_step:
            self._conditioner.set_scene(_changed(self.scene, self.np_random))
        if self._num_steps % _SCENE_CHANGE_STEPS == 0:
            self._plan_scene_change()
        own, other = self._voices
        self._voices = (None, None)
        conditions = self._conditioner.step(int(action), own_voice=own, other_voice=other)
        hearts = self._game.hearts
        reward = self._game.step(self._conditioner.controller)
        self._cost = float(hearts - self._game.hearts)
        self._game.hearts = max(0, self._game.hearts)
        terminated = self._game.is_over and self.task != "care"
        if self.task == "goal":
            arrived = bool(has_arrived(self._conditioner.controller.x, self._goal_x))
            reward, terminated = float(arrived), terminated or arrived
        truncated = self._num_steps >= self.horizon
        self._needs_reset = terminated or truncated
        frame = self._draw()
        if self.render_mode == "human":
            self.render()
        return frame, reward, terminated, truncated, self._info(conditions)

    @property
    def new_sentences(self) -> list[tuple[str, np.ndarray]]:
        """Language and (S, 20) features of each sentence that voices never choose by themselves.

        So no world has heard them; `set_voices` has them said.
        """
        bank = load_speech_bank()
        pairs = zip(bank.languages, bank.sentences, strict=True)
        return list(islice(pairs, bank.num_taught, None))

    def set_prompt(self, text: str | None) -> None:
        """Let a player's words change the scene, from the next step on; see `StageConditioner`."""
        self._conditioner.set_prompt(text)

    def understand(self, text: str) -> str:
        """Return what of a player's words is understood, in words; changes nothing.

        Raises:
            ValueError: Nothing is, or the text is too long.
        """
        return self._conditioner.understand(text)

    def set_voices(self, own: np.ndarray | None, other: np.ndarray | None) -> None:
        """Let live audio be the voices of the next step: (20,) features; None leaves one alone."""
        self._voices = (own, other)

    def render(self) -> np.ndarray | None:
        """Return the last frame ("rgb_array") or show it in the window ("human").

        Raises:
            ResetNeeded: There is no frame yet.
        """
        has_begun = not self._needs_reset or self._num_steps > 0
        if not may_render(self.render_mode, has_begun=has_begun):
            return None
        if self.render_mode == "rgb_array":
            return self._picture.frame()
        self._show()
        return None

    def close(self) -> None:
        """Close the window if there is one; may be called twice."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _make_picture(self) -> None:
        """Make what a state is drawn with."""
        self._picture = StagePicture(scale=self.scale)
        self._window: FrameWindow | None = None

    def _plan_scene_change(self) -> None:
        """Choose the step, if any, of the next hundred at which the scene changes."""
        rng = self.np_random
        changes = rng.random() < _SCENE_CHANGE_CHANCE
        offset = int(rng.integers(1, _SCENE_CHANGE_STEPS))
        wanted = changes and self._scene_changes and self._conditioner.prompt is None
        self._scene_change_step = self._num_steps + offset if wanted else None

    def _draw(self) -> np.ndarray:
        """Draw the present state and return it as a new frame."""
        return self._picture.draw(self._conditioner, self._game)

    def _info(self, conditions: StepConditions) -> dict[str, Any]:
        controller = self._conditioner.controller
        return {
            "pose": conditions.pose,
            "text": conditions.text,
            "audio": conditions.audio,
            "keypoints": self._picture.keypoints * np.float32(self.scale),
            "objects": objects_of(self._game, controller.x),
            "things": self._picture.things(self._game, controller.x),
            "regions": self._picture.regions(shows_face=self._conditioner.shows_face),
            "eyes": self._picture.eyes(self._conditioner),
            "mouth": self._conditioner.mouth_open,
            "gaze": self._conditioner.gaze,
            "language": self._conditioner.language,
            "spoken": self._conditioner.spoken,
            "cost": self._cost,
            "hearts": self._game.hearts,
            "lives": self._game.hearts,
            "score": self._game.score,
            "action_name": self._conditioner.action_name,
            "scene": asdict(self.scene),
            "conditioner_state": self._conditioner.state(),
        }

    def _show(self) -> None:
        frame = self._picture.frame()
        if self._window is None:
            # About the same size at all scales, so that it fits on a screen.
            zoom = {0.25: 12, 1: 3, 2: 2}[self.scale]
            self._window = FrameWindow("Stage", frame.shape, scale=zoom)
        self._window.show(frame, fps=self.metadata["render_fps"])


def _scene_from_option(option: Scene | Mapping[str, str], default: Scene) -> Scene:
    """Return the scene of a reset option, filled up from `default`.

    Raises:
        ValueError: A field or a name in it is unknown.
    """
    if isinstance(option, Scene):
        return option
    fields = asdict(default)
    check_names("scene field", option, list(fields))
    return Scene(**(fields | dict(option)))


def _changed(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return a scene that differs from `scene` in one field or in several."""
    new = scene
    while new == scene:
        sampled = asdict(Scene.sample(rng))
        kept = {field: rng.random() < 0.5 for field in sampled}
        new = Scene(**{f: getattr(scene, f) if kept[f] else sampled[f] for f in sampled})
    return new
