"""What damaged or hostile episodes and shards hold is refused, or left out and counted."""

import json
import shutil
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from midas_world.commands import cli
from midas_world.data.episodes import EpisodeError, load_episode
from midas_world.data.shard_index import ShardError, open_shards
from midas_world.data.shards import Losses, read_samples
from tests.shard_data import save_all


def change_index(url: str, change) -> None:
    path = Path(url) / "train" / "index.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


@pytest.fixture
def packed(shards: str, tmp_path: Path) -> str:
    return str(shutil.copytree(shards, tmp_path / "shards"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v["shards"][0].update(name="../../etc/passwd"), "name must be a plain one"),
        (lambda v: v["shards"][0].update(name="x::http://y/z"), "name must be a plain one"),
        (lambda v: v["shards"][0].update(num_episodes="2"), "num_episodes must be a whole number"),
        (lambda v: v["shards"][0].update(num_episodes=-1), "num_episodes must be at least 0"),
        (lambda v: v["shards"].append(v["shards"][0]), "no episodes after those of the shard bef"),
        (lambda v: v["shards"][1].update(last=""), "no episodes after those of the shard before"),
        (lambda v: v.update(shards=3), "not iterable"),
        (lambda v: v.update(frame_size=["a", 2]), "invalid literal"),
    ],
)
def test_an_index_of_shards_is_checked(packed, change, words):
    change_index(packed, change)
    with pytest.raises(ShardError, match=f"index.json is no index of shards: .*{words}"):
        open_shards(f"{packed}/train")


def _sparse(tar, tarinfo):
    """Add a member of 10^12 bytes, nearly all of them a hole, in GNU's old layout."""
    header = bytearray(tarinfo.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:410] = b"%011o\0%011o\0" % (0, 512)
    header[483:495] = b"\x80" + (10**12).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    tar.fileobj.write(bytes(header) + b"x" * 512)


def _link(tar, tarinfo):
    tarinfo.type, tarinfo.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar.addfile(tarinfo)


@pytest.mark.parametrize("add", [_sparse, _link])
def test_a_member_that_is_no_file_ends_a_shard(packed, caplog, add):
    folder = open_shards(f"{packed}/train")
    path = Path(packed) / "train" / folder.shards[0].name
    with tarfile.open(path, "w") as tar:
        tarinfo = tarfile.TarInfo("episode-00000001.header.json")
        tarinfo.size = 512 if add is _sparse else 0
        add(tar, tarinfo)
    losses = Losses()
    assert list(read_samples(folder.url, folder.shards[0], losses)) == []
    assert losses.num_episodes == 2
    assert "is no file of an episode" in caplog.text


def test_an_episode_that_comes_twice_counts_once(packed, caplog):
    folder = open_shards(f"{packed}/train")
    shard = folder.shards[0]
    path = Path(packed) / "train" / shard.name
    with tarfile.open(path) as tar:
        members = [(m, part.read()) for m in tar if (part := tar.extractfile(m)) is not None]
    first = members[: len(members) // 2]
    with tarfile.open(path, "w") as tar:
        for member, content in [*members, *first]:
            tar.addfile(member, BytesIO(content))
    samples = list(read_samples(folder.url, shard, Losses()))
    assert len(samples) == len({sample.name for sample in samples}) == 2
    with tarfile.open(path, "w") as tar:
        for member, content in [*first, *first]:
            tar.addfile(member, BytesIO(content))
    assert len(list(read_samples(folder.url, shard, losses := Losses()))) == 1
    assert losses.num_episodes == 1
    tar = path.read_bytes()
    path.write_bytes(tar.replace(b"episode-", b"../isode"))
    assert list(read_samples(folder.url, shard, Losses())) == []


def test_a_file_system_that_is_not_installed_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert cli.main(["shards", "check", "s3://bucket/data"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "s3fs" in said[0]


PLAYED = {"env_id": "test", "seed": 1, "policy": "random", "fps": 20.0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_steps": 10**12}, "num_steps and frame_size must be positive"),
        ({"num_steps": 10**6}, "num_steps is 1000000, there are 8 actions"),
        ({"num_steps": "8"}, "num_steps and frame_size must be positive"),
        ({"frame_size": [10**6, 10**6]}, "frame_size must be below"),
        ({"frame_size": [48]}, "num_steps and frame_size"),
        ({"num_steps": ...}, "num_steps"),
        ({"format_version": 2}, "format version 2"),
        ({"metadata": PLAYED | {"fps": 0}}, "fps must be positive"),
        ({"metadata": {"env_id": 3}}, "must be a text|is missing"),
        ({"metadata": []}, "must be values by name"),
        ({"files": []}, "fit"),
        ({"texts": 7}, "fit"),
        ({"video": 7}, "fit"),
    ],
)
def test_an_episode_s_header_is_checked(tmp_path, change, words):
    (path,) = save_all(tmp_path, [1])
    file = path / "header.json"
    header = json.loads(file.read_text()) | change
    file.write_text(json.dumps({key: value for key, value in header.items() if value != ...}))
    with pytest.raises(EpisodeError, match=words):
        load_episode(path)
    with pytest.raises(EpisodeError):
        load_episode(path, frames=False)
