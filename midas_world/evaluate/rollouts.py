"""Play a teacher, and play a world from the teacher's own frames with the same actions.

Both are Gymnasium environments made by id, so nothing here knows the game. Of a teacher's info it
reads the conditions ("pose", "text", "audio"), "keypoints", "things", "cost" and
"conditioner_state" where given.

Shapes: T steps, F context frames, H W pixels, K keypoints, J things.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
import torch

from midas_world.config import DataConfig
from midas_world.data.episodes import Episode
from midas_world.teachers.policies import Policy
from midas_world.teachers.recordings import recorded_infos
from midas_world.types import StepConditions

_LIVES = "rollout.book.lives"  # of a world's state
# Of a teacher's infos and reset options: what tells where a game is.
_HERE = "scene", "conditioner_state"


@dataclass(frozen=True, kw_only=True)
class EnvFrame:
    """One frame of an environment and what came with it.

    Attributes:
        frame: (H, W, 3) uint8.
        action: What led here; None at the first frame.
    """

    frame: np.ndarray
    action: Any = None
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, Any]

    @property
    def conditions(self) -> StepConditions:
        """The conditions of this frame."""
        return StepConditions.of(self.info)


@dataclass(frozen=True, kw_only=True)
class TeacherEpisode:
    """T steps of the teacher, T + 1 frames, and what a world needs to go on from any of them.

    Attributes:
        frames: (T + 1, H, W, 3) uint8.
        rewards: (T,) float64.
        costs: (T,) float64, 1 where there was a hit.
        terminated: (T,) bool.
        keypoints: (T + 1, K, 2) px, or None.
        things: (T + 1, J, 6), or None: class (-1 fills up), centre x and y, half width and half
            height in px, and a number that is a thing's own within its class.
    """

    seed: int
    policy: str
    frames: np.ndarray
    actions: tuple[Any, ...]
    rewards: np.ndarray
    costs: np.ndarray
    terminated: np.ndarray
    conditions: tuple[StepConditions, ...]
    keypoints: np.ndarray | None
    things: np.ndarray | None
    conditioner_states: tuple[Mapping[str, np.ndarray], ...]

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.actions)

    def start_state(self, num_frames: int, *, end: int | None = None) -> dict[str, Any]:
        """Return F frames, up to frame end - 1, as the world's reset option "start_state".

        Without an end they are the first.
        """
        end = num_frames if end is None else end
        return {
            "frames": self.frames[end - num_frames : end],
            "conditions": list(self.conditions[end - num_frames : end]),
            "conditioner_state": dict(self.conditioner_states[end - 1]),
            **({} if self.things is None else {"things": self.things[end - 1]}),
        }


@dataclass(frozen=True, kw_only=True)
class FollowedEpisode:
    """T' steps of a world and of its teacher, after the same context and by the same actions.

    Attributes:
        teacher: The teacher's episode; its frames up to ``first - 1`` are the context.
        first: Index of the teacher's frame that the world's first one is compared with.
        frames: (T', H, W, 3) uint8 of the world.
    """

    teacher: TeacherEpisode
    first: int
    frames: np.ndarray

    @property
    def real(self) -> np.ndarray:
        """The teacher's frames, (T', H, W, 3)."""
        return self.teacher.frames[self.first :]


def teacher_moments(
    env: gymnasium.Env, policy: Policy, *, seed: int, options: Mapping[str, Any]
) -> Iterator[EnvFrame]:
    """Yield the teacher's frames, the first one too, until the episode ends."""
    policy.reset(np.random.default_rng((seed, 1)))
    frame, info = env.reset(seed=seed, options=dict(options))
    moment = EnvFrame(frame=frame, info=info)
    yield moment
    while not (moment.terminated or moment.truncated):
        action = policy.act(moment.frame, dict(moment.info))
        moment = step_env(env, action)
        yield moment


def recorded_moments(episode: Episode, data: DataConfig) -> list[EnvFrame]:
    """Return the frames of a recorded episode as a teacher's."""
    return [
        EnvFrame(
            frame=frame,
            action=episode.actions[step - 1] if step else None,
            reward=float(episode.rewards[step - 1]) if step else 0.0,
            terminated=bool(step and episode.terminated[step - 1]),
            truncated=bool(step and episode.truncated[step - 1]),
            info=info,
        )
        for step, (frame, info) in enumerate(
            zip(episode.frames, recorded_infos(episode, data), strict=True)
        )
    ]


def without_things(
    env: gymnasium.Env, episode: TeacherEpisode, *, num_steps: int, options: Mapping[str, Any]
) -> TeacherEpisode:
    """Return so many steps of an episode of the teacher once more, in which no things lie."""
    script = Script(episode.actions)
    moments = teacher_moments(env, script, seed=episode.seed, options={**options, "things": False})
    return to_episode(list(islice(moments, num_steps + 1)), seed=episode.seed)


