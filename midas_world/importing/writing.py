"""A recording on disk as a folder of episodes that training takes, whole or not at all."""

import logging
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from midas_world.config import DataConfig, ProjectConfig, save_preset
from midas_world.data.episodes import list_episodes, save_episode
from midas_world.files import TEMPORARY_PREFIX, whole
from midas_world.importing.episodes import episodes_of
from midas_world.importing.plan import ImportPlan, held_every, problem_words
from midas_world.importing.recording import RecordingError
from midas_world.locks import alone_in
from midas_world.teachers.collected import look_at
from midas_world.teachers.project import preset_of

logger = logging.getLogger(__name__)

TRAIN, HELD = "train", "validation"


def write_plan(plan: ImportPlan) -> ProjectConfig:
    """Write a recording's episodes and the preset that trains on them; return what it says.

    Raises:
        RecordingError: No two episodes can be read.
        FileExistsError: There is something in a new folder's place.
    """
    folder = plan.request.to
    if not plan.request.add:
        with whole(folder) as place:
            place.mkdir()
            _write_episodes(plan, place)
            return _save_preset(plan, place)
    # Beside what is there, and moved in at the end.
    with tempfile.TemporaryDirectory(dir=folder, prefix=TEMPORARY_PREFIX) as temporary:
        _write_episodes(plan, Path(temporary))
        with alone_in(folder):
            there = [path.name for part in (TRAIN, HELD) for path in list_episodes(folder / part)]
            numbers = (name.rpartition("-")[2] for name in there)
            first = max((int(tail) for tail in numbers if tail.isdecimal()), default=-1) + 1
            for part in (TRAIN, HELD):
                for path in list_episodes(Path(temporary) / part):
                    number = first + int(path.name.rpartition("-")[2])
                    with whole(folder / part / _episode_name(number)) as own:
                        path.rename(own)
            return _save_preset(plan, folder)


def _write_episodes(plan: ImportPlan, place: Path) -> None:
    problems: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    found, is_added = plan.found, plan.request.add
    period = held_every(found.num_episodes, plan.request.held_out)
    assert plan.config.data.teacher is not None
    gives_pose = plan.config.data.teacher.conditions == "action"
    episodes = episodes_of(
        plan.source, plan.namer, plan.cut, gives_pose=gives_pose, problems=problems
    )
    started, num_frames = time.perf_counter(), 0
    for part in (TRAIN, HELD):
        (place / part).mkdir()
    bar = tqdm(episodes, total=found.num_episodes, unit="episode", disable=None)
    for number, episode in enumerate(bar):
        part = HELD if number % period == period // 2 else TRAIN
        # One numbering for both parts: a name is never trained on and held out.
        save_episode(episode, place / part / _episode_name(number), codec=plan.request.codec)
        counts[part] += 1
        num_frames += len(episode.frames)
    if counts[TRAIN] > 1 and not counts[HELD] and not is_added:  # it could not be read
        last = list_episodes(place / TRAIN)[-1]
        last.rename(place / HELD / last.name)
        counts.update({TRAIN: -1, HELD: 1})
    if not counts[TRAIN] or not (counts[HELD] or is_added):
        raise RecordingError(
            f"{plan.source.label}: {counts.total()} episodes can be read, two are needed: "
            + ("; ".join(problem_words(problems)) or "it is too short")
        )
    seconds = time.perf_counter() - started
    logger.info("%d frames in %.0f s: %.0f a second", num_frames, seconds, num_frames / seconds)
    for words in problem_words(problems - found.problems):
        logger.warning("left out while reading: %s", words)


def _episode_name(number: int) -> str:
    return f"episode-{number:08d}"


def _save_preset(plan: ImportPlan, place: Path) -> ProjectConfig:
    num_train, num_held = (len(list_episodes(place / part)) for part in (TRAIN, HELD))
    data = replace(
        plan.config.data,
        num_episodes=num_train,
        num_validation_episodes=num_held,
        first_seed=max(DataConfig.first_seed, num_held),
        num_steps=plan.cut.num_steps,
    )
    ready = replace(plan.config, data=data)
    if plan.found.num_rewards:
        ready = look_at(place / TRAIN).scale(ready)
    save_preset(ready, place / preset_of(plan.request.to).name)
    return ready
