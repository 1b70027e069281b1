"""Packs folders of episodes into shards (shards.py) and back, going on where a call stopped.

Episodes are split by seed: what is held out is decided by a hash of the seed alone, so that data
that grows never moves an episode from one side to the other.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from midas_world.data.episodes import HEADER, list_episodes
from midas_world.data.shard_index import (
    Shard,
    ShardError,
    ShardFolder,
    has_shards,
    join,
    local_path,
    open_shards,
    save_index,
)
from midas_world.data.shards import Losses, Sample, make_sample, read_samples, write_shard
from midas_world.files import whole
from midas_world.locks import alone_in

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation")
DEFAULT_SHARD_BYTES = 256_000_000


def pack(
    data: Path, url: str, *, shard_bytes: int = DEFAULT_SHARD_BYTES, validation_share: float = 0.01
) -> dict[str, ShardFolder]:
    """Pack episodes into the shard folders ``train`` and ``validation`` of `url`.

    Args:
        data: Folder of episodes; or with the folders ``train`` and ``validation`` of them, whose
            split is then kept.
        url: Where the shards go: a path or any fsspec URL that can be written.
        shard_bytes: Most bytes of a shard; a larger episode has a shard of its own.
        validation_share: Share of seeds held out, where `data` is not split yet.

    Raises:
        ShardError: There are no episodes, the split is not clean, frames have different sizes, or
            `url` holds shards of other episodes.
    """
    splits = _split(data, validation_share)
    return {
        name: pack_folder(splits[name], join(url, name), shard_bytes=shard_bytes) for name in SPLITS
    }


def pack_folder(
    episodes: Sequence[Path], url: str, *, shard_bytes: int = DEFAULT_SHARD_BYTES
) -> ShardFolder:
    """Pack episodes, in the order of their names, into one folder of shards; see `pack`.

    Raises:
        BusyError: Another process of this machine packs into the same folder.
    """
    path = local_path(url)
    with alone_in(path) if path else nullcontext():
        return _pack_folder(episodes, url, shard_bytes=shard_bytes)


def _pack_folder(episodes: Sequence[Path], url: str, *, shard_bytes: int) -> ShardFolder:
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes must be at least 1, got {shard_bytes}")
    episodes = sorted(episodes, key=lambda path: path.name)
    folder = open_shards(url) if has_shards(url) else None
    done = folder.shards if folder else ()
    last = done[-1].last if done else ""
    left = [path for path in episodes if path.name > last]
    num_done = sum(shard.num_episodes + shard.num_skipped for shard in done)
    if len(episodes) - len(left) != num_done:
        raise ShardError(
            f"{url} holds shards of {num_done} episodes up to {last}, but there are "
            f"{len(episodes) - len(left)} now; pack into a new folder"
        )
    with tqdm(total=len(left), desc="pack", unit="episode", mininterval=5.0) as bar:
        for group in _groups(left, shard_bytes):
            samples = _Readable(group)
            name = f"shard-{len(folder.shards) if folder else 0:06d}.tar"
            shard = write_shard(url, name, samples)
            if not shard.num_episodes and folder is None:
                raise ShardError(f"none of the first {len(group)} episodes for {url} is readable")
            folder = _with(folder, url, samples, shard, last=group[-1].name)
            save_index(folder)
            bar.update(len(group))
    if folder is None:
        raise ShardError(f"there are no episodes for {url}; collect some first")
    return open_shards(url)


def unpack(url: str, folder: Path) -> Losses:
    """Write the episodes of shards, or of their splits, back into folders; return what was lost.

    Episodes that are there already are left as they are.

    Raises:
        BusyError: Another process unpacks into the same folder.
    """
    with alone_in(folder):
        return _unpack(url, folder)


def _unpack(url: str, folder: Path) -> Losses:
    losses = Losses()
    splits = [name for name in SPLITS if has_shards(join(url, name))]
    for name in splits or [""]:
        source, target = (join(url, name), folder / name) if name else (url, folder)
        shards = open_shards(source)
        target.mkdir(parents=True, exist_ok=True)
        with tqdm(total=shards.num_episodes, desc="unpack", unit="episode", mininterval=5.0) as bar:
            for shard in shards.shards:
                for sample in read_samples(source, shard, losses):
                    bar.update()
                    if (target / sample.name).is_dir():
                        continue
                    with whole(target / sample.name) as place:
                        place.mkdir()
                        for part, content in sample.files.items():
                            (place / part).write_bytes(content)
    return losses


def is_held_out(key: str, share: float) -> bool:
    """Whether the episode of a seed (as text) belongs to validation, at this share of all seeds."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
    return number < share * 2**64


