"""Episodes whose frames tell their seed and place, for tests of shards, and streams over them."""

from pathlib import Path

import numpy as np

from midas_world.config import load_preset
from midas_world.data.episodes import Episode, EpisodeMetadata, list_episodes, save_episode
from midas_world.data.shard_index import ShardFolder
from midas_world.model.autoencoder import Autoencoder
from midas_world.train.stream import FrameStream, StreamOptions
from tests.fakes import randomize

FRAMES = 9


def make_episode(seed: int, *, num_frames: int = FRAMES, height: int = 48) -> Episode:
    """Return an episode whose frames tell its seed (red) and their place (green)."""
    steps = num_frames - 1
    frames = np.zeros((num_frames, height, 80, 3), np.uint8)
    frames[..., 0] = seed
    frames[..., 1] = np.arange(num_frames)[:, None, None]
    pose = np.zeros((num_frames, 39), np.float32)
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
        save_episode(make_episode(seed, **options), paths[-1], codec="raw")
    return paths


def two_episodes(data: Path) -> int:
    episode = list_episodes(data / "train")[0]
    return int(2.5 * sum(1024 + file.stat().st_size for file in episode.iterdir()))


def make_coder(seed: int) -> Autoencoder:
    coder = Autoencoder(load_preset("tiny").world.autoencoder)
    randomize(coder, seed)
    return coder.eval()


def stream_of(folder: ShardFolder, *, places: dict | None = None, **options) -> FrameStream:
    options = {"passes": 1, "shuffle_frames": 4} | options
    return FrameStream(folder, StreamOptions(**options), **(places or {}))


def seen(rows) -> list[tuple[int, int]]:
    """Return seed and place of frames."""
    return [tuple(row["frames"][0, 0, :2].tolist()) for row in rows]


def every_frame(seeds) -> list[tuple[int, int]]:
    return [(seed, place) for seed in seeds for place in range(FRAMES)]
