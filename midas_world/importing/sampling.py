"""Moments at whatever times, as steps of one length.

Step k shows the picture nearest to its time. Of what was done during it, an action wins over doing
nothing, and of several the one that was done longest: a tap between two pictures is not lost.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from midas_world.importing.naming import Namer
from midas_world.importing.recording import LONGEST_GAP_S, Deed, Moment, Source

# Times are rounded, so what begins so shortly before a step, in its length, is of that step.
_EDGE = 0.1


@dataclass(frozen=True, kw_only=True)
class Step:
    """A moment that is kept, and what was done until the next one.

    Attributes:
        moment: What it shows; `begins` says whether it follows from the step before.
        action: Place of what was done; None: it is not known.
    """

    moment: Moment
    time_s: float
    action: int | None = None
    reward: float = 0.0
    is_last: bool = False


def steps_of(
    source: Source, namer: Namer, step_s: float, *, pixels: bool, problems: Counter[str]
) -> Iterator[Step]:
    """Yield a source's steps, stretch after stretch.

    Raises:
        RecordingError: It cannot be read, or an action is none of the names.
    """
    last: Moment | None = None
    grid: _Grid | None = None
    for moment in source.moments(pixels=pixels):
        is_gap = last is not None and not 0 < moment.time_s - last.time_s <= LONGEST_GAP_S
        if is_gap and not moment.begins:
            problems[f"gaps of more than {LONGEST_GAP_S:g} s, or backwards, in time"] += 1
        if grid is None or is_gap or moment.begins:
            if grid is not None:
                yield from grid.end()
            grid = _Grid(moment, namer, step_s)
        else:
            yield from grid.add(moment)
        last = moment
    if grid is not None:
        yield from grid.end()


class _Grid:
    """The steps of one stretch."""

    def __init__(self, first: Moment, namer: Namer, step_s: float) -> None:
        self._namer, self._step_s = namer, step_s
        self._begin_s = first.time_s
        self._last = first
        self._chosen = replace(first, begins=True)
        self._number = 0  # of the chosen
        self._deeds: list[Deed] = list(first.deeds)

    def add(self, moment: Moment) -> Iterator[Step]:
        """Yield the steps that are over when a moment comes."""
        middle = (self._last.time_s + moment.time_s) / 2
        while self._time(self._number + 1) <= middle:
            yield self._finish(self._last)
        self._deeds += moment.deeds
        self._last = moment

    def end(self) -> Iterator[Step]:
        """Yield the steps up to the last moment."""
        while self._time(self._number + 1) <= self._last.time_s + self._step_s / 4:
            yield self._finish(self._last)
        if self._last.terminated and not self._chosen.terminated:
            yield self._finish(self._last)
        yield Step(moment=self._chosen, time_s=self._time(self._number), is_last=True)

    def _time(self, number: int) -> float:
        return self._begin_s + number * self._step_s

    def _finish(self, following: Moment) -> Step:
        """Return the chosen step with what was done in it, and choose the one after it."""
        edge = _EDGE * self._step_s
        first, end = self._time(self._number) - edge, self._time(self._number + 1) - edge
        begun = [deed for deed in self._deeds if deed.time_s < end]
        later = self._deeds[len(begun) :]
        spans: defaultdict[int | None, float] = defaultdict(float)
        for deed, next_s in zip(begun, [*(d.time_s for d in begun[1:]), end], strict=False):
            length = next_s - max(deed.time_s, first)
            if deed.time_s > first or len(begun) == 1 or length > 3 * edge:
                spans[self._namer.place_of(deed.action)] += length
        step = Step(
            moment=self._chosen,
            time_s=self._time(self._number),
            action=_longest(spans),
            reward=sum(deed.reward for deed in begun),
        )
        # What is still being done goes on, but pays only once.
        if begun:
            later = [replace(begun[-1], time_s=end, reward=0.0), *later]
        self._deeds = later
        self._chosen = replace(following, begins=False)
        self._number += 1
        return step


def _longest(spans: Mapping[int | None, float]) -> int | None:
    """Return what was done longest; doing nothing, and not knowing, only where nothing was."""
    if done := [item for item in spans.items() if item[0]]:
        return max(done, key=lambda item: item[1])[0]
    return 0 if 0 in spans else None
