"""Sessions as datasets: Minari's read by Minari itself, LeRobot's against its published layout.

Where the lerobot package is installed, it reads its own too.
"""

import hashlib
import json
import re
import shutil
from types import SimpleNamespace

import gymnasium as gym
import minari
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from gymnasium import spaces

from midas_world.sessions.export import lerobot_dataset
from midas_world.sessions.export.lerobot_dataset import export_lerobot
from midas_world.sessions.export.minari_dataset import dataset_id_of, export_minari
from midas_world.types import CheckpointError
from tests.sessions import HEIGHT, WIDTH, SlidesEnv, export, read_film, record_slides

# Minari


@pytest.mark.parametrize("is_lossless", [True, False])
def test_minari_reads_what_was_recorded(slides, tmp_path, monkeypatch, is_lossless):
    name = export_minari(slides, tmp_path, is_lossless=is_lossless)
    assert name == "slides-run-v0"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = minari.load_dataset(name)
    assert list(minari.list_local_datasets()) == [name]
    assert (dataset.total_episodes, dataset.total_steps) == (3, 30)
    assert dataset.action_space == spaces.Discrete(5)
    segments = slides.segments()
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
        own = np.stack(list(slides.frames(segment.frames.start, segment.frames.stop)))
        if is_lossless:
            np.testing.assert_array_equal(episode.observations, own)
        else:
            assert np.abs(episode.observations.astype(int) - own).mean() < 6
    ends = [(e.terminations[-1], e.truncations[-1]) for e in dataset.iterate_episodes()]
    assert ends == [(True, False), (False, True), (False, True)]
    assert [e["seed"] for e in dataset.storage.get_episode_metadata([0, 1])] == [3, 3]
    with pytest.raises(ValueError, match="exists already"):
        export_minari(slides, tmp_path)


def test_minari_datasets_go_to_a_folder_of_their_own_by_default(slides, here, monkeypatch, capsys):
    assert export(slides, "--to", "minari") == 0
    assert f"MINARI_DATASETS_PATH={here / 'datasets'}" in capsys.readouterr().out
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(here / "datasets"))
    assert minari.load_dataset("slides-run-v0").total_steps == 30


def test_minari_names_keep_sessions_of_any_letters_apart(slides, tmp_path, capsys):
    names = {
        dataset_id_of(SimpleNamespace(folder=tmp_path / name))
        for name in ("сцена", "舞台", "scène", "scene", "--")
    }
    assert len(names) == 5
    assert "scene-v0" in names
    assert all(re.fullmatch(r"[-_a-z0-9]+-v0", name) for name in names)
    options = ("--name", "mine/slides-v2", "--algorithm-name", "expert", "--output", str(tmp_path))
    assert export(slides, "--to", "minari", *options) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
        assert minari.load_dataset("mine/slides-v2").storage.metadata["algorithm_name"] == "expert"
    with pytest.raises(ValueError, match="must be Latin letters"):
        export_minari(slides, tmp_path, dataset_id="../slides-v0")


