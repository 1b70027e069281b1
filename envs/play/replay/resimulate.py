"""Runs a recorded session again, from its seeds and actions, and compares every frame's hash.

Equal versions, machine and backend give equal frames. Works on any environment that can be made
again, not only on those that the window plays.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import gymnasium as gym
import numpy as np

from envs.play.replay.recorded import Tape, load_state
from envs.recording.header import header_of
from midas_world.sessions.log import Record, Turn, hash_frame
from midas_world.sessions.session import Segment, SessionHeader


@dataclass(frozen=True, kw_only=True)
class Resimulation:
    """What came of running a session again.

    Attributes:
        difference: In words, what differed first; empty if nothing did.
        notes: What is other here than where it was recorded.
    """

    num_frames: int
    difference: str
    notes: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether every frame, reward and end was the same."""
        return not self.difference

    def __str__(self) -> str:
        if self.is_equal:
            return f"all {self.num_frames} frames are equal"
        return "\n".join([f"not equal: {self.difference}", *self.notes])


def resimulate(
    tape: Tape, env: gym.Env[Any, Any], *, on_frame: Callable[[int], object] = lambda _: None
) -> Resimulation:
    """Run a session again until something differs.

    Raises:
        ValueError: The log does not tell how a moment was reached, or the environment refuses to
            be put there.
    """
    difference = ""
    runs = (_run(env, tape, segment) for segment in tape.session.segments(stop=len(tape)))
    for num_equal, came in enumerate(chain.from_iterable(runs), 1):
        if difference := _difference(*came):
            break
        on_frame(num_equal)
    return Resimulation(
        num_frames=len(tape),
        difference=difference,
        notes=tuple(_notes(env, tape.session.header)) if difference else (),
    )


def _difference(record: Record, frame: np.ndarray, outcome: Any) -> str:
    """Return in words what is not as recorded: a frame, or what a step gave; empty if all is."""
    place = f"step {record.episode_step} of its episode"
    if hash_frame(frame) != record.frame_hash:
        return f"frame {record.frame} ({place}) differs"
    then = record.reward, record.terminated, record.truncated
    if outcome not in (None, then):
        return f"{place} gave reward, terminated, truncated {outcome}, recorded are {then}"
    return ""


def _run(env: gym.Env[Any, Any], tape: Tape, segment: Segment) -> Any:
    """Yield each record of a stretch without a jump, the frame that came now, and the outcome."""
    first = segment.first
    try:
        observation = _go_to(env, tape, first)
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(
            f"how frame {first.frame} was reached cannot be used: {error!r}"
        ) from error
    yield first, _frame(env, observation, tape.session.header), None
    for record, turn in zip(segment.steps, segment.turns(), strict=False):
        observation, reward, terminated, truncated = _play(env, turn)
        frame = _frame(env, observation, tape.session.header)
        yield record, frame, (float(reward), bool(terminated), bool(truncated))


def _go_to(env: gym.Env[Any, Any], tape: Tape, first: Record) -> Any:
    """Put an environment where a stretch begins, and return the observation there."""
    inner: Any = env.unwrapped
    begin = first.begin
    path = tape.session.state_path(first)
    if path is not None and hasattr(inner, "restore_state"):
        env.reset(seed=begin.get("seed"))  # Gymnasium's wrappers want one before any step
        inner.restore_state(load_state(path, is_world=bool(tape.session.header.world)))
        return inner.observe()
    if len(begin.get("actions") or ()) != first.episode_step:
        raise ValueError(f"how frame {first.frame} was reached was not recorded")
    if (rng := begin.get("rng")) is not None:
        inner.np_random.bit_generator.state = rng
    observation, _ = env.reset(seed=begin.get("seed"), options=begin.get("options"))
    if begin.get("prompt") and "prompt" not in (begin.get("options") or {}):
        inner.set_prompt(begin["prompt"])
    for turn in first.turns_before():
        if (outcome := _play(env, turn)) is not None:
            observation = outcome[0]
    return observation


def _play(env: gym.Env[Any, Any], turn: Turn) -> Any:
    """Do what was done; return what the action, if there is one, led to."""
    inner: Any = env.unwrapped
    for text in turn.words:
        inner.set_prompt(text)
    if any(voice is not None for voice in turn.heard):
        inner.set_voices(*turn.heard)
    return None if turn.action is None else env.step(_action(env.action_space, turn.action))[:4]


def _frame(env: gym.Env[Any, Any], observation: Any, header: SessionHeader) -> np.ndarray:
    """Return what was recorded of an observation: itself if it is such a picture, else a render."""
    shape = (*header.frame_size, 3)
    if getattr(observation, "shape", None) == shape and observation.dtype == np.uint8:
        return observation
    frame: Any = env.render()
    if not isinstance(frame, np.ndarray):
        raise ValueError(f"{header.env_id} shows no picture of shape {shape} any more")
    return frame


def _action(space: gym.Space[Any], action: Any) -> Any:
    """Return a recorded action as its space has it."""
    if isinstance(space, gym.spaces.Dict):
        return {key: _action(space[key], value) for key, value in action.items()}
    if isinstance(space, gym.spaces.Discrete):
        return int(action)
    if isinstance(space, gym.spaces.Text):
        return action
    return np.asarray(action, dtype=space.dtype)


def _notes(env: gym.Env[Any, Any], header: SessionHeader) -> list[str]:
    """Return what is other here than where a session was recorded, in words."""
    here = header_of(env, fps=header.fps, frame_size=header.frame_size, begin={})
    notes: list[str] = []
    if header.world.get("weights_sha256") != here.world.get("weights_sha256"):
        folder = here.world.get("folder")
        notes.append(f"the world at {folder} has other weights than the one that was recorded")
    # Why it was chosen there is in its words, and differs from day to day.
    of_backend = {key: value for key, value in header.backend.items() if key != "words"}
    notes += _differences("backend's", of_backend, here.backend)
    notes += _differences("version of", header.versions, here.versions)
    return notes + _differences("machine's", header.machine, here.machine)


def _differences(what: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [
        f"{what} {key}: {then[key]} when recorded, {now[key]} here"
        for key in sorted(set(then) & set(now))
        if then[key] != now[key]
    ]
