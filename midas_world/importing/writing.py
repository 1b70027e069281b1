"""A recording on disk as a folder of episodes that training takes, whole or not at all."""

import logging
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from midas_world.config import ProjectConfig, save_preset
from midas_world.data.episodes import list_episodes, save_episode
from midas_world.data.video import VideoOptions
from midas_world.files import TEMPORARY_PREFIX, whole
from midas_world.importing.episodes import Cut, Survey, episodes_of
from midas_world.importing.naming import Namer
from midas_world.importing.preset import with_episodes
from midas_world.importing.recording import RecordingError, Source
from midas_world.locks import alone_in
from midas_world.teachers.rewards import with_reward_scale

logger = logging.getLogger(__name__)

TRAIN, HELD = "train", "validation"
_MOST_HELD = 64


def held_every(num_episodes: int, share: float) -> int:
    """Return the n of which every n-th episode is held out, at least one and not too many."""
    return max(2, min(round(1 / max(share, 1e-9)), num_episodes), -(-num_episodes // _MOST_HELD))


def write_folder(
    source: Source,
    namer: Namer,
    cut: Cut,
    config: ProjectConfig,
    folder: Path,
    found: Survey,
    *,
    held_share: float,
    video: VideoOptions,
    is_added: bool,
) -> ProjectConfig:
    """Write a recording's episodes and the preset that trains on them; return what it says.

    Args:
        source: The recording.
        namer: Of its actions.
        cut: How it is cut.
        config: What the preset says, but for the numbers of episodes.
        folder: A new one, or with `is_added` one of an earlier import.
        found: What the survey found.
        held_share: Of the episodes, which are never trained on.
        video: How frames are stored.
        is_added: Whether the episodes join others.

    Raises:
        RecordingError: No two episodes can be read.
        FileExistsError: There is something in a new folder's place.
    """
    period = held_every(found.num_episodes, held_share)

    def write(place: Path) -> Counter[str]:
        return _write(
            source,
            namer,
            cut,
            place,
            found,
            period=period,
            config=config,
            video=video,
            is_added=is_added,
        )

    if is_added:
        return _add(write, folder, config, cut, found)
    with whole(folder) as place:
        place.mkdir()
        counts = write(place)
        path = place / preset_name(folder)
        return _save_preset(path, config, place, cut, counts, found)


def preset_name(folder: Path) -> str:
    """Return the name of a folder's preset."""
    return f"{folder.resolve().name}.yaml"


def _add(
    write: Callable[[Path], Counter[str]],
    folder: Path,
    config: ProjectConfig,
    cut: Cut,
    found: Survey,
) -> ProjectConfig:
    """Write beside what is there, and move it in at the end."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=TEMPORARY_PREFIX) as temporary:
        write(Path(temporary))
        with alone_in(folder):
            counts: Counter[str] = Counter()
            there = [path.name for part in (TRAIN, HELD) for path in list_episodes(folder / part)]
            numbers = (name.rpartition("-")[2] for name in there)
            first = max((int(tail) for tail in numbers if tail.isdecimal()), default=-1) + 1
            for part in (TRAIN, HELD):
                for path in list_episodes(Path(temporary) / part):
                    number = first + int(path.name.rpartition("-")[2])
                    path.rename(folder / part / _episode_name(number))
                counts[part] = len(list_episodes(folder / part))
            path = folder / preset_name(folder)
            return _save_preset(path, config, folder, cut, counts, found)


def _write(
    source: Source,
    namer: Namer,
    cut: Cut,
    place: Path,
    found: Survey,
    *,
    period: int,
    config: ProjectConfig,
    video: VideoOptions,
    is_added: bool,
) -> Counter[str]:
    problems: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    assert config.data.teacher is not None
    gives_pose = config.data.teacher.conditions == "action"
    episodes = episodes_of(source, namer, cut, gives_pose=gives_pose, problems=problems)
    started, num_frames = time.perf_counter(), 0
    for part in (TRAIN, HELD):
        (place / part).mkdir()
    bar = tqdm(episodes, total=found.num_episodes, unit="episode", disable=None)
    for number, episode in enumerate(bar):
        part = HELD if number % period == period // 2 else TRAIN
        # One numbering for both parts: a name is never trained on and held out.
        save_episode(episode, place / part / _episode_name(number), video=video)
        counts[part] += 1
        num_frames += len(episode.frames)
    if counts[TRAIN] > 1 and not counts[HELD] and not is_added:  # it could not be read
        last = list_episodes(place / TRAIN)[-1]
        last.rename(place / HELD / last.name)
        counts.update({TRAIN: -1, HELD: 1})
    if not counts[TRAIN] or not (counts[HELD] or is_added):
        raise RecordingError(
            f"{source.label}: {counts.total()} episodes can be read, two are needed: "
            + ("; ".join(describe(problems)) or "it is too short")
        )
    seconds = time.perf_counter() - started
    logger.info("%d frames in %.0f s: %.0f a second", num_frames, seconds, num_frames / seconds)
    for words in describe(problems - found.problems):
        logger.warning("left out while reading: %s", words)
    return counts


def _episode_name(number: int) -> str:
    return f"episode-{number:08d}"


def _save_preset(
    path: Path, config: ProjectConfig, place: Path, cut: Cut, counts: Counter[str], found: Survey
) -> ProjectConfig:
    ready = with_episodes(
        config, num_train=counts[TRAIN], num_held=counts[HELD], num_steps=cut.num_steps
    )
    if found.num_rewards:
        ready = with_reward_scale(ready, place / TRAIN)
    save_preset(ready, path)
    return ready


def describe(problems: Counter[str]) -> list[str]:
    """Return what is left out, in words, the most frequent first."""
    return [f"{count:,} {words}" for words, count in problems.most_common() if count > 0]
