"""Writes a session beside the game, in a thread of its own.

The game hands over a frame and its record, which costs it a copy; encoding (PyAV lets other threads
run meanwhile), hashing and writing happen in the thread. Frames wait in memory for as long as
`max_pending_s` and up to `max_pending_bytes`; beyond that the game waits for the writer, so that
whoever kills the program loses less than a second of play. No frame is ever dropped in silence: if
nothing moves for `stall_timeout_s` - a disk that hangs - recording ends with an error, and the game
goes on.

Whatever goes wrong is told at once by `on_error`; what was written until then stays readable.
A second thread lets the disk have what was written, every five seconds: that may hold up writing on
a slow disk, and what is with the operating system already outlives this program, if not a power
cut.
"""

import atexit
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from midas_world.files import whole, write_whole
from midas_world.sessions.files import AppendFile
from midas_world.sessions.log import STEPS, Record, hash_frame
from midas_world.sessions.session import END, HEADER, SOUND, VIDEO, SessionHeader, header_to_json
from midas_world.sessions.sound import SoundWriter
from midas_world.sessions.video import FragmentWriter
from midas_world.types import MidasWorldError

logger = logging.getLogger(__name__)

DEFAULT_PENDING_BYTES = 64 * 2**20
DEFAULT_PENDING_S = 0.5
_SYNC_SECONDS = 5.0
_RECORD_BYTES = 2048  # about what a record takes while it waits


@dataclass(frozen=True, kw_only=True)
class RecordingStatus:
    """How a recording is doing.

    Attributes:
        waited_s: How long the game has had to wait for the writer.
        error: Why it ended; None if all is well.
    """

    folder: Path
    num_frames: int
    seconds: float
    num_bytes: int
    waited_s: float
    error: str | None


@dataclass(frozen=True)
class _Item:
    """What waits to be written."""

    record: Record
    frame: np.ndarray | None
    sound: np.ndarray | None
    state: Any
    added_at: float

    @property
    def num_bytes(self) -> int:
        parts = (self.frame, self.sound)
        return _RECORD_BYTES + sum(part.nbytes for part in parts if part is not None)


