"""Tables beside pictures: CSV or JSONL rows, each for a frame or a time, read as they are needed.

A row says which moment it is for in `time_s` (also `time`, `t`, `timestamp`; seconds), `time_ms` or
`frame` (from 0); without any of these, row n is for frame n. What else it may hold:

    action     a name, a number, or numbers with ";" or as a JSON list
    keys       the keys that are held, as pygame names them, with "+": "left+space"; empty: none
    reward     a number
    text       words for the moment
    x0,y0,...  keypoints, px of the picture; or NAME_x,NAME_y

Times hold until the next row; rows for frames are for just these.
"""

import csv
import json
import math
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from midas_world.importing.recording import RecordingError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_TIMES = {"time_s": 1.0, "time": 1.0, "t": 1.0, "timestamp": 1.0, "time_ms": 1e-3}
# What an action holds after the last row of a table by time.
_LONGEST_HOLD_S = 10.0

Row = Mapping[str, Any]


class RecordedTable:
    """A table whose rows are asked for in order.

    Attributes:
        columns: Their names, in small letters, as the first row has them.
        by_time: Whether rows are for times, not for frames.

    Raises:
        RecordingError: There is no such file, or it has no row.
    """

    def __init__(self, path: Path, problems: Counter[str]) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise RecordingError(f"{path}: a table is one of {', '.join(SUFFIXES)}")
        self.path, self._problems = path, problems
        self._rows = self._read()
        try:
            self._next: tuple[float, Row] | None = next(self._rows, None)
        except OSError as error:
            raise RecordingError(f"{path} cannot be read: {error.strerror}") from error
        if self._next is None:
            why = ": times are seconds, frames whole numbers" if problems else ""
            raise RecordingError(f"{path} has no row that can be read{why}")
        self.columns = tuple(self._next[1])
        self.by_time = any(name in _TIMES for name in self.columns)
        self._last: Row | None = None
        self._last_at = -math.inf

    def row(self, number: int, time_s: float) -> Row | None:
        """Return the row that holds at a picture, later than the last one; None: none does."""
        place = time_s if self.by_time else number
        while self._next is not None and self._next[0] <= place + 1e-6:
            self._take()
        longest = _LONGEST_HOLD_S if self.by_time else 0.0
        is_over = self._next is None or not self.by_time
        return None if is_over and place > self._last_at + longest else self._last

    def until(self, time_s: float) -> Iterator[tuple[float, Row]]:
        """Yield the rows from the last one that was asked for to a time, and the time of each."""
        while self.by_time and self._next is not None and self._next[0] <= time_s + 1e-6:
            self._take()
            assert self._last is not None
            yield self._last_at, self._last

    def _take(self) -> None:
        assert self._next is not None
        self._last_at, self._last = self._next
        self._next = next(self._rows, None)
        if self._next is not None and self._next[0] < self._last_at:
            raise RecordingError(
                f"{self.path}: rows must be in order, {self._next[0]:g} comes after "
                f"{self._last_at:g}"
            )

    def _read(self) -> Iterator[tuple[float, Row]]:
        """Yield every row that can be read, and its time or frame."""
        number = -1
        for values in self._lines():
            number += 1
            row = {str(k).strip().lower(): v for k, v in values.items() if k is not None}
            place = float(number)
            try:
                for name, unit in _TIMES.items():
                    if name in row:
                        place = float(row[name]) * unit
                        break
                else:
                    if "frame" in row:
                        place = float(int(row["frame"]))
            except (TypeError, ValueError):
                place = math.nan
            if math.isfinite(place):
                yield place, row
            else:
                self._problems[f"rows of {self.path.name} without a time or frame"] += 1

    def _lines(self) -> Iterator[Mapping[Any, Any]]:
        with self.path.open("rb") as file:
            is_wide = file.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE)  # as PowerShell writes
        encoding = "utf-16" if is_wide else "utf-8-sig"
        with self.path.open(encoding=encoding, errors="replace", newline="") as file:
            if self.path.suffix.lower() in (".csv", ".tsv"):
                head = file.readline()
                file.seek(0)
                rows = csv.reader(file, delimiter=max(",;\t", key=head.count))
                names = next(rows, [])
                for cells in rows:  # an empty line of one column is an empty cell
                    yield dict(zip_longest(names, cells or [""] * len(names)))
                return
            for line in file:
                try:
                    values = json.loads(line) if line.strip() else None
                except (ValueError, RecursionError):
                    values = {}
                if isinstance(values, dict):
                    yield values


def action_of(row: Row) -> Any:
    """Return what a row says of the action, as `Deed` has it; None if it does not."""
    if (keys := row.get("keys")) is not None:
        held = keys if isinstance(keys, list) else str(keys).split("+")
        return frozenset(key.strip().lower() for key in map(str, held) if key.strip())
    value = row.get("action")
    if isinstance(value, str):
        value = value.strip()
        if ";" in value or value.startswith("["):
            parts = value.strip("[]").replace(";", ",").split(",")
            try:
                return [float(part) for part in parts]
            except ValueError:
                return None
        return _number(value) if value else None
    return value


def _number(text: str) -> int | float | str:
    """Return the number that a cell holds, or its text."""
    try:
        value = float(text)
    except ValueError:
        return text
    return int(value) if value.is_integer() else value


def reward_of(row: Row) -> float:
    """Return what a row says of the reward; 0 if it does not."""
    try:
        return float(row.get("reward") or 0.0)
    except (TypeError, ValueError):
        return 0.0


def point_columns(columns: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the pairs of columns that hold keypoints, in order."""
    pairs = [(n, f"y{n[1:]}") for n in columns if n[:1] == "x" and n[1:].isdecimal()]
    pairs += [(n, f"{n[:-2]}_y") for n in columns if n.endswith("_x")]
    return [pair for pair in pairs if pair[1] in columns]


def points_of(row: Row, pairs: list[tuple[str, str]]) -> np.ndarray | None:
    """Return the keypoints of a row, (K, 2) float32 px; None if one is missing."""
    try:
        points = np.array([[float(row[x]), float(row[y])] for x, y in pairs], np.float32)
    except (KeyError, TypeError, ValueError):
        return None
    return points if np.isfinite(points).all() else None
