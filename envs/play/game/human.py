"""A foreign teacher that a person plays: their play becomes episodes that training reads.

What adapts the env is midas_world/teachers/env.py's business; what plays it here is the window, or
a list of actions. One folder holds what was played by hand and what policies played.
"""

import contextlib
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np

from envs.play.game.playable import Playable
from midas_world.config import DataConfig
from midas_world.data.episodes import EpisodeMetadata, save_episode
from midas_world.data.recorder import EpisodeRecorder
from midas_world.locks import alone_in
from midas_world.teachers.env import TeacherEnv, make_teacher
from midas_world.trust import check_env

# Far from the seeds of policies and from those that are held out.
FIRST_HUMAN_SEED = 4_000_000
POLICY = "player"

_MIN_STEPS = 2
_NAME = re.compile(r"episode-(\d{8})-\d+-\d+")


class HumanTeacher(gym.Env[np.ndarray, np.int64]):
    """A teacher whose episodes are kept, in pieces of `data.num_steps` steps.

    Spaces, rewards, starting states and episode ends are the teacher's. A try that is broken off
    and begun again from the same seed is replaced; so running backwards, which plays the beginning
    again, takes back what was played after it. All other play is kept.

    Raises:
        BusyError: Another process plays or collects into the same folder.
    """

    def __init__(self, teacher: TeacherEnv, data: DataConfig, *, folder: Path | None) -> None:
        self.action_space = teacher.action_space
        self.observation_space = teacher.observation_space
        self.metadata = teacher.metadata
        self.render_mode = teacher.render_mode
        self.action_names = teacher.action_names
        self.action_keys = teacher.action_keys
        self._teacher, self._data, self._folder = teacher, data, folder
        self._lock = contextlib.ExitStack()
        if folder is not None:
            self._lock.enter_context(alone_in(folder))
        self._first_seed = _next_seed(folder)
        # Coding a film takes longer than a step.
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="episodes")
        self._written: list[Future[None]] = []
        self._recorder = EpisodeRecorder()
        self._seed: int | None = None
        self._paths: list[Path] = []
        self._scene: dict[str, str] = {}
        self._is_over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; seeds count from the first one that nobody has played here.

        Raises:
            OSError: An earlier episode could not be written.
        """
        seed = self._first_seed + (seed or 0)
        if not self._is_over and seed == self._seed:
            self._forget()
        else:
            self._keep()
        self._check()
        frame, info = self._teacher.reset(seed=seed, options=options)
        self._seed, self._paths, self._is_over = seed, [], False
        self._scene = dict(info.get("scene", {}))
        self._recorder.reset(frame, info)
        return frame, info

    def step(
        self, action: np.int64 | int
    ) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take an action, and keep what came of it."""
        frame, reward, terminated, truncated, info = self._teacher.step(action)
        ends_here = self._recorder.num_steps + 1 == self._data.num_steps and not terminated
        self._recorder.step(
            int(action), frame, float(reward), terminated, truncated or ends_here, info
        )
        self._is_over = terminated or truncated
        if self._is_over or ends_here:
            self._keep()
            self._recorder.reset(frame, info)
        return frame, reward, terminated, truncated, info

    def set_prompt(self, text: str | None) -> None:
        """Take no words.

        Raises:
            ValueError: There are some.
        """
        if text:
            raise ValueError("a teacher takes no words: only a learned world does")

    def understand(self, text: str) -> str:
        """Take no words, as `set_prompt`."""
        self.set_prompt(text)
        return ""

    def render(self) -> np.ndarray:
        """Return the last frame."""
        return self._teacher.render()

    def close(self) -> None:
        """Keep the running episode and wait until all are written; may be called twice.

        Raises:
            OSError: An episode could not be written.
        """
        if self._seed is not None:
            self._keep()
            self._seed = None
        self._teacher.close()
        self._writer.shutdown()
        self._lock.close()
        self._check()

    def _keep(self) -> None:
        """Write what was played since the last piece."""
        if self._folder is None or self._recorder.num_steps < _MIN_STEPS:
            return
        assert self._seed is not None
        if not self._paths:
            self._begin_try()
        path = self._path(len(self._paths))
        self._paths.append(path)
        teacher = self._data.teacher
        details = {"action_names": list(self.action_names)}
        metadata = EpisodeMetadata(
            env_id=self._data.env_id,
            seed=self._seed,
            policy=POLICY,
            fps=self.metadata["render_fps"],
            scene=self._scene,
            details=details | ({"repeat": teacher.repeat} if teacher is not None else {}),
        )
        episode = self._recorder.to_episode(metadata)
        self._written.append(self._writer.submit(save_episode, episode, path))

    def _forget(self) -> None:
        for path in self._paths:
            self._written.append(self._writer.submit(shutil.rmtree, path))

    def _path(self, piece: int) -> Path:
        assert self._folder is not None
        return self._folder / f"episode-{self._seed:08d}-{self._try}-{piece:03d}"

    def _begin_try(self) -> None:
        """Count the tries of this seed that are kept; those still being written are, too."""
        self._check(wait=True)
        self._try = 0
        while self._path(0).exists():
            self._try += 1

    def _check(self, *, wait: bool = False) -> None:
        """Raise what kept an episode from being written."""
        left = [future for future in self._written if not (wait or future.done())]
        done = [future for future in self._written if future not in left]
        self._written = left
        for future in done:
            future.result()


def open_human_teacher(preset: str, *, folder: Path | None, trust: bool = False) -> Playable:
    """Open the teacher of a preset that `midas-world collect --env` wrote, and keep what is played.

    Raises:
        ValueError: The preset's teacher is no foreign env, or it cannot be made.
    """
    # torch takes seconds to load: the window is up by then.
    from midas_world.config import load_preset
    from midas_world.world import KeyMap

    data = load_preset(preset).data
    check_env(data.env_id, data.env_kwargs, source=Path(preset), field="data.env_id", trust=trust)
    teacher = make_teacher(data) if data.teacher is not None else None
    if not isinstance(teacher, TeacherEnv):
        raise ValueError(
            f"preset {preset} is of {data.env_id} as it is: --teacher takes presets that "
            "`midas-world collect --env ID` wrote, such as data/carracing/carracing.yaml"
        )
    env = HumanTeacher(teacher, data, folder=folder)
    return Playable(
        env=env,
        keymap=KeyMap(actions=env.action_names, keys=env.action_keys),
        fps=max(1, round(env.metadata["render_fps"])),
        title=f"{data.env_id} (the teacher)",
        backend="the game itself",
        takes_words=False,
        no_teacher="this is the teacher itself: F2 compares a learned world with it",
    )


def _next_seed(folder: Path | None) -> int:
    """Return the first seed of which nothing is kept."""
    if folder is None or not folder.is_dir():
        return FIRST_HUMAN_SEED
    found = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return 1 + max((int(match[1]) for match in found if match), default=FIRST_HUMAN_SEED - 1)
