"""A tiny env and its policies for the collector; workers import this, so it must stay light."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np

from midas_world.config import DataConfig
from midas_world.teachers.collect import CollectConfig


class DiscEnv(gymnasium.Env):
    """A square that is moved left or right; ends when it has gone far enough.

    From the seed on that the environment variable DISC_STUCK_FROM names, its third step never ends.

    Args:
        failing: Seeds whose third step raises.
        dying: Seeds whose third step ends the process.
        disk_full: Seeds whose third step finds the disk full.
        deaf: Whether the process hears no SIGTERM, as with envs that SDL draws.
        engine: A file that gets the number of a process that the env starts, as ViZDoom does.
    """

    metadata = {  # noqa: RUF012 - as in Env
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "extra_keys": ("hearts",),
    }

    def __init__(
        self, render_mode=None, failing=(), dying=(), disk_full=(), deaf=False, engine=None
    ):
        if deaf:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if engine:
            Path(engine).write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, (32, 48, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(3)
        self.failing, self.dying, self.disk_full = failing, dying, disk_full

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = -1 if seed is None else seed  # an episode in between has none
        self.time, self.x = 0, 20
        self.colour = self.np_random.integers(0, 256, 3)
        return self.render(), self.info()

    def step(self, action):
        self.time += 1
        if self.time == 3:
            if self.seed >= int(os.environ.get("DISC_STUCK_FROM", sys.maxsize)):
                time.sleep(1000)
            if self.seed in self.failing:
                raise ArithmeticError("the disc is gone")
            if self.seed in self.dying:
                os._exit(9)
            if self.seed in self.disk_full:
                raise OSError(errno.ENOSPC, "No space left on device")
        self.x += int(action) - 1
        return self.render(), float(action == 2), abs(self.x - 20) > 8, False, self.info()

    def render(self):
        frame = np.full((32, 48, 3), 90, np.uint8)
        frame[10:20, self.x : self.x + 8] = self.colour
        return frame

    def info(self):
        pose = np.array([self.x / 48, 0.5], np.float32)
        return {"pose": pose, "text": f"x {self.x}", "hearts": 3, "scene": {"place": "void"}}


class Runner:
    """Goes one way, which chance decides."""

    def reset(self, rng):
        self.action = int(rng.choice([0, 2]))

    def act(self, observation, info):
        return self.action


class Idler:
    def reset(self, rng):
        pass

    def act(self, observation, info):
        return 1


def make_policy(name):
    return {"runner": Runner, "idler": Idler}[name]()


gymnasium.register("Fake/Disc-v0", entry_point=DiscEnv)


def config_for(output: Path, **changes) -> CollectConfig:
    of_data = {
        "env_id": f"{__name__}:Fake/Disc-v0",
        "env_kwargs": {},
        "num_steps": 12,
        "policy_factory": f"{__name__}:make_policy",
        "policies": {"runner": 1.0, "idler": 1.0},
    }
    data = DataConfig(**{name: changes.pop(name, value) for name, value in of_data.items()})
    return CollectConfig(
        **({"num_episodes": 5, "first_seed": 40} | changes), data=data, output=output
    )
