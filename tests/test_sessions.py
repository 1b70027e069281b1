import dataclasses
import json
import shutil
from fractions import Fraction

import av
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from envs.recording.record import RecordSession
from envs.world.env import WorldEnv
from envs.world.state import WorldState
from midas_world.sessions.film_index import scan_film
from midas_world.sessions.log import Record, SessionError, hash_frame, read_log
from midas_world.sessions.session import RecordedSession, load_session
from midas_world.sessions.values import from_json, space_from_json, space_to_json, to_json
from midas_world.sessions.video import VideoError, copy_film, read_film
from midas_world.types import StepConditions
from tests.fakes import CountingEnv
from tests.sessions import record_env, record_steps, smooth_frame, step_record


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[RecordedSession, list[np.ndarray]]:
    """Return a session of 45 steps, and the frames that were recorded."""
    folder = tmp_path_factory.mktemp("recorded") / "session"
    frames = record_steps(folder, 45)
    return load_session(folder), frames


# What a session holds


def test_a_session_holds_every_frame_and_step(recorded):
    session, frames = recorded
    assert session.is_closed
    assert session.problems == ()
    assert (session.num_frames, session.num_steps) == (46, 45)
    assert [record.action for record in session.frame_records()[1:]] == [n % 15 for n in range(45)]
    assert [r.frame_hash for r in session.frame_records()] == [hash_frame(f) for f in frames]
    shown = list(session.frames())
    assert len(shown) == 46
    for frame, original in zip(shown, frames, strict=True):
        assert np.abs(frame.astype(int) - original).mean() < 4
    assert "45 steps, 2.3 s, closed in good order" in str(session)


def test_a_film_without_pictures_or_key_frames_is_refused(recorded, tmp_path):
    path = tmp_path / "video.mp4"
    film = (recorded[0].folder / "video.mp4").read_bytes()
    path.write_bytes(film)
    index = scan_film(path)
    _, second = index.keyframes[:2]
    for keyframes in ((), (second,)):
        damaged = dataclasses.replace(index, keyframes=keyframes)
        with pytest.raises(VideoError, match="no key frame up to frame 2"):
            list(read_film(path, damaged, (24, 40), 2, 4))
    count = film.index(b"stts") + len(b"stts") + 4  # of times: more than FFmpeg can allocate
    path.write_bytes(film[:count] + b"\x80" + film[count + 1 :])
    with pytest.raises(VideoError, match="it is damaged: it claims a length that no memory holds"):
        list(read_film(path, index, (24, 40), 0, 2))
    path.write_bytes(film.replace(b"trak", b"skip", 1))
    with pytest.raises(VideoError, match="frame 0 cannot be decoded"):
        list(read_film(path, index, (24, 40), 0, 2))
    with pytest.raises(VideoError, match="cannot be copied"):
        copy_film(path, index, tmp_path / "copy.mp4", stop=2, fps=20)
    assert not (tmp_path / "copy.mp4").exists()


def test_frames_can_be_read_from_anywhere(recorded):
    session, _ = recorded
    every = list(session.frames())
    for start, stop in ((0, 1), (19, 22), (20, 20), (42, 46)):
        some = list(session.frames(start, stop))
        np.testing.assert_array_equal(some, every[start:stop] or np.empty(0))
    with pytest.raises(ValueError, match="frames must be within 0 to 46, got 40 to 60"):
        session.frames(40, 60)


def test_records_keep_their_bits(tmp_path):
    rng = np.random.default_rng(1)
    pose = rng.normal(size=8).astype("f4")
    told = StepConditions(pose=pose, text="snow \n é", audio=None)
    values = {"frame_hash": "ab", "reward": 0.1, "truncated": True, "step_time": 0.02}
    records = [
        step_record(3, frame=0, conditions=told, **values),
        Record(kind="prompt", wall_time=2.5, text=None),
        Record(kind="reset", wall_time=3.0, frame=1, begin={"seed": 0, "x": np.arange(3)}),
    ]
    path = tmp_path / "steps.log"
    path.write_bytes(b"".join(record.to_line() for record in records))
    read, problems = read_log(path)
    assert problems == []
    np.testing.assert_array_equal(read[0].conditions.pose, pose)
    assert read[0].conditions.text == "snow \n é"
    assert (read[0].action, read[0].reward, read[0].truncated) == (3, 0.1, True)
    assert read[1] == records[1]
    np.testing.assert_array_equal(read[2].begin["x"], np.arange(3))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(15),
        spaces.Discrete(4, start=2),
        spaces.Box(np.array([-1.0, 0.0], "f4"), np.array([1.0, np.inf], "f4")),
        spaces.MultiBinary(5),
        spaces.MultiDiscrete([3, 4]),
    ],
    ids=str,
)
def test_action_spaces_come_back_from_json(space):
    words = json.loads(json.dumps(to_json(space_to_json(space))))
    assert space_from_json(from_json(words)) == space


def test_what_json_cannot_hold_is_named():
    with pytest.raises(ValueError, match="a session cannot hold a object"):
        to_json({"seed": object()})


