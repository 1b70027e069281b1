"""What training data are on disk: an episode is a folder. Recorded play is sessions/session.py.

    episode-00001234/
        video.mp4            H.264, or frames.safetensors: lossless uint8 (codec "raw", no PyAV)
        steps.safetensors    actions, rewards, terminated, truncated, pose, audio, text, extras/...
        header.json          format version, versions, env, seed, policy, video options, texts,
                             and the size and SHA-256 of the two files beside it

A folder is written under a temporary name (".tmp-..."), flushed, then renamed: a reader sees a
whole episode or none. How pixels become a file is video.py's business; who plays, and where
episodes go, the caller's (recorder.py, teachers/collect.py).

Shape letters: T actions, H and W frame size, P pose and A audio features.
"""

import hashlib
import importlib.metadata
import json
import logging
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from midas_world import __version__
from midas_world.data.video import FRAMES_FILES, H264, Codec, VideoError, read_frames, write_frames
from midas_world.files import whole
from midas_world.typed import from_values
from midas_world.types import MidasWorldError, StepConditions

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
HEADER = "header.json"
STEPS = "steps.safetensors"
_EXTRAS_PREFIX = "extras/"
UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What reading content of another kind, or damaged, ends in."""


class EpisodeError(MidasWorldError, ValueError):
    """An episode on disk cannot be read; the message names the file and says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


@cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def current_versions() -> dict[str, str]:
    """Return the versions of project, format, python, numpy, gymnasium and av running here."""
    packages = {name: _version(name) for name in ("numpy", "gymnasium", "av")}
    python = platform.python_version()
    return {"project": __version__, "format": str(FORMAT_VERSION), "python": python, **packages}


@dataclass(frozen=True, kw_only=True)
class EpisodeMetadata:
    """Where an episode comes from.

    Attributes:
        seed: The seed of the env's reset; None for play without one.
        policy: Who chose the actions: a policy's name, or "player".
        scene: The env's words for the scene at the start.
        versions: Of project, format, python, numpy, gymnasium and av, at recording.
    """

    env_id: str
    seed: int | None
    policy: str
    fps: float
    scene: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=current_versions)

    def __post_init__(self) -> None:
        if not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be positive, got {self.fps}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """T actions and the T + 1 frames around them, with the conditions of every frame.

    Attributes:
        frames: (T + 1, H, W, 3) uint8; (T + 1, 0, 0, 3) when loaded with frames=False.
        actions: (T, ...) as the action space stores them.
        rewards: (T,) float32.
        terminated: (T,) bool.
        truncated: (T,) bool.
        pose: (T + 1, P) float32, or None.
        text: T + 1 strings, or None.
        audio: (T + 1, A) float32, or None.
        extras: Other columns of every frame, each (T + 1, ...).
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    pose: np.ndarray | None = None
    text: tuple[str, ...] | None = None
    audio: np.ndarray | None = None
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    metadata: EpisodeMetadata

    def __post_init__(self) -> None:
        if not self.num_steps:
            raise ValueError("an episode needs at least one action, got none")
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8:
            got = f"{self.frames.shape} {self.frames.dtype}"
            raise ValueError(f"frames must be (T + 1, H, W, 3) uint8, got {got}")
        for name, dtype in (("rewards", np.float32), ("terminated", bool), ("truncated", bool)):
            column = getattr(self, name)
            if column.shape != (self.num_steps,) or column.dtype != dtype:
                raise ValueError(
                    f"{name} must be ({self.num_steps},) {np.dtype(dtype)} for {self.num_steps} "
                    f"actions, got {column.shape} {column.dtype}"
                )
        columns = {"frames": self.frames, "pose": self.pose, "text": self.text, "audio": self.audio}
        for name, column in (columns | dict(self.extras)).items():
            if column is not None and len(column) != self.num_steps + 1:
                raise ValueError(
                    f"{name} must have one entry per frame: {self.num_steps} actions make "
                    f"{self.num_steps + 1} frames, got {len(column)}"
                )
        for name in ("pose", "audio"):
            column = getattr(self, name)
            if column is not None and (column.ndim != 2 or column.dtype != np.float32):
                raise ValueError(
                    f"{name} must be (T + 1, size) float32, got {column.shape} {column.dtype}"
                )

    @property
    def num_steps(self) -> int:
        """The number of actions, T."""
        return len(self.actions)

    @property
    def conditions(self) -> tuple[StepConditions, ...]:
        """Of every frame."""
        absent = [None] * len(self.frames)
        columns = (absent if c is None else c for c in (self.pose, self.text, self.audio))
        rows = zip(*columns, strict=True)
        return tuple(
            StepConditions(pose=pose, text=text, audio=audio) for pose, text, audio in rows
        )


def save_episode(episode: Episode, path: Path, *, codec: Codec = "h264") -> None:
    """Write an episode as the new folder `path`; whole, or not at all.

    Raises:
        FileExistsError: path exists.
        ValueError: the episode has no frames, or a size that H.264 cannot hold.
        ImportError: codec "h264" without PyAV.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"episode {path} exists already")
    height, width = episode.frames.shape[1:3]
    if not height * width:
        raise ValueError("the episode has no pixels: it was loaded with frames=False")
    with whole(path) as temporary:
        temporary.mkdir()
        fps = episode.metadata.fps
        frames_file = write_frames(temporary, episode.frames, codec=codec, fps=fps)
        texts = None if episode.text is None else tuple(dict.fromkeys(episode.text))
        steps_file = temporary / STEPS
        steps_file.write_bytes(safetensors.numpy.save(_to_columns(episode, texts)))
        header = {
            "format": "midas-world episode",
            "format_version": FORMAT_VERSION,
            "metadata": asdict(episode.metadata),
            "num_steps": episode.num_steps,
            "frame_size": [height, width],
            "video": {"codec": codec, **H264},
            "texts": texts,
            "files": {f.name: fingerprint_of(f.read_bytes()) for f in (frames_file, steps_file)},
        }
        (temporary / HEADER).write_text(json.dumps(header, indent=1), encoding="utf-8")


