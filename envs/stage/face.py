"""The head of the Stage character: hair, eyes that blink and look, a mouth that opens."""

import math
from collections.abc import Sequence

import pygame

from envs.stage.looks import OUTLINE, Color, Look, Point, tone
from envs.stage.pen import OUTLINE_WIDTH, Pen

HEAD_RADIUS = 14.0
FACE_SHIFT = 0.3  # of eyes and mouth from the middle of a head that is turned all the way


class Head:
    """A head in its own frame: u to the right, v down, in units of its radius, tilted."""

    def __init__(
        self, pen: Pen, center: Sequence[float], radius: float, tilt: float, turn: float
    ) -> None:
        self.pen = pen
        self.center = center
        self.radius = radius
        self.sin, self.cos = math.sin(tilt) * radius, math.cos(tilt) * radius
        self.turn = turn

    def at(self, u: float, v: float) -> Point:
        """Return the frame point of head coordinates: u forward, v down, in radii."""
        return (
            self.center[0] + u * self.cos - v * self.sin,
            self.center[1] + u * self.sin + v * self.cos,
        )

    def shape(self, points: Sequence[Point], color: Color, *, outline: float = 0.0) -> None:
        """Draw a filled polygon of head coordinates."""
        outline *= self.radius / HEAD_RADIUS
        self.pen.polygon([self.at(u, v) for u, v in points], color, outline=outline)

    def oval(self, u: float, v: float, width: float, height: float, color: Color) -> None:
        """Draw an ellipse around head coordinates."""
        self.shape([(u + width * c, v + height * s) for c, s in self.pen.circle], color)

    def disc(
        self, u: float, v: float, radius: float, color: Color, *, outline: bool = False
    ) -> None:
        """Draw a disc around head coordinates, its radius in head radii."""
        if outline:
            self.pen.disc(self.at(u, v), (radius + 0.092) * self.radius, OUTLINE)
        self.pen.disc(self.at(u, v), radius * self.radius, color)

    def stroke(self, points: Sequence[Point], width: float, color: Color) -> None:
        """Draw a round-ended line through head coordinates."""
        spots = [self.pen.at(self.at(u, v)) for u, v in points]
        size = width * self.radius * self.pen.zoom
        pygame.draw.lines(self.pen.surface, color, False, spots, max(1, round(size)))
        for spot in (spots[0], spots[-1]):
            pygame.draw.circle(self.pen.surface, color, spot, size / 2.0)


def draw_back_hair(head: Head, look: Look) -> None:
    """Draw the hair that hangs behind the head."""
    turn = head.turn
    if look.style == "long":
        sway = -0.55 * turn
        points = [(sway - 0.75, -0.2), (sway - 0.95, 1.0), (sway - 0.5, 1.75), (sway + 0.45, 1.7)]
        points += [(sway + 0.9, 1.0), (sway + 0.8, -0.2)]
        head.shape(points, look.hair, outline=OUTLINE_WIDTH)
    elif look.style == "bob":
        for u in (-0.62 - 0.2 * turn, 0.62 - 0.2 * turn):
            head.disc(u, 0.5, 0.52, look.hair, outline=True)


def _draw_front_hair(head: Head, look: Look) -> None:
    turn, hair, style = head.turn, look.hair, look.style
    shine = tone(hair, 0.25)
    if style == "hood":
        head.shape(
            [(0.3 * turn - 0.6, -0.36), (0.3 * turn - 0.3, -0.62), (0.2 * turn, -0.7),
             (0.3 * turn + 0.35, -0.6), (0.3 * turn + 0.6, -0.36), (0.3 * turn + 0.1, -0.42)],
            hair,
        )  # fmt: skip
        return
    # A cap over the skull, pushed back against the way the face looks.
    back = -0.16 * turn
    dome = _dome(12)
    cap = [(back * 0.5 + 1.06 * c, -0.1 + 0.98 * s) for c, s in _dome(12 * head.pen.detail)]
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
        head.shape(points, OUTLINE, outline=OUTLINE_WIDTH * 0.9)
        head.shape(points, hair)
    if style == "short":
        quiff = [(0.1 * turn - 0.2, -0.8), (0.55 * turn, -1.28), (0.95 * turn, -0.95)]
        quiff += [(0.8 * turn, -0.5)]
        head.shape(quiff, hair)
    head.stroke([(back - 0.5, -0.72), (back - 0.15, -0.86), (back + 0.2, -0.88)], 0.13, shine)


def _dome(num_sides: int) -> list[Point]:
    """Return the corners of the upper half of a circle of radius 1, from left to right."""
    turns = (math.pi * (1.0 + i / num_sides) for i in range(num_sides + 1))
    return [(math.cos(turn), math.sin(turn)) for turn in turns]