class SessionWriter:
    """Writes one session; `add` returns at once, all else happens in a thread.

    Args:
        folder: To be made; must not exist.
        make_header: Returns the header; called in the thread, since hashing weights takes a while.
        on_error: Called once, with words for the player, if recording has to end.
        max_pending_bytes: Of frames that may wait to be written.
        max_pending_s: How long a frame may wait before the game does.
        stall_timeout_s: How long the game waits for room at most.
    """

    def __init__(
        self,
        folder: Path,
        make_header: Callable[[], SessionHeader],
        *,
        frame_size: tuple[int, int],
        fps: float,
        on_error: Callable[[str], object] = lambda _: None,
        max_pending_bytes: int = DEFAULT_PENDING_BYTES,
        max_pending_s: float = DEFAULT_PENDING_S,
        stall_timeout_s: float = 10.0,
    ) -> None:
        self.folder = Path(folder)
        self._make_header = make_header
        self._frame_size = frame_size
        self._fps = fps
        self._on_error = on_error
        self._max_pending_bytes = max_pending_bytes
        self._max_pending_s = max_pending_s
        self._stall_timeout_s = stall_timeout_s
        self._changed = threading.Condition()
        self._queue: deque[_Item] = deque()
        self._opened_at = float("inf")
        self._pending_bytes = 0
        self._num_frames = 0
        self._num_written = 0
        self._num_steps = 0
        self._waited_s = 0.0
        self._error: str | None = None
        self._given_up: str | None = None
        self._is_closing = False
        self._is_open = threading.Event()
        self._film: FragmentWriter | None = None
        self._sound: SoundWriter | None = None
        self._files: dict[str, AppendFile] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._syncer = threading.Thread(target=self._sync, name="recorder-sync", daemon=True)
        self._thread.start()
        # A program that ends without closing it still gets its last frames.
        atexit.register(self.close)

    @property
    def error(self) -> str | None:
        """Why recording ended, in words; None if all is well."""
        return self._error or self._given_up

    @property
    def num_frames(self) -> int:
        """Frames handed over so far: the number of the next one."""
        return self._num_frames

    def status(self) -> RecordingStatus:
        """Return how it is doing."""
        with self._changed:
            return RecordingStatus(
                folder=self.folder,
                num_frames=self._num_frames,
                seconds=self._num_frames / self._fps,
                num_bytes=sum(file.size for file in self._files.values()),
                waited_s=self._waited_s,
                error=self.error,
            )

    def give_up(self, words: str) -> None:
        """End recording; what was handed over is written, and `on_error` is told why."""
        with self._changed:
            if self.error is not None or self._is_closing:
                return
            self._given_up, self._is_closing = words, True
            self._changed.notify_all()
        logger.warning("recording ended: %s", words)
        self._on_error(words)

    def wait_until_open(self, timeout_s: float = 30.0) -> bool:
        """Wait until the session's files are made; return False if that failed."""
        self._is_open.wait(timeout_s)
        return self._is_open.is_set() and self._error is None

    def add(
        self,
        record: Record,
        frame: np.ndarray | None = None,
        *,
        sound: np.ndarray | None = None,
        state: Any = None,
    ) -> bool:
        """Hand over the next frame and its record, or a record that comes without one.

        Args:
            record: Its `frame` and `frame_hash` are filled in here.
            frame: uint8 (H, W, 3); copied.
            sound: int16 (3, 800) of the frame; not to be changed any more. None is silence.
            state: The environment's at this frame, to be kept in a file: arrays by name, or an
                object with `save(path)`.

        Returns:
            Whether it will be written; False after an error, or once closed.

        Raises:
            ValueError: The frame is of another size or kind.
        """
        if frame is not None:
            if frame.shape != (*self._frame_size, 3) or frame.dtype != np.uint8:
                raise ValueError(
                    f"frames of this session must be {(*self._frame_size, 3)} uint8, "
                    f"got {frame.shape} {frame.dtype}"
                )
            frame = np.array(frame)
        with self._changed:
            if not self._has_room():
                began = time.perf_counter()
                self._changed.wait_for(self._has_room, timeout=self._stall_timeout_s)
                self._waited_s += time.perf_counter() - began
            stalled = not self._has_room()
            if stalled:
                self._error = f"the disk has not kept up for {self._stall_timeout_s:g} s"
            if self._error is None and not self._is_closing:
                if frame is not None:
                    record = replace(record, frame=self._num_frames)
                    self._num_frames += 1
                item = _Item(record, frame, sound, state, time.monotonic())
                self._queue.append(item)
                self._pending_bytes += item.num_bytes
                self._changed.notify_all()
                return True
        if stalled:
            self._tell()
        return False

    def close(self, timeout_s: float = 60.0) -> bool:
        """Write what waits, then the end, and return whether all is; may be called twice.

        See `error` for how it went.
        """
        atexit.unregister(self.close)
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _has_room(self) -> bool:
        if self._error is not None or self._is_closing or not self._queue:
            return True
        # Opening takes as long as it takes: what comes meanwhile only counts from then on.
        waits_since = max(self._queue[0].added_at, self._opened_at)
        is_late = time.monotonic() - waits_since > self._max_pending_s
        return self._pending_bytes < self._max_pending_bytes and not is_late

    def _run(self) -> None:
        try:
            self._open()
            self._opened_at = time.monotonic()
            self._is_open.set()
            self._write_all()
        # The thread's edge: whatever it was, the player must hear of it, and the game not wait.
        except Exception as error:
            self._fail(error)
        self._is_open.set()
        self._finish()

    def _open(self) -> None:
        self._film = FragmentWriter(self._frame_size, fps=self._fps)
        header = header_to_json(self._make_header())
        with whole(self.folder) as place:  # there with its first file or not at all
            place.mkdir()
            (place / HEADER).write_text(header, encoding="utf-8")
        self._files = {name: AppendFile(self.folder / name) for name in (STEPS, VIDEO)}
        self._syncer.start()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_closing or self._error)
                if self._error is not None or not self._queue:
                    return
                item = self._queue[0]
            self._write(item)
            with self._changed:
                self._queue.popleft()
                self._pending_bytes -= item.num_bytes
                self._num_written += item.frame is not None
                self._num_steps += item.record.kind == "step"
                self._changed.notify_all()

    def _sync(self) -> None:
        try:
            while not self._done.wait(_SYNC_SECONDS):
                for file in self._files.values():
                    file.sync()
        except OSError as error:
            self._fail(error)

    def _write(self, item: _Item) -> None:
        record = item.record
        if item.frame is not None:
            assert self._film is not None
            self._files[VIDEO].append(self._film.add(item.frame))
            record = replace(record, frame_hash=hash_frame(item.frame))
        if item.sound is not None:
            assert record.frame is not None
            self._write_sound(item.sound, record.frame)
        if item.state is not None:
            name = f"state-{record.frame:06d}.safetensors"
            _save_state(item.state, self.folder / name)
            begin = {**record.begin, "state": name} if record.is_beginning else record.begin
            record = replace(record, begin=begin, state=name)
        self._files[STEPS].append(record.to_line())

    def _write_sound(self, sound: np.ndarray, number: int) -> None:
        if self._sound is None:
            self._sound = SoundWriter()
            # Others look at the files meanwhile: the dict they look at stays as it is.
            self._files = {**self._files, SOUND: AppendFile(self.folder / SOUND)}
        self._files[SOUND].append(self._sound.add(sound, number))

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = self._error or _in_words(error, self.folder)
            self._changed.notify_all()
        is_expected = isinstance(error, OSError | ImportError | MidasWorldError)
        logger.warning("recording ended: %s", self._error, exc_info=None if is_expected else error)
        self._tell()

    def _tell(self) -> None:
        assert self._error is not None
        self._on_error(self._error)

    def _finish(self) -> None:
        """Close the files; after an error, as far as that goes."""
        error = self._error
        try:
            if self._film is not None:
                last = self._film.close()
                # After an error a frame may be missing before these.
                if error is None:
                    self._files[VIDEO].append(last)
            self._done.set()
            if self._syncer.is_alive():
                self._syncer.join()
            if self._files:
                for file in self._files.values():
                    file.sync()
                end = {
                    "num_frames": self._num_written,
                    "num_steps": self._num_steps,
                    "closed_at": time.time(),
                    "error": error or self._given_up,
                }
                write_whole(self.folder / END, json.dumps(end, indent=1))
        except Exception as failure:
            if error is None:
                self._fail(failure)
        finally:
            for file in self._files.values():
                file.close()
            with self._changed:
                self._is_closing = True
                self._queue.clear()
                self._changed.notify_all()


def _save_state(state: Any, path: Path) -> None:
    if isinstance(state, Mapping):
        arrays = {key: np.ascontiguousarray(value) for key, value in state.items()}
        write_whole(path, safetensors.numpy.save(arrays))
    else:
        state.save(path)


def _in_words(error: Exception, folder: Path) -> str:
    """Return what the player should know of an error."""
    if isinstance(error, FileExistsError):
        return f"{folder} exists already"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror[0].lower()}{error.strerror[1:]}: {folder}"
    return f"{error}" or type(error).__name__