class StoredEpisode:
    """An episode on disk whose header is read; the rest is checked against it.

    Args:
        path: The folder.
        files: What lies in it, by name, where that was read and checked already (shards.py).

    Attributes:
        key: 16 hex digits that change with anything in the episode (its header has the sums).
        metadata: Where it comes from.

    Raises:
        EpisodeError: The header is missing or damaged, or of a newer format version.
    """

    def __init__(self, path: Path, files: Mapping[str, bytes] | None = None) -> None:
        self.path, self._files = Path(path), files
        contents = _header_of(self.path) if files is None else files[HEADER]
        self._header = _parsed(contents, self.path / HEADER)
        self.key = hashlib.sha256(contents).hexdigest()[:16]
        with _fitting(self.path):
            self.metadata = check_header(self._header)
            self._codec: Codec = self._header["video"]["codec"]
            self._frames_file = self.path / FRAMES_FILES[self._codec]

    def load(self) -> Episode:
        """Read all but the pixels: frames is (T + 1, 0, 0, 3).

        Raises:
            EpisodeError: A file is missing, truncated or damaged.
        """
        with _fitting(self.path):
            num_steps = self._header["num_steps"]
            if self._files is None:
                _check_size(self._frames_file, self._header["files"][self._frames_file.name])
            columns = safetensors.numpy.load(self._read(self.path / STEPS))
            extras = {
                name.removeprefix(_EXTRAS_PREFIX): columns.pop(name)
                for name in sorted(columns)
                if name.startswith(_EXTRAS_PREFIX)
            }
            if len(columns["actions"]) != num_steps:  # before anything is made for so many
                raise ValueError(
                    f"num_steps is {num_steps}, there are {len(columns['actions'])} actions"
                )
            indices, texts = columns.pop("text", None), self._header["texts"]
            return Episode(
                frames=np.empty((num_steps + 1, 0, 0, 3), np.uint8),
                text=None if indices is None else tuple(texts[index] for index in indices),
                extras=extras,
                metadata=self.metadata,
                **columns,
            )

    def frames(self) -> np.ndarray:
        """Read the pixels, (T + 1, H, W, 3) uint8.

        Raises:
            EpisodeError: Their file is missing, truncated or damaged.
            ImportError: They are H.264 and PyAV is not installed.
        """
        with _fitting(self.path):
            file, shape = self._frames_file, (self._header["num_steps"] + 1,)
            contents = self._read(file)
            try:
                return read_frames(
                    contents, (*shape, *self._header["frame_size"], 3), codec=self._codec
                )
            except VideoError as error:
                raise EpisodeError(file, str(error)) from error

    def _read(self, file: Path) -> bytes:
        """Return what a file holds, read once: what is hashed is what is used."""
        if self._files is not None:
            return self._files[file.name]
        expected = self._header["files"][file.name]
        _check_size(file, expected)
        contents = file.read_bytes()
        if fingerprint_of(contents) != expected:
            raise EpisodeError(file, "damaged: its contents do not match the header's checksum")
        return contents


