"""What an exported film shows: a session's frames, larger, with the HUD, beside the teacher.

Shapes: H W frame size.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from envs.stage import is_stage
from midas_world.sessions.marks import action_name, marks_of
from midas_world.sessions.session import RecordedSession, Segment, SessionHeader

_TEXT_COLOR = (240, 240, 235)
_KEY_COLOR = (20, 22, 34)
_SHADE = (10, 12, 20, 170)
_RATE_STEPS = 20
_MOST_SIDE = 16_384  # px that H.264 holds
_GAP = 4  # px between the world and its teacher
_BLURRED_SIDE = 24  # px: so few of them, enlarged, are a soft background
SHAPES = {"9:16": 9 / 16, "1:1": 1.0}


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """What is to be seen.

    Attributes:
        has_teacher: The teacher plays the same actions on the right.
        has_keys: The keys of each moment's action are drawn in.
        shape: One of SHAPES, which the picture is put into; None is its own.
    """

    start: int
    stop: int
    has_hud: bool = False
    has_teacher: bool = False
    has_keys: bool = False
    shape: str | None = None
    scale: int = 1

    @property
    def is_plain(self) -> bool:
        """The frames as they are."""
        has_more = self.has_hud or self.has_teacher or self.has_keys or self.shape
        return not has_more and self.scale == 1

    def size(self, header: SessionHeader) -> tuple[int, int]:
        """Return H and W of the pictures."""
        height, width = header.frame_size
        gap = _GAP + width if self.has_teacher else 0
        size = shaped_size((height * self.scale, (width + gap) * self.scale), self.shape)
        if max(size) > _MOST_SIDE:
            raise ValueError(
                f"--scale {self.scale} makes pictures of {size[1]}x{size[0]} px, "
                f"which may have {_MOST_SIDE} a side"
            )
        return size


def pictures(session: RecordedSession, options: PictureOptions) -> Iterator[np.ndarray]:
    """Yield the pictures of a film, uint8 (H, W, 3).

    Raises:
        ValueError: The teacher is asked for and cannot play this session.
    """
    options.size(session.header)  # raises, before the first of them
    frames = session.frames(options.start, options.stop)
    if options.has_teacher:
        twins = teacher_frames(session, options.start, options.stop)
        frames = (_beside(frame, twin) for frame, twin in zip(frames, twins, strict=True))
    words = _hud_lines(session) if options.has_hud else []
    held = _held(session) if options.has_keys else []
    for number, frame in enumerate(frames, start=options.start):
        picture = frame.repeat(options.scale, axis=0).repeat(options.scale, axis=1)
        if options.has_hud:
            picture = _write_over(picture, words[number])
            if options.has_teacher:
                picture = _name_sides(picture)
        if options.has_keys:
            above = picture.shape[0] // 8 if options.has_hud else 0
            picture = with_keys(picture, held[number], above=above)
        yield shaped(picture, options.shape)


def teacher_frames(session: RecordedSession, start: int, stop: int) -> Iterator[np.ndarray]:
    """Yield what the teacher shows at the frames start to stop - 1 of a session.

    Coins and rocks follow from the teacher's own seed, so they may lie elsewhere than in the world;
    the character, the place, the words and the camera are the same.

    Raises:
        ValueError: There is no teacher that can be put where this session's episodes began.
    """
    teacher = session.header.teacher
    # Stage alone can be put there; a header may name anything, of which nothing is made.
    if not is_stage(teacher):
        raise ValueError(
            f"{session.folder} has no teacher to show beside it: it was not played in a learned "
            "world whose teacher can begin where the world does"
        )
    segments = session.segments(stop=stop)
    for segment in segments:
        if segment.frames.stop > start and segment.first.begin.get("teacher_start") is None:
            raise ValueError(
                f"{session.folder} does not tell where the teacher would begin: sessions that "
                "play.py records do"
            )
    return _twin_frames(session, segments, start, stop)


def _twin_frames(
    session: RecordedSession, segments: list[Segment], start: int, stop: int
) -> Iterator[np.ndarray]:
    # What draws takes time to load: --help does not wait for it.
    from envs.stage.env import SCALES, StageEnv
    from envs.stage.picture import FRAME_HEIGHT
    from envs.stage.twin import StageTwin

    scale = session.header.frame_size[0] / FRAME_HEIGHT
    with closing(StageEnv(horizon=10**9, scale=scale if scale in SCALES else 1)) as env:
        twin = StageTwin(env)
        for segment in segments:
            if segment.frames.stop <= start:
                continue
            begin = segment.first.begin
            twin.put(begin["teacher_start"], seed=begin.get("seed"), prompt=begin.get("prompt"))
            # What was played before recording began, or up to where the player went back to.
            for turn in segment.first.turns_before():
                twin.play(turn)
            for number, turn in zip(segment.frames, segment.turns(), strict=True):
                if start <= number < stop:
                    yield twin.frame
                twin.play(turn)


def shaped_size(size: tuple[int, int], shape: str | None) -> tuple[int, int]:
    """Return the smallest H and W of a shape that hold a picture of a size."""
    if shape is None:
        return size
    height, width = size
    ratio = SHAPES[shape]
    return max(height, round(width / ratio)), max(width, round(height * ratio))


def shaped(picture: np.ndarray, shape: str | None) -> np.ndarray:
    """Return a picture in the middle of a shape, on a blurred ground of its own colours."""
    own = picture.shape[0], picture.shape[1]
    height, width = shaped_size(own, shape)
    if (height, width) == own:
        return picture
    image = Image.fromarray(picture)
    few = _BLURRED_SIDE, max(1, round(_BLURRED_SIDE * height / width))
    small = ImageOps.fit(image, few, Image.Resampling.BOX)
    ground = small.resize((width, height), Image.Resampling.BICUBIC).point(lambda v: v * 0.6)
    ground.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return np.asarray(ground)


def with_keys(picture: np.ndarray, keys: Sequence[str], *, above: int = 0) -> np.ndarray:
    """Return a picture with keys, as they look on a keyboard, so many px over its lower left."""
    size = max(10, picture.shape[0] // 20)
    top = picture.shape[0] - above - 5 * size // 2
    image, font, left = Image.fromarray(picture), _font(size), size // 2
    draw = ImageDraw.Draw(image)
    for key in keys:
        right = left + round(draw.textlength(key, font)) + size
        box = (left, top, right, top + 2 * size)
        draw.rounded_rectangle(box, size // 3, fill=(232, 234, 240), outline=(90, 94, 110), width=2)
        draw.text(((left + right) / 2, top + size), key, _KEY_COLOR, font, anchor="mm")
        left = right + size // 3
    return np.asarray(image)


def _held(session: RecordedSession) -> list[Sequence[str]]:
    """Return the keys of each frame's action; an action without known keys is its own name."""
    header = session.header
    names = [
        "" if record.action is None else action_name(header, record)
        for record in session.frame_records()
    ]
    return [
        header.action_keys.get(name, [name.replace("_", " ")] if name else []) for name in names
    ]


