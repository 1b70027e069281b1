import json
import sys

import av
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from PIL import Image

from envs.play.game import Game, open_world
from envs.record import RecordSession
from envs.record_overhead import measure
from midas_world import cli
from midas_world.export.lerobot_dataset import export_lerobot
from midas_world.export.minari_dataset import export_minari
from midas_world.export.pictures import PictureOptions, pictures
from midas_world.export.teacher import teacher_frames
from midas_world.sessions import RecordedSession, load_session
from tests.fakes import CountingEnv

HEIGHT, WIDTH = 48, 64


class SlidesEnv(gym.Env):
    """A bar that moves; episodes of 12 steps end, every second one by truncation."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, action_space=None):
        self.action_space = action_space or spaces.Discrete(5)
        self.observation_space = spaces.Box(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count, self.episode = 0, self.episode + 1
        return self._frame(), self._info()

    def step(self, action):
        self.count += 1
        over, odd = self.count >= 12, bool(self.episode % 2)
        return self._frame(), 0.5 * self.count, over and not odd, over and odd, self._info()

    def _frame(self):
        frame = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        frame[:, 4 * self.count : 4 * self.count + 12] = (220, 200, 20 * self.episode)
        return frame

    def _info(self):
        pose = np.array([self.count, self.episode, -1.0], np.float32)
        return {"pose": pose, "text": f"step {self.count}"}


def record(folder, num_steps=30, env=None, seed=3) -> RecordedSession:
    env = RecordSession(env or SlidesEnv(), folder)
    env.action_space.seed(0)
    env.reset(seed=seed)
    for _ in range(num_steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset(seed=seed)
    env.close()
    return load_session(folder)


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> RecordedSession:
    """Return a session of episodes of 12, 12 and 6 steps: 33 frames."""
    return record(tmp_path_factory.mktemp("sessions") / "slides run")


def export(session, *options: str) -> int:
    return cli.main(["export", str(session.folder), *options])


def read_film(path) -> list[np.ndarray]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


# Films


def test_a_plain_film_is_copied_bit_for_bit_and_begins_with_its_index(session, tmp_path):
    assert export(session, "--to", "mp4", "--output", str(tmp_path / "film.mp4")) == 0
    with (
        av.open(str(tmp_path / "film.mp4")) as film,
        av.open(str(session.folder / "video.mp4")) as own,
    ):
        assert film.streams.video[0].frames == 33
        assert float(film.duration / av.time_base) == pytest.approx(33 / 20)
        packets = [bytes(packet) for packet in film.demux(video=0) if packet.size]
        assert packets == [bytes(packet) for packet in own.demux(video=0) if packet.size]
    data = (tmp_path / "film.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    assert not list(tmp_path.glob(".tmp*"))


def test_a_part_of_a_film_is_what_was_asked_for(session, tmp_path):
    output = tmp_path / "part.mp4"
    options = ["--start", "0.5", "--stop", "1", "--output", str(output)]
    assert export(session, "--to", "mp4", *options) == 0
    film, own = read_film(output), list(session.frames(10, 20))
    assert len(film) == 10
    for frame, original in zip(film, own, strict=True):
        assert np.abs(frame.astype(int) - original).mean() < 6


def test_the_hud_is_burnt_in_and_frames_grow_by_whole_pixels(session):
    plain = PictureOptions(start=0, stop=33, scale=2)
    first = next(pictures(session, plain))
    np.testing.assert_array_equal(first[::2, ::2], next(session.frames(0, 1)))
    np.testing.assert_array_equal(first[1::2, 1::2], next(session.frames(0, 1)))
    hud = list(pictures(session, PictureOptions(start=0, stop=33, scale=2, has_hud=True)))
    bare = list(pictures(session, plain))
    changed = [np.any(a != b, axis=(1, 2)) for a, b in zip(hud, bare, strict=True)]
    assert all(rows[-10:].any() for rows in changed)
    assert not any(rows[: HEIGHT // 2].any() for rows in changed)
    assert (hud[3] != hud[4])[-14:].any()  # the words change


def test_a_gif_has_its_frames_and_nearly_its_colours(session, tmp_path):
    output = tmp_path / "film.gif"
    assert export(session, "--to", "gif", "--stop", "0.5", "--output", str(output)) == 0
    film, own = read_film(output), list(session.frames(0, 10))
    assert len(film) == 10
    assert np.abs(film[7].astype(int) - own[7]).mean() < 8


def test_frames_are_written_as_png_under_their_numbers(session, tmp_path):
    output = tmp_path / "frames"
    assert export(session, "--to", "frames", "--start", "1.5", "--output", str(output)) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        f"frame_{number:06d}.png" for number in range(30, 33)
    ]
    frame = np.asarray(Image.open(output / "frame_000031.png"))
    np.testing.assert_array_equal(frame, next(session.frames(31, 32)))


def test_a_session_that_was_cut_off_is_exported_as_far_as_it_goes(session, tmp_path, capsys):
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("header.json", "steps.log", "video.mp4"):
        data = (session.folder / name).read_bytes()
        (cut / name).write_bytes(data[: len(data) * 2 // 3] if name == "video.mp4" else data)
    assert cli.main(["export", str(cut), "--to", "mp4", "--output", str(tmp_path / "a.mp4")]) == 0
    assert "recording was cut off" in capsys.readouterr().out
    assert len(read_film(tmp_path / "a.mp4")) == load_session(cut).num_frames > 10


# Beside the teacher


def test_the_teacher_plays_the_same_actions_from_the_same_place(tiny_folder, tmp_path):
    playable = open_world(str(tiny_folder))
    game = Game(playable, seed=2)
    game.recorder.start(tmp_path / "session", on_error=pytest.fail)
    game.reset()
    for action in (2, 2, 4):
        view = game.step(action)
    middle = game.snapshot(view)
    game.set_prompt("a desert at noon")
    for action in (6, 0):
        game.step(action)
    game.restore(middle)
    game.step(11)
    game.close()
    session = load_session(tmp_path / "session")
    start = session.records[0].begin["teacher_start"]
    teacher = gym.make("envs:midas/StageTeacher-v0").unwrapped

    def play(actions, prompt_after=99):
        frame, _ = teacher.reset(
            seed=2, options={"conditioner_state": start, "scene_changes": False}
        )
        for step, action in enumerate(actions):
            if step == prompt_after:
                teacher.set_prompt("a desert at noon")
            frame, *_ = teacher.step(action)
        return frame

    twins = list(teacher_frames(session, 0, session.num_frames))
    assert len(twins) == session.num_frames == 8
    np.testing.assert_array_equal(twins[3], play([2, 2, 4]))
    np.testing.assert_array_equal(twins[5], play([2, 2, 4, 6, 0], prompt_after=3))
    np.testing.assert_array_equal(twins[6], play([2, 2, 4]))
    np.testing.assert_array_equal(twins[7], play([2, 2, 4, 11]))
    options = PictureOptions(start=6, stop=8, has_teacher=True, has_hud=True, scale=2)
    shown = list(pictures(session, options))
    assert len(shown) == 2
    assert shown[0].shape[:2] == options.size(session.header)


def test_sessions_without_a_teacher_say_so(session, tmp_path, capsys):
    options = ["--to", "mp4", "--teacher", "--output", str(tmp_path / "a.mp4")]
    assert export(session, *options) == 2
    assert "has no teacher to show beside it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# Datasets


@pytest.mark.parametrize("is_lossless", [True, False])
def test_minari_reads_what_was_recorded(session, tmp_path, monkeypatch, is_lossless):
    minari = pytest.importorskip("minari")
    name = export_minari(session, tmp_path, is_lossless=is_lossless)
    assert name == "slides-run-v0"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = minari.load_dataset(name)
    assert list(minari.list_local_datasets()) == [name]
    assert (dataset.total_episodes, dataset.total_steps) == (3, 30)
    assert dataset.action_space == spaces.Discrete(5)
    segments = session.segments()
    for episode, segment in zip(dataset.iterate_episodes(), segments, strict=True):
        steps = segment.num_steps
        assert len(episode.observations) == steps + 1
        for column in (episode.actions, episode.rewards, episode.terminations, episode.truncations):
            assert len(column) == steps
        assert all(frame in dataset.observation_space for frame in episode.observations)
        assert all(action in dataset.action_space for action in episode.actions)
        assert list(episode.actions) == [record.action for record in segment.steps]
        np.testing.assert_array_equal(episode.infos["pose"][:, 0], np.arange(steps + 1))
        assert episode.infos["text"][2].decode() == "step 2"
        own = np.stack(list(session.frames(segment.frames.start, segment.frames.stop)))
        if is_lossless:
            np.testing.assert_array_equal(episode.observations, own)
        else:
            assert np.abs(episode.observations.astype(int) - own).mean() < 6
    ends = [(e.terminations[-1], e.truncations[-1]) for e in dataset.iterate_episodes()]
    assert ends == [(True, False), (False, True), (False, True)]
    assert [e["seed"] for e in dataset.storage.get_episode_metadata([0, 1])] == [3, 3]
    with pytest.raises(ValueError, match="exists already"):
        export_minari(session, tmp_path)


def test_minari_recovers_the_environment(tiny_folder, tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    env = gym.make("envs:midas/Stage-v0", world=str(tiny_folder), horizon=7)
    recorded = record(tmp_path / "tiny", num_steps=4, env=env)
    name = export_minari(recorded, tmp_path / "datasets")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    again = minari.load_dataset(name).recover_environment()
    frame, _ = again.reset(seed=3)
    assert frame.shape == (*recorded.header.frame_size, 3)
    again.close()


@pytest.fixture(scope="module")
def lerobot_folder(session, tmp_path_factory):
    pytest.importorskip("pyarrow")
    pytest.importorskip("pandas")
    folder = tmp_path_factory.mktemp("lerobot") / "dataset"
    export_lerobot(session, folder)
    return folder


def test_lerobot_layout_is_the_published_one(lerobot_folder):
    files = {
        p.relative_to(lerobot_folder).as_posix() for p in lerobot_folder.rglob("*") if p.is_file()
    }
    assert files == {
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "data/chunk-000/file-000.parquet",
        "videos/observation.image/chunk-000/file-000.mp4",
    }
    info = json.loads((lerobot_folder / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 30, 1)
    assert info["splits"] == {"train": "0:3"}
    place = {"chunk_index": 0, "file_index": 0, "video_key": "observation.image"}
    for path in (info["data_path"], info["video_path"]):
        assert (lerobot_folder / path.format(**place)).is_file()
    assert info["features"]["observation.image"]["shape"] == [HEIGHT, WIDTH, 3]
    assert info["features"]["observation.state"] == {
        "dtype": "float32",
        "shape": [3],
        "names": None,
    }


def test_lerobot_rows_and_film_agree_with_the_session(session, lerobot_folder):
    import pandas as pd
    import pyarrow.parquet as pq

    table = pq.read_table(lerobot_folder / "data/chunk-000/file-000.parquet")
    info = json.loads((lerobot_folder / "meta/info.json").read_text())
    columns = {k for k, v in info["features"].items() if v["dtype"] != "video"}
    assert set(table.column_names) == columns
    rows = table.to_pydict()
    assert rows["index"] == list(range(30))
    assert rows["episode_index"] == [0] * 12 + [1] * 12 + [2] * 6
    assert rows["frame_index"] == [*range(12), *range(12), *range(6)]
    np.testing.assert_allclose(rows["timestamp"][:12], np.arange(12) / 20, atol=1e-6)
    assert rows["next.done"] == [number in (11, 23) for number in range(30)]
    assert rows["observation.state"][5] == [5.0, 0.0, -1.0]
    assert str(table.schema.field("observation.state").type).startswith("fixed_size_list")
    assert rows["next.reward"][4] == 2.5
    own = [record.action for segment in session.segments() for record in segment.steps]
    assert rows["action"] == own
    tasks = pd.read_parquet(lerobot_folder / "meta/tasks.parquet")
    assert tasks.index.name == "task"
    assert list(tasks.task_index) == [0]
    episodes = pd.read_parquet(lerobot_folder / "meta/episodes/chunk-000/file-000.parquet")
    assert list(episodes.length) == [12, 12, 6]
    assert list(episodes.dataset_from_index) == [0, 12, 24]
    assert list(episodes["videos/observation.image/from_timestamp"]) == [0.0, 0.6, 1.2]
    assert list(episodes.tasks[0]) == [tasks.index[0]]
    film = read_film(lerobot_folder / "videos/observation.image/chunk-000/file-000.mp4")
    assert len(film) == 30
    for number, start in ((0, 0), (12, 13), (29, 31)):
        original = next(session.frames(start, start + 1))
        assert np.abs(film[number].astype(int) - original).mean() < 6


def test_lerobot_statistics_are_those_of_all_rows(session, lerobot_folder):
    stats = json.loads((lerobot_folder / "meta/stats.json").read_text())
    rewards = np.array([r.reward for s in session.segments() for r in s.steps])
    found = stats["next.reward"]
    assert found["count"] == [30]
    for key in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(found[key], [getattr(np, key)(rewards)], rtol=1e-6)
    assert np.array(stats["observation.image"]["mean"]).shape == (3, 1, 1)
    assert 0.0 < stats["observation.image"]["mean"][0][0][0] < 1.0


def test_lerobot_takes_continuous_actions(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("pandas")
    env = SlidesEnv(spaces.Box(-1.0, 1.0, (2,), np.float32))
    recorded = record(tmp_path / "session", 5, env)
    export_lerobot(recorded, tmp_path / "dataset")
    rows = pq.read_table(tmp_path / "dataset/data/chunk-000/file-000.parquet").to_pydict()
    np.testing.assert_array_equal(rows["action"][2], recorded.records[3].action)


def test_a_missing_extra_is_named_and_nothing_is_left(session, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "minari", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("minari", "lerobot"):
        assert export(session, "--to", name, "--output", str(tmp_path / name)) == 2
        assert "pip install 'midas-world[export]'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.*"))


# The command


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "mp4", "--output", "film.avi"], "--output must end in .mp4"),
        (["--to", "mp4", "--start", "5"], "nothing from 5 s to 1.65 s"),
        (["--to", "minari", "--hud"], "--hud is for mp4, gif, frames"),
        (["--to", "mp4", "--scale", "-1"], "scale must be at least 1, got -1"),
    ],
)
def test_command_says_what_is_wrong(session, options, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert export(session, *options) == 2
    assert message in capsys.readouterr().err


def test_command_says_what_is_no_session(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path / "nowhere"), "--to", "mp4"]) == 2
    assert "there is no session at" in capsys.readouterr().err


# What recording costs


def test_the_overhead_is_measured_with_and_without_in_one_run(tmp_path):
    overhead = measure(
        CountingEnv(delay_s=0.004), tmp_path / "session", num_steps=80, steps_per_turn=10
    )
    assert overhead.num_recorded == overhead.num_held == 41
    assert overhead.rate_with > 0
    assert 0 < overhead.rate_without < 250
    assert "0 dropped" in str(overhead)
    print(overhead)
