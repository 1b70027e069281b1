"""Imports: every kind of recording becomes episodes of the right frames, actions and conditions."""

import io
import json
import struct
import tracemalloc
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from midas_world.config import ActionConfig
from midas_world.importing.episodes import Cut, survey
from midas_world.importing.naming import Namer
from midas_world.importing.recording import Deed, Moment
from tests.recordings import (
    AXES_KEYMAP,
    KEYMAP,
    MAKERS,
    NAMES,
    OPTIONS,
    TABLES,
    deeds,
    done_at,
    episodes_in,
    import_to,
    make_film,
    number_of,
    picture,
    project_in,
    told_at,
    write_film,
    write_table,
)


def assert_true_deeds(data: Path) -> None:
    """Check that each frame has the action that was done at it."""
    for episode in episodes_in(data):
        assert all(done_at(number) == name for number, name in deeds(episode))


@pytest.mark.parametrize("kind", MAKERS | TABLES)
def test_every_kind_becomes_episodes_of_what_was_done(kind, tmp_path, capsys):
    source = (MAKERS | TABLES)[kind](tmp_path)
    keymap = tmp_path / "keys.yaml"
    keymap.write_text(KEYMAP)
    words = [source, *OPTIONS.get(kind, []), "--keymap", keymap, "--steps", "20"]
    assert import_to(tmp_path / "data", *words) == 0
    train, held = (episodes_in(tmp_path / "data", part) for part in ("train", "validation"))
    assert len(train) >= 4
    assert held
    for episode in train + held:
        assert episode.frames.shape[1:] == (48, 80, 3)
        found = deeds(episode)
        assert [name for _, name in found] == [done_at(number) for number, _ in found]
        numbers = [number for number, _ in found]
        assert numbers == [(numbers[0] + n) % 26 for n in range(len(numbers))]
        assert 8 <= episode.num_steps <= 20
        words = [episode.metadata.details["action_names"][a] for a in episode.actions]
        assert [text.split(", ")[-1] for text in episode.text[1:]] == words
        assert (episode.pose[1:].argmax(axis=1) == episode.actions).all()
    config = project_in(tmp_path / "data")
    assert not config.data.has_teacher
    assert tuple(config.data.teacher.actions) == NAMES
    assert config.data.teacher.actions["left"].keys == ("left",)
    assert (config.world.fps, config.world.conditions.pose_size) == (20, 3)
    said = capsys.readouterr().out
    assert f"{len(train) + len(held)} of" in said
    assert "idle" in said


def test_rewards_and_ends_of_a_session_are_kept(tmp_path):
    assert import_to(tmp_path / "data", MAKERS["session"](tmp_path), "--steps", "20") == 0
    episodes = episodes_in(tmp_path / "data")
    rewarded = np.concatenate([e.rewards == 1 for e in episodes])
    right = np.concatenate([e.actions == 2 for e in episodes])
    np.testing.assert_array_equal(rewarded, right)
    assert sum(bool(e.terminated.any()) for e in episodes) == 2
    assert project_in(tmp_path / "data").world.reward_unit == 1


def test_pose_and_sound_of_a_session_steer_where_they_are_asked_for(tmp_path):
    session = MAKERS["session"](tmp_path)
    assert import_to(tmp_path / "data", session, "--steps", "20", "--pose", "--sound") == 0
    for episode in episodes_in(tmp_path / "data"):
        first = round(60 * float(episode.audio[0, 0]))
        numbers = range(first, first + len(episode.frames))
        assert [number_of(frame) for frame in episode.frames] == [n % 26 for n in numbers]
        for name in ("pose", "audio"):
            told = np.stack([told_at(number)[name] for number in numbers])
            np.testing.assert_array_equal(getattr(episode, name), told)
    config = project_in(tmp_path / "data")
    conditions = config.world.conditions
    assert (conditions.pose_size, conditions.audio_size, conditions.drop_rate) == (4, 40, 0.1)
    assert config.data.teacher.conditions == "info"


