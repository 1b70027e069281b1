"""What a recorded session shows, frame by frame, and how to come to any of its moments again.

Reads; plays nothing and draws nothing.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from envs.play.game.film import Film
from envs.play.game.game import Game
from envs.play.game.moments import Branch, Snapshot, View
from envs.play.game.opening import ENDLESS, open_teacher, open_world
from envs.play.game.playable import Playable
from envs.recording.header import weights_hash
from envs.stage import is_stage
from midas_world.sessions.log import SessionError, hash_frame
from midas_world.sessions.marks import action_name, marks_of
from midas_world.sessions.session import RecordedSession, SessionHeader
from midas_world.trust import check_env
from midas_world.types import CheckpointError

_BLOCK_FRAMES = 32
_KEPT_BLOCKS = 8


class Tape:
    """A recorded session to look at and to go on from.

    Raises:
        ValueError: The session has no frame.
    """

    def __init__(self, session: RecordedSession) -> None:
        if session.num_frames == 0:
            raise ValueError(f"{session.folder} holds no frame to show")
        self.session = session
        pays_coins = is_stage(session.header.env_id, session.header.teacher)
        self.marks = marks_of(session, pays_coins=pays_coins)
        self._segments = {segment.frames.start: segment for segment in session.segments()}
        self._sound = session.sound()
        self._block = lru_cache(maxsize=_KEPT_BLOCKS)(self._read_block)

    def __len__(self) -> int:
        return len(self.marks)

    @property
    def beginnings(self) -> list[int]:
        """Numbers of the frames that do not follow from the one before: resets and jumps."""
        return [number for number, mark in enumerate(self.marks) if mark.place == 0]

    def frame(self, number: int) -> np.ndarray:
        """Return a frame as the film shows it, uint8 (H, W, 3)."""
        block, place = divmod(number, _BLOCK_FRAMES)
        return self._block(block)[place]

    def _read_block(self, block: int) -> list[np.ndarray]:
        start = block * _BLOCK_FRAMES
        return list(self.session.frames(start, min(start + _BLOCK_FRAMES, len(self))))

    def view(self, number: int) -> View:
        """Return what was to be seen at a frame."""
        mark = self.marks[number]
        record = mark.record
        return View(
            frame=self.frame(number),
            num_steps=record.episode_step,
            action_name=action_name(self.session.header, record),
            conditions=record.conditions,
            total_reward=mark.total_reward,
            score=mark.score,
            is_over=record.terminated or record.truncated,
            sound=self._sound.step(number) if self._sound is not None else None,
        )

    def film(self) -> Film:
        """Return it as a film."""
        return Film(
            num_frames=len(self),
            fps=self.session.header.fps,
            view=self.view,
            beginnings=self.beginnings,
            facts=self._facts,
            go_to=self._go_to,
        )

    def _go_to(
        self, game: Game, number: int, on_step: Callable[[int, int], object]
    ) -> tuple[View, bool]:
        goal, base = self.snapshots(number)
        view = game.restore(goal, base=base, on_step=on_step)
        return view, hash_frame(view.frame) == self.marks[number].record.frame_hash

    def _facts(self, number: int) -> list[tuple[str, str]]:
        """Return what is known of a frame: what, and how much."""
        mark, header = self.marks[number], self.session.header
        record = mark.record
        return [
            ("recorded", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.wall_time))),
            ("frame", f"{number} of {len(self) - 1}"),
            ("action", action_name(header, record).replace("_", " ")),
            ("prompt", mark.prompt or "-"),
            ("words", record.conditions.text or ""),
            ("step, score", f"{record.episode_step}, {round(mark.score, 1):g}"),
            ("this step took", f"{1000 * record.step_time:.0f} ms" if record.step_time else "-"),
            ("backend", header.backend.get("words", "-")),
            *(("note", problem) for problem in self.session.problems),
        ]

    def snapshots(self, number: int) -> tuple[Snapshot, Snapshot | None]:
        """Return a frame as a moment to go to, and an earlier one whose state was kept, if any.

        Raises:
            ValueError: The log does not tell how the moment was reached, or the actions are not
                the window's.
        """
        mark = self.marks[number]
        segment = self._segments[mark.first]
        first, steps = segment.first, segment.steps[: mark.place]
        begin = first.begin
        before = list(begin.get("actions") or ())
        if len(before) != first.episode_step and begin.get("state") is None:
            raise ValueError(f"how frame {number} was reached was not recorded")
        space = self.session.header.action_space.get("kind", "Discrete")
        if space != "Discrete":
            raise ValueError(
                f"the keys of the window choose one of the named actions, and this session's are "
                f"of another kind ({space})"
            )
        if begin.get("seed") is None and begin.get("state") is None:
            raise ValueError(f"frame {number} is of an episode without a seed")
        # Without them the state below is what counts: nobody looks at the actions before it.
        before += [0] * (first.episode_step - len(before))
        prompts = [(int(after), text) for after, text in begin.get("prompts") or ()]
        num_before = len(prompts)
        prompts += [
            (first.episode_step + after, record.text)
            for after, record in segment.prompts
            if after < mark.place
        ]
        branch = Branch(
            seed=begin.get("seed") or 0,
            options=begin.get("options"),
            prompt=begin.get("prompt"),
            actions=[*before, *(int(record.action) for record in steps)],
            prompts=prompts,
            voices=first.voices_before
            | {
                first.episode_step + place: record.heard
                for place, record in enumerate(steps)
                if record.live
            },
            start_state=begin.get("start_state"),
            teacher_start=begin.get("teacher_start"),
        )
        goal = Snapshot(branch=branch, num_prompts=len(prompts), view=self.view(number))
        kept = range(number, mark.first - 1, -1)
        paths = ((n, self.session.state_path(self.marks[n].record)) for n in kept)
        nearest, path = next(((n, path) for n, path in paths if path is not None), (None, None))
        if nearest is None or path is None:
            return goal, None
        step = self.marks[nearest].record.episode_step
        is_first = nearest == mark.first
        base = Snapshot(
            branch=branch,
            num_prompts=num_before if is_first else sum(after < step for after, _ in prompts),
            view=self.view(nearest),
            state=load_state(path, is_world=bool(self.session.header.world)),
        )
        return goal, base


def load_state(path: Path, *, is_world: bool) -> Any:
    """Return an environment's state that a session keeps: a world's, or arrays by name."""
    if is_world:
        # torch takes seconds to load: sessions can be looked at without.
        from envs.world.state import WorldState

        return WorldState.load(path)
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise SessionError(f"{path} is truncated or corrupt: {error}") from error


def open_recorded(
    session: RecordedSession, *, world: str | None = None, trust: bool = False
) -> Playable:
    """Open what a session was played with, to play on.

    Raises:
        ValueError: It cannot be played in the window, or the recorded world is not here.
    """
    header = session.header
    if header.world:
        return open_world(world or _recorded_world(header), trust=trust, **_engine_of(header))
    if is_stage(header.env_id):
        return open_teacher()
    raise ValueError(f"{header.env_id} cannot be played here: only worlds and Stage can")


def _engine_of(header: SessionHeader) -> dict[str, Any]:
    """Return what ran the networks, with torch's precision: another one gives other frames."""
    known = header.backend
    backend, dtype = known.get("backend", "auto"), known.get("dtype")
    named = f"{backend}:{dtype}" if dtype and backend == "torch" else backend
    return {"backend": named, "num_denoise_steps": known.get("num_denoise_steps")}


