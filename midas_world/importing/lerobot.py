"""LeRobot datasets, version 3.0: Parquet rows, and one film or embedded picture for each.

Row t of an episode holds the picture before action t and the action; the picture after the last
action is in no row. What the layout is, sessions/export/lerobot_dataset.py says.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from midas_world.config import ActionConfig
from midas_world.importing.datasets import read_json
from midas_world.importing.films import FilmSource, Tables
from midas_world.importing.recording import (
    Deed,
    Moment,
    Picture,
    RecordingError,
    Source,
    read_picture,
    still,
)
from midas_world.packages import needs
from midas_world.teachers.actions import keys_of_names

INFO_FILE = "meta/info.json"
_VERSION = "v3."
_ROWS = ("episode_index", "timestamp", "task_index", "action", "next.reward")
_BATCH = 64


class LeRobotSource(Source):
    """A LeRobot dataset.

    Args:
        camera: Feature that holds the pictures; empty: the first one that does.

    Raises:
        RecordingError: It is of another version, or holds no such pictures.
        ImportError: pyarrow is not installed.
    """

    def __init__(self, folder: Path, *, camera: str = "") -> None:
        super().__init__()
        with needs("a LeRobot dataset", extra="export"):
            import pyarrow.parquet as pq
        self._pq, self._folder = pq, folder
        info = read_json(folder / INFO_FILE)
        version = str(info.get("codebase_version"))
        if not version.startswith(_VERSION):
            raise RecordingError(
                f"{folder} is a LeRobot dataset of version {version}; 3.0 is read: LeRobot itself "
                "converts older ones"
            )
        features = _mapping(info.get("features"))
        kinds = {name: _mapping(item).get("dtype") for name, item in features.items()}
        cameras = [name for name, kind in kinds.items() if kind in ("video", "image")]
        if not cameras or (camera and camera not in cameras):
            found = ", ".join(cameras) or "none"
            raise RecordingError(f"{folder}: no camera {camera or 'at all'}; cameras: {found}")
        self._camera = camera or cameras[0]
        self._is_film = kinds[self._camera] == "video"
        self._columns = [n for n in _ROWS if n in kinds] + [self._camera] * (not self._is_film)
        named = _mapping(_mapping(features.get("action")).get("info")).get("actions")
        names = [str(name) for name in named] if isinstance(named, list) else []
        keys = keys_of_names(names[1:])
        self.actions = {
            name: ActionConfig(value=place, keys=keys.get(name, ()))
            for place, name in enumerate(names)
        }
        self._video_path = str(info.get("video_path"))
        self.fps = float(info.get("fps") or 0)
        if not self.fps > 0:
            raise RecordingError(f"{folder / INFO_FILE}: fps must be positive")
        self._tasks = self._read_tasks()
        first = next(self.moments(pixels=True), None)
        if first is None:
            raise RecordingError(f"{folder}: none of its pictures can be read")
        self.size = first.size
        self.label = f"{folder.name} (LeRobot, {self._camera}, {self.size[0]}x{self.size[1]})"

    def moments(self, *, pixels: bool) -> Iterator[Moment]:
        """Walk through its rows; a picture that is missing ends a stretch."""
        self.problems.clear()
        films, episodes = _Films(self.problems), self._episodes()
        number, episode, is_lost, began_s = None, {}, True, 0.0
        for row in self._table("data", [n for n in self._columns if pixels or n != self._camera]):
            time_s = float(row["timestamp"])
            if row["episode_index"] != number:
                number, is_lost, began_s = row["episode_index"], True, began_s + 1e6
                episode = next((e for e in episodes if e["episode_index"] == number), {})
            picture, size = None, (0, 0)
            if pixels:
                picture, size = self._picture(row, episode, films, time_s)
                if picture is None:
                    self.problems["rows without a picture"] += 1
                    is_lost = True
                    continue
            action = row.get("action")
            yield Moment(
                time_s=began_s + time_s,
                picture=picture,
                deeds=(
                    Deed(
                        time_s=began_s + time_s,
                        action=action,
                        reward=float(row.get("next.reward") or 0.0),
                    ),
                ),
                begins=is_lost,
                text=self._tasks.get(row.get("task_index"), ""),
                size=size,
            )
            is_lost = False

    def _picture(
        self, row: Mapping[str, Any], episode: Mapping[str, Any], films: "_Films", time_s: float
    ) -> tuple[Picture | None, tuple[int, int]]:
        """Return the picture of a row and its size; None if it is missing."""
        if not self._is_film:
            data = _mapping(row.get(self._camera)).get("bytes")
            pixels = read_picture(data) if isinstance(data, bytes) else None
            return (None, (0, 0)) if pixels is None else (still(pixels), pixels.shape[:2])
        prefix = f"videos/{self._camera}"
        try:
            path = self._video_path.format(
                video_key=self._camera,
                chunk_index=episode[f"{prefix}/chunk_index"],
                file_index=episode[f"{prefix}/file_index"],
            )
            begin_s = float(episode[f"{prefix}/from_timestamp"])
        except (KeyError, IndexError, TypeError, ValueError):
            return None, (0, 0)
        place = (self._folder / path).resolve()
        if not place.is_relative_to(self._folder.resolve()):
            raise RecordingError(f"{self._folder}: its films lie outside of it")
        return films.at(place, begin_s + time_s, tolerance_s=0.6 / self.fps)

    def _episodes(self) -> Iterator[dict[str, Any]]:
        prefix = f"videos/{self._camera}"
        places = [f"{prefix}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
        return self._table("meta/episodes", ["episode_index", *places * self._is_film])

    def _table(self, place: str, columns: list[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows of all Parquet files in a folder, some columns of them."""
        paths = sorted((self._folder / place).glob("*/*.parquet"))
        if not paths:
            raise RecordingError(f"{self._folder / place} holds no Parquet files")
        for path in paths:
            try:
                with self._pq.ParquetFile(path) as file:
                    known = [name for name in columns if name in file.schema_arrow.names]
                    for batch in file.iter_batches(batch_size=_BATCH, columns=known):
                        yield from batch.to_pylist()
            except (OSError, ValueError) as error:  # pyarrow's own are of these
                self.problems[f"damaged files ({path.name}: {error!s:.60})"] += 1

    def _read_tasks(self) -> dict[Any, str]:
        """Return the words of each task by its index."""
        try:
            table = self._pq.read_table(self._folder / "meta/tasks.parquet")
        except (OSError, ValueError):
            return {}
        columns = table.to_pydict()
        numbers = columns.pop("task_index", [])
        words = next(iter(columns.values()), [])
        return {number: str(word) for number, word in zip(numbers, words, strict=False)}


class _Films:
    """The pictures of films by their times, which are asked for in order."""

    def __init__(self, problems: Counter[str]) -> None:
        self._problems = problems
        self._path: Path | None = None
        self._shots: Iterator[Moment] = iter(())
        self._last_s = 0.0

    def at(
        self, path: Path, time_s: float, *, tolerance_s: float
    ) -> tuple[Picture | None, tuple[int, int]]:
        """Return the picture at a time of a film, and its size; None if there is none."""
        if path != self._path or time_s < self._last_s:
            self._path, self._shots = path, iter(())
            try:
                self._shots = FilmSource(path, Tables(watch=True)).moments(pixels=True)
            except RecordingError as error:
                self._problems[f"films that cannot be read ({error!s:.90})"] += 1
        self._last_s = time_s
        for shot in self._shots:
            if shot.time_s > time_s + tolerance_s:
                self._shots = chain([shot], self._shots)
                break
            if shot.time_s >= time_s - tolerance_s:
                return shot.picture, shot.size
        return None, (0, 0)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
