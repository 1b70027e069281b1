"""Any Gymnasium environment as a teacher: frames of one size, and actions with names and keys.

`TeacherEnv` plays the env behind it: it turns pixels (render(), or observations that are pictures)
into frames of the world's size, a world's numbered actions into members of the env's own space, and
says the conditions of each frame in its info, as Stage does. How actions get their names is
actions.py's business.

Shapes: H W frame size, P pose and A audio features.
"""

import contextlib
import importlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.error import InvalidAction
from PIL import Image, ImageOps

from midas_world.config import DataConfig, TeacherConfig
from midas_world.teachers.actions import configured_actions, keys_of, name_actions
from midas_world.teachers.words import PROMPT_BYTES, WordsConditioner
from midas_world.trust import HOW_TO_FIND
from midas_world.types import StepConditions

logger = logging.getLogger(__name__)

DEFAULT_FPS = 20.0
KEYMAPS_FOLDER = Path(__file__).parents[1] / "keymaps"

_PICTURE_KEYS = ("screen", "rgb", "image", "pixels", "frame", "observation")
_MIN_PICTURE = 16


class TeacherEnv(gymnasium.Env[np.ndarray, np.int64]):
    """A foreign env behind the calls, frames and info of a teacher.

    ## Action space
    `Discrete(n)`: the actions that `action_names` names; `action_keys` says how they are called.

    ## Observation space
    `Box(0, 255, (H, W, 3), uint8)`: the frame.

    ## Rewards, starting state, episode end
    The env's own; with `repeat`, rewards are summed and the last step counts.

    ## Info
    `text`, `pose` and `audio`: the conditions of this frame. `conditioner_state`: from which a
    world can go on. `action_name`. `scene`, if the env gives words by name under this key.
    `observation` and `env_info`: what the env itself gave, for policies that read them.

    Raises:
        ValueError: The env follows the old Gym API, gives no pictures, or has actions that cannot
            be named.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], config: TeacherConfig) -> None:
        self._env = env
        self._config = config
        self._name = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self.render_mode = "rgb_array"
        if config.actions:
            self._actions = configured_actions(config.actions, env.action_space)
        else:
            self._actions = name_actions(env)
        self.action_names = tuple(action.name for action in self._actions)
        self.action_keys = keys_of(self._actions)
        fps = config.fps or env.metadata.get("render_fps") or DEFAULT_FPS
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": fps / config.repeat}
        self._words = WordsConditioner(self.action_names, gives_pose=config.conditions == "action")
        self.env_frame_size, self.env_info_keys = self._try_out()
        height, width = (config.height, config.width) if config.height else self.env_frame_size
        self.frame_size = (height, width)
        self.action_space = spaces.Discrete(len(self._actions))
        self.observation_space = spaces.Box(0, 255, (height, width, 3), np.uint8)

    @property
    def actions_config(self) -> dict[str, Any]:
        """The actions as a config holds them."""
        return {action.name: action.to_config() for action in self._actions}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; options are the env's own."""
        super().reset(seed=seed)
        observation, info = self._env.reset(seed=seed, options=options)
        self._words.reset(rng=self.np_random)
        return self._frame(observation), self._info(observation, info, action=0)

    def step(
        self, action: np.int64 | int
    ) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take an action, `repeat` times or until the episode ends.

        Raises:
            InvalidAction: The action is not in the action space.
        """
        if not self.action_space.contains(action):
            raise InvalidAction(
                f"action must be an integer 0 to {len(self._actions) - 1}, got {action!r}"
            )
        value, total = self._actions[int(action)].value, 0.0
        observation, info, terminated, truncated = None, {}, False, False
        for _ in range(self._config.repeat):
            observation, reward, terminated, truncated, info = self._env.step(value)
            total += float(reward)
            if terminated or truncated:
                break
        self._words.step(int(action))
        frame = self._frame(observation)
        told = self._info(observation, info, action=int(action))
        return frame, total, bool(terminated), bool(truncated), told

    def render(self) -> np.ndarray:
        """Return the last frame."""
        return self._last.copy()

    def close(self) -> None:
        """Close the env; may be called twice."""
        self._env.close()

    def _try_out(self) -> tuple[tuple[int, int], frozenset[str]]:
        """Check the env's API and pictures by one step; return its frames' size and info's keys."""
        inner = self._env.unwrapped
        begun = self._env.reset()
        if not isinstance(begun, tuple) or len(begun) != 2 or not isinstance(begun[1], Mapping):
            raise ValueError(
                f"{self._name} follows the old Gym API: reset() returns no (observation, info); "
                f"{_OLD_API_ADVICE}"
            )
        size = self._picture(begun[0]).shape[:2]
        # Not through Gymnasium's wrappers, which would fail in words about unpacking.
        stepped = cast("Any", inner.step(self._actions[0].value))
        if not isinstance(stepped, tuple) or len(stepped) != 5:
            count = len(stepped) if isinstance(stepped, tuple) else 1
            raise ValueError(
                f"{self._name} follows the old Gym API: step() returns {count} values, not "
                f"(observation, reward, terminated, truncated, info); {_OLD_API_ADVICE}"
            )
        return (size[0], size[1]), frozenset(begun[1])

    def _picture(self, observation: Any) -> np.ndarray:
        """Return the env's own picture, (h, w, 3) uint8."""
        if self._env.render_mode == "rgb_array":
            picture = to_picture(self._env.render())
            if picture is None:
                raise ValueError(f"render() of {self._name} gives no (H, W, 3) uint8 picture")
        else:
            picture = to_picture(observation)
            if picture is None:
                raise ValueError(
                    f"{self._name} gives no pictures: it has no render mode rgb_array, and its "
                    f"observations are {self._env.observation_space}"
                )
        return picture

    def _frame(self, observation: Any) -> np.ndarray:
        self._last = fit_frame(self._picture(observation), self.frame_size, fit=self._config.fit)
        return self._last

    def _info(self, observation: Any, info: Mapping[str, Any], *, action: int) -> dict[str, Any]:
        if isinstance(text := info.get("text"), str):
            self._words.set_prompt(text.encode()[:PROMPT_BYTES].decode(errors="ignore"))
        conditions = self._words.conditions()
        if self._config.conditions == "info":
            told = {key: _vector(info.get(key), key, self._name) for key in ("pose", "audio")}
            conditions = StepConditions(text=conditions.text, **told)
        own = conditions.given()
        state = info.get("conditioner_state")
        own["conditioner_state"] = state if isinstance(state, Mapping) else self._words.state()
        scene = info.get("scene")
        if isinstance(scene, Mapping) and all(isinstance(word, str) for word in scene.values()):
            own["scene"] = dict(scene)
        own |= {"action_name": self.action_names[action], "observation": observation}
        return own | {"env_info": dict(info)}


