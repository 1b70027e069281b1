import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from envs.recording import record
from envs.recording.record import EnvRecorder, RecordSession, new_path
from midas_world.data.video import VideoError
from midas_world.sessions import writer as session_writer
from midas_world.sessions.film_index import scan_film
from midas_world.sessions.log import SessionError, hash_frame, read_log
from midas_world.sessions.session import SessionHeader, load_session
from midas_world.sessions.video import FragmentWriter
from midas_world.sessions.writer import SessionWriter
from tests.fakes import CountingEnv
from tests.sessions import FullDisk, record_steps, smooth_frame, step_record


def writer_at(folder: Path, **changes) -> SessionWriter:
    def header() -> SessionHeader:
        return SessionHeader(env_id="test", fps=20, frame_size=(24, 40))

    return SessionWriter(folder, header, frame_size=(24, 40), fps=20, **changes)


# What can go wrong while recording


@pytest.mark.parametrize("name", ["video.mp4", "steps.log"])
def test_a_full_disk_is_told_at_once_and_leaves_what_was_written(tmp_path, monkeypatch, name):
    FullDisk(monkeypatch, name, 3000)
    told = threading.Event()
    env = CountingEnv()
    wrapped = RecordSession(env, tmp_path / "session", on_error=lambda _: told.set())
    frames = [wrapped.reset(seed=0)[0]]
    while not told.is_set():
        frames.append(wrapped.step(len(frames) % 15)[0])
        assert len(frames) < 5000
    assert "no space left on device" in wrapped.recording.error
    wrapped.step(1)  # play goes on
    wrapped.close()
    session = load_session(tmp_path / "session")
    assert 3 < session.num_frames < len(frames)
    assert not session.is_closed
    assert "recording ended early: no space left" in str(session)
    shown = list(session.frames())
    assert len(shown) == session.num_frames
    assert [r.frame_hash for r in session.frame_records()] == [
        hash_frame(frame) for frame in frames[: session.num_frames]
    ]
    assert scan_film(tmp_path / "session" / "video.mp4").num_lost == 0


def test_a_folder_that_cannot_be_made_is_an_error_of_the_first_reset(tmp_path):
    (tmp_path / "file").write_text("in the way")
    env = RecordSession(CountingEnv(), tmp_path / "file" / "session")
    with pytest.raises(SessionError, match="cannot record: not a directory"):
        env.reset(seed=0)
    env.step(0)
    env.close()


def test_a_folder_is_there_with_its_header_or_not_at_all(tmp_path, monkeypatch):
    may_go = threading.Event()

    def header() -> SessionHeader:
        assert may_go.wait(20)
        return SessionHeader(env_id="test", fps=20, frame_size=(24, 40))

    folder = tmp_path / "session"
    writer = SessionWriter(folder, header, frame_size=(24, 40), fps=20)
    writer.add(step_record(0), smooth_frame(0))
    assert not folder.exists()
    may_go.set()
    assert writer.wait_until_open()
    writer.close()
    assert load_session(folder).num_frames == 1
    assert [path.name for path in tmp_path.iterdir()] == ["session"]


def test_a_missing_encoder_is_told_and_leaves_no_folder(tmp_path, monkeypatch):
    def missing(*_):
        raise av.error.EncoderNotFoundError(1, "Encoder not found")

    monkeypatch.setattr(av.codec, "Codec", missing)
    with pytest.raises(VideoError, match="cannot encode H"):
        FragmentWriter((24, 40), fps=20)
    errors = []
    writer = writer_at(tmp_path / "session", on_error=errors.append)
    assert not writer.wait_until_open()
    writer.add(step_record(0), smooth_frame(0))
    writer.close()
    assert len(errors) == 1
    assert "cannot encode H.264" in errors[0]
    assert not (tmp_path / "session").exists()


