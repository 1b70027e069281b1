"""Recorded episodes where there is no teacher: what one would tell of each frame.

Nobody can play what was recorded, so a world is begun from pieces of it and measured against it.
"""

from typing import Any

from midas_world.config import DataConfig
from midas_world.data.episodes import Episode
from midas_world.teachers.words import WordsConditioner


def recorded_infos(episode: Episode, data: DataConfig) -> list[dict[str, Any]]:
    """Return a teacher's info of each of the T + 1 frames of an episode.

    Raises:
        ValueError: It names none.
    """
    if data.teacher is None or not data.teacher.actions:
        raise ValueError(
            "without a teacher (data.env_id) there must be actions: data.teacher.actions"
        )
    gives_pose = data.teacher.conditions == "action"
    words = WordsConditioner(tuple(data.teacher.actions), gives_pose=gives_pose)
    infos = []
    for frame, conditions in enumerate(episode.conditions):
        info = conditions.given()
        info |= {name: column[frame] for name, column in episode.extras.items()}
        words.load_text(info.get("text", ""))
        infos.append(info | {"conditioner_state": words.state()})
    return infos
