"""What every kind of recording is to the importer: moments one after another, each with its deeds.

A source is walked through twice: once without pixels, to say what there is, once with them.

Shapes: h w of the source's picture, H W of a frame, K keypoints.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from midas_world.config import ActionConfig
from midas_world.teachers.env import fit_frame
from midas_world.types import MidasWorldError

# Makes the frame of a moment, (H, W, 3) uint8, of a size and a way to fit ("pad", "crop" or
# "stretch"); only for moments that are kept.
Picture = Callable[[tuple[int, int], str], np.ndarray]

LONGEST_GAP_S = 2.0
"""Pictures that are farther apart belong to different stretches."""


class RecordingError(MidasWorldError, ValueError):
    """A recording cannot be imported; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Deed:
    """What was done from a time on.

    Attributes:
        time_s: Since the source's own zero.
        action: A name, number, list of numbers or frozenset of held keys; None: it is not known.
    """

    time_s: float
    action: Any
    reward: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A picture, and what was done until the next one.

    Attributes:
        time_s: Since the source's own zero.
        picture: None in a walk without pixels.
        deeds: In order; the first is what was being done when the picture was taken.
        begins: It does not follow from the moment before.
        text: Words for it beside the action's name.
        points: (K, 2) x and y in px of the source's picture, or None.
        pose: As it was recorded, of a source with a `pose_size`.
        audio: Tells the audio features of the step that begins at a time, later than the last;
            None in a walk without pixels, or of a source without sound.
        size: (h, w) of that picture.
    """

    time_s: float
    picture: Picture | None = None
    deeds: tuple[Deed, ...] = ()
    begins: bool = False
    terminated: bool = False
    text: str = ""
    points: np.ndarray | None = None
    pose: np.ndarray | None = None
    audio: Callable[[float], np.ndarray] | None = None
    size: tuple[int, int] = (0, 0)


class Source(ABC):
    """A recording, or many of one kind.

    Attributes:
        label: What it is, for people.
        fps: Pictures per second.
        size: (h, w) of its first picture.
        actions: Its own names of actions, by which its deeds are told; empty: none are known.
        has_sound: Whether its sound is wanted.
        num_points: K.
        pose_size: P of the pose that was recorded; 0 where none is, or is wanted.
        problems: What was left out of the last walk.
    """

    label: str
    fps: float
    size: tuple[int, int]
    actions: Mapping[str, ActionConfig]
    has_sound = False
    num_points = pose_size = 0

    def __init__(self) -> None:
        self.problems: Counter[str] = Counter()
        self.actions = {}

    @abstractmethod
    def moments(self, *, pixels: bool) -> Iterator[Moment]:
        """Walk through it; `problems` begin anew."""
        ...


def still(pixels: np.ndarray) -> Picture:
    """Return what makes frames of a picture that is in memory, (h, w, 3) uint8."""
    return lambda size, fit: fit_frame(pixels, size, fit=fit)


UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a file that is no picture."""


def read_picture(file: Path | bytes) -> np.ndarray | None:
    """Return a picture file, or what one holds, as (h, w, 3) uint8; None if it is none."""
    try:
        with Image.open(BytesIO(file) if isinstance(file, bytes) else file) as image:
            return np.asarray(image.convert("RGB"))
    except UNREADABLE:
        return None


def placement(
    size: tuple[int, int], frame: tuple[int, int], fit: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the scaled size of a picture and where its upper left corner lies in a frame.

    Args:
        size: h and w.
        frame: H and W.
        fit: "pad", "crop" or "stretch"; see `TeacherConfig`.
    """
    if fit == "stretch":
        return frame, (0, 0)
    ratios = (frame[0] / size[0], frame[1] / size[1])
    scale = min(ratios) if fit == "pad" else max(ratios)
    height, width = (max(1, round(side * scale)) for side in size)
    return (height, width), ((frame[0] - height) // 2, (frame[1] - width) // 2)


def place(scaled: np.ndarray, corner: tuple[int, int], frame: tuple[int, int]) -> np.ndarray:
    """Return the frame in which a scaled picture lies at a corner, black where it does not."""
    if scaled.shape[:2] == frame:
        return scaled
    made = np.zeros((*frame, 3), np.uint8)
    there, here = [], []
    for offset, inner, outer in zip(corner, scaled.shape[:2], frame, strict=True):
        there.append(slice(max(0, offset), min(outer, offset + inner)))
        here.append(slice(max(0, -offset), min(inner, outer - offset)))
    made[tuple(there)] = scaled[tuple(here)]
    return made