_OLD_API_ADVICE = (
    "teachers follow Gymnasium's API: wrap it in a gymnasium.Env of your own, or with shimmy"
)


def check_teacher(data: DataConfig) -> None:
    """Raise ValueError if there is no game to play, but recordings alone."""
    if not data.has_teacher:
        raise ValueError(
            "it learns from recordings (data.env_id is empty): there is no teacher to play or to "
            "collect from; more of them come by midas-world import --add"
        )


def make_teacher(data: DataConfig) -> gymnasium.Env[Any, Any]:
    """Return the teacher that a data config names, adapted if the config says how.

    Raises:
        ValueError: There is no such env, it cannot be made, or it cannot be a teacher.
    """
    check_teacher(data)
    if data.teacher is None:
        return gymnasium.make(data.env_id, disable_env_checker=True, **data.env_kwargs)
    return adapt(data.env_id, data.env_kwargs, data.teacher)


def adapt(env_id: str, env_kwargs: Mapping[str, Any], config: TeacherConfig) -> TeacherEnv:
    """Return a foreign env as a teacher; see `make_teacher`."""
    kwargs = dict(env_kwargs)
    try:
        if _renders(env_id, config):
            kwargs.setdefault("render_mode", "rgb_array")
        env = gymnasium.make(env_id, disable_env_checker=True, **kwargs)
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        reason = f"{str(error).rstrip('.')}{_advice(error)}"
        raise ValueError(f"the env {env_id!r} cannot be made: {reason}") from error
    try:
        return TeacherEnv(env, config)
    except BaseException:
        with contextlib.suppress(Exception):  # The first error is the one to tell.
            env.close()
        raise


