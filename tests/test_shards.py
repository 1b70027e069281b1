import dataclasses
import json
import logging
import tarfile
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from torch import Tensor

from midas_world.autoencoder import Autoencoder
from midas_world.checkpoint import load_tensors, save_tensors
from midas_world.cli import main
from midas_world.config import ConditionsConfig, ProjectConfig, load_preset, save_config
from midas_world.episodes import Episode, EpisodeMetadata, VideoOptions, list_episodes, save_episode
from midas_world.shard_packing import is_held_out, pack, pack_folder
from midas_world.shards import (
    Losses,
    Part,
    ShardError,
    ShardFolder,
    has_shards,
    open_shards,
    read_samples,
)
from midas_world.train.autoencoder import train_autoencoder
from midas_world.train.dynamics import train_dynamics
from midas_world.train.latents import open_latents
from midas_world.train.shard_latents import encode_shards, missing_latents
from midas_world.train.stream import StreamOptions, WindowStream, make_loader, sequences
from tests.fakes import randomize

CPU = torch.device("cpu")
FRAMES = 9
CONDITIONS = ConditionsConfig(text_buckets=256)
STATE = "train_state.safetensors"


def make_episode(seed: int, *, num_frames: int = FRAMES, height: int = 48) -> Episode:
    """Return an episode whose frames tell its seed (red) and their place (green)."""
    steps = num_frames - 1
    frames = np.zeros((num_frames, height, 80, 3), np.uint8)
    frames[..., 0] = seed
    frames[..., 1] = np.arange(num_frames)[:, None, None]
    pose = np.zeros((num_frames, 48), np.float32)
    pose[:, 0] = np.arange(num_frames)
    return Episode(
        frames=frames,
        actions=np.arange(1, num_frames) % 15,
        rewards=np.arange(1, num_frames, dtype=np.float32),
        terminated=np.arange(1, num_frames) == steps,
        truncated=np.zeros(steps, bool),
        pose=pose,
        text=("still", *(("left", "right")[t % 2] for t in range(steps))),
        audio=np.full((num_frames, 40), seed, np.float32),
        extras={"keypoints": np.full((num_frames, 15, 2), 20.0, np.float32)},
        metadata=EpisodeMetadata(env_id="test", seed=seed, policy="random", fps=20.0),
    )


