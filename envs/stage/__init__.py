"""The shipped teacher: Stage, a side-view game drawn with pygame."""

STAGE_IDS = "midas/Stage"
"""What the ids of Stage, of its tasks and of its worlds begin with."""
TEACHER_ID = f"{STAGE_IDS}Teacher-v0"


def is_stage(*env_ids: str | None) -> bool:
    """Whether one of these ids is Stage's, with or without its module."""
    return any((env_id or "").rpartition(":")[2] == TEACHER_ID for env_id in env_ids)
