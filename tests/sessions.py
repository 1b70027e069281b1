"""For tests of recorded sessions: frames that tell their number, short recordings, a full disk,
and the export command.
"""

import contextlib
import errno
import functools
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import av
import gymnasium as gym
import numpy as np
from gymnasium import spaces

from envs.recording.record import RecordSession
from midas_world.commands import cli
from midas_world.sessions import writer as session_writer
from midas_world.sessions.log import Record
from midas_world.sessions.session import RecordedSession, load_session
from midas_world.sessions.writer import AppendFile
from tests.fakes import CountingEnv

HEIGHT, WIDTH = 48, 64


def smooth_frame(number: int, size=(24, 40)) -> np.ndarray:
    """Return a frame that H.264 keeps nearly as it is, and that tells its number."""
    frame = np.full((*size, 3), 60, np.uint8)
    frame[:, : size[1] // 2] += np.uint8(number % 64 * 3)
    return frame


def record_env(env: gym.Env, folder: Path, actions: Iterable, **reset) -> RecordedSession:
    """Return a session of an env that took these actions."""
    with contextlib.closing(RecordSession(env, folder)) as recorder:
        recorder.reset(**reset)
        for action in actions:
            recorder.step(action)
    return load_session(folder)


def record_steps(folder: Path, num_steps: int, **options) -> list[np.ndarray]:
    """Record a counting env and return its frames."""
    env = RecordSession(CountingEnv(**options), folder)
    frames = [env.reset(seed=5)[0]]
    for number in range(num_steps):
        frames.append(env.step(number % 15)[0])
    env.close()
    return frames


def step_record(number: int, **changes) -> Record:
    return Record(kind="step", wall_time=1.0, action=number, **changes)


class FullDisk:
    """Makes files take so many bytes, and then be full in the middle of a piece."""

    def __init__(self, monkeypatch, name: str, num_bytes: int):
        self.left = num_bytes
        monkeypatch.setattr(session_writer, "AppendFile", self._open)
        self._name = name

    def _open(self, path: Path) -> AppendFile:
        file = AppendFile(path)
        if path.name == self._name:
            stream = file._stream
            disk = self

            class Stream:
                def write(self, data) -> int:
                    if disk.left <= 0:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    written = stream.write(data[: disk.left])
                    disk.left -= written
                    return written

                def __getattr__(self, name: str):
                    return getattr(stream, name)

            file._stream = Stream()
        return file


class SlidesEnv(gym.Env):
    """A bar that moves; episodes of 12 steps end, every second one by truncation."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, action_space=None):
        self.action_space = action_space or spaces.Discrete(5)
        self.observation_space = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.episode = 0, self.episode + 1
        return self._frame(), self._info()

    def step(self, action):
        self.count += 1
        over, odd = self.count >= 12, bool(self.episode % 2)
        return self._frame(), 0.5 * self.count, over and not odd, over and odd, self._info()

    def _frame(self):
        frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        frame[:, 4 * self.count : 4 * self.count + 12] = (220, 200, 20 * self.episode)
        return frame

    def _info(self):
        pose = np.array([self.count, self.episode, -1.0], np.float32)
        return {"pose": pose, "text": f"step {self.count}"}


def record_slides(folder, num_steps=30, env=None, seed=3) -> RecordedSession:
    env = RecordSession(env or SlidesEnv(), folder)
    env.action_space.seed(0)
    env.reset(seed=seed)
    for _ in range(num_steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset(seed=seed)
    env.close()
    return load_session(folder)


def change_header(session: Path, **values) -> None:
    """Let a session's header say other things; "a__b" is b of a."""
    path = session / "header.json"
    header = json.loads(path.read_text())
    set_deep(header, values)
    path.write_text(json.dumps(header))


def change_record(session: Path, number: int, **values) -> None:
    """Let a line of a session's log say other things, under a right checksum."""
    path = session / "steps.log"
    lines = path.read_bytes().splitlines()
    record = json.loads(lines[number].partition(b" ")[2])
    set_deep(record, values)
    words = json.dumps(record).encode()
    lines[number] = b"%08x %s" % (zlib.crc32(words), words)
    path.write_bytes(b"\n".join(lines) + b"\n")


def set_deep(target: dict, values: dict) -> None:
    for key, value in values.items():
        *parents, last = key.split("__")
        functools.reduce(dict.__getitem__, parents, target)[last] = value


def export(session, *options: str) -> int:
    return cli.main(["export", str(session.folder), *options])


def read_film(path) -> list[np.ndarray]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