def _draw_face(head: Head, look: Look, *, mouth_open: float, eye_open: float, gaze: float) -> None:
    turn = head.turn
    center = FACE_SHIFT * turn
    cheek = tone(look.skin, -0.12)
    blush = (min(255, look.skin[0] + 8), max(0, look.skin[1] - 38), max(0, look.skin[2] - 26))
    for side in (-1.0, 1.0):
        # The eye on the far side is narrowed by the view.
        squeeze = 1.0 - 0.22 * max(0.0, side * turn)
        u = center + side * 0.4 * squeeze
        head.oval(u + side * 0.1, 0.4, 0.16 * squeeze, 0.1, blush)
        if eye_open > 0.2:
            tall = 0.29 * eye_open
            head.oval(u, -0.06, 0.25 * squeeze, tall + 0.05, OUTLINE)
            head.oval(u, -0.05, 0.195 * squeeze, tall, (255, 255, 255))
            pupil = u + (0.06 * turn + 0.09 * gaze) * squeeze
            head.oval(pupil, -0.04, 0.13 * squeeze, min(0.2, tall), (38, 26, 54))
            if eye_open > 0.7:
                head.disc(pupil + 0.05, -0.13, 0.06, (255, 255, 255))
        else:
            lid = [(u - 0.24 * squeeze, -0.02), (u, 0.07), (u + 0.24 * squeeze, -0.02)]
            head.stroke(lid, 0.1, OUTLINE)
    head.oval(center + 0.16 * turn, 0.26, 0.1, 0.08, cheek)
    mouth = center + 0.06 * turn
    if mouth_open < 0.06:
        smile = [(mouth - 0.24, 0.53), (mouth - 0.09, 0.61), (mouth + 0.09, 0.61)]
        head.stroke([*smile, (mouth + 0.24, 0.53)], 0.1, (110, 34, 44))
    else:
        wide, tall = 0.2 + 0.1 * mouth_open, 0.06 + 0.22 * mouth_open
        middle = 0.56 + 0.05 * mouth_open
        head.oval(mouth, middle, wide + 0.06, tall + 0.06, OUTLINE)
        head.oval(mouth, middle, wide, tall, (158, 26, 44))
        if mouth_open > 0.3:
            head.oval(mouth, middle + 0.5 * tall, wide * 0.65, tall * 0.42, (248, 112, 120))
            head.oval(mouth, middle - 0.7 * tall, wide * 0.62, tall * 0.24, (255, 255, 255))


def _draw_brows(head: Head, look: Look, raised: float) -> None:
    """Draw the brows, over the hair into which they may be raised."""
    turn, v = head.turn, -0.5 - 0.16 * raised
    color = tone(look.hair, -0.6 if sum(look.hair) > 150 else 0.4)
    for side in (-1.0, 1.0):
        squeeze = 1.0 - 0.22 * max(0.0, side * turn)
        u = FACE_SHIFT * turn + side * 0.4 * squeeze
        brow = [(u - 0.2 * squeeze, v - 0.03 * side), (u + 0.2 * squeeze, v + 0.03 * side)]
        head.stroke(brow, 0.13, color)


def draw_head(
    head: Head, look: Look, *, mouth_open: float, eye_open: float, gaze: float, brows: float
) -> None:
    """Draw the head with its face and the hair in front of it."""
    turn = head.turn
    if look.style == "hood":
        head.disc(-0.12 * turn, -0.04, 1.12, look.top, outline=True)
        head.oval(0.16 * turn, 0.12, 0.93, 0.9, tone(look.top, -0.35))
        head.oval(0.16 * turn, 0.14, 0.86, 0.84, look.skin)
    else:
        # A jaw that points where the face looks makes the ball a head.
        head.disc(0.0, -0.04, 0.96, look.skin, outline=True)
        head.oval(0.16 * turn, 0.45, 0.78, 0.6, OUTLINE)
        head.oval(0.16 * turn, 0.44, 0.69, 0.52, look.skin)
        head.disc(0.0, -0.04, 0.96, look.skin)
    _draw_face(head, look, mouth_open=mouth_open, eye_open=eye_open, gaze=gaze)
    if look.style in ("short", "spiky", "curly"):
        for side in (-1.0, 1.0):
            if side * turn < 0.4:
                u = side * (0.97 - 0.4 * abs(turn)) - 0.02 * turn
                head.disc(u, 0.16, 0.2, look.skin, outline=True)
                head.disc(u, 0.17, 0.09, tone(look.skin, -0.25))
    _draw_front_hair(head, look)
    _draw_brows(head, look, brows)
