"""What is written is there whole or not at all, and nothing else is left behind."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from envs.play.studio.saver import FrameSaver
from midas_world.checkpoint import save_tensors
from midas_world.config import load_preset, save_config
from midas_world.data.shards import Sample, write_shard
from midas_world.files import remove_temporaries, whole, write_first, write_whole
from tests.disk import full_disk
from tests.fakes import view_of


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def write() -> None:
        with whole(path) as place:
            place.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text() == "old"
    assert everything(tmp_path) == ["a.txt"]


def test_a_folder_comes_whole_or_not_at_all(tmp_path):
    def make(*, fails: bool = False) -> None:
        with whole(tmp_path / "made") as folder:
            folder.mkdir()
            (folder / "one").write_text("1")
            if fails:
                raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        make(fails=True)
    assert everything(tmp_path) == []
    make()
    assert everything(tmp_path) == ["made", "made/one"]
    with pytest.raises(FileExistsError, match="made exists already"):
        make()
    assert everything(tmp_path) == ["made", "made/one"]


def test_what_lies_beside_the_place_comes_along(tmp_path):
    with whole(tmp_path / "graph") as place:
        place.write_text("graph")
        place.with_name("graph.data").write_text("data")
    assert everything(tmp_path) == ["graph", "graph.data"]


def test_files_and_their_folders_reach_the_disk_before_they_get_their_names(tmp_path, monkeypatch):
    flushed: list[tuple[Path, bool]] = []

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.append((path, (tmp_path / "made").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    with whole(tmp_path / "made") as place:
        place.mkdir()
        (place / "one").write_text("1")
        temporary = place.parent
    assert flushed == [
        (temporary / "made" / "one", False),
        (temporary / "made", False),
        (tmp_path, True),
    ]


def test_the_first_of_several_has_the_word(tmp_path):
    write_first(tmp_path / "a", b"first")
    write_first(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert everything(tmp_path) == ["a"]


def test_a_later_writer_removes_what_killed_ones_left_and_spares_those_at_work(tmp_path):
    old, fresh = tmp_path / ".tmp-old", tmp_path / ".tmp-fresh"
    for folder in (old, fresh):
        folder.mkdir()
    long_ago = time.time() - 48 * 3600
    os.utime(old, (long_ago, long_ago))
    write_whole(tmp_path / "a", "words")
    assert everything(tmp_path) == [".tmp-fresh", "a"]
    assert remove_temporaries(tmp_path) == 1
    assert everything(tmp_path) == ["a"]


def test_a_writer_does_not_mind_that_another_one_ends_meanwhile(tmp_path, monkeypatch):
    """Four starts on one empty cache: one saw a folder that was gone when it asked for its age."""
    (tmp_path / ".tmp-other").mkdir()
    ask = Path.stat

    def stat(path: Path, **options):
        if path.name == ".tmp-other" and path.exists():
            path.rmdir()
        return ask(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(Path, "exists", lambda path: os.path.lexists(path))
    write_whole(tmp_path / "a", "words")
    assert everything(tmp_path) == ["a"]


# Writers on a full disk


def save_weights(folder: Path) -> None:
    save_tensors({"weights": torch.zeros(100_000)}, folder / "weights.safetensors")


def save_frames(folder: Path) -> None:
    rng = np.random.default_rng(0)
    strip = folder / f"strip-{len(list(folder.iterdir()))}.png"  # it overwrites none
    saver = FrameSaver(strip, fps=20, num_frames=1)
    saver.add(view_of(rng.integers(0, 256, (200, 200, 3), dtype=np.uint8)))
    saver.close()


def save_shard(folder: Path) -> None:
    files = {"header.json": b"", "steps.safetensors": b"0" * 100_000}
    sample = Sample(name="episode", files=files, header={"num_steps": 1})
    write_shard(str(folder), "shard-000000.tar", [sample])


def save_project(folder: Path) -> None:
    save_config(load_preset("tiny"), folder / "config.yaml")


@pytest.mark.parametrize("write", [save_weights, save_frames, save_shard, save_project])
def test_a_full_disk_is_an_oserror_and_leaves_the_old_file_alone(tmp_path, write):
    write(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*")}
    with full_disk(100), pytest.raises(OSError, match=r"large|space"):
        write(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*")} == before
