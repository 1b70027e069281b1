"""Sources that know their actions and episodes: our own sessions, Minari and LeRobot datasets.

Their files are a stranger's: nothing in them is run. Of a Minari dataset the HDF5 file is read, as
its library lays it out, or its tables (minari_tables.py); LeRobot's is lerobot.py.

Shapes: T steps of an episode.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from midas_world.config import ActionConfig
from midas_world.data.sound import STEPS_PER_SECOND
from midas_world.importing.minari_tables import TABLE_FORMATS, MinariTables
from midas_world.importing.recording import (
    Deed,
    Moment,
    RecordingError,
    Source,
    read_picture,
    still,
)
from midas_world.importing.sound import AUDIO_SIZE
from midas_world.packages import needs
from midas_world.sessions.log import Record
from midas_world.sessions.session import load_session
from midas_world.sessions.video import VideoError
from midas_world.teachers.env import to_picture
from midas_world.typed import read_values

MINARI_FILE = "main_data.hdf5"
METADATA_FILE = "metadata.json"
# What h5py and pyarrow raise for files that are, or JSON of another shape.
_DAMAGED = (AttributeError, LookupError, OSError, TypeError, ValueError, RuntimeError)
_PICTURE_KEYS = ("pixels", "image", "rgb", "screen", "frame")


class SessionSource(Source):
    """A session that was recorded while playing.

    Raises:
        SessionError: It cannot be read.
        RecordingError: There is no such pose or sound with each of its frames.
    """

    def __init__(self, folder: Path, *, has_pose: bool = False, has_sound: bool = False) -> None:
        super().__init__()
        self._session = load_session(folder)
        header = self._session.header
        self.label = f"{folder.name} (session, {header.frame_size[0]}x{header.frame_size[1]})"
        self.fps, self.size = header.fps, header.frame_size
        self._first = int(header.action_space.get("start", 0))
        self.actions = {
            name: ActionConfig(
                value=self._first + place, keys=tuple(header.action_keys.get(name, ()))
            )
            for place, name in enumerate(header.action_names)
        }
        self.has_sound = has_sound
        self.pose_size = self._size_of("pose", "--pose") if has_pose else 0
        sound = (AUDIO_SIZE, STEPS_PER_SECOND)
        if has_sound and (self._size_of("audio", "--sound"), self.fps) != sound:
            raise RecordingError(
                f"--sound: {folder} must have {AUDIO_SIZE} audio features in each of "
                f"{STEPS_PER_SECOND} frames a second"
            )

    def _size_of(self, condition: str, option: str) -> int:
        """Return how many numbers a condition has, which every frame must have."""
        records = (record for part in self._session.segments() for record in part.records)
        values = [getattr(record.conditions, condition) for record in records]
        sizes = {0 if value is None else len(value) for value in values}
        if len(sizes) != 1 or 0 in sizes:
            raise RecordingError(
                f"{option}: the frames of {self._session.folder} must all have the same number of "
                f"{condition} values, got {', '.join(map(str, sorted(sizes)))}"
            )
        return sizes.pop()

    def moments(self, *, pixels: bool) -> Iterator[Moment]:
        """Walk through its stretches without a jump."""
        self.problems = Counter(self._session.problems)
        frames = self._session.frames() if pixels else None
        text = self._session.header.prompt or ""
        for segment in self._session.segments():
            text = segment.first.begin.get("prompt") or text
            words = dict(segment.prompts)
            for place, record in enumerate(segment.records):
                text = words[place].text or "" if place in words else text
                try:
                    frame = None if frames is None else next(frames)
                except VideoError:
                    self.problems["frames of a session that cannot be decoded"] += 1
                    return
                time_s = (record.frame or 0) / self.fps
                following = segment.steps[place] if place < segment.num_steps else None
                deed = Deed(
                    time_s=time_s,
                    action=None if following is None else following.action,
                    reward=0.0 if following is None else following.reward,
                )
                yield Moment(
                    time_s=time_s,
                    picture=None if frame is None else still(frame),
                    deeds=(deed,),
                    begins=not place,
                    terminated=record.terminated,
                    text=text,
                    pose=record.conditions.pose if self.pose_size else None,
                    audio=partial(_audio_of, record) if self.has_sound else None,
                    size=self.size,
                )


def _audio_of(record: Record, _: float) -> np.ndarray:
    assert record.conditions.audio is not None
    return record.conditions.audio


class MinariSource(Source):
    """A Minari dataset of pictures.

    Args:
        fps: Steps per second, which none of its files tell.

    Raises:
        RecordingError: It holds no pictures, is of another layout, or `fps` is None.
        ImportError: h5py or pyarrow is not installed.
    """

    def __init__(self, path: Path, *, fps: float | None) -> None:
        super().__init__()
        folder = minari_folder(path) or path
        self._metadata = metadata = read_json(folder / METADATA_FILE)
        is_hdf5 = metadata.get("data_format") not in TABLE_FORMATS
        self._path = folder / MINARI_FILE if is_hdf5 else folder
        if fps is None:
            raise RecordingError(f"{folder} does not say how fast it is: name --source-fps")
        self.fps = fps
        try:
            self._key, first = self._look()
        except RecordingError:
            raise
        except _DAMAGED as error:
            raise RecordingError(f"{self._path} is damaged: {error}") from error
        self.size = first.shape[:2]
        name = metadata.get("dataset_id", folder.parent.name)
        self.label = f"{name} (Minari, {len(self._episodes)} episodes)"

    def _look(self) -> tuple[str, np.ndarray]:
        """Find the episodes; return the key of their pictures, and the first picture."""
        with self._opened() as file:
            names = (n for n in file if re.fullmatch(r"episode_\d+", n))
            self._episodes = sorted(names, key=lambda name: int(name.removeprefix("episode_")))
            if not self._episodes:
                raise RecordingError(f"{self._path} holds no episode")
            return self._find_pictures(file[self._episodes[0]]["observations"])

    def moments(self, *, pixels: bool) -> Iterator[Moment]:
        """Walk through its episodes, step by step: one picture is in memory at a time."""
        self.problems.clear()
        time_s = 0.0
        with self._opened() as file:
            for name in self._episodes:
                try:
                    group = file[name]
                    yield from self._episode(group, time_s, pixels=pixels)
                    time_s += (len(group["rewards"]) + 2) / self.fps
                except _DAMAGED as error:
                    self.problems[f"damaged episodes ({error!s:.60})"] += 1

    def _episode(self, group: Any, time_s: float, *, pixels: bool) -> Iterator[Moment]:
        rows = group["observations"][self._key] if self._key else group["observations"]
        count = len(group["rewards"])
        actions, rewards = group["actions"][()], group["rewards"][()]
        ends = group["terminations"][()]
        is_lost = True
        for step in range(min(count + 1, len(rows))):
            picture = _picture_of(rows[step]) if pixels else None
            if pixels and picture is None:
                self.problems["pictures that cannot be read"] += 1
                is_lost = True
                continue
            deeds = ()
            if step < count:
                action = np.asarray(actions[step])
                deeds = (
                    Deed(
                        time_s=time_s + step / self.fps,
                        action=action.tolist(),
                        reward=float(rewards[step]),
                    ),
                )
            yield Moment(
                time_s=time_s + step / self.fps,
                picture=None if picture is None else still(picture),
                deeds=deeds,
                begins=is_lost,
                terminated=bool(step and ends[step - 1]),
                size=self.size,
            )
            is_lost = False

    def _opened(self) -> Any:
        """Return the episodes by name, to be closed."""
        if self._path.is_dir():
            return nullcontext(MinariTables(self._path, self._metadata))
        with needs("a Minari dataset", extra="export"):
            import h5py
        try:
            return h5py.File(self._path, "r")
        except OSError as error:
            raise RecordingError(f"{self._path} cannot be read: {error}") from error

    def _find_pictures(self, observations: Any) -> tuple[str, np.ndarray]:
        """Return the key of the pictures among observations, and the first of them."""
        is_group = isinstance(observations, Mapping)
        keys = [key for key in _PICTURE_KEYS if key in observations] if is_group else [""]
        for key in [*keys, *(observations if is_group else ())]:
            rows = observations[key] if key else observations
            if not isinstance(rows, Mapping) and len(rows):
                picture = _picture_of(rows[0])
                if picture is not None:
                    return key, picture
        raise RecordingError(f"{self._path} holds no pictures among its observations")


def _picture_of(value: Any) -> np.ndarray | None:
    """Return a stored observation as a picture: plain, or as the bytes of a JPEG."""
    array = np.asarray(value)
    if array.dtype == np.uint8 and array.ndim == 1:
        return read_picture(array.tobytes())
    return to_picture(array)


def minari_folder(path: Path) -> Path | None:
    """Return where a Minari dataset's data lie: its folder, or the one in it; None: it is none."""
    for folder in (path, path / "data"):
        if (folder / MINARI_FILE).is_file():
            return folder
        if (folder / METADATA_FILE).is_file() and any(
            item.is_dir() and item.name.isdecimal() for item in folder.iterdir()
        ):
            return folder
    return None


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the values of a JSON file; RecordingError if there are none."""
    try:
        return read_values(path)
    except ValueError as error:
        raise RecordingError(str(error)) from error
