"""A recorded session on disk: what was played, readable up to the moment that it was cut off.

    stage-20260102-030405/
        header.json          what was played and how, written first: all that it takes to play again
        steps.log            one line per frame or prompt, only ever appended to
        video.mp4            the frames: fragmented H.264, one fragment per frame
    sound.flac           where there is any: own voice, other voice and effects, 50 ms per frame
        state-000000.safetensors    the environment's state at that frame, where it can be kept
        end.json             written last: how many frames, and what went wrong, if anything

The files of a session that was killed agree up to its last few frames: `num_frames` counts those
that the log describes and the film shows.

Who writes it is writer.py's business, what a film looks like video.py's.

Shapes: H W frame size, P pose and A audio features.
"""

import dataclasses
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from midas_world.data.episodes import current_versions
from midas_world.data.video import VideoError
from midas_world.machine import cpu_name, num_cores
from midas_world.sessions.film_index import FilmIndex, scan_film
from midas_world.sessions.log import STEPS, Record, SessionError, Turn, read_log, turns_of
from midas_world.sessions.sound import SoundReader
from midas_world.sessions.values import from_json, to_json
from midas_world.sessions.video import read_film
from midas_world.typed import from_values, read_values

FORMAT = "midas-world session"
FORMAT_VERSION = 1
HEADER = "header.json"
VIDEO = "video.mp4"
SOUND = "sound.flac"
END = "end.json"


@dataclass(frozen=True, kw_only=True)
class SessionHeader:
    """What was played and how.

    Attributes:
        env_id: Gymnasium id in the form "module:id".
        env_kwargs: What the environment was made with, where JSON can hold it.
        frame_size: H and W.
        seed: Of the first reset; None if it had none.
        start_state: Index of the first start state; -1 for given frames, None if there is none.
        horizon: Steps after which an episode was truncated; None if unknown.
        action_names: In the order of a Discrete action space; empty if they have none.
        action_keys: Of actions by name, the keys that a player holds; empty if nobody played.
        action_space: See `midas_world.sessions.values.space_from_json`.
        world: Of a learned world: its "name", "folder" and "weights_sha256".
        teacher: Gymnasium id of the teacher that can begin where this session's episodes began.
        backend: What ran the networks: "backend", "device", "dtype", "num_denoise_steps", "words".
        versions: Of project, python and the packages that matter.
        machine: "system", "processor", "cores" and what else equal frames depend on.
    """

    env_id: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    fps: float
    frame_size: tuple[int, int]
    seed: int | None = None
    prompt: str | None = None
    start_state: int | None = None
    horizon: int | None = None
    action_names: tuple[str, ...] = ()
    action_keys: Mapping[str, Sequence[str]] = field(default_factory=dict)
    action_space: Mapping[str, Any] = field(default_factory=dict)
    world: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | None = None
    backend: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=current_versions)
    machine: Mapping[str, Any] = field(default_factory=lambda: current_machine())
    created_at: str = field(default_factory=lambda: datetime.now().astimezone().isoformat())

    def __post_init__(self) -> None:
        """Check what the film is made of."""
        if not 0 < self.fps < math.inf:
            raise ValueError(f"fps must be positive, got {self.fps}")
        if (
            len(self.frame_size) != 2
            or not 1 <= min(self.frame_size) <= max(self.frame_size) < 2**15
        ):
            raise ValueError(f"frame_size must be (H, W), got {self.frame_size}")


def current_machine() -> dict[str, Any]:
    """Return what equal frames depend on beside versions, of this machine."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": cpu_name(),
        "cores": num_cores(),
    }


def header_to_json(header: SessionHeader) -> str:
    """Return a header as it stands in its file."""
    values = {item.name: getattr(header, item.name) for item in dataclasses.fields(header)}
    known = {"format": FORMAT, "format_version": FORMAT_VERSION}
    return json.dumps(known | to_json(values), indent=1)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A stretch of a session without a jump: T actions and T + 1 frames.

    Attributes:
        first: Record of its first frame; its own action, if it has one, led to it from outside.
        prompts: (number of steps before it, record) of the prompts on the way.
    """

    first: Record
    steps: Sequence[Record]
    prompts: Sequence[tuple[int, Record]] = ()

    @property
    def num_steps(self) -> int:
        """T."""
        return len(self.steps)

    @property
    def frames(self) -> range:
        """Numbers of its frames in the film."""
        assert self.first.frame is not None
        return range(self.first.frame, self.first.frame + len(self.steps) + 1)

    @property
    def records(self) -> tuple[Record, ...]:
        """Records of its T + 1 frames."""
        return (self.first, *self.steps)

    def turns(self) -> Iterator[Turn]:
        """Yield what was done before each of its steps, and after them."""
        words = [(after, record.text) for after, record in self.prompts]
        return turns_of([(record.action, record.heard) for record in self.steps], words)


