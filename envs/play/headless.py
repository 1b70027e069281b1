"""Playing without a display: actions from a file, the same game loop."""

import codecs
import difflib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.play.game.game import Game
from envs.play.game.moments import View
from envs.play.game.samples import Samples
from envs.play.game.stepper import StepClock

_MAX_REPEATS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class PlayReport:
    """What a run without a display measured."""

    num_steps: int
    num_episodes: int
    total_reward: float
    seconds: float
    median_ms: float
    p99_ms: float

    def __str__(self) -> str:
        rate = self.num_steps / self.seconds if self.seconds else float("nan")
        return (
            f"{self.num_steps} steps in {self.seconds:.1f} s: {rate:.1f} steps/s, "
            f"step median {self.median_ms:.1f} ms, p99 {self.p99_ms:.1f} ms; "
            f"{self.num_episodes} episode(s), return {self.total_reward:g}"
        )


def parse_actions(text: str, names: Sequence[str]) -> list[int]:
    """Return the actions that a text lists, one per step.

    Args:
        text: Names parted by line ends or commas; "walk_right x 20" repeats; "#" starts a comment.
        names: Of all actions, in the order of the action space.

    Raises:
        ValueError: A name is unknown (the message tells the nearest), a count is none, or there is
            nothing at all.
    """
    actions: list[int] = []
    for number, line in enumerate(text.splitlines(), start=1):
        for item in line.partition("#")[0].split(","):
            entry = " ".join(item.split())  # of one space each, in which the search is fast
            if not entry:
                continue
            match = re.fullmatch(r"(.*?)(?: x(?= |\d|$) ?| ?\* ?)(\S*)", entry)
            name, times = (match[1], match[2]) if match else (entry, "1")
            is_number = times.isdecimal() and len(times) < 20
            if not is_number or len(actions) + int(times) > _MAX_REPEATS:
                raise ValueError(
                    f"line {number}: {times!r:.60} in {entry!r:.60} is no number of steps up to "
                    f"{_MAX_REPEATS} in all"
                )
            if name not in names:
                nearest = difflib.get_close_matches(name[:60], names, n=1, cutoff=0.0)[0]
                raise ValueError(
                    f"line {number}: no action {name!r:.60}, did you mean {nearest!r}? "
                    f"Actions: {', '.join(names)}"
                )
            actions += [names.index(name)] * int(times)
    if not actions:
        raise ValueError("there are no actions in it")
    return actions


def read_actions(path: Path, names: Sequence[str]) -> list[int]:
    """Return the actions that a text file lists, in UTF-8 or in what its first bytes say.

    Raises:
        ValueError: As with `parse_actions`, or there is no such text; the message names the file.
    """
    if not path.is_file():
        raise ValueError(f"there is no file of actions at {path}")
    data = path.read_bytes()
    is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return parse_actions(data.decode("utf-16" if is_wide else "utf-8-sig"), names)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 or UTF-16: {error.reason}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def run_headless(
    game: Game,
    actions: Iterable[int],
    *,
    fps: float | None = None,
    keep: Callable[[View], None] = lambda _: None,
) -> PlayReport:
    """Play actions, starting anew where an episode ends, and return what was measured."""
    clock = StepClock(1.0 / fps if fps else 0.0)
    times = Samples(capacity=100_000)
    finished_reward = 0.0
    num_steps, num_episodes = 0, 1
    view = game.reset()
    keep(view)
    began = ended = time.perf_counter()
    for action in actions:
        if game.is_over:
            finished_reward += view.total_reward
            num_episodes += 1
            view = game.reset_to_next_start()
            keep(view)
        if fps:
            time.sleep(clock.wait_s(time.perf_counter()))
        started = time.perf_counter()
        clock.start_step(started)
        view = game.step(action)
        ended = time.perf_counter()
        times.append(ended - started)
        num_steps += 1
        keep(view)
    return PlayReport(
        num_steps=num_steps,
        num_episodes=num_episodes,
        total_reward=finished_reward + view.total_reward,
        seconds=ended - began,
        median_ms=1000 * times.percentile(50),
        p99_ms=1000 * times.percentile(99),
    )