class _Readable:
    """The samples of some episode folders, read one by one; damaged ones are left out."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.num_skipped = 0
        self.size: tuple[int, int] | None = None
        self.fps = 0.0

    def __iter__(self) -> Iterator[Sample]:
        for path in self._paths:
            try:
                files = {file.name: file.read_bytes() for file in sorted(path.iterdir())}
                sample = make_sample(path.name, files)
            except ShardError as error:
                self.num_skipped += 1
                logger.warning("skipped an unreadable episode: %s", error)
                continue
            height, width = sample.header["frame_size"]
            self.size = self.size or (height, width)
            self.fps = self.fps or float(sample.header["metadata"]["fps"])
            if self.size != (height, width):
                raise ShardError(
                    f"{path} has frames of {height}x{width}, the episodes before it of "
                    f"{self.size[0]}x{self.size[1]}; shards hold one size"
                )
            yield sample


def _with(
    folder: ShardFolder | None, url: str, samples: _Readable, shard: Shard, *, last: str
) -> ShardFolder:
    """Return the folder with one shard more."""
    shard = replace(shard, num_skipped=samples.num_skipped, last=last)
    if folder is None:
        assert samples.size is not None
        folder = ShardFolder(url=url, frame_size=samples.size, fps=samples.fps)
    if samples.size is not None:
        folder.check_size(*samples.size)
    return replace(folder, shards=(*folder.shards, shard))


def _groups(paths: Sequence[Path], shard_bytes: int) -> Iterator[list[Path]]:
    """Yield runs of episodes that fit into a shard each."""
    group: list[Path] = []
    total = 0
    for path in paths:
        # A tar pads each file to 512 bytes, behind a header of 512.
        size = sum(1024 + file.stat().st_size for file in path.iterdir())
        if group and total + size > shard_bytes:
            yield group
            group, total = [], 0
        group.append(path)
        total += size
    if group:
        yield group


def _split(data: Path, share: float) -> dict[str, list[Path]]:
    """Return the episodes of each side; checks that no seed is on both."""
    if all((data / name).is_dir() for name in SPLITS):
        splits = {name: list_episodes(data / name) for name in SPLITS}
        seeds = {name: {_seed_key(path) for path in splits[name]} for name in SPLITS}
        if both := sorted(seeds["train"] & seeds["validation"]):
            raise ShardError(f"seeds both trained on and held out: {', '.join(both[:10])}")
        return splits
    if not data.is_dir():
        raise ShardError(f"no folder {data}")
    splits = {name: [] for name in SPLITS}
    for path in list_episodes(data):
        splits[SPLITS[is_held_out(_seed_key(path), share)]].append(path)
    if empty := [name for name in SPLITS if not splits[name]]:
        total = sum(map(len, splits.values()))
        raise ShardError(
            f"of the {total} episodes in {data}, none falls to {empty[0]} at a validation share of "
            f"{share:g}; collect more or give another share"
        )
    return splits


def _seed_key(path: Path) -> str:
    """Return an episode's seed as text; its name where it has none, or no header to be read."""
    try:
        seed = json.loads((path / HEADER).read_text(encoding="utf-8"))["metadata"]["seed"]
    except (OSError, KeyError, TypeError, ValueError):
        seed = None
    return path.name if seed is None else str(seed)