def load_episode(
    path: Path, files: Mapping[str, bytes] | None = None, *, frames: bool = True
) -> Episode:
    """Read the episode folder `path`; see `StoredEpisode` for what is raised.

    Args:
        path: The folder.
        files: As in `StoredEpisode`.
        frames: False leaves the pixels on disk: frames is then (T + 1, 0, 0, 3).
    """
    stored = StoredEpisode(path, files)
    episode = stored.load()
    return replace(episode, frames=stored.frames()) if frames else episode


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """Say of an episode what inside does not fit."""
    try:
        yield
    except EpisodeError:
        raise
    except (*UNREADABLE, safetensors.SafetensorError) as error:
        reason = f"header and contents do not fit: {type(error).__name__}: {error}"
        raise EpisodeError(path, reason) from error


def check_header(header: Mapping[str, Any]) -> EpisodeMetadata:
    """Check the types in an episode's header and return where it comes from.

    Raises:
        KeyError: A value is missing.
        ValueError: A value is of another type, or out of its limits; the message names it.
    """
    sizes = (header["num_steps"], *header["frame_size"])
    if len(sizes) != 3 or not all(type(size) is int and 0 < size < 2**31 for size in sizes):
        raise ValueError(f"num_steps and frame_size must be positive, got {sizes!r:.60}")
    if max(sizes[1:]) >= 2**15:
        raise ValueError(f"frame_size must be below {2**15}, got {sizes[1:]}")
    return from_values(EpisodeMetadata, header["metadata"])


def is_episode(path: Path) -> bool:
    """Whether `path` is a finished episode folder, going by its name and header file."""
    return not path.name.startswith(".") and (path / HEADER).is_file()


def list_episodes(folder: Path) -> list[Path]:
    """Return the episode folders directly in `folder`, sorted by name, damaged ones included."""
    known = (HEADER, STEPS, *FRAMES_FILES.values())
    return sorted(
        path
        for path in Path(folder).iterdir()
        if not path.name.startswith(".") and any((path / name).is_file() for name in known)
    )


def read_episodes(paths: Iterable[Path], *, frames: bool = True) -> Iterator[Episode]:
    """Yield episodes in order; unreadable ones are passed over with a warning."""
    for path in paths:
        try:
            yield load_episode(path, frames=frames)
        except EpisodeError as error:
            logger.warning("skipped an unreadable episode: %s", error)


def iter_episodes(folder: Path, *, frames: bool = True) -> Iterator[Episode]:
    """Yield the episodes in a folder; see `read_episodes`."""
    return read_episodes(list_episodes(folder), frames=frames)


def _to_columns(episode: Episode, texts: Sequence[str] | None) -> dict[str, np.ndarray]:
    columns = {
        name: getattr(episode, name)
        for name in ("actions", "rewards", "terminated", "truncated", "pose", "audio")
        if getattr(episode, name) is not None
    }
    columns |= {f"{_EXTRAS_PREFIX}{name}": column for name, column in episode.extras.items()}
    if episode.text is not None and texts is not None:
        index_of = {text: index for index, text in enumerate(texts)}
        columns["text"] = np.array([index_of[text] for text in episode.text], np.int32)
    # safetensors writes the memory as it lies, so a strided view would be scrambled.
    return {name: np.ascontiguousarray(column) for name, column in columns.items()}


def fingerprint_of(content: bytes) -> dict[str, Any]:
    """Return what a header says of a file: its size and checksum."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _header_of(path: Path) -> bytes:
    if not path.is_dir():
        raise EpisodeError(path, "no such folder")
    try:
        return (path / HEADER).read_bytes()
    except FileNotFoundError:
        raise EpisodeError(path / HEADER, "missing") from None


def _parsed(contents: bytes, file: Path) -> dict[str, Any]:
    """Return what an episode's header says."""
    try:
        header = json.loads(contents.decode())
        version = header["format_version"]
    except UNREADABLE as error:
        raise EpisodeError(file, f"not an episode's header: {error}") from error
    if version != FORMAT_VERSION:
        reason = f"is of format version {version}; this program reads {FORMAT_VERSION}"
        raise EpisodeError(file, reason)
    return header


def _check_size(file: Path, expected: Mapping[str, Any]) -> None:
    if not file.is_file():
        raise EpisodeError(file, "missing")
    size = file.stat().st_size
    if size != expected["bytes"]:
        verb = "truncated" if size < expected["bytes"] else "too long"
        raise EpisodeError(file, f"{verb}: {size} bytes, {expected['bytes']} were written")
