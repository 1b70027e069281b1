"""A long game in the window, played by nobody: does memory stay where it is?

`midas-world bench --soak STEPS` walks, types prompts, runs backwards and records, as fast as steps
come, over and over. What is recorded is removed again.
"""

import argparse
import gc
import math
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, cycle
from pathlib import Path

import pygame

from envs.picture import open_display
from envs.play.game.game_thread import GameThread
from envs.play.game.opening import open_world
from envs.play.game.playable import Playable
from envs.play.window.window import Window
from midas_world.arguments import count
from midas_world.machine import give_back_memory, memory_mib

# Of growth, in bytes a step: at 20 steps a second 74 MB an hour.
MOST_BYTES_PER_STEP = 1024
_PROMPTS = ("a beach at noon", "it rains", "wave", "", "a night city")
_KEYS = (pygame.K_RIGHT, pygame.K_LEFT)
# After so many frames each.
_TURN, _PROMPT, _REWIND, _REWOUND, _RECORD = 60, 100, 170, 20, 250
_FASTEST = 1000.0  # steps per second
_REWIND_SECONDS = 0.2  # at that rate: 200 steps, so that the ring is full before it is measured
# Memory comes and goes by tens of MB: of a shipped world, 30 samples of 12,000 steps told growth to
# within some 2,700 bytes a step.
_FEWEST_SAMPLES, _MOST_SAMPLES, _STEPS_BETWEEN = 30, 300, 33
_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class SoakReport:
    """How memory went."""

    num_frames: int
    num_recordings: int
    seconds: float
    memory_mib: float
    bytes_per_step: float

    def __str__(self) -> str:
        """Words for the terminal."""
        return (
            f"{self.num_frames} frames and {self.num_recordings} recordings in "
            f"{self.seconds:.0f} s: {self.memory_mib:.0f} MiB at the end, growing by "
            f"{self.bytes_per_step:.0f} bytes a step"
        )


def soak(opener: Callable[[], Playable], *, num_frames: int) -> SoakReport:
    """Play in a window until so many frames were shown; the game's own errors are raised."""
    window = Window("soak")
    thread = GameThread(
        opener, window.inputs, fps=_FASTEST, rewind_seconds=_REWIND_SECONDS, notify=window.notify
    )
    player = _Player(thread)
    samples: list[float] = []
    few = min(_STEPS_BETWEEN, num_frames // _FEWEST_SAMPLES)
    every = max(1, few, num_frames // _MOST_SAMPLES)
    began = time.perf_counter()
    try:
        thread.start()
        while player.num_frames < num_frames and thread.status != "failed":
            window.run_once(thread)
            is_due = player.look() and player.num_frames % every == 0
            if is_due:
                gc.collect()  # a recording that has ended holds some MB until then
                give_back_memory()
                samples.append(memory_mib())
    finally:
        thread.close()
        window.close()
        player.tidy_up()
    if thread.error is not None:
        raise thread.error
    return SoakReport(
        num_frames=player.num_frames,
        num_recordings=player.num_recordings,
        seconds=time.perf_counter() - began,
        memory_mib=samples[-1],
        bytes_per_step=growth(samples) * 2**20 / every,
    )


def growth(samples: Sequence[float]) -> float:
    """Return by how much the later two thirds of samples grow from one to the next; NaN of one.

    The median slope of all pairs (Theil 1950, Sen 1968): what is kept of each step counts in full;
    what comes and goes, or comes once, hardly. Once comes some 7 MB for a thread that begins to
    record before the last one has ended: glibc gives it an arena of its own, and keeps that.
    """
    later = list(enumerate(samples))[len(samples) // 3 :]
    slopes = [(b - a) / (j - i) for (i, a), (j, b) in combinations(later, 2)]
    return statistics.median(slopes) if slopes else math.nan


class _Player:
    """Does one thing after another, by the number of frames that it has seen."""

    def __init__(self, thread: GameThread) -> None:
        self.num_frames = 0
        self.num_recordings = 0
        self._thread = thread
        self._prompts, self._keys = cycle(_PROMPTS), cycle(_KEYS)
        self._key: int | None = None
        self._view: object = None
        self._folders: set[Path] = set()
        self._seen_at = time.perf_counter()

    def look(self) -> bool:
        """Act on a new frame; return whether there was one.

        Raises:
            TimeoutError: There was none for long.
        """
        thread, now = self._thread, time.perf_counter()
        if recording := thread.recording.status:
            self._folders.add(recording.folder)
        if thread.status == "over" or (thread.status == "rewinding" and self._is_back()):
            (thread.reset if thread.status == "over" else thread.past.stop_rewind)()
        if thread.view is self._view:
            if now - self._seen_at > _PATIENCE_S and self._view is not None:
                raise TimeoutError(f"no frame for {_PATIENCE_S:.0f} s; status {thread.status}")
            return False
        self._view, self._seen_at = thread.view, now
        self.num_frames += 1
        self._act(self.num_frames)
        return True

    def tidy_up(self) -> None:
        """Remove what was recorded."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _is_back(self) -> bool:
        """Whether running backwards has nowhere left to go."""
        rewind = self._thread.past.rewind
        return rewind is None or rewind.num_before == 0

    def _act(self, number: int) -> None:
        thread = self._thread
        if number % _TURN == 0:
            if self._key is not None:
                _post(pygame.KEYUP, self._key)
            self._key = next(self._keys)
            _post(pygame.KEYDOWN, self._key)
        if number % _PROMPT == 0:
            thread.set_prompt(next(self._prompts) or None)
        if number % _REWIND == 0:
            thread.past.start_rewind()
        if number % _REWIND == _REWOUND:
            thread.past.stop_rewind()
        if number % _RECORD == 0:
            if thread.recording.status is None:
                self.tidy_up()  # those before are closed by now
                self.num_recordings += 1
            thread.toggle_recording()


def _post(kind: int, key: int) -> None:
    pygame.event.post(pygame.Event(kind, key=key, mod=0, unicode="", scancode=0))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status: 0 memory stayed, 1 it grew."""
    parser = argparse.ArgumentParser(prog="midas-world bench", description=__doc__)
    parser.add_argument("--soak", type=count, metavar="STEPS", required=True)
    parser.add_argument("--world", default="stage", help="a shipped world's name, or a folder")
    parser.add_argument("--backend", default="auto", help="what runs the networks")
    arguments = parser.parse_args(argv)
    open_display(instead="set SDL_VIDEODRIVER=dummy to run it where nobody sees it")
    opener = partial(open_world, arguments.world, backend=arguments.backend)
    report = soak(opener, num_frames=arguments.soak)
    print(report)
    return int(report.bytes_per_step > MOST_BYTES_PER_STEP)
