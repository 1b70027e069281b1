"""Reading shards as a stream of frames: order, ranks, workers, damage; and training on it."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from midas_world.checkpoint import load_tensors, save_tensors
from midas_world.config import ProjectConfig, load_preset
from midas_world.data.packing import unpack
from midas_world.data.shard_index import ShardError, ShardFolder, open_shards
from midas_world.data.shards import Losses, read_samples
from midas_world.train.autoencoder import train_autoencoder
from midas_world.train.dynamics import train_dynamics
from midas_world.train.stream import make_loader
from tests.shard_data import every_frame, make_coder, seen, stream_of
from tests.training import CPU, STATE, same


@pytest.mark.parametrize("workers", [1, 2])
def test_two_ranks_read_disjoint_shards_and_together_all(shards, workers):
    folder = open_shards(f"{shards}/train")
    for epoch in (0, 1):
        read = [
            place
            for rank in (0, 1)
            for worker in range(workers)
            for place in stream_of(
                folder, places={"rank": rank, "num_ranks": 2}, num_workers=workers
            ).shards_of(epoch, worker)
        ]
        assert sorted(read) == list(range(6))
    windows = [stream_of(folder, places={"rank": r, "num_ranks": 2}) for r in (0, 1)]
    first, second = (seen(stream) for stream in windows)
    assert not {seed for seed, _ in first} & {seed for seed, _ in second}
    assert sorted(first + second) == every_frame(range(1, 13))


def test_order_follows_seed_and_pass(shards):
    folder = open_shards(f"{shards}/train")
    stream = stream_of(folder)
    assert stream.shards_of(0, 0) == stream_of(folder).shards_of(0, 0)
    assert stream.shards_of(0, 0) != stream.shards_of(1, 0)
    assert stream.shards_of(0, 0) != stream_of(folder, seed=1).shards_of(0, 0)
    assert seen(stream) == seen(stream_of(folder))
    assert seen(stream) != seen(stream_of(folder, shuffle_frames=8))
    assert seen(stream) != sorted(seen(stream))


def test_worker_processes_read_all_and_their_losses_are_counted(shards, tmp_path):
    folder = truncated_copy(open_shards(f"{shards}/train"), tmp_path)
    stream = stream_of(folder, num_workers=2, batch_size=5)
    batches = [batch["frames"] for batch in make_loader(stream)]
    found = sorted(seen({"frames": frame} for batch in batches for frame in batch))
    assert found == every_frame(s for s in range(1, 13) if s != 2)
    assert stream.num_lost == 1


def test_more_workers_than_shards_are_refused(shards):
    folder = open_shards(f"{shards}/train")
    with pytest.raises(ShardError, match="6 shards, fewer than the 8 workers of 4 processes"):
        stream_of(folder, places={"num_ranks": 4}, num_workers=2)


@pytest.mark.parametrize(("workers", "first"), [(0, 1), (0, 13), (2, 5)])
def test_a_stream_goes_on_with_the_batch_that_comes_next(shards, first, workers):
    folder = open_shards(f"{shards}/train")

    def batches(start: int, stop: int) -> Tensor:
        options = {"batch_size": 2, "frames_per_episode": 4, "passes": None}
        places = {"first_batch": start}
        stream = stream_of(folder, places=places, num_workers=workers, **options)
        loader = iter(make_loader(stream))
        return torch.stack([next(loader)["frames"][:, 0, 0] for _ in range(start, stop)])

    whole = batches(0, first + 5)
    assert len(whole.flatten(1).unique(dim=0)) > 3
    torch.testing.assert_close(batches(first, first + 5), whole[first:])


def test_frames_come_with_what_their_teacher_told_of_them(shards):
    for row in stream_of(open_shards(f"{shards}/train"), frames_per_episode=1):
        assert row["keypoints"].tolist() == [[20.0, 20.0]] * 15
        assert (row["things"].shape, row["regions"].shape) == ((0, 6), (0, 4))


def test_shards_without_a_readable_episode_end_in_an_error_not_a_hang(shards, tmp_path):
    folder = open_shards(f"{shards}/train")
    for shard in folder.shards:
        (tmp_path / shard.name).write_bytes(b"")
    empty = dataclasses.replace(folder, url=str(tmp_path))
    with pytest.raises(ShardError, match="no readable episode"):
        next(iter(stream_of(empty, passes=None)))


def truncated_copy(folder: ShardFolder, target: Path) -> ShardFolder:
    """Copy shards, the first of them cut off in its second episode."""
    for file in Path(folder.url).iterdir():
        if file.is_file():
            (target / file.name).write_bytes(file.read_bytes())
    path = target / folder.shards[0].name
    path.write_bytes(path.read_bytes()[: int(folder.shards[0].num_bytes * 0.7)])
    return open_shards(str(target))


def test_of_a_truncated_shard_the_rest_is_used_warned_of_and_counted(shards, tmp_path, caplog):
    folder = truncated_copy(open_shards(f"{shards}/train"), tmp_path)
    stream = stream_of(folder, passes=2)
    with caplog.at_level(logging.WARNING):
        found = seen(stream)
    assert sorted(set(found)) == every_frame(s for s in range(1, 13) if s != 2)
    assert stream.num_lost == 1
    assert [record.getMessage().count("1 of 2 episodes lost") for record in caplog.records] == [1]


@pytest.mark.parametrize("damage", ["flip", "remove", "empty"])
def test_damage_of_any_kind_loses_only_what_it_hit(shards, tmp_path, damage):
    folder = truncated_copy(open_shards(f"{shards}/train"), tmp_path)
    whole = (Path(shards) / "train" / folder.shards[0].name).read_bytes()
    path = tmp_path / folder.shards[0].name
    if damage == "flip":
        middle = 20_000
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    elif damage == "remove":
        path.unlink()
    else:
        path.write_bytes(b"")
    losses = Losses()
    names = [sample.name for sample in read_samples(folder.url, folder.shards[0], losses)]
    assert names == (["episode-00000002"] if damage == "flip" else [])
    assert losses.num_episodes == 2 - len(names)


# Training


def tiny(url: str, *overrides: str) -> ProjectConfig:
    base = ["train_autoencoder.optimizer.bf16=false", "data.shuffle_frames=6"]
    return load_preset("tiny", [*base, f"data.folder='{url}'", *overrides])


def test_the_autoencoder_trains_on_shards_and_resumes_exactly(shards, tmp_path):
    def train(folder: Path, *stops: int | None) -> dict[str, Tensor]:
        for stop in stops:
            nowhere = tmp_path / "nowhere"
            train_autoencoder(tiny(shards), nowhere, folder, device=CPU, stop_at=stop)
        assert (folder / "weights.safetensors").is_file()
        return load_tensors(folder / STATE)

    assert same(train(tmp_path / "whole", None), train(tmp_path / "parts", 3, None))


def test_a_folder_of_shards_given_as_data_is_streamed_too(shards, tmp_path):
    config = tiny("")
    train_autoencoder(config, Path(shards), tmp_path / "run", device=CPU, stop_at=1)
    assert not (Path(shards) / "train" / ".cache").exists()


def test_what_a_stream_cannot_do_is_an_error(shards, tmp_path):
    coder = tmp_path / "autoencoder"
    save_tensors(make_coder(1).state_dict(), coder / "weights.safetensors")
    with pytest.raises(ValueError, match=f"shards unpack {shards} FOLDER"):
        train_dynamics(tiny(shards), tmp_path, tmp_path / "run", autoencoder=coder, device=CPU)
    with pytest.raises(ShardError, match="holds no shards"):
        train_autoencoder(tiny("memory://none"), tmp_path, tmp_path / "run", device=CPU)
    config = tiny(shards, "world.height=96")
    with pytest.raises(ShardError, match="wants frames of 96x80"):
        train_autoencoder(config, tmp_path, tmp_path / "run", device=CPU)


def test_an_episode_of_two_shards_counts_once(shards, caplog, tmp_path):
    train = shutil.copytree(Path(shards) / "train", tmp_path / "train")
    index = json.loads((train / "index.json").read_text())
    *_, last = index["shards"]
    copy = last | {"name": "zz.tar", "last": "zz"}
    index["shards"].append(copy)
    (train / "index.json").write_text(json.dumps(index))
    shutil.copy(train / last["name"], train / "zz.tar")
    folder = open_shards(str(train))
    assert sorted(seen(stream_of(folder))) == every_frame(range(1, 13))
    assert f"2 of 2 episodes lost: {last['last']} belongs to another shard" in caplog.text
    assert unpack(str(train), tmp_path / "data").num_episodes == 2
