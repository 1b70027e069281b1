"""Films and folders of pictures, with tables beside them of what was done.

A film is anything that PyAV reads. It is decoded one picture after another, so its length costs no
memory; a picture that is damaged, and those that hang on it, are left out and counted. Turned
pictures (of phones) are turned back, and pixels that are not square made so.

Shapes: h w of a picture as it is shown, K keypoints.
"""

import contextlib
import heapq
import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from midas_world.config import ActionConfig
from midas_world.data.video import fault_of, import_av
from midas_world.importing.naming import WATCHED
from midas_world.importing.recording import (
    LONGEST_GAP_S,
    UNREADABLE,
    Deed,
    Moment,
    Picture,
    RecordingError,
    Source,
    place,
    placement,
    read_picture,
    still,
)
from midas_world.importing.sound import StepSound
from midas_world.importing.tables import (
    SUFFIXES,
    RecordedTable,
    Row,
    action_of,
    point_columns,
    points_of,
    reward_of,
)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_ATTACHED = 1024  # a cover picture, among FFmpeg's dispositions
_UNTOLD_COLORS = 2
_BT709 = "ITU709"
# Packets come in decoding order: so many are held back to put their times in order.
_REORDERED = 32
# Distances of pictures that differ by more of their mean are no constant rate.
_RATE_TOLERANCE = 0.2


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What lies beside pictures.

    Attributes:
        actions: The table of what was done; None: the one that lies there.
        watch: Nobody did anything, whatever lies there.
    """

    actions: Path | None = None
    watch: bool = False
    points: Path | None = None
    has_sound: bool = False


@dataclass(frozen=True)
class _Shot:
    """A picture: its number, its time, and whether it does not follow from the one before."""

    number: int
    time_s: float
    picture: Picture | None
    begins: bool
    size: tuple[int, int]


class ShotSource(Source):
    """A source of pictures in order, of which tables tell the rest; `path` is where they lie."""

    def __init__(self, path: Path, tables: Tables) -> None:
        super().__init__()
        if not (tables.watch or tables.actions):
            tables = replace(tables, actions=_table_of(path, tables.points))
        self._tables, self.has_sound = tables, tables.has_sound
        if tables.watch:
            self.actions = {WATCHED: ActionConfig()}
        self._needs_numbers = False
        for path in filter(None, (tables.actions, tables.points)):
            table = RecordedTable(path, Counter())  # says what is wrong before all else
            columns = table.columns
            self._needs_numbers = self._needs_numbers or not table.by_time
            if path == tables.points:
                self.num_points = len(point_columns(columns))
                if not self.num_points:
                    raise RecordingError(f"{path}: no columns x0, y0, ... nor NAME_x, NAME_y")
            elif not {"action", "keys"} & set(columns):
                raise RecordingError(
                    f"{path}: no column action or keys; there are {', '.join(columns)}"
                )

    def moments(self, *, pixels: bool) -> Iterator[Moment]:
        """Walk through the pictures, with what the tables tell of each."""
        self.problems.clear()
        audio = self._audio() if pixels else None
        deeds, points = (
            None if path is None else RecordedTable(path, self.problems)
            for path in (self._tables.actions, self._tables.points)
        )
        pairs = [] if points is None else point_columns(points.columns)
        shots, last_s = chain(self._shots(pixels=pixels), [None]), -math.inf
        for shot, following in pairwise(shots):
            assert shot is not None
            until_s = shot.time_s + 1 / self.fps if following is None else following.time_s
            done, text = [Deed(time_s=shot.time_s, action=WATCHED)], ""
            if deeds is not None:
                row = deeds.row(shot.number, shot.time_s) or {}
                done, text = [_deed(shot.time_s, row)], str(row.get("text") or "")
                follows = not shot.begins and shot.time_s - last_s <= LONGEST_GAP_S
                if deeds.by_time and row and follows:
                    done = []  # it is being done since before
                done += [_deed(*item) for item in deeds.until(until_s)]
            last_s = shot.time_s
            known = points.row(shot.number, shot.time_s) if points is not None else None
            yield Moment(
                time_s=shot.time_s,
                picture=shot.picture,
                deeds=tuple(done),
                begins=shot.begins,
                text=text,
                points=points_of(known, pairs) if known else None,
                audio=audio,
                size=shot.size,
            )

    def _audio(self) -> Callable[[float], np.ndarray] | None:
        """Return what tells what is heard with the pictures, where it is wanted."""
        return None

    @abstractmethod
    def _shots(self, *, pixels: bool) -> Iterator[_Shot]:
        """Yield every picture that can be seen."""
        ...


def _table_of(path: Path, points: Path | None) -> Path:
    """Return the table of actions that lies beside a film, or in a folder of pictures."""
    found = [path.with_suffix(suffix) for suffix in SUFFIXES]
    if path.is_dir():
        found = sorted(item for item in path.iterdir() if item.suffix.lower() in SUFFIXES)
    found = [item for item in found if item.is_file() and item != points]
    if len(found) == 1:
        return found[0]
    several = ", ".join(item.name for item in found)
    where = f"which of {several} tells them" if found else "no table tells them"
    raise RecordingError(
        f"{path}: what was done? {where}: name it (--actions FILE), or say that nobody steers "
        "(--watch)"
    )


def _deed(time_s: float, row: Row) -> Deed:
    return Deed(time_s=time_s, action=action_of(row), reward=reward_of(row))


class FilmSource(ShotSource):
    """A film.

    Raises:
        RecordingError: It is no film, holds no pictures, or its codec is missing here.
    """

    def __init__(self, path: Path, tables: Tables) -> None:
        self.path, self.problems = path, Counter()
        with self._opened() as (container, stream):
            context = stream.codec_context
            rate = stream.average_rate or stream.base_rate or stream.guessed_rate
            if not rate:
                raise RecordingError(f"{path} does not say how many pictures it has a second")
            self.fps = float(rate)
            self._begin_s = _start(container, stream)
            first = next((picture for _, picture, _ in self._decoded(container, stream)), None)
            if first is None:
                raise RecordingError(f"{path}: none of its pictures can be decoded")
            self.size = first.size
            self.label = f"{path.name} ({context.name}, {self.size[0]}x{self.size[1]})"
            if tables.has_sound and not container.streams.audio:
                raise RecordingError(f"{path} has no sound; leave --sound out")
        super().__init__(path, tables)
        self._is_constant, self._rate = True, self.fps
        if self._needs_numbers:
            for _ in self._shots(pixels=False):  # learns whether its rate is constant
                pass

    def _audio(self) -> Callable[[float], np.ndarray] | None:
        return StepSound(self.path, self._begin_s).features if self.has_sound else None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """Open the film and its first stream of pictures that is no cover."""
        av = import_av()
        if not self.path.is_file():
            raise RecordingError(f"there is no film {self.path}")
        try:
            with av.open(str(self.path), metadata_errors="replace") as container:
                streams = [s for s in container.streams.video if not s.disposition & _ATTACHED]
                if not streams:
                    raise RecordingError(f"{self.path} holds no pictures: it has no video stream")
                if streams[0].codec_context is None:
                    raise RecordingError(f"{self.path}: its codec is missing in this build of PyAV")
                # What cannot be decoded rightly is to be told, not painted over.
                streams[0].codec_context.options = {"err_detect": "explode"}
                streams[0].thread_type = "AUTO"
                yield container, streams[0]
        except (av.error.DecoderNotFoundError, av.error.InvalidDataError) as error:
            reason = "its codec is missing in this build of PyAV"
            if isinstance(error, av.error.InvalidDataError):
                reason = "it is no film, or its end is missing"
            raise RecordingError(f"{self.path} cannot be read: {reason}") from error
        except (av.error.FFmpegError, OSError) as error:
            raise RecordingError(f"{self.path} cannot be read: {fault_of(error)}") from error

    def _shots(self, *, pixels: bool) -> Iterator[_Shot]:
        with self._opened() as (container, stream):
            found = self._decoded(container, stream) if pixels else self._timed(container, stream)
            last_s, count, shortest, longest = None, 0, 1e9, 0.0
            for count, (time_s, picture, begins) in enumerate(found):
                number = round(time_s * self._rate) if self._is_constant else count
                yield _Shot(number, time_s, picture, begins, self.size)
                if last_s is not None:
                    shortest, longest = (
                        min(shortest, time_s - last_s),
                        max(longest, time_s - last_s),
                    )
                last_s = time_s
        if not pixels:
            self._is_constant = (longest - shortest) * self.fps <= 2 * _RATE_TOLERANCE
            self._rate = count / last_s if last_s else self.fps  # what is declared may be rough
            if last_s is not None and not self._is_constant:
                span = f"{1e3 * shortest:.0f} to {1e3 * longest:.0f} ms"
                self.problems[f"film of variable rate, {span} a picture: its own times hold"] += 1

    def _timed(self, container: Any, stream: Any) -> Iterator[tuple[float, None, bool]]:
        """Yield the times of a film's packets in order, without decoding them."""
        waiting: list[float] = []
        count = 0
        for packet in self._packets(container, stream):
            if packet.size and not packet.is_discard:
                heapq.heappush(waiting, self._time(packet, count))
                count += 1
            if len(waiting) > _REORDERED:
                yield heapq.heappop(waiting), None, False
        while waiting:
            yield heapq.heappop(waiting), None, False

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[float, "_FilmPicture", bool]]:
        av = import_av()
        is_lost, count, aspect = False, 0, _aspect(stream)
        for packet in self._packets(container, stream):
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                self.problems["damaged packets of a film"] += 1
                is_lost = True
                continue
            for frame in frames:
                count += 1
                is_lost = is_lost or frame.is_corrupt
                if is_lost and (frame.is_corrupt or not frame.key_frame):
                    self.problems["pictures of a film that are damaged or hang on such"] += 1
                    continue
                yield (self._time(frame, count - 1), _FilmPicture(av, frame, aspect), is_lost)
                is_lost = False

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        av = import_av()
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                self.problems["films that break off"] += 1
                return
            if packet is None:
                return
            yield packet

    def _time(self, timed: Any, count: int) -> float:
        """Return when a packet or frame is shown, from the film's beginning."""
        stamp = timed.pts if timed.pts is not None else timed.dts
        if stamp is None:
            return count / self.fps
        return float(stamp * timed.time_base) - self._begin_s


