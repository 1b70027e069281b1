"""On a full disk whatever writes says so in one line and leaves no part of anything behind."""

import shutil
from pathlib import Path

import pytest

from midas_world.commands import cli
from tests.disk import full_disk


@pytest.mark.parametrize("to", ["mp4", "gif", "frames", "minari", "lerobot"])
def test_an_export_that_finds_no_room_leaves_nothing(slides, here, capsys, to):
    with full_disk(100):
        assert cli.main(["export", str(slides.folder), "--to", to]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "File too large" in line
    assert not [path for path in here.rglob("*") if path.is_file()]


def check_full(capsys, num_bytes: int, words: list[str], made: Path) -> None:
    """Check that a command meets the full disk, says so in its last line and leaves no part."""
    with full_disk(num_bytes):
        assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert f"midas-world {words[0]}: " in err.splitlines()[-1]
    assert "File too large" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not list(made.rglob(".tmp-*"))


@pytest.mark.parametrize("stage", ["autoencoder", "dynamics"])
@pytest.mark.parametrize("num_bytes", [100, 4000])  # frames that are kept; what was learned
def test_a_training_that_finds_no_room_says_so(data, trained, tmp_path, capsys, stage, num_bytes):
    shutil.copytree(data, tmp_path / "data")
    words = ["train", stage, "--preset", "tiny", "--data", str(tmp_path / "data")]
    words += ["--output", str(tmp_path / "run")]
    words += ["--autoencoder", str(trained / "autoencoder")] * (stage == "dynamics")
    words += [f"train_{name}.optimizer.train_steps=1" for name in ("autoencoder", "dynamics")]
    check_full(capsys, num_bytes, words, tmp_path)


def test_a_world_that_finds_no_room_is_not_there(trained, tmp_path, capsys):
    words = ["pack", "--preset", "tiny", "--output", str(trained)]
    check_full(capsys, 2000, [*words, "--world", str(tmp_path / "made")], tmp_path)
    assert not list((tmp_path / "made").iterdir())


def test_shards_that_find_no_room_are_not_there(numbered, tmp_path, capsys):
    check_full(capsys, 2000, ["shards", "pack", str(numbered), str(tmp_path / "made")], tmp_path)
    assert not list(tmp_path.rglob("*.tar"))