def test_names_and_keys_are_found_where_nobody_gives_them(tmp_path, capsys):
    film = make_film(tmp_path, 60)
    lines = [["", "left", "left+space"][n % 26 % 3] for n in range(60)]
    (tmp_path / "play.csv").write_text("\n".join(["keys", *lines]) + "\n")
    assert import_to(tmp_path / "data", film) == 0
    actions = project_in(tmp_path / "data").data.teacher.actions
    keys = {name: action.keys for name, action in actions.items()}
    assert keys == {"idle": (), "left": ("left",), "left_space": ("left", "space")}
    (tmp_path / "play.csv").write_text(
        "time_s,keys\n0,right\n1,left\n1.5,right\n", encoding="utf-16"
    )
    assert import_to(tmp_path / "more", film) == 0
    assert "right (right)" in (said := capsys.readouterr().out)
    assert "an action for the keys" not in said
    for episode in episodes_in(tmp_path / "data"):
        assert [n % 3 for n, _ in deeds(episode)] == episode.actions.tolist()


def test_held_keys_mean_what_the_key_map_says(tmp_path, capsys):
    film = make_film(tmp_path, 60)
    keymap = tmp_path / "keys.yaml"
    keymap.write_text(KEYMAP)
    rows = [json.dumps({"keys": [[], ["left"], ["right", "x"]][n % 26 % 3]}) for n in range(60)]
    (tmp_path / "held.jsonl").write_text("\n".join(rows))
    words = ["--actions", tmp_path / "held.jsonl", "--keymap", keymap]
    assert import_to(tmp_path / "data", film, *words) == 0
    assert "; an action for the keys x\n" in capsys.readouterr().out
    assert_true_deeds(tmp_path / "data")


def test_of_lists_of_numbers_the_nearest_value_counts(tmp_path, capsys):
    film = make_film(tmp_path, 60)
    rows = [{"action": f"{[0, -0.9, 0.7][n % 26 % 3]};0.1"} for n in range(60)]
    write_table(tmp_path / "play.csv", rows)
    assert import_to(tmp_path / "data", film) == 2
    assert "name those that matter in a key map" in capsys.readouterr().err
    keymap = tmp_path / "keys.yaml"
    keymap.write_text(AXES_KEYMAP)
    assert import_to(tmp_path / "data", film, "--keymap", keymap) == 0
    assert_true_deeds(tmp_path / "data")


