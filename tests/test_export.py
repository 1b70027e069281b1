import json
import sys
from dataclasses import replace

import av
import gymnasium as gym
import minari
import numpy as np
import pytest
from PIL import Image

from envs.play.game.game import Game
from envs.play.game.opening import open_world
from envs.play.replay.recorded import Tape
from midas_world.commands import cli
from midas_world.data.gif import MAX_GIF_WIDTH
from midas_world.sessions.export.pictures import (
    PictureOptions,
    _hud_lines,
    pictures,
    teacher_frames,
)
from midas_world.sessions.session import RecordedSession, load_session
from tests.fakes import CountingEnv
from tests.sessions import HEIGHT, export, read_film
from tests.windows import playable

# Films


def test_a_plain_film_is_copied_bit_for_bit_and_begins_with_its_index(slides, tmp_path):
    assert export(slides, "--to", "mp4", "--output", str(tmp_path / "film.mp4")) == 0
    with (
        av.open(str(tmp_path / "film.mp4")) as film,
        av.open(str(slides.folder / "video.mp4")) as own,
    ):
        assert film.streams.video[0].frames == 33
        assert float(film.duration / av.time_base) == pytest.approx(33 / 20)
        packets = [bytes(packet) for packet in film.demux(video=0) if packet.size]
        assert packets == [bytes(packet) for packet in own.demux(video=0) if packet.size]
    data = (tmp_path / "film.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    assert not list(tmp_path.glob(".tmp*"))


def test_a_part_of_a_film_is_what_was_asked_for(slides, tmp_path):
    output = tmp_path / "part.mp4"
    options = ["--start", "0.5", "--stop", "1", "--output", str(output)]
    assert export(slides, "--to", "mp4", *options) == 0
    film, own = read_film(output), list(slides.frames(10, 20))
    assert len(film) == 10
    for frame, original in zip(film, own, strict=True):
        assert np.abs(frame.astype(int) - original).mean() < 6


def test_the_hud_is_burnt_in_and_frames_grow_by_whole_pixels(slides):
    plain = PictureOptions(start=0, stop=33, scale=2)
    first = next(pictures(slides, plain))
    np.testing.assert_array_equal(first[::2, ::2], next(slides.frames(0, 1)))
    np.testing.assert_array_equal(first[1::2, 1::2], next(slides.frames(0, 1)))
    hud = list(pictures(slides, PictureOptions(start=0, stop=33, scale=2, has_hud=True)))
    bare = list(pictures(slides, plain))
    changed = [np.any(a != b, axis=(1, 2)) for a, b in zip(hud, bare, strict=True)]
    assert all(rows[-10:].any() for rows in changed)
    assert not any(rows[: HEIGHT // 2].any() for rows in changed)
    assert (hud[3] != hud[4])[-14:].any()  # the words change


def test_coins_of_a_learned_world_are_whole_in_the_hud_and_in_a_replay(tmp_path):
    env = CountingEnv(reward=0.86)
    game = Game(playable(env, counts_coins=True), seed=0)
    game.recorder.start(tmp_path / "coins", on_error=pytest.fail)
    game.reset()
    views = [game.step(1) for _ in range(3)]
    game.restore(game.snapshot(views[0]))
    game.close()
    assert views[-1].score == 3.0
    session = load_session(tmp_path / "coins")
    assert "return 2.58" in _hud_lines(session)[3][0]
    session.header = replace(session.header, teacher="envs:midas/StageTeacher-v0")
    assert "coins 3 " in _hud_lines(session)[3][0]
    assert "coins 1 " in _hud_lines(session)[4][0]  # back where the first one had come
    assert [mark.score for mark in Tape(session).marks] == [0.0, 1.0, 2.0, 3.0, 1.0]


def test_a_gif_has_its_frames_and_nearly_its_colours(slides, tmp_path):
    output = tmp_path / "film.gif"
    assert export(slides, "--to", "gif", "--stop", "0.5", "--output", str(output)) == 0
    film, own = read_film(output), list(slides.frames(0, 10))
    assert len(film) == 10
    assert np.abs(film[7].astype(int) - own[7]).mean() < 8


def test_frames_are_written_as_png_under_their_numbers(slides, tmp_path):
    output = tmp_path / "frames"
    assert export(slides, "--to", "frames", "--start", "1.5", "--output", str(output)) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        f"frame_{number:06d}.png" for number in range(30, 33)
    ]
    frame = np.asarray(Image.open(output / "frame_000031.png"))
    np.testing.assert_array_equal(frame, next(slides.frames(31, 32)))


@pytest.fixture(scope="module")
def cut(slides, tmp_path_factory) -> RecordedSession:
    """Return the same session as it is when its recorder was killed."""
    folder = tmp_path_factory.mktemp("cut") / "cut"
    folder.mkdir()
    for name in ("header.json", "steps.log", "video.mp4"):
        data = (slides.folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) * 2 // 3] if name == "video.mp4" else data)
    return load_session(folder)


@pytest.mark.parametrize("target", ["mp4", "gif", "frames", "minari", "lerobot"])
def test_a_session_that_was_cut_off_is_exported_as_far_as_it_goes(
    cut, tmp_path, capsys, monkeypatch, target
):
    assert 12 < cut.num_frames < 33
    output = tmp_path / (f"film.{target}" if target in ("mp4", "gif") else "folder")
    assert export(cut, "--to", target, "--output", str(output)) == 0
    assert "recording was cut off" in capsys.readouterr().out
    if target in ("mp4", "gif"):
        assert len(read_film(output)) == cut.num_frames
    elif target == "frames":
        assert len(list(output.iterdir())) == cut.num_frames
    elif target == "minari":
        monkeypatch.setenv("MINARI_DATASETS_PATH", str(output))
        assert minari.load_dataset("cut-v0").total_steps == cut.num_steps
    else:
        info = json.loads((output / "meta/info.json").read_text())
        assert info["total_frames"] == cut.num_steps


def test_nothing_is_made_of_a_session_without_a_frame(slides, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    header = (slides.folder / "header.json").read_bytes()
    (tmp_path / "empty" / "header.json").write_bytes(header)
    for target in ("mp4", "minari", "lerobot"):
        assert cli.main(["export", str(tmp_path / "empty"), "--to", target]) == 2
        assert "there is nothing from 0 s to 0 s" in capsys.readouterr().err


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
    teacher = gym.make("envs:midas/StageTeacher-v0", scale=0.25).unwrapped

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
    height, width = session.header.frame_size
    for target, options in (("mp4", ["--hud"]), ("gif", ["--hud"]), ("frames", ["--scale", "2"])):
        output = tmp_path / (target if target == "frames" else f"film.{target}")
        words = ["--to", target, "--teacher", *options, "--output", str(output)]
        assert export(session, *words) == 0
        if target == "frames":
            shown = [np.asarray(Image.open(path)) for path in sorted(output.iterdir())]
            np.testing.assert_array_equal(shown[7][::2, -2 * width :: 2], twins[7])
        else:
            shown = read_film(output)
        scale = 2 if target == "frames" else 3
        assert len(shown) == 8
        if target == "gif":  # which is no wider than that
            assert shown[0].shape[1] == MAX_GIF_WIDTH
            continue
        assert shown[0].shape[0] == height * scale
        assert shown[0].shape[1] - 2 * width * scale in range(4 * scale, 4 * scale + 2)


# The command


def test_a_missing_extra_is_named_and_nothing_is_left(slides, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "minari", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("minari", "lerobot"):
        assert export(slides, "--to", name, "--output", str(tmp_path / name)) == 2
        assert "pip install 'midas-world[export]'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.*"))