def start_after(moments: Sequence[EnvFrame]) -> dict[str, Any]:
    """Return what lets a world go on from moments of the teacher, as its option "start_state"."""
    return to_episode(moments).start_state(len(moments))


def to_episode(moments: Sequence[EnvFrame], *, name: str = "", seed: int = 0) -> TeacherEpisode:
    """Return the episode that consecutive moments of the teacher are."""
    infos = [moment.info for moment in moments]
    return TeacherEpisode(
        seed=seed,
        policy=name,
        frames=np.stack([moment.frame for moment in moments]),
        actions=tuple(moment.action for moment in moments[1:]),
        rewards=np.array([moment.reward for moment in moments[1:]]),
        costs=np.array([float(info.get("cost", 0.0)) for info in infos[1:]]),
        terminated=np.array([moment.terminated for moment in moments[1:]], bool),
        conditions=tuple(moment.conditions for moment in moments),
        keypoints=_stacked(infos, "keypoints"),
        things=_stacked(infos, "things"),
        conditioner_states=tuple(info.get("conditioner_state", {}) for info in infos),
    )


def _stacked(infos: Sequence[Mapping[str, Any]], name: str) -> np.ndarray | None:
    """Return what all infos give under a name, one row each; None if one does not."""
    known = [info[name] for info in infos if info.get(name) is not None]
    return np.stack(known) if len(known) == len(infos) else None


def play_world(
    env: gymnasium.Env,
    start_state: Mapping[str, Any],
    actions: Sequence[Any],
    *,
    seed: int,
    prompt: str | None = None,
    things: bool = True,
) -> Iterator[EnvFrame]:
    """Yield the world's frame after each action, from the teacher's start state.

    Raises:
        ValueError: The env ends the episode before the last action.
    """
    words = {} if prompt is None else {"prompt": prompt}
    env.reset(seed=seed, options={"start_state": dict(start_state), "things": things, **words})
    for number, action in enumerate(actions, start=1):
        moment = step_env(env, action)
        yield moment
        if (moment.terminated or moment.truncated) and number < len(actions):
            raise ValueError(f"the world's env ended after {number} of {len(actions)} steps")


def follow(
    frames: Iterable[np.ndarray], marks: Sequence[int], measure: Callable[[np.ndarray], float]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return a measure of each frame, and the frames at some steps, counted from 1."""
    values, shown = [], []
    for step, frame in enumerate(frames, start=1):
        values.append(measure(frame))
        if step in marks:
            shown.append(frame)
    return np.array(values), shown


def step_env(env: gymnasium.Env, action: Any) -> EnvFrame:
    """Step an environment."""
    frame, reward, terminated, truncated, info = env.step(action)
    return EnvFrame(
        frame=frame,
        action=action,
        reward=float(reward),
        terminated=bool(terminated),
        truncated=bool(truncated),
        info=info,
    )


class Endless(gymnasium.Wrapper):
    """A teacher that begins another episode instead of ending.

    It begins where the last one ended, if a teacher can, else in the same scene.
    """

    def __init__(self, env: gymnasium.Env, options: Mapping[str, Any]) -> None:
        super().__init__(env)
        self._options = dict(options)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; at an end, the first frame of the next episode comes back."""
        frame, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            here = {name: info[name] for name in _HERE if name in info}
            frame, info = self.env.reset(options=self._options | here)
        return frame, reward, False, False, info


class Undying(gymnasium.Wrapper):
    """A world, ending for nothing else, whose lost games go on where they are, with all lives."""

    def __init__(self, env: gymnasium.Env, lives: int) -> None:
        super().__init__(env)
        self._lives = lives

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step; the lives come back after the step that took the last one."""
        made = self.env.step(action)
        if made[-1].get("lives") == 0:
            state = self.env.get_wrapper_attr("save_state")()
            lives = torch.full_like(state.tensors[_LIVES], self._lives)
            state = replace(state, tensors={**state.tensors, _LIVES: lives})
            self.env.get_wrapper_attr("restore_state")(state)
        return made


class Script:
    """A policy that does what is written, and then the last of it for ever."""

    def __init__(self, actions: Sequence[Any]) -> None:
        self._actions = tuple(actions)

    def reset(self, rng: np.random.Generator) -> None:  # noqa: ARG002
        """Begin an episode."""
        self._step = 0

    def act(self, observation: Any, info: dict[str, Any]) -> Any:  # noqa: ARG002
        """Return the next action."""
        self._step += 1
        return self._actions[min(self._step, len(self._actions)) - 1]