def test_actions_and_pictures_of_any_env_are_kept(tmp_path):
    class Continuous(gym.Env):
        metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012
        render_mode = "rgb_array"
        action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        observation_space = spaces.Box(-9, 9, (4,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(4, np.float32), {}

        def step(self, action):
            return np.zeros(4, np.float32), np.float64(0.5), False, False, {}

        def render(self):
            return smooth_frame(9, (25, 41))  # odd sizes, which H.264 has not

    env = RecordSession(Continuous(), tmp_path / "session")
    env.reset()
    action = np.array([0.25, -1.0], np.float32)
    env.step(action)
    action[:] = 0.0  # agents reuse their buffers
    env.close()
    session = load_session(tmp_path / "session")
    assert session.header.fps == 30
    np.testing.assert_array_equal(session.records[1].action, np.array([0.25, -1.0], np.float32))
    frame = next(session.frames())
    assert frame.shape == (25, 41, 3)
    assert np.abs(frame.astype(int) - smooth_frame(9, (25, 41))).mean() < 4
    # A reset without a seed can be done again all the same.
    assert session.records[0].begin["rng"]["bit_generator"] == "PCG64"


def test_an_info_of_another_kind_is_passed_over(tmp_path):
    class Odd(CountingEnv):
        def step(self, action):
            frame, reward, terminated, truncated, _ = super().step(action)
            info = {"pose": "upright", "audio": {"left": 1}, "text": 3}
            return frame, reward, terminated, truncated, info

    session = record_env(Odd(), tmp_path / "session", [1], seed=0)
    assert session.is_closed
    assert session.records[1].conditions == StepConditions()


@pytest.mark.parametrize("change", ["size", "kind", "none", "action"])
def test_an_env_goes_on_without_recording_what_cannot_be(tmp_path, change):
    class Changing(CountingEnv):
        def __init__(self):
            super().__init__()
            self.render_mode = "rgb_array"

        def render(self):
            frame = self._frame(0)
            if self._step < 2 or change == "action":
                return frame
            return {"size": frame[:-2], "kind": frame / 255, "none": None}[change]

    told = []
    env = RecordSession(Changing(), tmp_path / "session", frames="render", on_error=told.append)
    env.reset(seed=0)
    env.step(1)
    assert env.step(Fraction(1) if change == "action" else 1)[1] == 1.0
    env.step(1)
    env.reset()
    env.close()
    assert len(told) == 1
    session = load_session(tmp_path / "session")
    assert session.num_frames == 2
    assert not session.is_closed


def test_an_env_without_a_picture_is_refused():
    with pytest.raises(ValueError, match='must be made with render_mode="rgb_array"'):
        RecordSession(gym.make("CartPole-v1"), "nowhere")


def test_the_film_is_one_that_plays_everywhere(recorded):
    with av.open(str(recorded[0].folder / "video.mp4")) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        times = [frame.time for frame in film.decode(stream)]
    assert times == pytest.approx([n / 20 for n in range(46)])


def test_the_header_tells_all_that_it_takes_to_play_again(tiny_world, tmp_path):
    env, options = WorldEnv(tiny_world, horizon=9), {"prompt": "a beach"}
    header = record_env(env, tmp_path / "session", [3], seed=4, options=options).header
    assert header.env_id == "envs:midas/Stage-v0"
    assert header.world["name"] == tiny_world.folder.name
    assert len(header.world["weights_sha256"]) == 64
    assert (header.seed, header.prompt, header.horizon) == (4, "a beach", 9)
    assert header.start_state == env.reset(seed=4, options=options)[1]["start_state"]
    assert header.backend["backend"] == "torch"
    assert header.versions["torch"]
    assert header.action_names[3] == "run_left"


def test_given_frames_are_kept_as_the_state_they_lead_to(tiny_world, tmp_path):
    env = WorldEnv(tiny_world)
    frames = np.zeros((1, *env.observation_space.shape), np.uint8)
    options = {"start_state": {"frames": frames, "conditions": [StepConditions()]}}
    session = record_env(env, tmp_path / "session", [1], seed=1, options=options)
    first = session.records[0]
    assert "options" not in first.begin
    path = session.state_path(first)
    assert path is not None
    assert WorldState.load(path).num_games == 1


# Cut off


def test_a_session_that_is_cut_anywhere_opens_and_holds_what_came_before(recorded, tmp_path):
    whole, folder = recorded[0], tmp_path
    frames = list(whole.frames())
    names = ("video.mp4", "steps.log", "header.json")
    film, log, header = ((whole.folder / name).read_bytes() for name in names)
    (folder / "header.json").write_bytes(header)
    rng = np.random.default_rng(7)
    for number in range(150):
        (folder / "video.mp4").write_bytes(film[: rng.integers(len(film))])
        (folder / "steps.log").write_bytes(log[: rng.integers(len(log))])
        session = load_session(folder)
        assert not session.is_closed
        assert session.problems
        records = session.frame_records()
        assert records == whole.frame_records()[: len(records)]
        last = session.num_frames
        assert last <= 46
        if last and number % 10 == 0:
            np.testing.assert_array_equal(next(session.frames(last - 1, last)), frames[last - 1])


def test_a_damaged_line_ends_what_is_read(recorded, tmp_path):
    folder = shutil.copytree(recorded[0].folder, tmp_path / "session")
    path = folder / "steps.log"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[8] = lines[8].replace(b'"action":7', b'"action":9')
    path.write_bytes(b"".join(lines))
    session = load_session(folder)
    assert session.num_frames == 8
    assert any("line 9 of steps.log is damaged" in problem for problem in session.problems)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (None, "is no session: it has no header.json"),
        ("{", "is no session's header"),
        ('{"format": "midas-world session", "format_version": 99}', "version 99; this program"),
    ],
)
def test_what_is_no_session_is_named(tmp_path, words, message):
    if words is not None:
        (tmp_path / "header.json").write_text(words)
    with pytest.raises(SessionError, match=message):
        load_session(tmp_path)