class _FilmPicture:
    """Makes frames of a decoded picture: in one go from the film's own colours and size."""

    def __init__(self, av: Any, frame: Any, aspect: float) -> None:
        self._av, self._frame = av, frame
        self._turns = round(frame.rotation / 90) % 4
        height, width = frame.height, max(1, round(frame.width * aspect))
        self.size = (width, height) if self._turns % 2 else (height, width)

    def __call__(self, size: tuple[int, int], fit: str) -> np.ndarray:
        frame = self._frame
        inner, corner = placement(self.size, size, fit)
        height, width = inner[::-1] if self._turns % 2 else inner
        kind = self._av.video.reformatter.Interpolation
        scaling = kind.AREA if height < frame.height else kind.BICUBIC
        is_untold = frame.colorspace == _UNTOLD_COLORS and frame.height >= 720
        scaled = frame.reformat(
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=_BT709 if is_untold else None,
            interpolation=scaling | kind.ACCURATE_RND,
            threads=1,
        ).to_ndarray()
        return place(np.ascontiguousarray(np.rot90(scaled, self._turns)), corner, size)


def _aspect(stream: Any) -> float:
    """Return how much wider than high a stream's pixels are."""
    return float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)


def _start(container: Any, stream: Any) -> float:
    if stream.start_time is not None:
        return float(stream.start_time * stream.time_base)
    return (container.start_time or 0) / 1e6