def _beside(frame: np.ndarray, twin: np.ndarray) -> np.ndarray:
    """Return the world's frame beside the teacher's, which may be of another size."""
    from midas_world.teachers.env import fit_frame

    gap = np.zeros((len(frame), _GAP, 3), np.uint8)
    return np.concatenate((frame, gap, fit_frame(twin, frame.shape[:2], fit="stretch")), axis=1)


def _hud_lines(session: RecordedSession) -> list[list[str]]:
    """Return the lines of the HUD of each frame of a session."""
    header, lines = session.header, []
    pays_coins = is_stage(header.env_id, header.teacher)
    marks = marks_of(session, pays_coins=pays_coins)
    times = [mark.record.wall_time for mark in marks]
    for number, mark in enumerate(marks):
        facts = [
            action_name(header, mark.record).replace("_", " "),
            f"step {mark.record.episode_step}",
            f"{'coins' if pays_coins else 'return'} {round(mark.score, 2):g}",
        ]
        if rate := _rate(times[max(0, number - _RATE_STEPS) : number + 1]):
            facts.append(f"{rate:.0f} steps/s")
        lines.append(["   ".join(facts), *([f'"{mark.prompt}"'] if mark.prompt else [])])
    return lines


def _rate(times: list[float]) -> float | None:
    """Return steps per second of consecutive wall times; None of too few."""
    if len(times) < 3 or times[-1] <= times[0]:
        return None
    return (len(times) - 1) / (times[-1] - times[0])


@cache
def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _write_over(picture: np.ndarray, lines: list[str]) -> np.ndarray:
    """Return a picture with lines of text on a dark band along its lower edge."""
    height, width, _ = picture.shape
    size = max(10, height // 24)
    font = _font(size)
    image = Image.fromarray(picture).convert("RGBA")
    step, margin = round(size * 1.3), size // 2
    band = Image.new("RGBA", (width, step * len(lines) + margin), _SHADE)
    draw = ImageDraw.Draw(band)
    for row, line in enumerate(lines):
        draw.text((margin, margin // 2 + row * step), line, font=font, fill=_TEXT_COLOR)
    image.alpha_composite(band, (0, height - band.height))
    return np.asarray(image.convert("RGB"))


def _name_sides(picture: np.ndarray) -> np.ndarray:
    """Return a picture with the names of its two halves on top, in the middle of each."""
    height, width, _ = picture.shape
    size = max(10, height // 24)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for center, name in ((width // 4, "the world"), (3 * width // 4, "the teacher")):
        draw.text(
            (center, size // 3),
            name,
            font=_font(size),
            fill=_TEXT_COLOR,
            stroke_width=1,
            stroke_fill=(0, 0, 0),
            anchor="ma",
        )
    return np.asarray(image)
