"""Imports of what cannot be read, or only in part: a clear line, and nothing half-written."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from midas_world.commands.cli import main
from midas_world.config import ProjectConfig, load_config
from midas_world.importing import writing
from tests.recordings import (
    TABLES,
    deeds,
    done_at,
    episodes_in,
    import_to,
    make_film,
    make_lerobot,
    make_minari,
    make_pictures,
    make_session,
    number_of,
    picture,
    write_film,
)
from tests.sessions import record_steps
from tests.test_sound import write_sound


def fails(folder: Path, capsys, *words: object) -> str:
    """Return the one line that an import of words ends in, and check that nothing was written."""
    before = sorted(folder.rglob("*"))
    assert import_to(folder / "data", *words) == 2
    assert sorted(folder.rglob("*")) == before
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("midas-world import: ")
    return line


def make_nothing(folder: Path) -> Path:
    return folder / "no film.mp4"


def make_folder(folder: Path) -> Path:
    (folder / "stuff").mkdir()
    return folder / "stuff"


def make_words(folder: Path) -> Path:
    (folder / "film.mp4").write_bytes(b"not a film at all" * 100)
    return folder / "film.mp4"


def make_cut_film(folder: Path) -> Path:
    film = write_film(folder / "film.mp4", [picture(n) for n in range(60)])
    film.write_bytes(film.read_bytes()[:-2000])
    return film


def make_sound(folder: Path) -> Path:
    return write_sound(folder / "only sound.mka", np.zeros(16_000), 16_000)


def make_unknown(folder: Path) -> Path:
    film = make_film(folder, 60)
    film.write_bytes(film.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_WHO/KNOWS/THS"))
    return film


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_nothing, "there is nothing at"),
        (make_folder, "is no recording: neither a film, nor a folder with pictures"),
        (make_words, "cannot be read: it is no film, or its end is missing"),
        (make_cut_film, "it is no film, or its end is missing"),
        (make_sound, "holds no pictures: it has no video stream"),
        (make_unknown, "its codec is missing in this build of PyAV"),
    ],
)
def test_what_is_no_recording(tmp_path, capsys, make, reason):
    path = make(tmp_path)
    for words in ([], ["--watch"]):  # a table is asked for only beside what can be read
        assert reason in fails(tmp_path, capsys, path, *words)


def test_no_table_of_actions(tmp_path, capsys):
    film = make_film(tmp_path, 60)
    (tmp_path / "play.csv").unlink()
    reason = "what was done? no table tells them: name it (--actions FILE)"
    assert reason in fails(tmp_path, capsys, film)
    pictures = make_pictures(tmp_path, 30)
    (pictures / "more.csv").write_text("action\nleft\n")
    line = fails(tmp_path, capsys, pictures, "--source-fps", "20")
    assert "which of more.csv, действия.csv tells them" in line


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("", "has no row that can be read"),
        ("action\n", "has no row that can be read"),
        ("time,keys\n0:00:01,left\n", "no row that can be read: times are seconds"),
        ("frame,deed\n0,left\n", "no column action or keys; there are frame, deed"),
        ("time_s,action\n0,left\n2,left\n1,left\n", "rows must be in order, 1 comes after 2"),
        ("action\n\n\n", "it tells of no action"),
        ("frame,action\n" + "".join(f"{n},{n}\n" for n in range(70)), "more than 64 different"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, capsys, table, reason):
    film = make_film(tmp_path, 70)
    (tmp_path / "play.csv").write_text(table)
    assert reason in fails(tmp_path, capsys, film)


def test_an_action_that_the_key_map_lacks(tmp_path, capsys):
    film = make_film(tmp_path, 60)
    keymap = tmp_path / "keys.yaml"
    keymap.write_text("actions: {idle: {}, lefft: {keys: [left]}, right: {}}")
    line = fails(tmp_path, capsys, film, "--keymap", keymap)
    assert "the action 'left' is none of idle, lefft, right; nearest is 'lefft'" in line
    keymap.write_text("actoins: {}")
    assert "did you mean actions?" in fails(tmp_path, capsys, film, "--keymap", keymap)


def test_fewer_actions_than_frames_and_lines_that_are_none(tmp_path, capsys):
    film = make_film(tmp_path, 100)
    lines = [f'{{"action": "{done_at(n)}"}}' for n in range(60)]
    lines[30] = '{"action": nul'
    (tmp_path / "play.csv").unlink()
    (tmp_path / "play.jsonl").write_text("\n".join(lines))
    assert import_to(tmp_path / "data", film) == 0
    said = capsys.readouterr().out
    assert "40 frames without an action" in said
    for episode in episodes_in(tmp_path / "data"):
        assert all(done_at(number) == name for number, name in deeds(episode))


def test_too_short(tmp_path, capsys):
    film = make_film(tmp_path, 12)
    reason = "9 frames can be used, at least 18 are needed (missing: 3 frames of stretches below"
    assert reason in fails(tmp_path, capsys, film)


def test_sizes_and_times_that_do_not_fit(tmp_path, capsys):
    film = make_film(tmp_path, 60)
    line = fails(tmp_path, capsys, film, "--size", "50x81")
    assert line.startswith("midas-world import: height and width must be multiples of")
    assert "has no sound; leave --sound out" in fails(tmp_path, capsys, film, "--sound")
    line = fails(tmp_path, capsys, make_pictures(tmp_path, 30))
    assert "pictures do not say how fast they are: name --source-fps" in line
    with pytest.raises(SystemExit):
        import_to(tmp_path / "data", film, "--size", "big")


def test_options_of_other_kinds(tmp_path, capsys):
    session, film = make_session(tmp_path), make_film(tmp_path)
    refused = [
        (session, "--watch", "is a session: --watch goes with a film or a folder of pictures"),
        (session, "--source-fps=30", "a folder of pictures or a Minari dataset"),
        (film, "--source-fps=30", "is a film: --source-fps goes with a folder of pictures"),
        (film, "--camera=top", "is a film: --camera goes with a LeRobot dataset"),
        (film, "--pose", "is a film: --pose goes with a session"),
        (make_pictures(tmp_path), "--sound", "is a folder of pictures: --sound goes with a film"),
        (film, "world.fps=3", "steps are 20 a second: --fps changes it, not world.fps"),
    ]
    for source, word, reason in refused:
        assert reason in fails(tmp_path, capsys, source, word)
    record_steps(tmp_path / "quiet", 20)
    words = "must all have the same number of pose values, got 0"
    assert words in fails(tmp_path, capsys, tmp_path / "quiet", "--pose")
    assert "the same number of audio" in fails(tmp_path, capsys, tmp_path / "quiet", "--sound")
    assert main(["import", str(session), "--to", str(tmp_path / "x"), "world.heigth=3"]) == 2
    assert "did you mean world.height?" in capsys.readouterr().err


def test_datasets_of_other_kinds(tmp_path, capsys):
    arm = make_lerobot(tmp_path)
    info = json.loads((arm / "meta/info.json").read_text())
    (arm / "meta/info.json").write_text(json.dumps(info | {"codebase_version": "v2.1"}))
    assert "is a LeRobot dataset of version v2.1; 3.0 is read" in fails(tmp_path, capsys, arm)
    path = "../../../{video_key}{chunk_index}{file_index}.mp4"
    (arm / "meta/info.json").write_text(json.dumps(info | {"video_path": path}))
    assert "its films lie outside of it" in fails(tmp_path, capsys, arm)
    (arm / "meta/info.json").write_text("{")
    assert "info.json cannot be read" in fails(tmp_path, capsys, arm)


def test_a_minari_dataset_without_pictures_or_speed(tmp_path, capsys):
    folder = make_minari(tmp_path)
    assert "does not say how fast it is: name --source-fps" in fails(tmp_path, capsys, folder)
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_0/observations"]
        file["episode_0/observations"] = np.zeros((61, 17))
    line = fails(tmp_path, capsys, folder, "--source-fps", "20")
    assert "holds no pictures among its observations" in line


def test_damage_in_the_middle_of_a_film_costs_what_hangs_on_it(tmp_path, caplog):
    film = make_film(tmp_path, 200, gop=20)
    clean = film.read_bytes()
    # Noise is what H.264 cannot make small: a film of flat pictures has no byte to damage.
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (96, 160, 3), np.uint8) for _ in range(200)]
    write_film(film, pictures, gop=20)
    broken = bytearray(film.read_bytes())
    middle = len(broken) // 2
    broken[middle : middle + 4000] = bytes(rng.integers(0, 255, 4000, np.uint8))
    film.write_bytes(broken)
    assert len(broken) > 10 * len(clean)
    assert import_to(tmp_path / "data", film) == 0
    assert "damaged" in caplog.text
    kept = sum(len(episode.frames) for episode in episodes_in(tmp_path / "data"))
    assert 100 < kept < 200


def assert_no_gaps(data: Path) -> None:
    for episode in episodes_in(data):
        steps = np.diff([number_of(frame) for frame in episode.frames]) % 26
        assert (steps == 1).all()


def test_pictures_that_cannot_be_read_end_a_stretch(tmp_path, capsys):
    folder = make_pictures(tmp_path)
    (folder / "frame60.png").write_bytes(b"no picture")
    Image.fromarray(picture(61, (30, 50))).save(folder / "frame61.png")  # of another size
    assert import_to(tmp_path / "data", folder, "--source-fps", "20") == 0
    assert "1 pictures that cannot be read" in capsys.readouterr().out
    assert_no_gaps(tmp_path / "data")


def test_an_episode_is_held_out_also_if_the_chosen_one_is_damaged(tmp_path):
    folder = make_pictures(tmp_path)
    for number in range(50, 120):
        path = folder / f"frame{number}.png"
        path.write_bytes(path.read_bytes()[:60])  # its size can be read, its pixels cannot
    assert import_to(tmp_path / "data", folder, "--source-fps", "20") == 0
    assert len(episodes_in(tmp_path / "data", "train")) == 2
    assert len(episodes_in(tmp_path / "data", "validation")) == 1


def test_a_damaged_episode_of_a_minari_dataset_is_left_out(tmp_path, caplog):
    folder = make_minari(tmp_path)
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        del file["episode_1/actions"]
    assert import_to(tmp_path / "data", folder, "--source-fps", "20") == 0
    assert sum(len(episode.frames) for episode in episodes_in(tmp_path / "data")) <= 61


def test_a_damaged_picture_of_a_minari_dataset_ends_a_stretch(tmp_path, caplog):
    folder = make_minari(tmp_path)
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        file["episode_0/observations"][30] = np.frombuffer(b"no JPEG", np.uint8)
    assert import_to(tmp_path / "data", folder, "--source-fps", "20", "--steps", "20") == 0
    assert "1 pictures that cannot be read" in caplog.text
    assert_no_gaps(tmp_path / "data")


def test_a_damaged_episode_of_minari_s_tables_is_left_out(tmp_path, capsys):
    folder = TABLES["arrow"](tmp_path)
    (file,) = (folder / "1").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:1000])
    assert import_to(tmp_path / "made", folder, "--source-fps", "20") == 0
    assert sum(len(episode.frames) for episode in episodes_in(tmp_path / "made")) <= 61
    assert "1 damaged episodes" in capsys.readouterr().out
    metadata = json.loads((folder / "metadata.json").read_text())
    for changes in ({"observation_space": 3}, {"observation_space": "[]"}, {"data_format": "tar"}):
        (folder / "metadata.json").write_text(json.dumps(metadata | changes))
        line = fails(tmp_path, capsys, folder, "--source-fps", "20")
        assert "is damaged" in line or "cannot be read" in line


def test_what_fails_while_writing_leaves_nothing(tmp_path, monkeypatch, capsys):
    film = make_film(tmp_path, 100)
    real, count = writing.save_episode, []

    def full(*args, **kwargs):
        count.append(1)
        if len(count) > 3:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(writing, "save_episode", full)
    assert "No space left on device" in fails(tmp_path, capsys, film)
    monkeypatch.undo()
    assert import_to(tmp_path / "data", film) == 0
    capsys.readouterr()
    before = sorted((tmp_path / "data").rglob("*"))
    monkeypatch.setattr(writing, "save_episode", full)
    assert import_to(tmp_path / "data", film, "--add") == 2
    assert sorted((tmp_path / "data").rglob("*")) == before


def test_a_disk_that_is_too_small_is_told_before(tmp_path, monkeypatch, capsys):
    film = make_film(tmp_path, 60)
    usage = type("usage", (), {"free": 10})
    monkeypatch.setattr("midas_world.importing.plan.shutil.disk_usage", lambda _: usage)
    assert "the episodes take about" in fails(tmp_path, capsys, film)


def test_a_preset_without_teacher_needs_actions(tmp_path):
    path = tmp_path / "x.yaml"
    assert import_to(tmp_path / "data", make_film(tmp_path, 60)) == 0
    text = (tmp_path / "data" / "data.yaml").read_text()
    start = text.index("    actions:")
    path.write_text(text[:start] + "    actions: {}\n  num_steps: 5\n")
    with pytest.raises(ValueError, match="without a teacher"):
        load_config(ProjectConfig, path)
