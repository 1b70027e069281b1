"""Drawing of the Stage character: a flat-shaded cartoon human over 15 keypoints, and its portrait.

Everything is drawn `_SCALE` times larger on a cached buffer and scaled down, which antialiases it.
The buffer is cleared to a transparent outline colour, so that edges blend towards the outline.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import pygame

from envs.stage.skeleton import GROUND_Y, KEYPOINTS

Color = tuple[int, int, int]
Point = tuple[float, float]

_SCALE = 3
_OUTLINE: Color = (30, 22, 46)
_RIM: Color = (255, 255, 255)
_RIM_ALPHA = 150
_OUTLINE_WIDTH = 1.3
_HEAD_RADIUS = 14.0
_MARGIN = 24
_HURT: Color = (255, 60, 70)
_CIRCLE = tuple(
    (math.cos(2.0 * math.pi * i / 18), math.sin(2.0 * math.pi * i / 18)) for i in range(18)
)


@dataclass(frozen=True, kw_only=True)
class _Look:
    """Colours and cut of one outfit with its hair."""

    top: Color
    trim: Color
    legs: Color
    shoes: Color
    skin: Color
    hair: Color
    style: str
    hem: float = 0.0  # Share of the thigh that a coat or skirt covers.
    flare: float = 1.0


_LOOKS: dict[str, _Look] = {
    "red jacket": _Look(
        top=(226, 48, 52),
        trim=(255, 240, 225),
        legs=(44, 62, 118),
        shoes=(245, 245, 250),
        skin=(250, 200, 160),
        hair=(104, 58, 34),
        style="short",
    ),
    "blue hoodie": _Look(
        top=(42, 122, 232),
        trim=(150, 205, 255),
        legs=(196, 168, 122),
        shoes=(255, 128, 40),
        skin=(202, 140, 96),
        hair=(34, 28, 36),
        style="spiky",
    ),
    "green coat": _Look(
        top=(34, 158, 84),
        trim=(250, 222, 120),
        legs=(112, 76, 52),
        shoes=(70, 44, 34),
        skin=(255, 214, 184),
        hair=(226, 98, 30),
        style="bob",
        hem=0.8,
        flare=3.0,
    ),
    "yellow raincoat": _Look(
        top=(255, 206, 30),
        trim=(255, 240, 150),
        legs=(56, 106, 150),
        shoes=(228, 62, 62),
        skin=(244, 190, 150),
        hair=(92, 52, 36),
        style="hood",
        hem=0.62,
        flare=4.0,
    ),
    "purple dress": _Look(
        top=(152, 62, 208),
        trim=(255, 150, 214),
        legs=(255, 208, 176),
        shoes=(255, 88, 158),
        skin=(255, 208, 176),
        hair=(250, 206, 92),
        style="long",
        hem=0.95,
        flare=6.0,
    ),
    "white suit": _Look(
        top=(244, 246, 252),
        trim=(24, 178, 190),
        legs=(226, 230, 242),
        shoes=(60, 60, 76),
        skin=(136, 86, 58),
        hair=(22, 20, 28),
        style="curly",
    ),
}
OUTFITS: tuple[str, ...] = tuple(_LOOKS)


@lru_cache(maxsize=256)
def _tone(color: Color, amount: float) -> Color:
    """Return a colour darkened (amount < 0, towards the outline) or lightened (towards white)."""
    end = _OUTLINE if amount < 0.0 else (255, 255, 255)
    weight = abs(amount)
    red, green, blue = (round(c + (e - c) * weight) for c, e in zip(color, end, strict=True))
    return red, green, blue


class _Pen:
    """Draws shapes given in px on a surface that is `scale` times larger."""

    def __init__(self, surface: pygame.Surface, *, origin: Point, scale: float) -> None:
        self.surface = surface
        self.scale = scale
        self.left, self.top = origin

    def at(self, point: Sequence[float]) -> Point:
        return (point[0] - self.left) * self.scale, (point[1] - self.top) * self.scale

    def disc(self, center: Sequence[float], radius: float, color: Color) -> None:
        pygame.draw.circle(self.surface, color, self.at(center), radius * self.scale)

    def polygon(self, points: Sequence[Point], color: Color, *, outline: float = 0.0) -> None:
        spots = [self.at(point) for point in points]
        if outline:
            width = outline * self.scale
            pygame.draw.lines(self.surface, _OUTLINE, True, spots, round(2.0 * width))
            for spot in spots:
                pygame.draw.circle(self.surface, _OUTLINE, spot, width)
        pygame.draw.polygon(self.surface, color, spots)

    def capsule(
        self, start: Sequence[float], end: Sequence[float], wide: float, thin: float, color: Color
    ) -> None:
        """Draw a limb that tapers from half width `wide` at its start to `thin` at its end."""
        (ax, ay), (bx, by) = self.at(start), self.at(end)
        wide, thin = wide * self.scale, thin * self.scale
        length = math.hypot(bx - ax, by - ay) or 1.0
        nx, ny = (ay - by) / length, (bx - ax) / length
        pygame.draw.circle(self.surface, color, (ax, ay), wide)
        pygame.draw.circle(self.surface, color, (bx, by), thin)
        pygame.draw.polygon(
            self.surface,
            color,
            (
                (ax + nx * wide, ay + ny * wide),
                (bx + nx * thin, by + ny * thin),
                (bx - nx * thin, by - ny * thin),
                (ax - nx * wide, ay - ny * wide),
            ),
        )

    def limb(
        self, joints: Sequence[Sequence[float]], widths: Sequence[float], color: Color
    ) -> None:
        """Draw a chain of capsules with one outline around it."""
        for grow, tone in ((_OUTLINE_WIDTH, _OUTLINE), (0.0, color)):
            for i in range(len(joints) - 1):
                self.capsule(joints[i], joints[i + 1], widths[i] + grow, widths[i + 1] + grow, tone)


class _Head:
    """A head in its own frame: u to the right, v down, in units of its radius, tilted."""

    def __init__(
        self, pen: _Pen, center: Sequence[float], radius: float, tilt: float, turn: float
    ) -> None:
        self.pen = pen
        self.center = center
        self.radius = radius
        self.sin, self.cos = math.sin(tilt) * radius, math.cos(tilt) * radius
        self.turn = turn

    def at(self, u: float, v: float) -> Point:
        return (
            self.center[0] + u * self.cos - v * self.sin,
            self.center[1] + u * self.sin + v * self.cos,
        )

    def shape(self, points: Sequence[Point], color: Color, *, outline: float = 0.0) -> None:
        outline *= self.radius / _HEAD_RADIUS
        self.pen.polygon([self.at(u, v) for u, v in points], color, outline=outline)

    def oval(self, u: float, v: float, width: float, height: float, color: Color) -> None:
        self.shape([(u + width * c, v + height * s) for c, s in _CIRCLE], color)

    def disc(
        self, u: float, v: float, radius: float, color: Color, *, outline: bool = False
    ) -> None:
        if outline:
            self.pen.disc(self.at(u, v), (radius + 0.092) * self.radius, _OUTLINE)
        self.pen.disc(self.at(u, v), radius * self.radius, color)

    def stroke(self, points: Sequence[Point], width: float, color: Color) -> None:
        spots = [self.pen.at(self.at(u, v)) for u, v in points]
        size = width * self.radius * self.pen.scale
        pygame.draw.lines(self.pen.surface, color, False, spots, max(1, round(size)))
        for spot in (spots[0], spots[-1]):
            pygame.draw.circle(self.pen.surface, color, spot, size / 2.0)


def _draw_back_hair(head: _Head, look: _Look) -> None:
    turn = head.turn
    if look.style == "long":
        sway = -0.55 * turn
        points = [(sway - 0.75, -0.2), (sway - 0.95, 1.0), (sway - 0.5, 1.75), (sway + 0.45, 1.7)]
        points += [(sway + 0.9, 1.0), (sway + 0.8, -0.2)]
        head.shape(points, look.hair, outline=_OUTLINE_WIDTH)
    elif look.style == "bob":
        for u in (-0.62 - 0.2 * turn, 0.62 - 0.2 * turn):
            head.disc(u, 0.5, 0.52, look.hair, outline=True)


def _draw_front_hair(head: _Head, look: _Look) -> None:
    turn, hair, style = head.turn, look.hair, look.style
    shine = _tone(hair, 0.25)
    if style == "hood":
        head.shape(
            [(0.3 * turn - 0.6, -0.36), (0.3 * turn - 0.3, -0.62), (0.2 * turn, -0.7),
             (0.3 * turn + 0.35, -0.6), (0.3 * turn + 0.6, -0.36), (0.3 * turn + 0.1, -0.42)],
            hair,
        )  # fmt: skip
        return
    # A cap over the skull, pushed back against the way the face looks.
    back = -0.16 * turn
    dome = [(math.cos(a), math.sin(a)) for a in (math.pi * (1.0 + i / 12.0) for i in range(13))]
    cap = [(back * 0.5 + 1.06 * c, -0.1 + 0.98 * s) for c, s in dome]
    side = 0.3 + 0.25 * abs(turn)
    if style in ("long", "bob"):
        fringe = [(0.86 + 0.1 * turn, 0.1), (0.5 + 0.3 * turn, -0.42), (0.35 * turn, -0.5)]
        fringe += [(-0.45 + 0.35 * turn, -0.34), (-0.86 + 0.1 * turn, 0.1)]
    else:
        fringe = [(0.92 + 0.06 * turn, -0.28), (0.55 + 0.35 * turn, -0.5), (0.3 * turn, -0.4)]
        fringe += [(-0.5 + 0.3 * turn, -0.52), (-0.92 + 0.06 * turn, -0.28)]
    # The side of the head that is seen gets hair down to the ear.
    if turn > 0.3:
        fringe[-1:] = [(-0.72 + 0.2 * turn, side - 0.2), (-1.0, side)]
    elif turn < -0.3:
        fringe[:1] = [(1.0, side), (0.72 + 0.2 * turn, side - 0.2)]
    points = cap + fringe
    if style == "spiky":
        spikes = []
        for i, (c, s) in enumerate(dome):
            reach = 1.0 + 0.32 * (i % 2) * (0.4 - 0.6 * s)
            spikes.append((back * 0.6 + 1.06 * c * reach, -0.12 + 0.98 * s * reach))
        points = spikes + fringe
    if style == "curly":
        curls = [(back * 1.1 + 0.86 * c, -0.34 + 0.78 * s) for c, s in dome[1:12:2]]
        curls.append((math.copysign(0.9 - 0.15 * abs(turn), -turn), -0.02))
        for u, v in curls:
            head.disc(u, v, 0.34, hair, outline=True)
        head.shape(points, hair)
        for u, v in curls:
            head.disc(u, v, 0.34, hair)
    else:
        head.shape(points, _OUTLINE, outline=_OUTLINE_WIDTH * 0.9)
        head.shape(points, hair)
    if style == "short":
        quiff = [(0.1 * turn - 0.2, -0.8), (0.55 * turn, -1.28), (0.95 * turn, -0.95)]
        quiff += [(0.8 * turn, -0.5)]
        head.shape(quiff, hair)
    head.stroke([(back - 0.5, -0.72), (back - 0.15, -0.86), (back + 0.2, -0.88)], 0.13, shine)


def _draw_face(
    head: _Head, look: _Look, *, mouth_open: float, eye_open: float, gaze: float
) -> None:
    turn = head.turn
    center = 0.3 * turn
    cheek = _tone(look.skin, -0.12)
    blush = (min(255, look.skin[0] + 8), max(0, look.skin[1] - 38), max(0, look.skin[2] - 26))
    for side in (-1.0, 1.0):
        # The eye on the far side is narrowed by the view.
        squeeze = 1.0 - 0.22 * max(0.0, side * turn)
        u = center + side * 0.4 * squeeze
        head.oval(u + side * 0.1, 0.4, 0.16 * squeeze, 0.1, blush)
        if eye_open > 0.2:
            tall = 0.29 * eye_open
            head.oval(u, -0.06, 0.25 * squeeze, tall + 0.05, _OUTLINE)
            head.oval(u, -0.05, 0.195 * squeeze, tall, (255, 255, 255))
            pupil = u + (0.06 * turn + 0.09 * gaze) * squeeze
            head.oval(pupil, -0.04, 0.13 * squeeze, min(0.2, tall), (38, 26, 54))
            if eye_open > 0.7:
                head.disc(pupil + 0.05, -0.13, 0.06, (255, 255, 255))
        else:
            lid = [(u - 0.24 * squeeze, -0.02), (u, 0.07), (u + 0.24 * squeeze, -0.02)]
            head.stroke(lid, 0.1, _OUTLINE)
        brow = [(u - 0.2 * squeeze, -0.45 - 0.03 * side), (u + 0.2 * squeeze, -0.45 + 0.03 * side)]
        if look.style not in ("hood", "bob", "long"):
            head.stroke(brow, 0.11, _tone(look.hair, -0.3))
    head.oval(center + 0.16 * turn, 0.26, 0.1, 0.08, cheek)
    mouth = center + 0.06 * turn
    if mouth_open < 0.06:
        smile = [(mouth - 0.24, 0.53), (mouth - 0.09, 0.61), (mouth + 0.09, 0.61)]
        head.stroke([*smile, (mouth + 0.24, 0.53)], 0.1, (110, 34, 44))
    else:
        wide, tall = 0.2 + 0.1 * mouth_open, 0.06 + 0.22 * mouth_open
        middle = 0.56 + 0.05 * mouth_open
        head.oval(mouth, middle, wide + 0.06, tall + 0.06, _OUTLINE)
        head.oval(mouth, middle, wide, tall, (158, 26, 44))
        if mouth_open > 0.3:
            head.oval(mouth, middle + 0.5 * tall, wide * 0.65, tall * 0.42, (248, 112, 120))
            head.oval(mouth, middle - 0.7 * tall, wide * 0.62, tall * 0.24, (255, 255, 255))


def _draw_head(
    head: _Head, look: _Look, *, mouth_open: float, eye_open: float, gaze: float
) -> None:
    turn = head.turn
    if look.style == "hood":
        head.disc(-0.12 * turn, -0.04, 1.12, look.top, outline=True)
        head.oval(0.16 * turn, 0.12, 0.93, 0.9, _tone(look.top, -0.35))
        head.oval(0.16 * turn, 0.14, 0.86, 0.84, look.skin)
    else:
        # A jaw that points where the face looks makes the ball a head.
        head.disc(0.0, -0.04, 0.96, look.skin, outline=True)
        head.oval(0.16 * turn, 0.45, 0.78, 0.6, _OUTLINE)
        head.oval(0.16 * turn, 0.44, 0.69, 0.52, look.skin)
        head.disc(0.0, -0.04, 0.96, look.skin)
    _draw_face(head, look, mouth_open=mouth_open, eye_open=eye_open, gaze=gaze)
    if look.style in ("short", "spiky", "curly"):
        for side in (-1.0, 1.0):
            if side * turn < 0.4:
                u = side * (0.97 - 0.4 * abs(turn)) - 0.02 * turn
                head.disc(u, 0.16, 0.2, look.skin, outline=True)
                head.disc(u, 0.17, 0.09, _tone(look.skin, -0.25))
    _draw_front_hair(head, look)


def _draw_shoe(pen: _Pen, knee: Point, ankle: Point, turn: float, color: Color) -> None:
    """Draw a shoe: flat on the ground, square to the shin when lifted."""
    sign = 1.0 if turn >= 0.0 else -1.0
    lift = GROUND_Y - 5.0 - ankle[1]
    shin = math.atan2((ankle[0] - knee[0]) * sign, ankle[1] - knee[1])
    pitch = -shin * min(max(lift / 8.0, 0.0), 1.0)
    pitch = min(pitch, math.asin(min(max((lift + 0.5) / 7.0, 0.0), 1.0)))
    sin, cos = math.sin(pitch), math.cos(pitch)

    def at(forward: float, down: float) -> Point:
        along = forward * cos - down * sin
        return ankle[0] + along * turn, ankle[1] + forward * sin + down * cos

    sole = _tone(color, 0.55 if sum(color) < 600 else -0.3)
    heel, toe = at(-1.8, 0.5), at(6.8, 1.1)
    pen.capsule(heel, toe, 4.8, 4.2, _OUTLINE)
    pen.capsule(heel, toe, 3.6, 3.0, color)
    pen.capsule(at(-3.2, 3.2), at(8.0, 3.2), 1.0, 1.0, sole)


def _draw_leg(pen: _Pen, leg: Sequence[Point], look: _Look, turn: float, shade: float) -> None:
    pen.limb(leg, (6.6, 5.4, 4.5), _tone(look.legs, shade))
    _draw_shoe(pen, leg[1], leg[2], turn, _tone(look.shoes, shade))


def _draw_arm(pen: _Pen, arm: Sequence[Point], look: _Look, shade: float) -> None:
    shoulder, elbow, wrist = arm
    length = math.hypot(wrist[0] - elbow[0], wrist[1] - elbow[1]) or 1.0
    ahead = (wrist[0] - elbow[0]) / length, (wrist[1] - elbow[1]) / length
    hand = wrist[0] + 2.8 * ahead[0], wrist[1] + 2.8 * ahead[1]
    pen.disc(hand, 4.3 + _OUTLINE_WIDTH, _OUTLINE)
    pen.disc(hand, 4.3, _tone(look.skin, shade * 0.7))
    cuff = wrist[0] - 0.8 * ahead[0], wrist[1] - 0.8 * ahead[1]
    pen.limb((shoulder, elbow, cuff), (5.0, 4.8, 4.5), _tone(look.top, shade))
    across = -ahead[1] * 3.4, ahead[0] * 3.4
    pen.capsule(
        (cuff[0] + 2.2 * ahead[0] + across[0], cuff[1] + 2.2 * ahead[1] + across[1]),
        (cuff[0] + 2.2 * ahead[0] - across[0], cuff[1] + 2.2 * ahead[1] - across[1]),
        1.3, 1.3, _tone(look.trim, shade),
    )  # fmt: skip


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _draw_torso(pen: _Pen, joints: dict[str, Point], look: _Look, turn: float) -> None:
    neck, pelvis = joints["neck"], joints["pelvis"]
    down = pelvis[0] - neck[0], pelvis[1] - neck[1]
    size = math.hypot(*down) or 1.0
    down = down[0] / size, down[1] / size

    def at(across: float, along: float) -> Point:
        return (
            neck[0] + across * down[1] + along * down[0],
            neck[1] - across * down[0] + along * down[1],
        )

    if look.hem:
        left, right = sorted(
            (
                _between(joints["hip_l"], joints["knee_l"], look.hem),
                _between(joints["hip_r"], joints["knee_r"], look.hem),
            )
        )
        wide = 6.5 + look.flare
        skirt = [at(-8.0, size - 6.0), at(8.0, size - 6.0)]
        skirt += [(right[0] + wide, right[1]), (left[0] - wide, left[1])]
        pen.polygon(skirt, look.top, outline=_OUTLINE_WIDTH)
        seam = [(left[0] - wide, left[1] - 3.0), (right[0] + wide, right[1] - 3.0)]
        pen.polygon([*skirt[2:], *seam], look.trim)
    shoulders, chest = (joints["shoulder_l"], joints["shoulder_r"]), at(0.0, 9.0)
    end = size - 4.0 if look.hem else size + 3.5
    trunk = [at(-10.2, 9.0), at(10.2, 9.0), at(8.4, end), at(-8.4, end)]
    pen.polygon(trunk, look.top, outline=_OUTLINE_WIDTH)
    for grow, color in ((_OUTLINE_WIDTH, _OUTLINE), (0.0, look.top)):
        pen.disc(chest, 10.2 + grow, color)
        pen.capsule(*shoulders, 5.4 + grow, 5.4 + grow, color)
    pen.polygon(trunk, look.top)
    # Shade on the back, an open front, a belt or a hem.
    pen.capsule(at(-7.0 * turn, 8.5), at(-5.6 * turn, end - 3.0), 3.2, 2.8, _tone(look.top, -0.2))
    pen.capsule(at(4.5 * turn, 3.5), at(4.0 * turn, end - 2.5), 2.6, 1.6, look.trim)
    band = _tone(look.trim if look.hem else look.top, -0.3)
    pen.polygon([at(-8.4, end - 2.8), at(8.4, end - 2.8), at(8.4, end), at(-8.4, end)], band)


def _paint_body(pen: _Pen, joints: dict[str, Point], look: _Look, head: _Head) -> None:
    turn = head.turn
    near, far = ("r", "l") if turn >= 0.0 else ("l", "r")
    legs = {s: [joints[f"{j}_{s}"] for j in ("hip", "knee", "ankle")] for s in "lr"}
    arms = {s: [joints[f"{j}_{s}"] for j in ("shoulder", "elbow", "wrist")] for s in "lr"}
    _draw_arm(pen, arms[far], look, -0.3)
    _draw_back_hair(head, look)
    _draw_leg(pen, legs[far], look, turn, -0.3)
    _draw_leg(pen, legs[near], look, turn, 0.0)
    neck, center = joints["neck"], joints["head"]
    pen.limb((neck, center), (4.2, 4.2), _tone(look.skin, -0.15))
    _draw_torso(pen, joints, look, turn)


@lru_cache(maxsize=8)
def _buffer(width: int, height: int) -> pygame.Surface:
    return pygame.Surface((width, height), pygame.SRCALPHA, 32)


def _shrink(buffer: pygame.Surface, size: tuple[int, int], light: Color) -> pygame.Surface:
    """Return the buffer scaled down to a sprite of `size` px under a light."""
    sprite = pygame.transform.smoothscale(buffer, size)
    # Lifted, so that the figure stays readable at night.
    red, green, blue = (round(255 * 0.42 + 0.58 * c) for c in light)
    if (red, green, blue) != (255, 255, 255):
        sprite.fill((red, green, blue), special_flags=pygame.BLEND_RGB_MULT)
    return sprite


def draw_character(
    surface: pygame.Surface,
    keypoints: Sequence[Sequence[float]],
    *,
    facing: int,
    outfit: str,
    mouth_open: float,
    eye_open: float,
    gaze: float = 0.0,
    light: Color = (255, 255, 255),
    flash: float = 0.0,
    turn: float | None = None,
) -> None:
    """Draw the character on the surface.

    Args:
        surface: RGB surface of the frame.
        keypoints: (15, 2) screen px in the order of `KEYPOINTS`.
        facing: +1 right, -1 left.
        outfit: One of `OUTFITS`.
        mouth_open: 0 closed to 1 wide open.
        eye_open: 0 closed to 1 open.
        gaze: -1 looks to the left of the screen, +1 to the right.
        light: Colour of the scene's light, multiplied in.
        flash: 0 to 1, mixes the figure to red when it is hurt.
        turn: The way the body points while turning around, -1 to 1; `facing` where None.

    Raises:
        ValueError: The outfit is unknown.
    """
    look = _look(outfit)
    turn = float(facing) if turn is None else turn
    points = [(float(x), float(y)) for x, y in keypoints]
    joints = dict(zip(KEYPOINTS, points, strict=True))
    left = math.floor(min(x for x, _ in points)) - _MARGIN
    top = math.floor(min(y for _, y in points)) - _MARGIN
    width = math.ceil(max(x for x, _ in points)) + _MARGIN - left
    height = math.ceil(max(y for _, y in points)) + 10 - top
    buffer = _buffer(200 * _SCALE, 200 * _SCALE)
    width, height = min(width, 200), min(height, 200)
    buffer = buffer.subsurface((0, 0, width * _SCALE, height * _SCALE))
    buffer.fill((*_OUTLINE, 0))
    pen = _Pen(buffer, origin=(left, top), scale=_SCALE)
    center, neck = joints["head"], joints["neck"]
    tilt = math.atan2(center[0] - neck[0], neck[1] - center[1])
    head = _Head(pen, center, _HEAD_RADIUS, tilt, turn)
    _paint_body(pen, joints, look, head)
    _draw_head(head, look, mouth_open=mouth_open, eye_open=eye_open, gaze=gaze)
    near = "r" if turn >= 0.0 else "l"
    _draw_arm(pen, [joints[f"{j}_{near}"] for j in ("shoulder", "elbow", "wrist")], look, 0.0)

    sprite = _shrink(buffer, (width, height), light)
    if flash > 0.0:
        keep = round(255 * (1.0 - 0.75 * flash))
        sprite.fill((keep, keep, keep), special_flags=pygame.BLEND_RGB_MULT)
        red, green, blue = (round(0.75 * flash * c) for c in _HURT)
        sprite.fill((red, green, blue), special_flags=pygame.BLEND_RGB_ADD)
    rim = sprite.copy()
    rim.fill((255, 255, 255, 0), special_flags=pygame.BLEND_RGBA_MAX)
    rim.fill((*light, _RIM_ALPHA), special_flags=pygame.BLEND_RGBA_MULT)
    surface.blits([(rim, (left + dx, top + dy)) for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1))])
    surface.blit(sprite, (left, top))


def _look(outfit: str) -> _Look:
    if outfit not in _LOOKS:
        raise ValueError(f"outfit must be one of {OUTFITS}, got {outfit!r}")
    return _LOOKS[outfit]


def draw_portrait(
    surface: pygame.Surface,
    rect: pygame.Rect | tuple[int, int, int, int],
    *,
    facing: int,
    outfit: str,
    mouth_open: float,
    eye_open: float,
    gaze: float = 0.0,
    head_tilt: float = 0.0,
    light: Color = (255, 255, 255),
) -> None:
    """Draw a close-up of the face with shoulders in a rounded frame.

    Args:
        surface: RGB surface of the frame.
        rect: Where the frame goes, in px; about 60 x 60.
        facing: +1 right, -1 left.
        outfit: One of `OUTFITS`.
        mouth_open: 0 closed to 1 wide open.
        eye_open: 0 closed to 1 open.
        gaze: -1 looks to the left of the screen, +1 to the right.
        head_tilt: Clockwise tilt of the head in radians.
        light: Colour of the scene's light, multiplied in.
    """
    look = _look(outfit)
    frame = pygame.Rect(rect)
    width, height = frame.size
    buffer = _buffer(width * _SCALE, height * _SCALE)
    pen = _Pen(buffer, origin=(0.0, 0.0), scale=_SCALE)
    buffer.fill((*_OUTLINE, 0))
    border = buffer.get_rect()
    corner = round(0.16 * width * _SCALE)
    backdrop = _tone(look.trim, 0.35) if look.style != "curly" else (120, 196, 214)
    buffer.fill((*backdrop, 255))
    radius = 0.31 * height
    middle = width / 2.0
    pen.disc((middle, 0.5 * height), 0.44 * width, _tone(backdrop, 0.4))
    turn = 0.55 * facing
    center = (middle + 0.4 * radius * math.sin(head_tilt), 0.5 * height)
    head = _Head(pen, center, radius, head_tilt, turn)
    _draw_back_hair(head, look)
    pen.limb(((middle, 0.95 * height), center), (0.1 * width, 0.1 * width), _tone(look.skin, -0.15))
    pen.limb(((0.2 * width, 1.06 * height), (0.8 * width, 1.06 * height)),
             (0.2 * width, 0.2 * width), look.top)  # fmt: skip
    pen.capsule((middle, 0.88 * height), (middle, 1.1 * height), 4.0, 3.0, look.trim)
    _draw_head(head, look, mouth_open=mouth_open, eye_open=eye_open, gaze=gaze)
    mask = _frame_mask(width * _SCALE, height * _SCALE, corner)
    buffer.blit(mask, (0, 0), special_flags=pygame.BLEND_RGBA_MULT)
    pygame.draw.rect(buffer, (*_OUTLINE, 255), border, 5 * _SCALE // 2, border_radius=corner)
    pygame.draw.rect(
        buffer, (255, 255, 255, 255), border.inflate(-4, -4), 4, border_radius=corner - 2
    )
    surface.blit(_shrink(buffer, frame.size, light), frame.topleft)


@lru_cache(maxsize=8)
def _frame_mask(width: int, height: int, corner: int) -> pygame.Surface:
    mask = pygame.Surface((width, height), pygame.SRCALPHA, 32)
    mask.fill((255, 255, 255, 0))
    pygame.draw.rect(mask, (255, 255, 255, 255), mask.get_rect(), border_radius=corner)
    return mask
