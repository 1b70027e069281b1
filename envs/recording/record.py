"""Recording an environment: a wrapper for any, and what play.py's recording is made of.

Turns what an environment gives into records. What the session's header says of it is
envs/recording/header.py's business; where records are written, and how fast, that of
midas_world/sessions/writer.py.

Shapes: H W frame size.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.recording.header import header_of, plain
from envs.soundtrack import Soundtrack
from midas_world.sessions.log import SPEAKERS, Kind, Record, SessionError
from midas_world.sessions.values import to_json
from midas_world.sessions.writer import RecordingStatus, SessionWriter
from midas_world.types import StepConditions

RECORDINGS_FOLDER = Path("recordings")

Outcome = tuple[np.ndarray, SupportsFloat, bool, bool, Mapping[str, Any]]
"""What a step gave: frame (H, W, 3) uint8, reward, terminated, truncated, info."""

_DEFAULT_FPS = 20.0


def new_path(folder: Path, name: str, ending: str = "") -> Path:
    """Return a path that nobody else takes, named after something, the time and the process."""
    words = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-") or "session"
    stamp = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S-%f")
    return folder / f"{words}-{stamp}-{os.getpid()}{ending}"


class EnvRecorder:
    """Records one session of an environment; the caller plays and reports what came.

    Args:
        env: What is played; asked for what it is, never stepped.
        folder: To be made.
        fps: Steps per second of play; None takes the environment's own number.
        teacher: Gymnasium id of the teacher that can begin where this environment's episodes do.
        on_error: Called with words for the player if recording has to end; from another thread.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        folder: Path,
        *,
        fps: float | None = None,
        teacher: str | None = None,
        on_error: Callable[[str], object] = lambda _: None,
    ) -> None:
        self.folder = Path(folder)
        self._env = env
        self._fps = float(fps or env.metadata.get("render_fps") or _DEFAULT_FPS)
        self._teacher = teacher
        self._on_error = on_error
        self._writer: SessionWriter | None = None
        self._episode_step = 0

    @property
    def status(self) -> RecordingStatus | None:
        """How it is doing; None before the first frame."""
        return self._writer.status() if self._writer is not None else None

    def begin(
        self,
        frame: np.ndarray,
        info: Mapping[str, Any],
        *,
        kind: Kind,
        begin: Mapping[str, Any],
        episode_step: int = 0,
        state: Any = None,
    ) -> None:
        """Record a frame that follows from no action: of a reset, or of a jump.

        Args:
            frame: uint8 (H, W, 3).
            info: What came with it.
            kind: "reset", "start" or "restore".
            begin: How it is reached; see `Record`.
            episode_step: Steps of the episode so far.
            state: The environment's, to be kept in a file.
        """
        self._episode_step = episode_step
        if self._writer is None:
            make_header = partial(
                header_of,
                self._env,
                fps=self._fps,
                frame_size=frame.shape[:2],
                begin=begin,
                teacher=self._teacher,
            )
            self._writer = SessionWriter(
                self.folder,
                make_header,
                frame_size=(frame.shape[0], frame.shape[1]),
                fps=self._fps,
                on_error=self._on_error,
            )
        record = Record(
            kind=kind,
            wall_time=time.time(),
            conditions=conditions_of(info),
            episode_step=episode_step,
            begin=plain(begin),
        )
        self._writer.add(record, frame, state=state)

    def step(
        self,
        action: Any,
        outcome: Outcome,
        *,
        step_time: float,
        sound: np.ndarray | None = None,
        live: Sequence[str] = (),
        state: Any = None,
    ) -> None:
        """Record what one step took and gave, and how many seconds that took.

        Raises:
            ValueError: `begin` was not called.
        """
        if self._writer is None:
            raise ValueError("call begin() before step()")
        frame, reward, terminated, truncated, info = outcome
        self._episode_step += 1
        record = Record(
            kind="step",
            wall_time=time.time(),
            conditions=conditions_of(info),
            live=live,
            episode_step=self._episode_step,
            action=to_json(action),
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            step_time=step_time,
        )
        self._writer.add(record, frame, sound=sound, state=state)

    def prompt(self, text: str | None) -> None:
        """Record that the player's words changed."""
        if self._writer is not None:
            self._writer.add(Record(kind="prompt", wall_time=time.time(), text=text))

    def give_up(self, words: str) -> None:
        """End recording, for a reason that the player is told; the game goes on without."""
        if self._writer is not None:
            self._writer.give_up(words)

    def check_open(self) -> None:
        """Wait until the files are made.

        Raises:
            SessionError: They cannot be; the message says why.
        """
        if self._writer is not None and not self._writer.wait_until_open():
            raise SessionError(f"cannot record: {self._writer.error}")

    def close(self, *, wait: bool = True) -> bool:
        """End the session; may be called twice. Return whether nothing is left to be written.

        Without `wait` the end is written meanwhile.
        """
        return self._writer is None or self._writer.close(timeout_s=60.0 if wait else 0.0)