class PictureSource(ShotSource):
    """Pictures in a folder, in the order of the numbers in their names."""

    def __init__(self, folder: Path, tables: Tables, *, fps: float) -> None:
        self._paths = sorted(
            (path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES),
            key=_in_order,
        )
        self.fps = fps
        self.label = f"{folder.name} ({len(self._paths)} pictures)"
        self.size = next(filter(None, map(_size_of, self._paths)), (0, 0))
        if not self.size[0]:
            raise RecordingError(f"{folder}: none of its {len(self._paths)} pictures can be read")
        super().__init__(folder, tables)

    def _shots(self, *, pixels: bool) -> Iterator[_Shot]:
        is_lost = False
        for number, path in enumerate(self._paths):
            size = _size_of(path)
            picture = None if size is None or not pixels else read_picture(path)
            if size is None or (pixels and picture is None):
                self.problems["pictures that cannot be read"] += 1
                is_lost = True
                continue
            made = None if picture is None else still(picture)
            yield _Shot(number, number / self.fps, made, is_lost, size)
            is_lost = False


def _in_order(path: Path) -> list[int | str]:
    """Return what sorts names by the numbers in them."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _size_of(path: Path) -> tuple[int, int] | None:
    """Return a picture file's height and width; None if it is none."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except UNREADABLE:
        return None