def test_a_faster_film_is_taken_in_whole_pictures_and_a_tap_is_not_lost(tmp_path):
    film = write_film(tmp_path / "fast.mkv", [picture(n // 3) for n in range(180)], rate=60)
    # Only the middle one of each third step's three pictures has the key down.
    rows = [{"action": "right" if n % 9 == 1 else "idle"} for n in range(180)]
    write_table(tmp_path / "fast.csv", rows)
    assert import_to(tmp_path / "data", film) == 0
    for episode in episodes_in(tmp_path / "data"):
        shown = [name for _, name in deeds(episode)]
        begin = round(episode.metadata.details["begins_s"] * 20)
        assert shown == ["right" if (begin + n) % 3 == 0 else "idle" for n in range(len(shown))]


@pytest.mark.parametrize(("rate", "fps"), [("30", 15), ("30000/1001", 15), ("24000/1001", 24)])
def test_steps_are_of_as_many_pictures_at_rates_of_television(tmp_path, rate, fps):
    film = make_film(tmp_path, 60, rate=Fraction(rate))
    assert import_to(tmp_path / "data", film) == 0
    assert project_in(tmp_path / "data").world.fps == fps


def test_names_of_a_lerobot_dataset_get_keys(tmp_path):
    assert import_to(tmp_path / "data", MAKERS["lerobot"](tmp_path)) == 0
    actions = project_in(tmp_path / "data").data.teacher.actions
    keys = {name: action.keys for name, action in actions.items()}
    assert keys == {"idle": (), "left": ("left",), "right": ("right",)}


def test_a_table_by_time_steers_a_film_of_variable_rate(tmp_path, capsys):
    rng = np.random.default_rng(1)
    times = np.arange(160) * 0.05 + rng.uniform(-0.008, 0.008, 160)
    times = np.round(times - times[0], 3)
    film = write_film(tmp_path / "held.mkv", [picture(n) for n in range(160)], times=times)
    rows = [{"time_s": 0.05 * n, "action": done_at(n)} for n in range(160)]
    write_table(tmp_path / "held.csv", rows)
    assert import_to(tmp_path / "data", film, "--fps", "20") == 0
    assert "variable rate" in capsys.readouterr().out
    for episode in episodes_in(tmp_path / "data"):
        begin = round(episode.metadata.details["begins_s"] * 20)
        found = deeds(episode)
        assert [number for number, _ in found] == [(begin + n) % 26 for n in range(len(found))]
        assert all(done_at(number) == name for number, name in found)


def test_a_key_is_still_held_after_a_gap_in_the_film(tmp_path, capsys):
    times = [0.05 * n + 3 * (n >= 80) for n in range(160)]
    film = write_film(tmp_path / "gap.mkv", [picture(n) for n in range(160)], times=times)
    write_table(tmp_path / "gap.csv", [{"time_s": t, "keys": "right"} for t in (0, 12)])
    assert import_to(tmp_path / "data", film, "--fps", "20") == 0
    said = capsys.readouterr().out
    assert "1 gaps of more than 2 s, or backwards, in time" in said
    assert "frames without an action" not in said
    kept = [number for episode in episodes_in(tmp_path / "data") for number, _ in deeds(episode)]
    assert len(kept) > 130


def test_keypoints_and_sound_become_pose_and_audio(tmp_path, capsys):
    # A tone from 2 s on; the second point walks to the right, in px of the film.
    sound = np.zeros(16_000 * 6, np.int16)
    sound[32_000:] = (8000 * np.sin(np.arange(64_000) * 2 * np.pi * 300 / 16_000)).astype(np.int16)
    pictures = [picture(n, (96, 120)) for n in range(120)]
    film = write_film(tmp_path / "talk.mkv", pictures, sound=sound)
    rows = [{"frame": n, "nose_x": 60, "nose_y": 48, "chin_x": n, "chin_y": 96} for n in range(120)]
    points = write_table(tmp_path / "points.csv", rows)
    words = ["--watch", "--keypoints", points, "--sound", "--text", "a man at a desk"]
    assert import_to(tmp_path / "data", film, *words) == 0
    assert "watch 100 %" in capsys.readouterr().out
    for episode in episodes_in(tmp_path / "data"):
        begin = round(episode.metadata.details["begins_s"] * 20)
        count = episode.num_steps + 1
        # 96 x 120 becomes 48 x 60, ten px of bars at both sides.
        expected = np.array([[(40, 24), (10 + n / 2, 48)] for n in range(begin, begin + count)])
        np.testing.assert_allclose(episode.extras["keypoints"], expected, atol=0.01)
        np.testing.assert_allclose(episode.pose[:, :2], 0, atol=1e-6)
        assert episode.text[0] == "a man at a desk, watch"
        loud = episode.audio[:, :20].max(axis=1) > 0.3
        np.testing.assert_array_equal(loud, np.arange(begin, begin + count) >= 40)
        assert not episode.audio[:, 20:].any()
    conditions = project_in(tmp_path / "data").world.conditions
    assert (conditions.pose_size, conditions.num_keypoints, conditions.audio_size) == (4, 2, 40)


def test_a_film_that_a_phone_turned_is_turned_back(tmp_path):
    lying = np.zeros((96, 160, 3), np.uint8)
    lying[:48, :80] = 220  # upper left; once turned clockwise, upper right
    film = write_film(tmp_path / "phone.mp4", [lying] * 60)
    data = bytearray(film.read_bytes())
    matrix = data.index(b"tkhd") + 44  # ISO/IEC 14496-12, 8.3.2
    turned = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = struct.pack(">9i", *turned)
    film.write_bytes(data)
    assert import_to(tmp_path / "data", film, "--watch", "--size", "80x48") == 0
    frame = episodes_in(tmp_path / "data")[0].frames[3]
    assert frame[4:36, 28:44].min() > 200
    assert max(frame[4:36, 4:20].max(), frame[44:76, 4:44].max()) < 20


def test_odd_sizes_fit(tmp_path):
    wide = np.zeros((49, 83, 3), np.uint8)
    wide[:, :41] = 200
    film = write_film(tmp_path / "odd.mkv", [wide] * 60, codec="ffv1", pix_fmt="bgr0")
    write_table(tmp_path / "odd.csv", [{"action": "idle"}] * 60)
    assert import_to(tmp_path / "data", film, "--fit", "crop") == 0
    frame = episodes_in(tmp_path / "data")[0].frames[3]
    assert frame[:, :36].min() > 180
    assert frame[:, 44:].max() < 20


def test_lerobot_of_embedded_pictures_and_other_cameras(tmp_path, capsys):
    folder = tmp_path / "arm"
    for place in ("meta/episodes/chunk-000", "data/chunk-000"):
        (folder / place).mkdir(parents=True)
    kinds = {"observation.images.top": "image", "action": "float32", "timestamp": "float32"}
    features = {name: {"dtype": kind} for name, kind in kinds.items()}
    features |= {"episode_index": {"dtype": "int64"}, "task_index": {"dtype": "int64"}}
    info = {"codebase_version": "v3.0", "fps": 10, "features": features, "video_path": None}
    (folder / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.table({"task_index": [0], "task": ["pick"]}), folder / "meta/tasks.parquet")
    episodes = pa.table({"episode_index": [0, 1]})
    pq.write_table(episodes, folder / "meta/episodes/chunk-000/file-000.parquet")
    rows = []
    for number in range(60):
        file = io.BytesIO()
        Image.fromarray(picture(number)).save(file, "PNG")
        step = [[0.0, 0.1], [-0.8, 0.0], [0.9, 0.2]][number % 26 % 3]
        data = {"bytes": b"broken" if number == 45 else file.getvalue(), "path": None}
        row = {"observation.images.top": data, "action": step, "timestamp": number % 30 / 10}
        rows.append(row | {"episode_index": number // 30, "task_index": 0})
    pq.write_table(pa.Table.from_pylist(rows), folder / "data/chunk-000/file-000.parquet")
    assert import_to(tmp_path / "data", folder, "--camera", "wrist") == 2
    assert "cameras: observation.images.top" in capsys.readouterr().err
    keymap = tmp_path / "keys.yaml"
    keymap.write_text(AXES_KEYMAP)
    assert import_to(tmp_path / "data", folder, "--keymap", keymap) == 0
    found = episodes_in(tmp_path / "data")
    assert project_in(tmp_path / "data").world.fps == 10
    for episode in found:
        assert episode.text[0].startswith("pick, ")
        assert all(done_at(number) == name for number, name in deeds(episode))
        assert 45 % 26 not in {n for n, _ in deeds(episode)} or episode.num_steps < 20


def test_a_dry_run_says_what_there_is_and_writes_nothing(tmp_path, capsys):
    film = make_film(tmp_path, 100)
    write_table(tmp_path / "play.csv", [{"action": done_at(n)} for n in range(80)])
    before = sorted(tmp_path.rglob("*"))
    assert import_to(tmp_path / "data", film, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "80, 0:00:04, 20 a second of 20; a world of so few knows little" in said
    assert "idle 36 %, left (left) 33 %, right (right) 31 %" in said
    assert "19 frames without an action" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_added_joins_what_is_there(tmp_path, capsys):
    film = make_film(tmp_path, 60)
    data = tmp_path / "data"
    assert import_to(data, film) == 0
    assert import_to(data, film) == 2
    assert "exists already (--add joins an earlier import)" in capsys.readouterr().err
    before = Counter(path.parent.name for path in data.glob("*/episode-*"))
    assert import_to(data, film, film, "--add") == 0
    after = Counter(path.parent.name for path in data.glob("*/episode-*"))
    assert after.total() > 2 * before.total()
    names = [path.name for path in data.glob("*/episode-*")]
    assert len(set(names)) == len(names)  # as shards ask
    said = project_in(data).data
    counts = said.num_episodes, said.num_validation_episodes
    assert counts == (after["train"], after["validation"])
    (tmp_path / "short").mkdir()
    assert import_to(data, make_film(tmp_path / "short", 12), "--add") == 0  # one episode will do
    assert len(list(data.glob("train/episode-*"))) == after["train"] + 1
    assert import_to(data, film, "--add", "--size", "96x160") == 2
    assert "is of another frame size" in capsys.readouterr().err
    assert not list(data.glob(".tmp*"))


class EndlessFilm:
    """Ten hours at 30 pictures a second, of which nothing is kept."""

    label, fps, size, actions = "film", 30.0, (8, 8), {}
    num_points, has_sound, pose_size = 0, False, 0
    problems: Counter[str] = Counter()  # noqa: RUF012

    def __init__(self, hours: float):
        self.count = round(hours * 3600 * 30)

    def moments(self, *, pixels: bool):
        for number in range(self.count):
            time_s = number / 30
            yield Moment(time_s=time_s, deeds=(Deed(time_s=time_s, action="a"),))


def test_a_long_film_takes_no_more_memory_than_a_short_one():
    peaks = []
    for hours in (0.01, 0.2):
        tracemalloc.start()
        cut = Cut(step_s=1 / 15, num_steps=100, size=(8, 8))
        found = survey(EndlessFilm(hours), Namer({"a": ActionConfig()}), cut)
        assert found.num_frames == pytest.approx(hours * 3600 * 15, rel=0.1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
