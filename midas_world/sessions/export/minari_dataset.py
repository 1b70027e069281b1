"""A session as a Minari dataset: episodes of T actions and T + 1 observations.

Observations are the film's frames. Minari (farama.org) holds pictures as JPEG unless asked not to.

Shapes: H W frame size, T steps of an episode.
"""

import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from midas_world.files import whole
from midas_world.packages import needs
from midas_world.sessions.session import RecordedSession, Segment
from midas_world.sessions.values import space_from_json
from midas_world.trust import UntrustedError, check_env

logger = logging.getLogger(__name__)

MAX_EPISODE_BYTES = 4 * 2**30


def dataset_id_of(session: RecordedSession) -> str:
    """Return the id that a session's dataset gets, such as "stage-20260102-030405-v0".

    Ids are of Latin letters: where others are left out, a hash of the whole name tells it apart.
    """
    name = session.folder.resolve().name
    words = re.sub(r"[^-_A-Za-z0-9]+", "-", name).strip("-")
    if not words or not name.isascii():
        words = f"{words or 'session'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return f"{words}-v0"


def check_dataset_id(name: str) -> str:
    """Return a dataset's id of a caller's own words.

    Raises:
        ValueError: Minari cannot have such an id; the message says what it may be.
    """
    if not re.fullmatch(r"([-_A-Za-z0-9]+/)*[-_A-Za-z0-9]+-v\d+", name):
        raise ValueError(
            f"the name must be Latin letters, digits, - and _, and end in a version, such as "
            f'"runs/stage-v0"; got {name!r}'
        )
    return name


def export_minari(
    session: RecordedSession,
    root: Path,
    *,
    start: int = 0,
    stop: int | None = None,
    is_lossless: bool = False,
    trust: bool = False,
    dataset_id: str | None = None,
    algorithm_name: str = "player",
) -> str:
    """Write a Minari dataset and return its id; it loads with MINARI_DATASETS_PATH=root.

    The last step of an episode that was still going on is marked truncated.

    Only with `trust` is the module imported that the session names, so that the dataset can name
    the environment. Without loss it is twenty times larger.

    Raises:
        ImportError: Minari is not installed.
        ValueError: The dataset exists, or there is no step, an episode is too long, or Minari
            cannot have such an id.
    """
    with needs("a Minari dataset", extra="export"):
        from minari import __version__
        from minari.dataset.minari_storage import MinariStorage
    header = session.header
    dataset_id = check_dataset_id(dataset_id) if dataset_id else dataset_id_of(session)
    segments = [item for item in session.segments(start, stop) if item.num_steps]
    if not segments:
        raise ValueError("there is no step between --start and --stop")
    height, width = header.frame_size
    longest = max(len(segment.frames) for segment in segments) * height * width * 3
    if longest > MAX_EPISODE_BYTES:
        raise ValueError(
            f"an episode of {longest / 2**30:.1f} GiB of pixels is too long for Minari, which "
            "holds it in memory: choose a part with --start and --stop"
        )
    root = root.resolve()  # Minari joins relative folders to themselves
    target = root / dataset_id
    if target.exists():
        raise ValueError(f"{target} exists already")
    with whole(target) as place:
        (place / "data").mkdir(parents=True)
        storage = MinariStorage.new(
            place / "data",
            observation_space=spaces.Box(0, 255, (height, width, 3), np.uint8),
            action_space=space_from_json(header.action_space),
            env_spec=_env_spec(session, trust=trust),
            data_format="hdf5",
            jpeg_encoding=not is_lossless,
        )
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": __version__,
                "algorithm_name": algorithm_name,
                "author": {"midas-world"},
                "description": _description(session),
            }
        )
        storage.update_episodes(_episodes(session, segments))
    return dataset_id


def _episodes(session: RecordedSession, segments: list[Segment]) -> Iterator[Any]:
    from minari.data_collector.episode_buffer import EpisodeBuffer

    for segment in segments:
        frames = segment.frames
        ends = segment.steps[-1].terminated or segment.steps[-1].truncated
        truncations = [record.truncated for record in segment.steps]
        truncations[-1] |= not ends
        seed = segment.first.begin.get("seed") if segment.first.kind == "reset" else None
        yield EpisodeBuffer(
            seed=seed,
            observations=list(session.frames(frames.start, frames.stop)),
            actions=[record.action for record in segment.steps],
            rewards=[record.reward for record in segment.steps],
            terminations=[record.terminated for record in segment.steps],
            truncations=truncations,
            infos=_infos(segment),
        )


def _infos(segment: Segment) -> dict[str, list[Any]]:
    """Return T + 1 values of each condition that all frames have, and of the wall time."""
    infos: dict[str, list[Any]] = {"wall_time": [item.wall_time for item in segment.records]}
    for key in ("pose", "text", "audio"):
        values = [getattr(record.conditions, key) for record in segment.records]
        if all(value is not None for value in values):
            infos[key] = values
    return infos


def _env_spec(session: RecordedSession, *, trust: bool) -> Any:
    """Return what Minari makes the environment from; None of one that is unknown or untrusted."""
    header = session.header
    own = {key: v for key, v in header.env_kwargs.items() if key not in ("world", "trust")}
    try:
        # Which imports what registers the id.
        check_env(header.env_id, own, source=session.folder, field="env_id", trust=trust)
        spec = gymnasium.spec(header.env_id.rpartition(":")[2])
    except UntrustedError as error:
        logger.warning("the dataset names no environment: %s", error)
        return None
    except (gymnasium.error.Error, ValueError):
        return None
    if header.world:  # by name: the recorder's folders are nobody's business
        own["world"] = header.world["name"]
        own["weights_sha256"] = header.world["weights_sha256"]
    kwargs = {**spec.kwargs, **own}
    return EnvSpec(
        id=spec.id,
        entry_point=spec.entry_point,
        max_episode_steps=spec.max_episode_steps,
        kwargs=kwargs,
    )


def _description(session: RecordedSession) -> str:
    header = session.header
    words = f"Recorded play of {header.world.get('name') or header.env_id} on {header.created_at}"
    prompt = f', with the prompt "{header.prompt}"' if header.prompt else ""
    return f"{words}{prompt}. Observations are frames decoded from H.264."