def test_a_session_is_never_written_over(tmp_path):
    record_steps(tmp_path / "session", 3)
    before = (tmp_path / "session" / "end.json").read_bytes()
    with pytest.raises(ValueError, match="exists already"):
        RecordSession(CountingEnv(), tmp_path / "session")
    writer = writer_at(tmp_path / "session")
    writer.close()
    assert "exists already" in writer.error
    assert (tmp_path / "session" / "end.json").read_bytes() == before
    assert new_path(tmp_path, "a b/c").name.startswith("a-b-c-2")


def test_two_programs_that_record_at_the_same_moment_keep_both(tmp_path, monkeypatch):
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    monkeypatch.setattr(record, "datetime", SimpleNamespace(now=lambda: moment))
    folders = []
    for program in (1, 2):
        monkeypatch.setattr(os, "getpid", lambda number=program: number)
        folders.append(new_path(tmp_path, "stage"))
    assert folders[0] != folders[1]


def test_of_two_that_make_one_folder_one_is_whole_and_the_other_is_told(tmp_path, monkeypatch):
    meet = threading.Barrier(2, timeout=10.0)
    write = Path.write_bytes

    def write_together(path: Path, data: bytes) -> int:
        if path.name == "header.json":
            meet.wait()
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", write_together)
    writers = [writer_at(tmp_path / "session") for _ in range(2)]
    for writer in writers:
        writer.close()
    errors = sorted(writer.error or "" for writer in writers)
    assert errors[0] == ""
    assert "exists already" in errors[1]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def gate(monkeypatch) -> threading.Event:
    """Return what films wait for before they take a frame."""
    may_go = threading.Event()

    class SlowFilm:
        def __init__(self, *_, **__): ...

        def add(self, frame):
            assert may_go.wait(20)
            return b""

        def close(self):
            return b""

    monkeypatch.setattr(session_writer, "FragmentWriter", SlowFilm)
    return may_go


def test_the_game_waits_for_a_writer_that_cannot_keep_up_and_loses_nothing(tmp_path, gate):
    frame = smooth_frame(0)
    writer = writer_at(tmp_path / "session", max_pending_bytes=25_000, max_pending_s=1000)
    added = threading.Semaphore(0)

    def play() -> None:
        for number in range(30):
            assert writer.add(step_record(number), frame)
            added.release()

    player = threading.Thread(target=play)
    player.start()
    for _ in range(4):
        assert added.acquire(timeout=10)
    assert writer.num_frames <= 6  # none of which is written yet
    assert player.is_alive()
    gate.set()
    player.join(20)
    writer.close()
    assert writer.error is None
    assert len(read_log(tmp_path / "session" / "steps.log")[0]) == 30


def test_a_disk_that_hangs_ends_the_recording_and_not_the_game(tmp_path, gate):
    frame = smooth_frame(0)
    errors = []
    writer = writer_at(
        tmp_path / "session", max_pending_bytes=10_000, stall_timeout_s=0.02, on_error=errors.append
    )
    results = [writer.add(step_record(number), frame) for number in range(8)]
    assert results[-1] is False
    assert errors == ["the disk has not kept up for 0.02 s"]
    started = time.perf_counter()
    writer.add(step_record(9), frame)
    assert time.perf_counter() - started < 5.0
    gate.set()
    writer.close()


# What it costs


def test_handing_over_a_frame_costs_less_than_a_twentieth_of_a_step(tmp_path):
    """60 steps a second are 16.7 ms each, of which 5 % are 0.83 ms."""
    env = CountingEnv()
    recorder = EnvRecorder(env, tmp_path / "session", fps=60)
    frame = np.random.default_rng(0).integers(256, size=(192, 320, 3), dtype=np.uint8)
    info = {"pose": np.zeros(48, "f4"), "audio": np.zeros(40, "f4"), "text": "a beach"}
    recorder.begin(frame, info, kind="reset", begin={})
    times = []
    for _ in range(60):
        started = time.perf_counter()
        recorder.step(3, (frame, 0.0, False, False, info), step_time=0.01)
        times.append(time.perf_counter() - started)
        while len(recorder._writer._queue) > 3:  # as a paced game would
            time.sleep(0.001)
    recorder.close()
    assert np.median(times) < 0.83e-3
    assert load_session(tmp_path / "session").num_steps == 60
