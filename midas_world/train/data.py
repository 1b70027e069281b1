"""What training reads: decoded frames and encoded latents of episodes, cached on disk.

Episodes are decoded once into a memory-mapped file of frames, and encoded once per autoencoder
into latents, so that a train step only gathers rows. Knows episodes, not environments.

Shapes: F frames, H W pixels, N tokens per frame, C latent channels, P pose size, A audio size.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from midas_world.data.episodes import Episode, EpisodeError, StoredEpisode, list_episodes
from midas_world.files import whole

logger = logging.getLogger(__name__)

# Numbers that a teacher tells of each keypoint, thing and region.
_WIDTHS = {"keypoints": 2, "things": 6, "regions": 4}


@dataclass(frozen=True)
class FrameStore:
    """All frames of a folder of episodes, one episode after another; a row is one frame.

    Attributes:
        episodes: The episodes' folders.
        names: Of each, a file name that changes with anything in it, to keep what follows from it.
        frames: Of each episode, (T + 1, H, W, 3) uint8, memory-mapped.
        keypoints: (rows, K, 2) float32 px; K is 0 where the teacher has none.
        things: (rows, O, 6) float32: class (-1 fills up), centre x, y, half width, half height in
            px, and a number that is a thing's own; O is 0 where the teacher lists none.
        regions: (rows, R, 4) float32: centre x, y, half width and height in px of where else small
            things matter; of size 0 where there is none.
        starts: First row of each episode, and the number of rows at the end.
    """

    episodes: tuple[Path, ...]
    names: tuple[str, ...]
    frames: tuple[np.ndarray, ...]
    keypoints: np.ndarray
    things: np.ndarray
    regions: np.ndarray
    starts: np.ndarray

    @property
    def num_frames(self) -> int:
        """The number of rows."""
        return int(self.starts[-1])

    def check_size(self, height: int, width: int) -> None:
        """Raise ValueError if an episode's frames have another size than a config wants."""
        for episode, frames in zip(self.episodes, self.frames, strict=True):
            if frames.shape[1:3] != (height, width):
                raise ValueError(
                    f"the config wants frames of {height}x{width}, "
                    f"{episode} has {frames.shape[1]}x{frames.shape[2]}"
                )

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Return the frames of some rows, (len(rows), H, W, 3) uint8, as a new array."""
        episode = np.searchsorted(self.starts, rows, side="right") - 1
        return np.stack(
            [self.frames[e][row - self.starts[e]] for e, row in zip(episode, rows, strict=True)]
        )


def kept_array(
    path: Path,
    make: Callable[[], np.ndarray],
    *,
    shape: tuple[int | None, ...],
    dtype: npt.DTypeLike,
) -> np.ndarray:
    """Return the array that a file keeps, memory-mapped; it is made if it is not there or damaged.

    Args:
        path: The file.
        make: Returns the array.
        shape: Its size in each dimension; None is any.
        dtype: Its own.
    """
    with contextlib.suppress(FileNotFoundError, ValueError, OverflowError, TokenError):
        kept = np.lib.format.open_memmap(path, mode="r")
        sizes = zip(shape, kept.shape, strict=True)
        is_whole = path.stat().st_size == kept.offset + kept.nbytes
        if is_whole and kept.dtype == dtype and all(size in (None, own) for size, own in sizes):
            return kept
    if path.is_file():
        logger.warning("%s is damaged, and made again", path)
    with whole(path) as place:
        np.save(place, make())
    return np.load(path, mmap_mode="r")


def open_frames(folder: Path) -> FrameStore:
    """Decode the episodes of a folder that were not decoded before, and map them all.

    As for what cannot be read, see `open_episodes`.
    """
    return open_episodes(folder, lambda _: {})[0]


def open_episodes(
    folder: Path, columns_of: Callable[[Episode], Mapping[str, np.ndarray]]
) -> tuple[FrameStore, dict[str, np.ndarray]]:
    """Return the frames of a folder's episodes, and columns of them all, one behind another.

    Each is read once. One that cannot be read is skipped with a warning and counted.

    Args:
        folder: Of the episodes; frames that were not decoded before are kept in it.
        columns_of: Makes columns of an episode's T + 1 rows, which has no pixels then.

    Raises:
        ValueError: The folder holds no readable episode.
    """
    episodes = list_episodes(folder)
    if not episodes:
        raise ValueError(f"no episodes in {folder}; collect some first")
    cache = folder / ".cache" / "frames"
    cache.mkdir(parents=True, exist_ok=True)
    kept, names, frames = [], [], []
    columns: dict[str, list[np.ndarray]] = {}
    for path in tqdm(episodes, desc="decode", unit="episode", mininterval=5.0):
        try:
            stored = StoredEpisode(path)
            episode, name = stored.load(), f"{path.name}-{stored.key}.npy"
            decoded = kept_array(
                cache / name,
                stored.frames,
                shape=(episode.num_steps + 1, None, None, 3),
                dtype=np.uint8,
            )
        except EpisodeError as error:
            logger.warning("skipped: %s", error)
            continue
        kept.append(path)
        names.append(name)
        frames.append(decoded)
        for name, column in {**frame_columns(episode), **columns_of(episode)}.items():
            columns.setdefault(name, []).append(column)
    if not kept:
        raise ValueError(f"none of the {len(episodes)} episodes in {folder} is readable")
    if len(kept) < len(episodes):
        logger.warning("%d of %d episodes skipped", len(episodes) - len(kept), len(episodes))
    joined = {name: np.concatenate(columns.pop(name)) for name in list(columns)}
    store = FrameStore(
        episodes=tuple(kept),
        names=tuple(names),
        frames=tuple(frames),
        starts=np.cumsum([0, *map(len, frames)]),
        **{name: joined.pop(name) for name in _WIDTHS},
    )
    return store, joined


def frame_columns(episode: Episode) -> dict[str, np.ndarray]:
    """Return keypoints, things and regions of an episode's T + 1 rows, as `FrameStore` has them."""
    count = episode.num_steps + 1
    return {
        name: np.asarray(episode.extras.get(name, np.zeros((count, 0, width))), dtype=np.float32)
        for name, width in _WIDTHS.items()
    }


