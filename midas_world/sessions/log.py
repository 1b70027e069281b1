"""The log of a session: one line per frame or prompt, only ever appended to.

A line is the CRC-32 of what follows in hex, a space, JSON, a line end. Reading ends at the first
line that is cut off or damaged.

Shapes: H W frame size, P pose and A audio features.
"""

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from midas_world.sessions.values import from_json, to_json
from midas_world.typed import from_values
from midas_world.types import MidasWorldError, StepConditions

STEPS = "steps.log"

_STATE_NAME = re.compile(r"state-\d+\.safetensors")

Kind = Literal["start", "reset", "restore", "step", "prompt"]

SPEAKERS = ("own", "other")
Heard = tuple[np.ndarray | None, np.ndarray | None]
"""(20,) features of live audio in place of the own and of the other voice; None: it was not."""
UNHEARD: Heard = (None, None)


class Turn(NamedTuple):
    """What a player did from one frame to the next: words, live voices, and then an action.

    Attributes:
        action: None after the last frame.
    """

    words: Sequence[str | None]
    heard: Heard
    action: Any


class SessionError(MidasWorldError, ValueError):
    """A session cannot be read; the message names the file and says why."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One line of the log.

    Attributes:
        kind: "reset": an episode began. "start": recording began in the middle of one. "restore":
            the player went back, and goes on from there. "step": an action was taken. "prompt":
            the player's words changed; no frame comes with it.
        wall_time: Seconds since 1970 at which it was recorded.
        frame: Number of its frame in the film; None of a prompt.
        frame_hash: Of the frame as the environment gave it; see `hash_frame`.
        live: Which of SPEAKERS were live audio.
        episode_step: Steps of the episode up to the frame.
        action: What was taken; of a step.
        step_time: Seconds that the environment took; of a step.
        begin: Of a reset, start or restore, how its moment is reached: "seed", "options", "prompt",
            "rng" (of a reset without a seed: its random stream before), "start_state",
            "actions", "prompts" and "voices" since the reset, "teacher_start" (the conditioner's
            state at the reset) and "state" (as below).
        state: File of this session with the environment's state at the frame; of some steps.
    """

    kind: Kind
    wall_time: float
    frame: int | None = None
    frame_hash: str = ""
    conditions: StepConditions = field(default_factory=StepConditions)
    live: Sequence[str] = ()
    episode_step: int = 0
    action: Any = None
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    step_time: float = 0.0
    text: str | None = None
    begin: Mapping[str, Any] = field(default_factory=dict)
    state: str | None = None

    @property
    def is_beginning(self) -> bool:
        """Whether its frame does not follow from the one before."""
        return self.kind in ("start", "reset", "restore")

    @property
    def heard(self) -> Heard:
        """The features of the voices that were live: halves of what the world was told."""
        if self.conditions.audio is None or not self.live:
            return UNHEARD
        own, other = (
            half if name in self.live else None
            for name, half in zip(SPEAKERS, np.split(self.conditions.audio, 2), strict=True)
        )
        return own, other

    @property
    def voices_before(self) -> dict[int, Heard]:
        """The live voices between the reset and this beginning, by their steps from 0 on."""
        return {step: (own, other) for step, own, other in self.begin.get("voices") or ()}

    def turns_before(self) -> Iterator[Turn]:
        """Yield all that was done between the reset and this beginning."""
        voices = self.voices_before
        actions = enumerate(self.begin.get("actions") or ())
        return turns_of(
            [(action, voices.get(step, UNHEARD)) for step, action in actions],
            self.begin.get("prompts") or (),
        )

    def to_line(self) -> bytes:
        """Return it as a line of the log."""
        kept: dict[str, Any] = {"kind": self.kind, "wall_time": self.wall_time}
        if self.kind == "prompt":
            kept["text"] = self.text
        else:
            kept |= {
                "frame": self.frame,
                "frame_hash": self.frame_hash,
                "episode_step": self.episode_step,
                "conditions": self.conditions.given(),
            }
        if self.live:
            kept["live"] = self.live
        if self.kind == "step":
            of_step = ("action", "reward", "terminated", "truncated", "step_time")
            kept |= {key: getattr(self, key) for key in of_step}
            kept |= {"state": self.state} if self.state else {}
        elif self.is_beginning:
            kept["begin"] = self.begin
        words = json.dumps(to_json(kept), separators=(",", ":")).encode()
        return b"%08x %s\n" % (zlib.crc32(words), words)


def turns_of(
    deeds: Iterable[tuple[Any, Heard]], prompts: Iterable[Sequence[Any]]
) -> Iterator[Turn]:
    """Yield the turns of T actions, and a last one without any.

    Args:
        deeds: The actions, and the live voices under each.
        prompts: What was typed: after how many actions, and the words.
    """
    left = list(prompts)
    for step, (action, heard) in enumerate([*deeds, (None, UNHEARD)]):
        yield Turn([text for after, text in left if after <= step], heard, action)
        left = [item for item in left if item[0] > step]


def hash_frame(frame: np.ndarray) -> str:
    """Return 16 hex digits that tell a frame, uint8 (H, W, 3), from others."""
    return hashlib.blake2b(np.ascontiguousarray(frame).data, digest_size=8).hexdigest()


def read_log(path: Path) -> tuple[list[Record], list[str]]:
    """Return the records before the first line that is cut off or damaged, and what is wrong."""
    records: list[Record] = []
    num_frames = 0
    if not path.is_file():
        return records, [f"{STEPS} is missing"]
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return records, [f"line {number} of {STEPS} is cut off"]
            try:
                record = _read_line(line)
                if record is not None and record.frame not in (None, num_frames):
                    raise ValueError(f"frame must be {num_frames}, got {record.frame}")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise SessionError(f"{path}, line {number}: {_in_words(error)}") from error
            if record is None:
                # What comes after it cannot be placed.
                return records, [f"line {number} of {STEPS} is damaged; the rest is not read"]
            records.append(record)
            num_frames += record.frame is not None
    return records, []


def _read_line(line: bytes) -> Record | None:
    """Return the record of a line, or None if the line is damaged."""
    checksum, _, words = line[:-1].partition(b" ")
    if checksum != b"%08x" % zlib.crc32(words):
        return None
    record = from_values(Record, from_json(json.loads(words)))
    for name in ("pose", "audio"):
        vector = getattr(record.conditions, name)
        if vector is not None and (vector.ndim != 1 or not np.isfinite(vector).all()):
            raise ValueError(f"conditions.{name} must be finite numbers in a row")
    if record.kind != "prompt" and record.frame is None:
        raise ValueError("frame is missing")
    if record.episode_step < 0:
        raise ValueError(f"episode_step must be at least 0, got {record.episode_step}")
    known = {item.name for item in fields(_Begin)}
    begin = {name: value for name, value in record.begin.items() if name in known}
    for state in (record.state, from_values(_Begin, begin).state):
        if state is not None and not _STATE_NAME.fullmatch(state):
            raise ValueError(f"state must be a file of the session, got {state!r:.60}")
    return record


@dataclass(frozen=True, kw_only=True)
class _Begin:
    """What `Record.begin` holds, for its types."""

    seed: int | None = None
    options: Mapping[str, Any] | None = None
    prompt: str | None = None
    rng: Mapping[str, Any] | None = None
    start_state: int | None = None
    actions: list[Any] | None = None
    prompts: list[tuple[int, str | None]] | None = None
    voices: list[tuple[int, np.ndarray | None, np.ndarray | None]] | None = None
    teacher_start: Mapping[str, np.ndarray] | None = None
    state: str | None = None


def _in_words(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
