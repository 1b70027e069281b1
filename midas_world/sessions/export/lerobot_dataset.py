"""A session as a LeRobot dataset, version 3.0: Parquet and MP4 in the published layout.

    meta/info.json                              features, sizes and paths
    meta/stats.json                             least, greatest, mean and so on of each feature
    meta/tasks.parquet                          the words of each task, by index
    meta/episodes/chunk-000/file-000.parquet    where each episode lies, and its own statistics
    data/chunk-000/file-000.parquet             one row per frame
    videos/observation.image/chunk-000/file-000.mp4    all episodes, one after another

Row t holds the frame before action t, the action, and what came of it ("next.reward", "next.done").
So an episode of T actions has T rows; the frame after its last action is left out, as LeRobot does.

Shapes: H W frame size, T steps of an episode, P pose and A audio features.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from midas_world.files import whole
from midas_world.packages import needs
from midas_world.sessions.session import RecordedSession, Segment, SessionHeader
from midas_world.sessions.video import FilmWriter

CODEBASE_VERSION = "v3.0"
IMAGE = "observation.image"

_FILES_PER_CHUNK = 1000
_DATA_MB = 100
_VIDEO_MB = 200
_NUM_SAMPLES = 100  # frames per episode that picture statistics are made of
_PATTERN = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_DATA_PATH = f"data/{_PATTERN}.parquet"
_VIDEO_PATH = f"videos/{{video_key}}/{_PATTERN}.mp4"
_EPISODES_PATH = f"meta/episodes/{_PATTERN}.parquet"


def export_lerobot(
    session: RecordedSession, output: Path, *, start: int = 0, stop: int | None = None
) -> None:
    """Write a LeRobot dataset into a new folder.

    Raises:
        ImportError: pyarrow or pandas is not installed.
        ValueError: There is no step, or actions are of a kind that LeRobot has not.
    """
    segments = [item for item in session.segments(start, stop) if item.num_steps]
    if not segments:
        raise ValueError("there is no step between --start and --stop")
    with whole(output) as place:
        writer = _Writer(session, segments, place)
        for segment in segments:
            writer.add(segment)
        writer.close()


class _Writer:
    """Writes one dataset, an episode after another."""

    def __init__(self, session: RecordedSession, segments: list[Segment], folder: Path) -> None:
        with needs("a LeRobot dataset", extra="export"):
            import pandas as pd
            import pyarrow as pa
            import pyarrow.parquet as pq
        self._pa, self._pq, self._pd = pa, pq, pd
        self.folder = folder
        (folder / "meta").mkdir(parents=True)
        self._session = session
        self._fps = max(1, round(session.header.fps))
        self._features = _features(session.header, segments)
        self._tasks: dict[str, int] = {}
        self._episodes: list[dict[str, Any]] = []
        self._stats: list[dict[str, dict[str, np.ndarray]]] = []
        self._rows: dict[str, list[np.ndarray]] = {}
        self._num_rows = 0
        self._file = 0
        self._film: FilmWriter | None = None

    def add(self, segment: Segment) -> None:
        """Write an episode's frames, and remember its rows."""
        if self._film is not None and self._film.num_bytes > _VIDEO_MB * 1e6:
            self._end_file()
        film = self._film or self._begin_film()
        first, count = self._num_rows, segment.num_steps
        columns = self._columns(segment)
        begins_at = film.num_frames / self._fps
        picked = set(np.linspace(0, count - 1, min(count, _NUM_SAMPLES)).round().astype(int))
        samples: list[np.ndarray] = []
        begin = segment.frames.start
        for number, frame in enumerate(self._session.frames(begin, begin + count)):
            film.add(frame)
            if number in picked:
                samples.append(frame)
        stats = {name: _stats_of(rows) for name, rows in columns.items()}
        stats[IMAGE] = _picture_stats(np.stack(samples))
        self._stats.append(stats)
        place = self._place
        self._episodes.append(
            {
                "episode_index": len(self._episodes),
                "tasks": [self._task(segment)],
                "length": count,
                **{f"data/{key}": value for key, value in place.items()},
                "dataset_from_index": first,
                "dataset_to_index": first + count,
                **{f"videos/{IMAGE}/{key}": value for key, value in place.items()},
                f"videos/{IMAGE}/from_timestamp": begins_at,
                f"videos/{IMAGE}/to_timestamp": begins_at + count / self._fps,
                **_flat(stats),
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
            }
        )
        for name, rows in columns.items():
            self._rows.setdefault(name, []).append(rows)
        self._num_rows += count

    def close(self) -> None:
        """Write what is not written yet."""
        self._end_file()
        episodes = {key: [item[key] for item in self._episodes] for key in self._episodes[0]}
        self._write_table(self._pa.table(episodes), _EPISODES_PATH.format(**_FIRST))
        index = self._pd.Index(list(self._tasks), name="task")
        tasks = self._pd.DataFrame({"task_index": list(self._tasks.values())}, index=index)
        tasks.to_parquet(self.folder / "meta/tasks.parquet")
        _write_json(self.folder / "meta/stats.json", _lists(_joined(self._stats)))
        _write_json(self.folder / "meta/info.json", self._info())

    def _task(self, segment: Segment) -> str:
        """Return an episode's task, which is what the player asked for; it is known from now on."""
        header = self._session.header
        prompt = segment.first.begin.get("prompt") or header.prompt
        task = prompt or f"play {header.world.get('name') or header.env_id}"
        self._tasks.setdefault(task, len(self._tasks))
        return task

    def _columns(self, segment: Segment) -> dict[str, np.ndarray]:
        """Return the (T, ...) columns of an episode's rows."""
        count = segment.num_steps
        task = self._tasks[self._task(segment)]
        numbers = np.arange(count)
        columns = {
            "timestamp": (numbers / self._fps).astype(np.float32),
            "frame_index": numbers,
            "episode_index": np.full(count, len(self._episodes)),
            "index": self._num_rows + numbers,
            "task_index": np.full(count, task),
            "action": np.array([record.action for record in segment.steps]),
            "next.reward": np.array([record.reward for record in segment.steps]),
            "next.done": np.array([r.terminated or r.truncated for r in segment.steps]),
        }
        for name, key in _OBSERVED.items():
            if name in self._features:
                before = segment.records[:-1]
                columns[name] = np.stack([getattr(item.conditions, key) for item in before])
        return {
            name: rows.astype(self._features[name]["dtype"])
            .reshape(count, *self._features[name]["shape"])
            .squeeze(axis=1 if self._features[name]["shape"] == [1] else ())
            for name, rows in columns.items()
        }

    @property
    def _place(self) -> dict[str, int]:
        """Where the present files lie."""
        chunk, file = divmod(self._file, _FILES_PER_CHUNK)
        return {"chunk_index": chunk, "file_index": file}

    def _begin_film(self) -> FilmWriter:
        target = self.folder / _VIDEO_PATH.format(video_key=IMAGE, **self._place)
        target.parent.mkdir(parents=True, exist_ok=True)
        size = self._session.header.frame_size
        self._film = FilmWriter(target, size, fps=self._fps, crf=12)
        return self._film

    def _end_file(self) -> None:
        """Finish the film and the table beside it; the next episode begins others."""
        if self._film is None:
            return
        self._film.close()
        self._film = None
        columns = {name: np.concatenate(parts) for name, parts in self._rows.items()}
        arrays = {name: self._array(rows) for name, rows in columns.items()}
        self._write_table(self._pa.table(arrays), _DATA_PATH.format(**self._place))
        self._rows.clear()
        self._file += 1

    def _array(self, rows: np.ndarray) -> Any:
        """Return a column as Arrow has it: lists of fixed size for vectors."""
        if rows.ndim == 1:
            return self._pa.array(rows)
        values = self._pa.array(rows.reshape(-1))
        return self._pa.FixedSizeListArray.from_arrays(values, rows.shape[1])

    def _write_table(self, table: Any, path: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        self._pq.write_table(table, target)

    def _info(self) -> dict[str, Any]:
        return {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": None,
            "total_episodes": len(self._episodes),
            "total_frames": self._num_rows,
            "total_tasks": len(self._tasks),
            "chunks_size": _FILES_PER_CHUNK,
            "data_files_size_in_mb": _DATA_MB,
            "video_files_size_in_mb": _VIDEO_MB,
            "fps": self._fps,
            "splits": {"train": f"0:{len(self._episodes)}"},
            "data_path": _DATA_PATH,
            "video_path": _VIDEO_PATH,
            "features": self._features,
        }


_FIRST = {"chunk_index": 0, "file_index": 0}
_OBSERVED = {"observation.state": "pose", "observation.audio": "audio"}


def _features(header: SessionHeader, segments: Sequence[Segment]) -> dict[str, dict[str, Any]]:
    """Return LeRobot's description of every column."""
    height, width = header.frame_size
    if height % 2 or width % 2:
        raise ValueError(f"LeRobot's films have even sizes, this one is {height} x {width}")
    fps = max(1, round(header.fps))
    features: dict[str, dict[str, Any]] = {
        IMAGE: {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {
                "video.height": height,
                "video.width": width,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": fps,
                "video.channels": 3,
                "has_audio": False,
            },
        }
    }
    records = [record for segment in segments for record in segment.records]
    for name, key in _OBSERVED.items():
        values = [getattr(record.conditions, key) for record in records]
        if all(value is not None for value in values):
            features[name] = {"dtype": "float32", "shape": [len(values[0])], "names": None}
    features["action"] = _action_feature(header, records)
    kinds = {"next.reward": "float32", "next.done": "bool", "timestamp": "float32"}
    kinds |= dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
    return features | {n: {"dtype": kind, "shape": [1], "names": None} for n, kind in kinds.items()}


def _action_feature(header: SessionHeader, records: Sequence[Any]) -> dict[str, Any]:
    kind = header.action_space.get("kind")
    if kind == "Discrete":
        feature = {"dtype": "int64", "shape": [1], "names": ["action"]}
        # Names are one per number in LeRobot; what the numbers mean is for whoever looks it up.
        return feature | (
            {"info": {"actions": list(header.action_names)}} if header.action_names else {}
        )
    example = next(np.asarray(item.action) for item in records if item.action is not None)
    if kind not in ("Box", "MultiBinary", "MultiDiscrete") or example.ndim != 1:
        raise ValueError(f"LeRobot has no actions of a space such as {header.action_space}")
    dtype = "float32" if example.dtype.kind == "f" else "int64"
    return {"dtype": dtype, "shape": [len(example)], "names": None}


# As LeRobot names them.
_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}