def crop_corners(
    keypoints: np.ndarray,
    things: np.ndarray,
    *,
    frame_size: tuple[int, int],
    crop_size: int,
    character_rate: float,
    thing_rate: float,
    rng: np.random.Generator,
    step: int = 1,
) -> np.ndarray:
    """Return the upper left corners of one crop a frame, (B, 2) int64 of (y, x) px.

    A crop lies around a keypoint, around a listed thing, or anywhere; so what is small but matters
    is learned as well as the large.

    Args:
        keypoints: (B, K, 2) px.
        things: (B, O, 6), as in `FrameStore`.
        frame_size: H, W.
        crop_size: Side of the square, px.
        character_rate: Share of crops around a keypoint.
        thing_rate: Share of crops around a thing.
        rng: Of every choice.
        step: Corners are multiples of it.
    """
    height, width = frame_size
    corners = np.zeros((len(keypoints), 2), np.int64)
    for row, (points, listed) in enumerate(zip(keypoints, things, strict=True)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        listed = listed[(listed[:, 0] >= 0) & (listed[:, 1] > -8) & (listed[:, 1] < width + 8)]
        choice = rng.random()
        if choice < character_rate and len(points):
            x, y = points[rng.integers(len(points))] + rng.uniform(-24, 24, 2)
        elif character_rate <= choice < character_rate + thing_rate and len(listed):
            x, y = listed[rng.integers(len(listed)), 1:3] + rng.uniform(-24, 24, 2)
        corners[row] = np.clip(
            (y - crop_size / 2, x - crop_size / 2), 0, (height - crop_size, width - crop_size)
        )
    return corners // step * step


def character_weight(
    keypoints: Tensor,
    height: int,
    width: int,
    *,
    limbs: Sequence[tuple[int, int]],
    radius: float = 9 / 192,
) -> Tensor:
    """Return 1 near the character's keypoints and 0 far away, (B, K, 2) px -> (B, 1, H, W).

    A smooth mask from the distance to the nearest keypoint or middle of a limb, computed
    at about 48 rows whatever the resolution.

    Args:
        keypoints: In px of the frame.
        height: Of the frame.
        width: Of the frame.
        limbs: Pairs of keypoints.
        radius: Standard deviation of the mask around a point, as a share of the height.
    """
    if not keypoints.shape[1]:
        return keypoints.new_zeros(len(keypoints), 1, height, width)
    step = max(1, round(height / 48))
    rows = torch.arange(height // step, device=keypoints.device) * step + step / 2
    columns = torch.arange(width // step, device=keypoints.device) * step + step / 2
    pairs = torch.tensor(limbs, dtype=torch.int64).view(-1, 2)
    points = torch.cat((keypoints, keypoints[:, pairs].mean(dim=2)), dim=1)
    dy = rows[None, None, :, None] - points[:, :, 1, None, None]
    dx = columns[None, None, None, :] - points[:, :, 0, None, None]
    nearest = (dx.square() + dy.square()).amin(dim=1, keepdim=True)
    mask = torch.exp(-nearest / (2 * (radius * height) ** 2))
    return torch.nn.functional.interpolate(mask, size=(height, width), mode="bilinear")