class RecordSession(gym.Wrapper[Any, Any, Any, Any], gym.utils.RecordConstructorArgs):
    """Records everything that an environment does as one session, with its sound if it has any.

    ```python
    >>> env = RecordSession(gym.make("CartPole-v1", render_mode="rgb_array"), "recordings/poles")
    ```

    If recording has to end, because the disk is full or frames change their size for instance, a
    warning says so and the environment goes on without.

    Live voices go through this wrapper's `set_voices`. Of them it knows the features only: their
    own track is silent.

    Args:
        env: Any with observations that are pictures, or render_mode "rgb_array".
        folder: To be made.
        fps: Of the film; None takes the environment's `render_fps`.
        frames: Where frames come from: the "observation", `render()` ("render"), or "auto": the
            observation if it is a picture.
        on_error: Called with words for the player if recording has to end; from another thread.

    Raises:
        ValueError: There is nothing to see in the environment, or the folder exists.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        folder: str | Path,
        *,
        fps: float | None = None,
        frames: Literal["auto", "observation", "render"] = "auto",
        on_error: Callable[[str], object] = lambda _: None,
    ) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, folder=str(folder), fps=fps, frames=frames)
        super().__init__(env)
        if frames not in ("auto", "observation", "render"):
            raise ValueError(f'frames must be "auto", "observation" or "render", got {frames!r}')
        is_picture = _is_picture(env.observation_space)
        if frames == "observation" and not is_picture:
            raise ValueError(
                f"observations must be Box(0, 255, (H, W, 3), uint8) to be recorded, "
                f"got {env.observation_space}"
            )
        self._renders = frames == "render" or (frames == "auto" and not is_picture)
        if self._renders and env.render_mode != "rgb_array":
            raise ValueError(
                f'an environment must be made with render_mode="rgb_array" to be recorded, '
                f"got {env.render_mode!r}"
            )
        if Path(folder).exists():
            raise ValueError(f"{folder} exists already")
        self._recorder = EnvRecorder(env, Path(folder), fps=fps, on_error=on_error)
        self._began = False
        self._soundtrack = Soundtrack()
        self._live: tuple[str, ...] = ()

    @property
    def recording(self) -> RecordingStatus | None:
        """How recording is doing; None before the first reset."""
        return self._recorder.status

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment, and record its first frame.

        Raises:
            SessionError: The session cannot be written at all; only at the first reset.
        """
        begin: dict[str, Any] = {"seed": seed, "options": options}
        if seed is None:
            begin["rng"] = self.env.unwrapped.np_random.bit_generator.state
        observation, info = self.env.reset(seed=seed, options=options)
        begin["start_state"] = info.get("start_state")
        save = getattr(self.env.unwrapped, "save_state", None)
        # What cannot be written down, such as given frames, is kept as the state it led to.
        state = save() if save is not None and "options" not in plain(begin) else None
        self._soundtrack.begin()
        with self._without_harm():
            frame = self._frame(observation)
            self._recorder.begin(frame, info, kind="reset", begin=begin, state=state)
        if not self._began:
            self._recorder.check_open()
            self._began = True
        return observation, info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step the environment, and record what came."""
        started = time.perf_counter()
        observation, reward, terminated, truncated, info = self.env.step(action)
        step_time = time.perf_counter() - started
        with self._without_harm():
            self._recorder.step(
                action,
                (self._frame(observation), reward, terminated, truncated, info),
                step_time=step_time,
                sound=self._soundtrack.step(info, float(reward), is_over=terminated or truncated),
                live=self._live,
            )
        self._live = ()
        return observation, reward, terminated, truncated, info

    def set_prompt(self, text: str | None) -> None:
        """Let words steer the environment, if it takes any, and record them."""
        self.env.get_wrapper_attr("set_prompt")(text)
        self._recorder.prompt(text)

    def set_voices(self, own: np.ndarray | None, other: np.ndarray | None) -> None:
        """Let live audio be the voices of the environment's next step, and record that it was."""
        self.env.get_wrapper_attr("set_voices")(own, other)
        voices = zip(SPEAKERS, (own, other), strict=True)
        self._live = tuple(name for name, voice in voices if voice is not None)

    def close(self) -> None:
        """End the session and close the environment; may be called twice."""
        self._recorder.close()
        super().close()

    @contextlib.contextmanager
    def _without_harm(self) -> Iterator[None]:
        """End recording over what cannot be recorded; at the first reset it is an error."""
        try:
            yield
        except (TypeError, ValueError) as error:
            if not self._began:
                raise
            self._recorder.give_up(str(error))

    def _frame(self, observation: Any) -> np.ndarray:
        if not self._renders:
            return observation
        frame = self.env.render()
        if not isinstance(frame, np.ndarray):
            raise ValueError(f"render() must return a picture, got {type(frame).__name__}")
        return frame


def conditions_of(info: Mapping[str, Any]) -> StepConditions:
    """Return copies of what an info says of the conditions: environments may reuse arrays."""
    vectors = {key: _vector(info.get(key)) for key in ("pose", "audio")}
    text = info.get("text")
    return StepConditions(**vectors, text=text if isinstance(text, str) else None)


def _vector(value: Any) -> np.ndarray | None:
    """Return a copy of a vector; None of what an environment of others calls by the same name."""
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "fiub":
        return None
    return np.array(value, np.float32)


def _is_picture(space: spaces.Space[Any]) -> bool:
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) == 3
        and space.shape[2] == 3
    )
