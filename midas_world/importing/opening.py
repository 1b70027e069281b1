"""Which kind of recording something is, and several of one kind as one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from midas_world.config import ActionConfig
from midas_world.importing.datasets import MinariSource, SessionSource, minari_folder
from midas_world.importing.films import PICTURE_SUFFIXES, FilmSource, PictureSource, Tables
from midas_world.importing.lerobot import INFO_FILE, LeRobotSource
from midas_world.importing.recording import Moment, RecordingError, Source
from midas_world.sessions.log import STEPS

# Which kinds of recordings an option is for; all others are for all.
_OPTIONS = {
    "actions": ("film", "folder of pictures"),
    "watch": ("film", "folder of pictures"),
    "keypoints": ("film", "folder of pictures"),
    "sound": ("film", "session"),
    "pose": ("session",),
    "camera": ("LeRobot dataset",),
    "source_fps": ("folder of pictures", "Minari dataset"),
}


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What is asked for; see the command's help."""

    sources: Sequence[Path]
    to: Path
    add: bool = False
    actions: Path | None = None
    watch: bool = False
    keymap: Path | None = None
    text: str = ""
    keypoints: Path | None = None
    sound: bool = False
    pose: bool = False
    size: tuple[int, int] | None = None
    fit: str | None = None
    fps: float | None = None
    source_fps: float | None = None
    camera: str = ""
    steps: int | None = None
    held_out: float = 0.05
    codec: Literal["h264", "raw"] = "h264"
    preset: str = "dream"
    overrides: Sequence[str] = ()


def open_source(path: Path, request: ImportRequest) -> Source:
    """Return the recording at a path.

    Raises:
        RecordingError: There is none that can be read, or an option does not fit it.
        ImportError: A package is missing.
    """
    if not path.exists():
        raise RecordingError(f"there is nothing at {path}")
    kind = _kind_of(path)
    for option, kinds in _OPTIONS.items():
        if getattr(request, option) and kind not in kinds:
            name = f"--{option.replace('_', '-')}"
            raise RecordingError(f"{path} is a {kind}: {name} goes with a {' or a '.join(kinds)}")
    if kind == "session":
        return SessionSource(path, has_pose=request.pose, has_sound=request.sound)
    if kind == "Minari dataset":
        return MinariSource(path, fps=request.source_fps)
    if kind == "LeRobot dataset":
        return LeRobotSource(path, camera=request.camera)
    tables = Tables(
        actions=request.actions,
        watch=request.watch,
        points=request.keypoints,
        has_sound=request.sound,
    )
    if kind == "film":
        return FilmSource(path, tables)
    if request.source_fps is None:
        raise RecordingError(f"{path}: pictures do not say how fast they are: name --source-fps")
    return PictureSource(path, tables, fps=request.source_fps)


def _kind_of(path: Path) -> str:
    if path.is_file():
        return "film"
    if (path / STEPS).is_file():
        return "session"
    if (path / INFO_FILE).is_file():
        return "LeRobot dataset"
    if minari_folder(path):
        return "Minari dataset"
    if any(item.suffix.lower() in PICTURE_SUFFIXES for item in path.iterdir()):
        return "folder of pictures"
    raise RecordingError(
        f"{path} is no recording: neither a film, nor a folder with pictures, a session, a Minari "
        "dataset or a LeRobot dataset"
    )


def _kind(source: Source) -> tuple[Mapping[str, ActionConfig], int, int]:
    return source.actions, source.num_points, source.pose_size


class Several(Source):
    """Recordings of one kind, one after another.

    Raises:
        RecordingError: They differ in what their actions are called, or in their poses.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        super().__init__()
        first = sources[0]
        for source in sources[1:]:
            if _kind(source) != _kind(first):
                raise RecordingError(
                    f"{first.label} and {source.label} have other actions or poses: import "
                    "them one by one, with one key map"
                )
        self._sources = tuple(sources)
        self.label = first.label + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
        self.fps, self.size = max(source.fps for source in sources), first.size
        self.actions, self.num_points, self.pose_size = _kind(first)
        self.has_sound = first.has_sound

    def moments(self, *, pixels: bool) -> Iterator[Moment]:
        """Walk through all of them."""
        self.problems.clear()
        for source in self._sources:
            is_first = True
            for moment in source.moments(pixels=pixels):
                yield replace(moment, begins=True) if is_first else moment
                is_first = False
            self.problems += source.problems
