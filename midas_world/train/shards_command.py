"""`midas-world shards pack|unpack|check`: episodes in large files, read as a stream."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from midas_world.data.packing import DEFAULT_SHARD_BYTES, SPLITS, pack, unpack
from midas_world.data.shard_index import ShardFolder, has_shards, join, open_shards
from midas_world.data.shards import Losses, read_samples


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the command line says; return 0, or 1 where episodes were lost."""
    arguments = _parser().parse_args(argv)
    return arguments.run(arguments)


def _pack(arguments: argparse.Namespace) -> int:
    folders = pack(
        arguments.data,
        arguments.url,
        shard_bytes=int(arguments.shard_mb * 1e6),
        validation_share=arguments.validation_share,
    )
    for folder in folders.values():
        print(_describe(folder))
    return 1 if any(shard.num_skipped for f in folders.values() for shard in f.shards) else 0


def _unpack(arguments: argparse.Namespace) -> int:
    losses = unpack(arguments.url, arguments.folder)
    print(f"{arguments.folder}: unpacked, {losses.num_episodes} episodes lost")
    return 1 if losses.num_episodes else 0


def _check(arguments: argparse.Namespace) -> int:
    num_lost = 0
    for folder in _folders(arguments.url):
        losses = Losses()
        for shard in folder.shards:
            for _ in read_samples(folder.url, shard, losses):
                pass
        print(f"{_describe(folder)}, {losses.num_episodes} episodes lost")
        num_lost += losses.num_episodes
    return 1 if num_lost else 0


def _describe(folder: ShardFolder) -> str:
    frames = max(1, folder.num_frames)
    return (
        f"{folder.url}: {len(folder.shards)} shards, {folder.num_episodes} episodes,"
        f" {folder.num_frames} frames, {folder.num_bytes / 1e6:.1f} MB,"
        f" {folder.num_bytes / frames:.0f} bytes a frame"
    )


def _folders(url: str) -> list[ShardFolder]:
    """Return the folders of shards under a URL: its splits, or itself."""
    urls = [join(url, name) for name in SPLITS if has_shards(join(url, name))] or [url]
    return [open_shards(found) for found in urls]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="midas-world shards", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="{pack,unpack,check}")

    one = verbs.add_parser("pack", help="write episodes into shards; goes on where it was stopped")
    one.add_argument("data", type=Path, help="episodes, or folders train and validation of them")
    one.add_argument("url", help="where the shards go: a folder or an fsspec URL")
    one.add_argument("--shard-mb", type=float, default=DEFAULT_SHARD_BYTES / 1e6)
    one.add_argument(
        "--validation-share", type=float, default=0.01, help="of seeds, where nothing is split yet"
    )
    one.set_defaults(run=_pack)

    one = verbs.add_parser("unpack", help="write the episodes of shards back into folders")
    one.add_argument("url", help="of the shards, as given to pack")
    one.add_argument("folder", type=Path)
    one.set_defaults(run=_unpack)

    one = verbs.add_parser("check", help="read all shards and count what is damaged")
    one.add_argument("url")
    one.set_defaults(run=_check)
    return parser