class RecordedSession:
    """A session read from disk, complete or not.

    Attributes:
        records: Every whole line of the log.
        num_frames: Frames that the log describes and the film shows.
        is_closed: Whether recording was ended in good order.
        problems: In words, what is missing or was lost; empty if nothing is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.header = _read_header(self.folder)
        records, problems = read_log(self.folder / STEPS)
        _check_actions(records, self.header, self.folder / STEPS)
        try:
            self._index: FilmIndex = scan_film(self.folder / VIDEO)
        except VideoError as error:
            raise SessionError(str(error)) from error
        self.records: tuple[Record, ...] = tuple(records)
        frames = [record for record in records if record.frame is not None]
        self.num_frames = min(len(frames), self._index.num_frames)
        end = _read_end(self.folder / END)
        self.is_closed = end is not None and end.get("error") is None
        if end is None:
            problems.append("recording was cut off")
        elif end.get("error"):
            problems.append(f"recording ended early: {end['error']}")
        if self._index.num_lost:
            problems.append(f"{self._index.num_lost} bytes of a cut-off frame end the film")
        if len(frames) > self.num_frames:
            problems.append(f"the film lacks the last {len(frames) - self.num_frames} frames")
        if self.is_closed and end is not None and end.get("num_frames") != self.num_frames:
            problems.append(f"{end.get('num_frames')} frames were written")
            self.is_closed = False
        self.problems = tuple(problems)

    @property
    def num_steps(self) -> int:
        """Steps whose frames are all there."""
        return sum(record.kind == "step" for record in self.frame_records())

    @property
    def seconds(self) -> float:
        """Length of the film."""
        return self.num_frames / self.header.fps

    def frame_records(self) -> list[Record]:
        """Return the record of each frame, in order."""
        frames = [record for record in self.records if record.frame is not None]
        return frames[: self.num_frames]

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Yield the frames start to stop - 1, uint8 (H, W, 3), as the film shows them.

        Raises:
            ValueError: There are no such frames.
            VideoError: The film cannot be decoded.
            ImportError: PyAV is not installed.
        """
        stop = self.num_frames if stop is None else stop
        if not 0 <= start <= stop <= self.num_frames:
            raise ValueError(f"frames must be within 0 to {self.num_frames}, got {start} to {stop}")
        return read_film(
            self.folder / VIDEO, self._index, self.header.frame_size, start=start, stop=stop
        )

    @property
    def film(self) -> tuple[Path, FilmIndex]:
        """The film's path, and where its frames lie."""
        return self.folder / VIDEO, self._index

    def sound(self) -> SoundReader | None:
        """Return the sound of the frames; None if there is none.

        Raises:
            SoundError: The file is damaged from its beginning on.
            ImportError: PyAV is not installed.
        """
        path = self.folder / SOUND
        return SoundReader(path) if path.is_file() else None

    def segments(self, start: int = 0, stop: int | None = None) -> list[Segment]:
        """Return the stretches without a jump within the frames start to stop - 1."""
        stop = self.num_frames if stop is None else min(stop, self.num_frames)
        stretches: list[tuple[list[Record], list[tuple[int, Record]]]] = []
        for record in self.records:
            if record.frame is None:
                if stretches:
                    records, prompts = stretches[-1]
                    prompts.append((len(records) - 1, record))
                continue
            if record.frame >= stop:
                break
            if record.frame < start:
                continue
            if not stretches or record.is_beginning:
                stretches.append(([], []))
            stretches[-1][0].append(record)
        return [
            Segment(first=first, steps=steps, prompts=prompts)
            for (first, *steps), prompts in stretches
        ]

    def state_path(self, record: Record) -> Path | None:
        """Return the file with the environment's state at a record's frame, if it was kept."""
        name = record.state or record.begin.get("state")
        path = self.folder / name if name else None
        return path if path is not None and path.is_file() else None

    def __str__(self) -> str:
        """Words for the terminal."""
        state = "closed in good order" if self.is_closed else "; ".join(self.problems)
        return f"{self.num_steps} steps, {self.seconds:.1f} s, {state}"


def load_session(folder: Path) -> RecordedSession:
    """Read a session's folder, complete or not.

    Raises:
        SessionError: There is no session, its header is damaged, or it is of a newer format.
    """
    return RecordedSession(folder)


def _read_header(folder: Path) -> SessionHeader:
    path = folder / HEADER
    if not folder.is_dir():
        raise SessionError(f"there is no session at {folder}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kind, version = values.pop("format"), values.pop("format_version")
    except FileNotFoundError:
        raise SessionError(f"{folder} is no session: it has no {HEADER}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SessionError(f"{path} is no session's header: {error}") from error
    if kind != FORMAT or version != FORMAT_VERSION:
        raise SessionError(
            f"{path} is of {kind!r} version {version}; this program reads {FORMAT!r} version "
            f"{FORMAT_VERSION}"
        )
    try:
        return from_values(SessionHeader, from_json(values))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise SessionError(f"{path}: {error}") from error


def _check_actions(records: Sequence[Record], header: SessionHeader, path: Path) -> None:
    """Raise SessionError for an action that is none of the named ones."""
    if header.action_space.get("kind") != "Discrete":
        return
    first, count = header.action_space.get("start", 0), header.action_space.get("n")
    if not isinstance(first, int) or not isinstance(count, int) or count < 1:
        raise SessionError(f"{path.with_name(HEADER)}: action_space must have whole n and start")
    last = first + min(count, len(header.action_names) or count) - 1
    for record in records:
        taken = [record.action] if record.kind == "step" else record.begin.get("actions") or ()
        for action in taken:
            is_whole = isinstance(action, int) and not isinstance(action, bool)
            if not is_whole or not first <= action <= last:
                raise SessionError(
                    f"{path}: action at frame {record.frame} must be {first} to {last}, "
                    f"got {action!r:.60}"
                )


def _read_end(path: Path) -> dict[str, Any] | None:
    try:
        return read_values(path)
    except ValueError:
        return None
