"""What is known of each frame of a session: how far its episode had come, and by which words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from midas_world.sessions.log import Record
from midas_world.sessions.session import RecordedSession, SessionHeader


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is known of one frame of a session.

    Attributes:
        total_reward: Of its episode so far, as far as the session tells.
        score: Likewise, of coins whole ones.
        prompt: The player's words then.
        place: Steps since the last beginning: a reset, or a jump.
        first: Number of the frame of that beginning.
    """

    record: Record
    total_reward: float
    score: float
    prompt: str | None
    place: int
    first: int


def marks_of(session: RecordedSession, *, pays_coins: bool) -> list[Mark]:
    """Return what is known of each frame of a session, of coins or of other rewards."""
    marks: list[Mark] = []
    prompt: str | None = None
    total, score, first = 0.0, 0.0, 0
    seen: dict[str, tuple[float, float]] = {}  # by frame hash: with what a jump arrives there
    for record in session.records:
        if record.frame is None:
            prompt = record.text
            continue
        if record.frame >= session.num_frames:
            break
        if record.is_beginning or not marks:
            first = record.frame
            prompt = _prompt_at(record.begin)
            none = 0.0, 0.0
            total, score = none if record.kind == "reset" else seen.get(record.frame_hash, none)
        else:
            total += record.reward
            score += round(record.reward) if pays_coins else record.reward
        seen[record.frame_hash] = total, score
        marks.append(
            Mark(
                record=record,
                total_reward=total,
                score=score,
                prompt=prompt,
                place=record.frame - first,
                first=first,
            )
        )
    return marks


def action_name(header: SessionHeader, record: Record) -> str:
    """Return what led to a frame, in words."""
    action = record.action
    if action is None:
        return {"reset": "reset", "restore": "went back"}.get(record.kind, record.kind)
    if header.action_names and isinstance(action, int):
        return header.action_names[action]
    return str(np.round(action, 2).tolist() if isinstance(action, np.ndarray) else action)


def _prompt_at(begin: Mapping[str, Any]) -> str | None:
    """Return the player's words at a beginning."""
    if begin.get("prompts"):
        return begin["prompts"][-1][1]
    prompt = begin.get("prompt") or (begin.get("options") or {}).get("prompt")
    return prompt if isinstance(prompt, str) else None
