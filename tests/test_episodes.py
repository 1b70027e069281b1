import builtins
import errno
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midas_world.data.episodes import (
    Episode,
    EpisodeError,
    EpisodeMetadata,
    iter_episodes,
    list_episodes,
    load_episode,
    save_episode,
)
from midas_world.data.recorder import EpisodeRecorder
from midas_world.data.video import VideoError, read_frames, write_gif
from midas_world.files import remove_temporaries
from midas_world.psnr import psnr
from tests.disk import opened_files

METADATA = EpisodeMetadata(
    env_id="fake:Fake-v0", seed=7, policy="random", fps=20, scene={"place": "beach"}
)


def moving_disc(num_frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """A disc that crosses a gradient: (num_frames, height, width, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    sky = np.stack([40 + 2 * x, 90 + 3 * y, np.full_like(x, 200)], -1)
    frames = np.repeat(sky[None], num_frames, 0).astype(np.uint8)
    for index, frame in enumerate(frames):
        frame[(x - 10 - index) ** 2 + (y - 16) ** 2 < 60] = (230, 60, 40)
    return frames


def make_episode(num_steps: int = 6, **changes) -> Episode:
    rng = np.random.default_rng(0)
    ends = np.arange(num_steps) == num_steps - 1
    columns = {
        "frames": moving_disc(num_steps + 1),
        "actions": rng.integers(0, 15, num_steps),
        "rewards": rng.random(num_steps, np.float32),
        "terminated": ends,
        "truncated": np.zeros(num_steps, bool),
        "pose": rng.random((num_steps + 1, 5), np.float32),
        "text": tuple("a beach at dawn" if i < 3 else "ein Strand 🏖" for i in range(num_steps + 1)),
        "audio": rng.random((num_steps + 1, 4), np.float32),
        "extras": {"keypoints": rng.random((num_steps + 1, 15, 2), np.float32)},
        "metadata": METADATA,
    }
    return Episode(**(columns | changes))


def assert_same_columns(actual: Episode, expected: Episode) -> None:
    for name in ("actions", "rewards", "terminated", "truncated", "pose", "audio"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))
        assert getattr(actual, name).dtype == getattr(expected, name).dtype
    assert actual.text == expected.text
    assert actual.extras.keys() == expected.extras.keys()
    for name, column in expected.extras.items():
        np.testing.assert_array_equal(actual.extras[name], column)
    assert actual.metadata == expected.metadata


def test_raw_round_trip_is_exact(tmp_path):
    episode = make_episode()
    save_episode(episode, tmp_path / "one", codec="raw")
    loaded = load_episode(tmp_path / "one")
    np.testing.assert_array_equal(loaded.frames, episode.frames)
    assert_same_columns(loaded, episode)


def test_h264_round_trip_keeps_the_picture_and_every_column(tmp_path):
    episode = make_episode(20)
    save_episode(episode, tmp_path / "one")
    loaded = load_episode(tmp_path / "one")
    assert psnr(loaded.frames, episode.frames).min() > 42
    assert_same_columns(loaded, episode)


def test_h264_shifts_no_colour(tmp_path):
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]])
    flat = np.repeat(colours, 4, 0).astype(np.uint8)[:, None, None].repeat(32, 1).repeat(48, 2)
    save_episode(make_episode(len(flat) - 1, frames=flat), tmp_path / "one")
    difference = load_episode(tmp_path / "one").frames.astype(float) - flat
    assert np.abs(difference.mean((1, 2))).max() <= 2


@pytest.mark.parametrize("codec", ["h264", "raw"])
def test_each_file_is_opened_once(tmp_path, codec):
    save_episode(make_episode(), tmp_path / "one", codec=codec)
    with opened_files([tmp_path / "one"]) as opened:
        load_episode(tmp_path / "one")
    assert sorted(opened) == sorted((tmp_path / "one").iterdir())


def test_frames_can_stay_on_disk(tmp_path):
    episode = make_episode()
    save_episode(episode, tmp_path / "one")
    loaded = load_episode(tmp_path / "one", frames=False)
    assert loaded.frames.shape == (7, 0, 0, 3)
    assert_same_columns(loaded, episode)
    with pytest.raises(ValueError, match="frames=False"):
        save_episode(loaded, tmp_path / "two")


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(max_size=20), min_size=2, max_size=12))
def test_any_text_survives(texts):
    num_steps = len(texts) - 1
    episode = make_episode(num_steps, text=tuple(texts), frames=moving_disc(len(texts), 2, 2))
    with tempfile.TemporaryDirectory() as folder:
        save_episode(episode, Path(folder) / "one", codec="raw")
        assert load_episode(Path(folder) / "one").text == tuple(texts)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": moving_disc(6)}, "frames must have one entry per frame: 6 actions make 7"),
        ({"frames": moving_disc(7).astype(float)}, "frames must be .* uint8"),
        ({"rewards": np.zeros(7, np.float32)}, r"rewards must be \(6,\) float32"),
        ({"rewards": np.zeros(6)}, "rewards must be .* got .* float64"),
        ({"truncated": np.zeros(5, bool)}, "truncated must be"),
        ({"pose": np.zeros((6, 5), np.float32)}, "pose must have one entry per frame"),
        ({"audio": np.zeros(7, np.float32)}, r"audio must be \(T \+ 1, size\)"),
        ({"text": ("",) * 6}, "text must have one entry per frame"),
        ({"extras": {"hearts": np.zeros(6)}}, "hearts must have one entry per frame"),
        ({"actions": np.zeros(0, int)}, "at least one action"),
    ],
)
def test_lengths_and_types_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        make_episode(**changes)


def test_h264_needs_an_even_size(tmp_path):
    with pytest.raises(ValueError, match="even frame size, got 31 x 48"):
        save_episode(make_episode(frames=moving_disc(7, 31, 48)), tmp_path / "one")
    assert not list(tmp_path.iterdir())


def test_without_pyav_the_error_names_it_and_raw_still_works(tmp_path, monkeypatch):
    save_episode(make_episode(), tmp_path / "video")
    real_import = builtins.__import__

    def no_av(name, *args, **kwargs):
        if name == "av":
            raise ModuleNotFoundError("No module named 'av'", name=name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_av)
    with pytest.raises(ImportError, match="pip install av"):
        save_episode(make_episode(), tmp_path / "one")
    with pytest.raises(ImportError, match="pip install av"):
        write_gif(tmp_path / "film.gif", moving_disc(2), fps=20)
    with pytest.raises(ImportError, match="pip install av"):
        list(iter_episodes(tmp_path))  # Not a damaged episode, so not to be skipped.
    save_episode(make_episode(), tmp_path / "raw", codec="raw")
    load_episode(tmp_path / "raw")


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def flip_a_byte(file: Path) -> None:
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 255
    file.write_bytes(contents)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("video.mp4", truncate, r"video\.mp4: truncated: \d+ bytes, \d+ were written"),
        ("video.mp4", flip_a_byte, r"video\.mp4: damaged"),
        ("video.mp4", Path.unlink, r"video\.mp4: missing"),
        ("steps.safetensors", truncate, r"steps\.safetensors: truncated"),
        ("steps.safetensors", Path.unlink, r"steps\.safetensors: missing"),
        ("header.json", truncate, r"header\.json: not an episode's header"),
        ("header.json", Path.unlink, r"header\.json: missing"),
    ],
)
def test_damage_is_named_and_skipped(tmp_path, caplog, name, damage, message):
    for episode in ("a", "b", "c"):
        save_episode(make_episode(), tmp_path / episode)
    damage(tmp_path / "b" / name)
    with pytest.raises(EpisodeError, match=message):
        load_episode(tmp_path / "b")
    with caplog.at_level(logging.WARNING):
        assert len(list(iter_episodes(tmp_path))) == 2
    assert name in caplog.text


def test_a_film_without_pictures_is_an_error(tmp_path):
    save_episode(make_episode(), tmp_path / "one")
    path = tmp_path / "one" / "video.mp4"
    path.write_bytes(path.read_bytes().replace(b"trak", b"skip", 1))
    with pytest.raises(VideoError, match="frame 0 cannot be decoded"):
        read_frames(path.read_bytes(), make_episode().frames.shape, codec="h264")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(EpisodeError, match="nowhere: no such folder"):
        load_episode(tmp_path / "nowhere")


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch, failure):
    def fail(file):
        assert list_episodes(tmp_path) == []
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(failure)):
        save_episode(make_episode(), tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_temporaries_and_strangers_are_no_episodes(tmp_path):
    save_episode(make_episode(), tmp_path / "b", codec="raw")
    save_episode(make_episode(), tmp_path / "a", codec="raw")
    (tmp_path / "a").rename(tmp_path / ".tmp-a-1234")
    (tmp_path / "notes").mkdir()
    (tmp_path / "readme.txt").write_text("x")
    assert list_episodes(tmp_path) == [tmp_path / "b"]
    assert remove_temporaries(tmp_path) == 1
    assert not (tmp_path / ".tmp-a-1234").exists()


def test_an_episode_is_never_overwritten(tmp_path):
    save_episode(make_episode(), tmp_path / "one", codec="raw")
    with pytest.raises(FileExistsError, match="one"):
        save_episode(make_episode(3), tmp_path / "one", codec="raw")
    assert load_episode(tmp_path / "one").num_steps == 6


# Recording one


def test_recorder_builds_what_was_played():
    frames = moving_disc(4)
    recorder = EpisodeRecorder(extra_keys=["hearts"])
    buffer = np.empty_like(frames[0])  # An env that reuses its observation.

    def observe(index):
        buffer[:] = frames[index]
        pose = np.full(3, index)
        return buffer, {"pose": pose, "text": f"frame {index}", "hearts": 3 - index, "score": 9}

    recorder.reset(*observe(0))
    for index in range(1, 4):
        observation, info = observe(index)
        recorder.step(index + 4, observation, 0.5 * index, index == 3, False, info)
    episode = recorder.to_episode(METADATA)
    np.testing.assert_array_equal(episode.frames, frames)
    np.testing.assert_array_equal(episode.actions, [5, 6, 7])
    np.testing.assert_array_equal(episode.rewards, np.float32([0.5, 1.0, 1.5]))
    np.testing.assert_array_equal(episode.terminated, [False, False, True])
    np.testing.assert_array_equal(episode.pose, np.arange(4)[:, None].repeat(3, 1))
    assert episode.text == ("frame 0", "frame 1", "frame 2", "frame 3")
    assert episode.audio is None
    assert list(episode.extras) == ["hearts"]
    with pytest.raises(ValueError, match="ended at step 3"):
        recorder.step(0, frames[0], 0.0, False, False, info)
    recorder.reset(*observe(0))
    assert recorder.num_steps == 0


def test_recorder_says_what_is_missing():
    (frame,) = moving_disc(1)
    recorder = EpisodeRecorder(extra_keys=["hearts"])
    with pytest.raises(ValueError, match="reset"):
        recorder.step(0, frame, 0.0, False, False, {})
    with pytest.raises(ValueError, match="nothing was recorded"):
        recorder.to_episode(METADATA)
    with pytest.raises(ValueError, match="info lacks hearts at step 0"):
        recorder.reset(frame, {"text": "a"})
    recorder.reset(frame, {"text": "a", "hearts": 3})
    with pytest.raises(ValueError, match="info lacks text at step 1"):
        recorder.step(0, frame, 0.0, False, False, {"hearts": 3})