def _advice(error: Exception) -> str:
    """Return what to do about an env that cannot be made, where the error itself does not say."""
    if isinstance(error, ModuleNotFoundError):
        return f"; {HOW_TO_FIND}"
    unknown = gymnasium.error.NameNotFound, gymnasium.error.NamespaceNotFound
    if isinstance(error, unknown) and "Did you mean" not in str(error):
        return (
            "; an id of a package of its own needs that package's name, such as "
            '"vizdoom.gymnasium_wrapper:VizdoomBasic-v1"'
        )
    return f"; {_OLD_API_ADVICE}" if "must inherit from the gymnasium.Env" in str(error) else ""


def shipped_keymap(env_id: str) -> Path | None:
    """Return the key map that this project has for an env, if any: keymaps/NAME.yaml."""
    name = env_id.rpartition(":")[2].rpartition("/")[2]
    path = KEYMAPS_FOLDER / f"{name}.yaml"
    return path if path.is_file() else None


def to_picture(pixels: Any) -> np.ndarray | None:
    """Return pixels as an (h, w, 3) uint8 picture, or None if they are none.

    Grey pictures get three channels, channels that come first go last, and of a dict the entry
    counts whose name says that it is a picture.
    """
    if isinstance(pixels, Mapping):
        found = (to_picture(pixels[key]) for key in _PICTURE_KEYS if key in pixels)
        return next((picture for picture in found if picture is not None), None)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        return None
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3:
        return None
    if pixels.shape[0] in (1, 3) and pixels.shape[-1] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.shape[-1] not in (1, 3) or min(pixels.shape[:2]) < _MIN_PICTURE:
        return None
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def fit_frame(picture: np.ndarray, size: tuple[int, int], *, fit: str) -> np.ndarray:
    """Return a picture as a frame of a size, (h, w, 3) uint8 -> (H, W, 3) uint8.

    Args:
        picture: Of any size.
        size: H and W.
        fit: "pad", "crop" or "stretch"; see `TeacherConfig`.
    """
    height, width = size
    if picture.shape[:2] == size:
        return np.array(picture)
    image = Image.fromarray(np.ascontiguousarray(picture))
    # Whole factors keep the edges of drawn pixels where they are.
    factors = [max(a, b) / min(a, b) for a, b in zip(size, picture.shape[:2], strict=True)]
    is_whole = factors[0] == factors[1] and factors[0].is_integer()
    method = Image.Resampling.BOX if is_whole else Image.Resampling.HAMMING
    if fit == "stretch":
        image = image.resize((width, height), method)
    elif fit == "crop":
        image = ImageOps.fit(image, (width, height), method)
    else:
        image = ImageOps.pad(image, (width, height), method, color=(0, 0, 0))
    return np.asarray(image)


def _renders(env_id: str, config: TeacherConfig) -> bool:
    """Whether frames are to come from render().

    Raises:
        ValueError: They are to, and the env has no render mode rgb_array.
    """
    if config.frames == "observation":
        return False
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)  # which registers the id
    entry = gymnasium.spec(name).entry_point
    creator = load_env_creator(entry) if isinstance(entry, str) else entry
    metadata = getattr(creator, "metadata", None)
    if not isinstance(metadata, Mapping):
        return True  # A function makes it: only trying will tell.
    modes = metadata.get("render_modes") or ()
    if config.frames == "render" and "rgb_array" not in modes:
        raise ValueError(
            f"{env_id} has no render mode rgb_array (it has: {', '.join(modes) or 'none'}); if its "
            'observations are pictures, ask for frames="observation"'
        )
    return "rgb_array" in modes


def _vector(value: Any, name: str, env_name: str) -> np.ndarray | None:
    """Return a condition of an env's info as float32, or None if it gives none."""
    if value is None:
        return None
    try:
        vector = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        vector = np.empty((0, 0), np.float32)
    if vector.ndim != 1:
        raise ValueError(f"info[{name!r}] of {env_name} must be a vector of numbers, got {value!r}")
    return vector