def save_all(folder: Path, seeds, **options) -> list[Path]:
    paths = []
    for seed in seeds:
        paths.append(folder / f"episode-{seed:08d}")
        save_episode(make_episode(seed, **options), paths[-1], video=VideoOptions(codec="raw"))
    return paths


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Return a folder with twelve training episodes and two held out."""
    folder = tmp_path_factory.mktemp("data")
    save_all(folder / "train", range(1, 13))
    save_all(folder / "validation", (20, 21))
    return folder


@pytest.fixture(scope="module")
def shards(data, tmp_path_factory) -> str:
    """Return the URL of those, in six shards of two."""
    url = str(tmp_path_factory.mktemp("shards"))
    pack(data, url, shard_bytes=two_episodes(data))
    return url


def two_episodes(data: Path) -> int:
    episode = list_episodes(data / "train")[0]
    return int(2.5 * sum(1024 + file.stat().st_size for file in episode.iterdir()))


def make_coder(seed: int) -> Autoencoder:
    coder = Autoencoder(load_preset("tiny").world.autoencoder)
    randomize(coder, seed)
    return coder.eval()


def stream_of(folder: ShardFolder, *, places: dict | None = None, **options) -> WindowStream:
    options = {"length": 1, "passes": 1, "shuffle_windows": 4} | options
    return WindowStream(folder, StreamOptions(**options), CONDITIONS, **(places or {}))


def seen(windows) -> list[tuple[int, int]]:
    """Return seed and first place of windows of frames."""
    return [tuple(window["frames"][0, 0, 0, :2].tolist()) for window in windows]


def every_frame(seeds) -> list[tuple[int, int]]:
    return [(seed, place) for seed in seeds for place in range(FRAMES)]


# --- the format


def test_shards_are_bounded_tars_that_group_files_as_webdataset_does(shards, data):
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


def test_equal_episodes_give_equal_shards(shards, data, tmp_path):
    pack(data, str(tmp_path), shard_bytes=two_episodes(data))
    again, first = open_shards(f"{tmp_path}/train"), open_shards(f"{shards}/train")
    assert again.shards == first.shards


def test_samples_hold_the_episodes_bytes(shards, data):
    folder = open_shards(f"{shards}/train")
    sample = next(read_samples(folder.url, folder.shards[0], Losses()))
    for name, content in sample.files.items():
        assert content == (data / "train" / sample.name / name).read_bytes()


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


def test_parts_are_packed_apart_and_read_together(tmp_path):
    paths = save_all(tmp_path / "episodes", range(1, 9))
    url = str(tmp_path / "shards")
    for number in (1, 2):
        part = Part.parse(f"{number}/2")
        with pytest.raises(ShardError, match=r"holds no shards|1 of 2 parts"):
            open_shards(url)
        pack_folder([path for path in paths if part.holds(path.name)], url, part=part)
    windows = stream_of(open_shards(url))
    assert sorted(seen(windows)) == every_frame(range(1, 9))


@pytest.mark.parametrize("text", ["0/2", "3/2", "half"])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="part must"):
        Part.parse(text)


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
    with pytest.raises(ShardError, match="this program reads midas-world shards 1"):
        open_shards(str(tmp_path))


# --- the stream


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
    assert seen(stream) != seen(stream_of(folder, shuffle_windows=8))
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
        options = {"length": 3, "batch_size": 2, "windows_per_episode": 2, "passes": None}
        places = {"first_batch": start}
        stream = stream_of(folder, places=places, num_workers=workers, **options)
        loader = iter(make_loader(stream))
        return torch.stack([next(loader)["frames"][:, 0, 0, 0] for _ in range(start, stop)])

    whole = batches(0, first + 5)
    assert len(whole.flatten(1).unique(dim=0)) > 3
    torch.testing.assert_close(batches(first, first + 5), whole[first:])


def test_windows_hold_what_led_to_each_frame(shards):
    folder = open_shards(f"{shards}/train")
    for window in stream_of(folder, length=4, windows_per_episode=1):
        places = window["frames"][:, 0, 0, 1].long()
        assert places.tolist() == list(range(int(places[0]), int(places[0]) + 4))
        torch.testing.assert_close(window["reward"], places.float())
        torch.testing.assert_close(window["actions"], places % 15)
        torch.testing.assert_close(window["pose"][:, 0], places.float())
        assert window["terminated"].tolist() == (places == FRAMES - 1).tolist()
        assert window["keypoints"].shape == (4, 15, 2)


def test_episodes_too_short_for_a_window_end_in_an_error_not_a_hang(shards):
    with pytest.raises(ShardError, match="no readable episode of at least 10 frames"):
        next(iter(stream_of(open_shards(f"{shards}/train"), length=10, passes=None)))


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


def test_shards_are_written_and_read_by_any_fsspec_url(data):
    url = f"memory://{uuid.uuid4().hex}/stage"
    pack(data, url, shard_bytes=two_episodes(data))
    folder = open_shards(f"{url}/train")
    assert sorted(seen(stream_of(folder))) == every_frame(range(1, 13))
    latents = encode_shards(f"{url}/train", make_coder(1), device=CPU)
    assert latents.url.startswith(f"{url}/train/latents-")
    assert latents.num_frames == 12 * FRAMES
    fs, path = fsspec.core.url_to_fs(url)
    assert not [name for name in fs.find(path) if ".tmp-" in name]


# --- latents


def test_latents_of_shards_are_those_of_episodes(shards, data):
    coder = make_coder(1)
    store = open_latents(data / "train", coder, CONDITIONS, device=CPU)
    folder = encode_shards(f"{shards}/train", coder, device=CPU)
    assert folder.kind == "latents"
    for window in stream_of(folder, length=4, windows_per_episode=1):
        seed, place = int(window["audio"][0, 0]), int(window["pose"][0, 0])
        row = torch.tensor([int(store.starts[seed - 1]) + place])
        expected = store.gather(row, 4)
        found = sequences({name: value[None] for name, value in window.items()})
        assert found.keys() == expected.keys()
        for name in ("latents", "reward", "terminated"):
            torch.testing.assert_close(found[name], expected[name])
        for name in ("pose", "text", "audio", "present"):
            torch.testing.assert_close(
                getattr(found["conditions"], name), getattr(expected["conditions"], name)
            )


def test_latents_are_encoded_once_and_anew_for_another_encoder_or_shard(data, tmp_path):
    url = str(tmp_path / "train")
    paths = list_episodes(data / "train")[:4]
    pack_folder(paths[:3], url, shard_bytes=two_episodes(data))
    first = make_coder(1)
    made = encode_shards(url, first, device=CPU)
    file = Path(made.url) / made.shards[0].name
    written = file.stat().st_mtime_ns
    assert not missing_latents(url, first)

    pack_folder(paths, url, shard_bytes=two_episodes(data))  # one more shard
    assert len(missing_latents(url, first)) == 1
    assert len(encode_shards(url, first, device=CPU).shards) == 3
    assert file.stat().st_mtime_ns == written

    other = make_coder(2)
    assert len(missing_latents(url, other)) == 3
    again = encode_shards(url, other, device=CPU)
    assert again.url != made.url
    assert again.shards[0].digest != made.shards[0].digest

    index = json.loads((Path(url) / "index.json").read_text())
    index["shards"][0]["digest"] = "packed anew"
    (Path(url) / "index.json").write_text(json.dumps(index))
    assert len(missing_latents(url, first)) == 1
    encode_shards(url, first, device=CPU)
    assert file.stat().st_mtime_ns != written
    assert not missing_latents(url, first)


# --- training


def tiny(url: str, *overrides: str) -> ProjectConfig:
    base = [
        "train_autoencoder.optimizer.bf16=false",
        "train_dynamics.optimizer.bf16=false",
        "train_dynamics.sequence_frames=4",
        "train_dynamics.self_context_rate=0.5",
        "train_dynamics.scene_switch_rate=0.5",
        "data.shuffle_windows=6",
    ]
    return load_preset("tiny", [*base, f"data.folder='{url}'", *overrides])


def test_both_stages_train_on_shards_and_resume_exactly(shards, tmp_path):
    config = tiny(shards)
    nowhere = tmp_path / "nowhere"

    def train(folder: Path, *stops: int | None) -> Path:
        for stop in stops:
            train_autoencoder(config, nowhere, folder / "autoencoder", device=CPU, stop_at=stop)
        for stop in stops:
            train_dynamics(
                config,
                nowhere,
                folder / "dynamics",
                autoencoder=folder / "autoencoder",
                device=CPU,
                stop_at=stop,
            )
        return folder

    whole, parts = train(tmp_path / "whole", None), train(tmp_path / "parts", 3, None)
    for stage in ("autoencoder", "dynamics"):
        first, second = (load_tensors(run / stage / STATE) for run in (whole, parts))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert (whole / stage / "weights.safetensors").is_file()


def test_a_folder_of_shards_given_as_data_is_streamed_too(shards, tmp_path):
    config = tiny("")
    train_autoencoder(config, Path(shards), tmp_path / "run", device=CPU, stop_at=1)
    assert not (Path(shards) / "train" / ".cache").exists()


def test_what_a_stream_cannot_do_is_an_error(shards, tmp_path):
    coder = tmp_path / "autoencoder"
    save_tensors(make_coder(1).state_dict(), coder / "weights.safetensors")
    config = tiny(shards, "train_dynamics.self_context_carries=true")
    with pytest.raises(ShardError, match="self_context_carries=false"):
        train_dynamics(config, tmp_path, tmp_path / "run", autoencoder=coder, device=CPU)
    with pytest.raises(ShardError, match="holds no shards"):
        train_autoencoder(tiny("memory://none"), tmp_path, tmp_path / "run", device=CPU)
    config = tiny(shards, "world.height=96")
    with pytest.raises(ShardError, match="wants frames of 96x80"):
        train_autoencoder(config, tmp_path, tmp_path / "run", device=CPU)


# --- the command


def test_the_command_packs_encodes_checks_and_measures(data, tmp_path, capsys):
    url, coder = str(tmp_path / "shards"), tmp_path / "autoencoder"
    save_tensors(make_coder(1).state_dict(), coder / "weights.safetensors")
    save_config(load_preset("tiny"), coder / "config.yaml")
    assert main(["shards", "pack", str(data), url, "--shard-mb", "0.3"]) == 0
    assert main(["shards", "encode", url, "--autoencoder", str(coder)]) == 0
    assert main(["shards", "check", url]) == 0
    assert capsys.readouterr().out.count("0 episodes lost") == 3
    words = ["--frames", "30", "--window", "5", "--hours", "10", "--autoencoder", str(coder)]
    assert main(["shards", "measure", url, *words]) == 0
    shown = capsys.readouterr().out
    frames = open_shards(f"{url}/train")
    assert "10 hours at 20 frames/s are 7.2e+05 frames" in shown
    assert f"frames: {frames.num_bytes / frames.num_frames:.0f} bytes a frame" in shown
    for part in ("windows of 1 of frames", "windows of 5 of latents", "encode, frames decoded"):
        assert part in shown
    (tmp_path / "shards/train" / frames.shards[0].name).unlink()
    assert main(["shards", "check", url]) == 1
    assert main(["shards", "encode", url, "--autoencoder", str(tmp_path)]) == 2


def test_options_out_of_range_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="shuffle_windows must be at least 1, got 0"):
        dataclasses.replace(load_preset("tiny").data, shuffle_windows=0)
    with pytest.raises(ValueError, match="shard_bytes must be at least 1, got 0"):
        pack(data, str(tmp_path), shard_bytes=0)