def make_recorded(
    session: RecordedSession, *, world: str | None = None, trust: bool = False
) -> gym.Env[Any, Any]:
    """Make the environment that a session was recorded from, to run it again.

    Raises:
        UntrustedError: The session or its world names code that may not run.
        ValueError: It cannot be made.
    """
    header = session.header
    kwargs = {key: v for key, v in header.env_kwargs.items() if key not in ("world", "trust")}
    is_ours = header.env_id.startswith("envs:")
    if is_ours and header.horizon is not None:
        kwargs["horizon"] = header.horizon
    try:
        if header.world:
            from envs.world.env import WorldEnv

            kwargs |= {"trust": trust, **_engine_of(header)}
            return WorldEnv(world or _recorded_world(header), **kwargs)
        if is_stage(header.env_id):
            from envs.stage.env import StageEnv

            return StageEnv(**{"horizon": ENDLESS, **kwargs})
        check_env(header.env_id, kwargs, source=session.folder, field="env_id", trust=trust)
        return gym.make(header.env_id, **{"render_mode": "rgb_array", **kwargs})
    except (gym.error.Error, ImportError, TypeError) as error:
        raise ValueError(f"{header.env_id} cannot be made here: {error}") from error


def _recorded_world(header: SessionHeader) -> Path:
    """Return the folder of the world of the recorded name and weights, where worlds lie.

    The folder that the header names is not looked into: whoever made the session chose it.

    Raises:
        ValueError: There is none.
    """
    # torch takes seconds to load: sessions can be looked at without.
    from midas_world.world import WORLD_PLACES, find_named_world

    name, then = str(header.world.get("name")), str(header.world.get("weights_sha256"))
    advice = "name the recorded one's folder with --world"
    try:
        folder = find_named_world(name)
    except CheckpointError as error:
        places = " or ".join(map(str, WORLD_PLACES))
        raise ValueError(
            f"the session was recorded in a world {name!r}, which is not in {places}: {advice}"
        ) from error
    now = weights_hash(folder)
    if then != now:
        raise ValueError(
            f"the session was recorded in another world than the one at {folder}, whose weights "
            f"are {now[:8]}, not {then[:8]}: {advice}"
        )
    return folder
