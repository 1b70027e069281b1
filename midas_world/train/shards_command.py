"""`midas-world shards pack|unpack|check|measure`: episodes in large files, read as a stream."""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from midas_world.checkpoint import CONFIG_NAME
from midas_world.config import ProjectConfig, load_config
from midas_world.data.packing import DEFAULT_SHARD_BYTES, SPLITS, pack, unpack
from midas_world.data.shard_index import ALL_NAMES, Part, ShardFolder, has_shards, join, open_shards
from midas_world.data.shards import Losses, read_samples
from midas_world.model.autoencoder import Autoencoder
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.latents import encode_frames
from midas_world.train.stream import FrameStream, StreamOptions, load_sample


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
        part=arguments.part,
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


def _measure(arguments: argparse.Namespace) -> int:
    folder = _folders(arguments.url)[0]
    total = arguments.hours * 3600 * folder.fps
    size = folder.num_bytes / folder.num_frames
    print(f"{arguments.hours:g} hours at {folder.fps:g} frames/s are {total:.3g} frames")
    print(f"{size:.0f} bytes a frame, {total * size / 1e12:.2f} TB in all")
    spent = measure_reading(folder, num_frames=arguments.frames)
    _print_time("read and check, one process", spent, total, "CPU")
    spent = measure_stream(folder, num_frames=arguments.frames)
    _print_time("draw frames, one worker", spent, total, "CPU")
    if arguments.autoencoder:
        config = _config_of(arguments.autoencoder)
        device = _device()
        coder = load_autoencoder(arguments.autoencoder, config).to(device)
        spent = _measure_encoding(folder, coder, arguments.frames, device)
        kind = "CPU" if device.type == "cpu" else device.type.upper()
        _print_time(f"encode, frames decoded already, on {device}", spent, total, kind)
    return 0


@dataclass
class Spent:
    """Frames that passed, and the seconds that they took."""

    frames: int = 0
    seconds: float = 0.0


def measure_reading(folder: ShardFolder, *, num_frames: int) -> Spent:
    """Return the CPU time of reading and checking at least so many frames, or all."""
    spent, losses = Spent(), Losses()
    with _cpu_time(spent):
        for shard in folder.shards:
            for sample in read_samples(folder.url, shard, losses):
                spent.frames += sample.num_frames
                if spent.frames >= num_frames:
                    return spent
    return spent


def measure_stream(folder: ShardFolder, *, num_frames: int) -> Spent:
    """Return the CPU time in which one worker draws at least so many frames, or all.

    All frames of each episode are drawn, so a frame costs its share of decoding.
    """
    stream = FrameStream(folder, StreamOptions(passes=1, shuffle_frames=1))
    spent = Spent()
    with _cpu_time(spent):
        for _ in stream:
            spent.frames += 1
            if spent.frames >= num_frames:
                break
    return spent


def _measure_encoding(
    folder: ShardFolder, coder: Autoencoder, num_frames: int, device: torch.device
) -> Spent:
    spent, losses = Spent(), Losses()
    samples = (
        sample for shard in folder.shards for sample in read_samples(folder.url, shard, losses)
    )
    for sample in samples:
        pixels = load_sample(sample).frames
        if device.type == "cuda" and not spent.frames:
            encode_frames(pixels, coder, device=device)  # the first call loads kernels
        started = _now(device)
        encode_frames(pixels, coder, device=device)
        spent.seconds += _now(device) - started
        spent.frames += len(pixels)
        if spent.frames >= num_frames:
            break
    return spent


def _now(device: torch.device) -> float:
    """Return CPU time, or the clock's once a GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


@contextmanager
def _cpu_time(spent: Spent) -> Iterator[None]:
    started = time.process_time()
    try:
        yield
    finally:
        spent.seconds += time.process_time() - started


def _print_time(what: str, spent: Spent, total: float, kind: str) -> None:
    rate = spent.frames / max(spent.seconds, 1e-9)
    print(
        f"{what}: {spent.frames} frames in {spent.seconds:.2f} {kind} s, "
        f"{rate:.0f} frames/{kind} s, {total / rate / 3600:.0f} {kind} hours in all"
    )


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


def _config_of(folder: Path) -> ProjectConfig:
    if not (folder / CONFIG_NAME).is_file():
        raise ValueError(f"{folder} is no checkpoint or world: it has no {CONFIG_NAME}")
    return load_config(ProjectConfig, folder / CONFIG_NAME)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="midas-world shards", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="{pack,unpack,check,measure}")

    one = verbs.add_parser("pack", help="write episodes into shards; goes on where it was stopped")
    one.add_argument("data", type=Path, help="episodes, or folders train and validation of them")
    one.add_argument("url", help="where the shards go: a folder or an fsspec URL")
    one.add_argument("--shard-mb", type=float, default=DEFAULT_SHARD_BYTES / 1e6)
    one.add_argument(
        "--validation-share", type=float, default=0.01, help="of seeds, where nothing is split yet"
    )
    one.add_argument(
        "--part",
        type=Part.parse,
        default=ALL_NAMES,
        metavar="3/8",
        help="only this part of the work",
    )
    one.set_defaults(run=_pack)

    one = verbs.add_parser("unpack", help="write the episodes of shards back into folders")
    one.add_argument("url", help="of the shards, as given to pack")
    one.add_argument("folder", type=Path)
    one.set_defaults(run=_unpack)

    one = verbs.add_parser("check", help="read all shards and count what is damaged")
    one.add_argument("url")
    one.set_defaults(run=_check)

    one = verbs.add_parser("measure", help="size and speed here, and what more hours would take")
    one.add_argument("url")
    one.add_argument("--frames", type=int, default=2000, help="frames to measure with")
    one.add_argument("--hours", type=float, default=20_000, help="of play to reckon with")
    one.add_argument("--autoencoder", type=Path, help="measure encoding too")
    one.set_defaults(run=_measure)
    return parser