def test_minari_recovers_the_environment_elsewhere(tiny_folder, tmp_path, monkeypatch):
    here, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        shutil.copytree(tiny_folder, folder / "worlds" / "mine")
    monkeypatch.chdir(here)
    env = gym.make("midas/Stage-v0", world="mine", horizon=7)
    recorded = record_slides(tmp_path / "played", num_steps=4, env=env)
    name = export_minari(recorded, tmp_path / "datasets")
    shutil.rmtree(here / "worlds")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    dataset = minari.load_dataset(name)
    again = dataset.recover_environment()
    # What Minari's own check_env_recovery compares.
    assert again.observation_space == env.observation_space == dataset.observation_space
    assert again.action_space == env.action_space == dataset.action_space
    own = {key: value for key, value in again.spec.kwargs.items() if key != "weights_sha256"}
    assert own == env.spec.kwargs
    assert again.spec.id == env.spec.id
    weights = (elsewhere / "worlds/mine/weights.safetensors").read_bytes()
    assert again.spec.kwargs["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    published = b"".join(path.read_bytes() for path in (tmp_path / "datasets").rglob("*.json"))
    assert str(tmp_path).encode() not in published
    (elsewhere / "worlds/mine/weights.safetensors").write_bytes(b"others")
    with pytest.raises((ValueError, CheckpointError)):
        dataset.recover_environment()


def test_a_world_with_other_weights_is_refused(tiny_folder):
    with pytest.raises(ValueError, match="is not the one that is asked for"):
        gym.make("midas/Stage-v0", world=str(tiny_folder), weights_sha256="0" * 64)


# LeRobot


@pytest.fixture(scope="module")
def lerobot_folder(slides, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lerobot") / "dataset"
    export_lerobot(slides, folder)
    return folder


def test_lerobot_layout_is_the_published_one(lerobot_folder):
    paths = [path for path in lerobot_folder.rglob("*") if path.is_file()]
    assert {path.relative_to(lerobot_folder).as_posix() for path in paths} == {
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
    assert info["features"]["action"] == {"dtype": "int64", "shape": [1], "names": ["action"]}
    state = {"dtype": "float32", "shape": [3], "names": None}
    assert info["features"]["observation.state"] == state


def test_lerobot_rows_and_film_agree_with_the_session(slides, lerobot_folder):
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
    own = [record.action for segment in slides.segments() for record in segment.steps]
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
        original = next(slides.frames(start, start + 1))
        assert np.abs(film[number].astype(int) - original).mean() < 6


def test_lerobot_statistics_are_those_of_all_rows(slides, lerobot_folder):
    stats = json.loads((lerobot_folder / "meta/stats.json").read_text())
    rewards = np.array([r.reward for s in slides.segments() for r in s.steps])
    found = stats["next.reward"]
    assert found["count"] == [30]
    for key in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(found[key], [getattr(np, key)(rewards)], rtol=1e-6)
    assert np.array(stats["observation.image"]["mean"]).shape == (3, 1, 1)
    for values in stats.values():
        ranked = [values[key] for key in ("min", "q01", "q10", "q50", "q90", "q99", "max")]
        assert np.shape(ranked)[1:] == np.shape(values["mean"])
        assert (np.diff(ranked, axis=0) >= -1e-9).all()
    assert 0.0 < stats["observation.image"]["mean"][0][0][0] < 1.0


def test_lerobot_takes_continuous_actions(tmp_path):
    env = SlidesEnv(spaces.Box(-1.0, 1.0, (2,), np.float32))
    recorded = record_slides(tmp_path / "session", 5, env)
    export_lerobot(recorded, tmp_path / "dataset")
    rows = pq.read_table(tmp_path / "dataset/data/chunk-000/file-000.parquet").to_pydict()
    np.testing.assert_array_equal(rows["action"][2], recorded.records[3].action)


@pytest.mark.parametrize("files", ["one", "one per episode"])
def test_lerobot_itself_reads_what_was_recorded(slides, tmp_path, monkeypatch, files):
    lerobot = pytest.importorskip("lerobot.datasets.lerobot_dataset")
    cache = pytest.importorskip("datasets").config
    monkeypatch.setattr(cache, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    if files == "one per episode":
        monkeypatch.setattr(lerobot_dataset, "_VIDEO_MB", -1)
    folder = tmp_path / "dataset"
    export_lerobot(slides, folder)
    dataset = lerobot.LeRobotDataset("midas/slides", root=folder)
    films = sorted(folder.glob("videos/observation.image/*/*.mp4"))
    assert len(films) == (1 if files == "one" else 3)
    assert (dataset.num_frames, dataset.num_episodes, dataset.fps) == (30, 3, 20)
    steps = [
        (segment.records[place], record, episode, place)
        for episode, segment in enumerate(slides.segments())
        for place, record in enumerate(segment.steps)
    ]
    frames = [frame for film in films for frame in read_film(film)]
    assert len(dataset) == len(steps) == len(frames)
    for number, (before, record, episode, place) in enumerate(steps):
        item = dataset[number]
        assert item["index"] == number
        assert (item["episode_index"], item["frame_index"]) == (episode, place)
        assert item["timestamp"].item() == pytest.approx(place / 20)
        assert item["action"] == record.action
        assert item["next.reward"] == record.reward
        assert item["next.done"] == (record.terminated or record.truncated)
        assert item["task"] == "play tests.sessions:SlidesEnv"
        np.testing.assert_array_equal(item["observation.state"], before.conditions.pose)
        frame = item["observation.image"].permute(1, 2, 0).numpy()
        assert frame.shape == (HEIGHT, WIDTH, 3)
        # Its decoder may round colours in another way than PyAV does.
        np.testing.assert_allclose(255 * frame, frames[number], atol=3)
    own = np.array([record.reward for _, record, _, _ in steps])
    for key in ("min", "max", "mean", "std"):
        found = dataset.meta.stats["next.reward"][key]
        np.testing.assert_allclose(found, [getattr(np, key)(own)], rtol=1e-6)
    assert dataset.meta.stats["observation.image"]["mean"].shape == (3, 1, 1)
    second = lerobot.LeRobotDataset("midas/slides", root=folder, episodes=[1])
    assert [item["episode_index"] for item in second] == [1] * 12