def _stats_of(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics of a (T, ...) column."""
    rows = rows.reshape(len(rows), -1)
    values = rows.astype(np.float64)
    quantiles = np.quantile(values, list(_QUANTILES.values()), axis=0)
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        **dict(zip(_QUANTILES, quantiles, strict=True)),
        "count": np.array([len(rows)]),
    }


def _picture_stats(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Return the statistics of (F, H, W, 3) uint8 frames: (3, 1, 1) each, of values up to 1."""
    found = {
        name: value.reshape(3, 1, 1) / 255.0
        for name, value in _stats_of(frames.reshape(-1, 3)).items()
        if name != "count"
    }
    return {**found, "count": np.array([len(frames)])}


def _joined(
    episodes: Sequence[Mapping[str, Mapping[str, np.ndarray]]],
) -> dict[str, dict[str, np.ndarray]]:
    """Return the statistics of all episodes together, of each episode's own."""
    joined: dict[str, dict[str, np.ndarray]] = {}
    for name in episodes[0]:
        parts = [episode[name] for episode in episodes]
        counts = np.array([part["count"][0] for part in parts], np.float64)
        weights = (counts / counts.sum()).reshape(-1, *[1] * parts[0]["mean"].ndim)
        means = np.stack([part["mean"] for part in parts])
        mean = (weights * means).sum(axis=0)
        squares = np.stack([part["std"] for part in parts]) ** 2 + (means - mean) ** 2
        # Of quantiles of episodes the mean, as LeRobot itself joins them.
        quantiles = {
            key: (weights * np.stack([part[key] for part in parts])).sum(axis=0)
            for key in _QUANTILES
        }
        joined[name] = {
            "min": np.stack([part["min"] for part in parts]).min(axis=0),
            "max": np.stack([part["max"] for part in parts]).max(axis=0),
            "mean": mean,
            "std": np.sqrt((weights * squares).sum(axis=0)),
            **quantiles,
            "count": np.array([int(counts.sum())]),
        }
    return joined


def _lists(stats: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: value.tolist() for key, value in values.items()}
        for name, values in stats.items()
    }


def _flat(stats: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    return {
        f"stats/{name}/{key}": value
        for name, values in _lists(stats).items()
        for key, value in values.items()
    }


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=4), encoding="utf-8")
