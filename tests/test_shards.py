"""Shards of episodes: their format, how they are packed and unpacked, and the command."""

import json
import logging
import shutil
import tarfile
import uuid
from pathlib import Path

import fsspec
import pytest

from midas_world.commands.cli import main
from midas_world.data.episodes import list_episodes
from midas_world.data.packing import is_held_out, pack, pack_folder, unpack
from midas_world.data.shard_index import ShardError, has_shards, open_shards
from tests.shard_data import FRAMES, every_frame, save_all, seen, stream_of, two_episodes

# The format


def test_shards_are_bounded_tars_that_group_files_as_webdataset_does(shards, numbered):
    folder = open_shards(f"{shards}/train")
    assert [shard.num_episodes for shard in folder.shards] == [2] * 6
    assert folder.num_frames == 12 * FRAMES
    assert folder.frame_size == (48, 80)
    path = Path(folder.url) / folder.shards[0].name
    assert path.stat().st_size == folder.shards[0].num_bytes
    with tarfile.open(path) as tar:
        names = tar.getnames()
    first = "episode-00000001"
    assert names[:3] == [
        f"{first}.{part}" for part in ("header.json", "frames.safetensors", "steps.safetensors")
    ]
    assert not list(Path(folder.url).glob(".tmp-*"))


def test_packing_goes_on_with_new_episodes_and_refuses_others(tmp_path):
    paths = save_all(tmp_path / "episodes", (1, 2, 3))
    url = str(tmp_path / "shards")
    pack_folder(paths[:2], url)
    written = (tmp_path / "shards/shard-000000.tar").stat().st_mtime_ns
    folder = pack_folder(paths, url)
    assert [shard.num_episodes for shard in folder.shards] == [2, 1]
    assert (tmp_path / "shards/shard-000000.tar").stat().st_mtime_ns == written
    with pytest.raises(ShardError, match="pack into a new folder"):
        pack_folder(paths[1:], url)


def test_a_pack_that_fails_leaves_no_half_shard(tmp_path):
    paths = save_all(tmp_path / "episodes", (1,))
    paths += save_all(tmp_path / "episodes", (2,), height=24)
    with pytest.raises(ShardError, match="48x80; shards hold one size"):
        pack_folder(paths, str(tmp_path / "shards"))
    assert not list((tmp_path / "shards").iterdir())


def test_damaged_episodes_are_not_packed(tmp_path, caplog):
    paths = save_all(tmp_path / "episodes", (1, 2))
    with (paths[0] / "frames.safetensors").open("rb+") as file:
        file.seek(500)
        file.write(b"\xff")
    with caplog.at_level(logging.WARNING):
        folder = pack_folder(paths, str(tmp_path / "shards"))
    assert (folder.num_episodes, folder.shards[0].num_skipped) == (1, 1)
    assert "episode-00000001.frames.safetensors is damaged" in caplog.text


def test_episodes_are_split_by_seed_and_data_that_grows_moves_none(tmp_path):
    save_all(tmp_path / "episodes", range(1, 9))
    held = {seed for seed in range(1, 9) if is_held_out(str(seed), 0.3)}
    assert 0 < len(held) < 8
    pack(tmp_path / "episodes", str(tmp_path / "shards"), validation_share=0.3)
    train, validation = (
        {seed for seed, _ in seen(stream_of(open_shards(f"{tmp_path}/shards/{name}")))}
        for name in ("train", "validation")
    )
    assert (train, validation) == (set(range(1, 9)) - held, held)
    assert 0.28 < sum(is_held_out(str(seed), 0.3) for seed in range(10_000)) / 10_000 < 0.32


def test_a_seed_on_both_sides_is_refused(tmp_path):
    save_all(tmp_path / "train", (1, 2))
    save_all(tmp_path / "validation", (2,))
    with pytest.raises(ShardError, match="both trained on and held out: 2"):
        pack(tmp_path, str(tmp_path / "shards"))


def test_no_index_and_a_strange_one_are_errors(tmp_path):
    assert not has_shards(str(tmp_path))
    with pytest.raises(ShardError, match="holds no shards"):
        open_shards(str(tmp_path))
    (tmp_path / "index.json").write_text('{"format": "other", "format_version": 1}')
    with pytest.raises(ShardError, match="this program reads midas-world shards 3"):
        open_shards(str(tmp_path))


@pytest.mark.parametrize("wrong", [10**400, "[" * 100_000], ids=["number", "list"])
def test_numbers_beyond_any_and_lists_without_end_are_no_index(numbered, tmp_path, wrong):
    pack(numbered, str(tmp_path / "shards"), shard_bytes=two_episodes(numbered))
    path = tmp_path / "shards" / "train" / "index.json"
    words = json.loads(path.read_text()) | {"fps": "WRONG"}
    path.write_text(json.dumps(words).replace('"WRONG"', str(wrong)))
    with pytest.raises(ShardError, match="no index of shards"):
        open_shards(str(path.parent))


def test_shards_are_written_and_read_by_any_fsspec_url(numbered):
    url = f"memory://{uuid.uuid4().hex}/stage"
    pack(numbered, url, shard_bytes=two_episodes(numbered))
    folder = open_shards(f"{url}/train")
    assert sorted(seen(stream_of(folder))) == every_frame(range(1, 13))
    fs, path = fsspec.core.url_to_fs(url)
    assert not [name for name in fs.find(path) if ".tmp-" in name]


# Unpacking


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_unpacked_episodes_are_those_that_were_packed(shards, numbered, tmp_path):
    assert not unpack(shards, tmp_path).num_episodes
    expected = contents(numbered)
    assert contents(tmp_path) == expected
    shutil.rmtree(tmp_path / "train" / "episode-00000003")
    unpack(shards, tmp_path)
    assert contents(tmp_path) == expected
    unpack(f"{shards}/validation", tmp_path / "one")
    assert len(list_episodes(tmp_path / "one")) == 2


# The command


def test_the_command_packs_checks_and_unpacks(numbered, tmp_path, capsys):
    url = str(tmp_path / "shards")
    assert main(["shards", "pack", str(numbered), url, "--shard-mb", "0.3"]) == 0
    frames = open_shards(f"{url}/train")
    size = frames.num_bytes / frames.num_frames
    assert f"{frames.num_frames} frames" in capsys.readouterr().out
    assert main(["shards", "check", url]) == 0
    shown = capsys.readouterr().out
    assert shown.count("0 episodes lost") == 2
    assert f"{size:.0f} bytes a frame" in shown
    (tmp_path / "shards/train" / frames.shards[0].name).unlink()
    assert main(["shards", "check", url]) == 1
    assert main(["shards", "unpack", url, str(tmp_path / "data")]) == 1
    assert len(list_episodes(tmp_path / "data" / "train")) == 12 - frames.shards[0].num_episodes
