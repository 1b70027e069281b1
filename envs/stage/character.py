"""Drawing of the Stage character: a flat-shaded cartoon human over 15 keypoints, and its portrait.

Everything is drawn larger on a cached buffer and shrunk, which antialiases it. The buffer is
cleared to a transparent outline colour, so that edges blend towards the outline. Positions and
sizes are px of the 192 x 320 frame; `scale` is how many pixels the surface has for each px.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import pygame

from envs.stage.face import HEAD_RADIUS, Head, draw_back_hair, draw_head
from envs.stage.looks import LOOKS, OUTLINE, Color, Look, Point, tone
from envs.stage.pen import OUTLINE_WIDTH, Pen
from envs.stage.skeleton import GROUND_Y, KEYPOINTS

PORTRAIT_RADIUS, PORTRAIT_TURN = 0.31, 0.55
"""Of the head in a portrait: of its height, and how far it is turned to the side it faces."""

_RIM_ALPHA = 150
_RIM_SHIFTS = ((-1, 0), (1, 0), (0, -1), (0, 1))
_MARGIN = 24
_LARGEST = 200
_HURT: Color = (255, 60, 70)


def _draw_shoe(pen: Pen, knee: Point, ankle: Point, turn: float, color: Color) -> None:
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

    sole = tone(color, 0.55 if sum(color) < 600 else -0.3)
    heel, toe = at(-1.8, 0.5), at(6.8, 1.1)
    pen.capsule(heel, toe, 4.8, 4.2, OUTLINE)
    pen.capsule(heel, toe, 3.6, 3.0, color)
    pen.capsule(at(-3.2, 3.2), at(8.0, 3.2), 1.0, 1.0, sole)


def _draw_leg(pen: Pen, leg: Sequence[Point], look: Look, turn: float, shade: float) -> None:
    pen.limb(leg, (6.6, 5.4, 4.5), tone(look.legs, shade))
    _draw_shoe(pen, leg[1], leg[2], turn, tone(look.shoes, shade))


def _draw_arm(pen: Pen, arm: Sequence[Point], look: Look, shade: float) -> None:
    shoulder, elbow, wrist = arm
    length = math.hypot(wrist[0] - elbow[0], wrist[1] - elbow[1]) or 1.0
    ahead = (wrist[0] - elbow[0]) / length, (wrist[1] - elbow[1]) / length
    hand = wrist[0] + 2.8 * ahead[0], wrist[1] + 2.8 * ahead[1]
    pen.disc(hand, 4.3 + OUTLINE_WIDTH, OUTLINE)
    pen.disc(hand, 4.3, tone(look.skin, shade * 0.7))
    cuff = wrist[0] - 0.8 * ahead[0], wrist[1] - 0.8 * ahead[1]
    pen.limb((shoulder, elbow, cuff), (5.0, 4.8, 4.5), tone(look.top, shade))
    across = -ahead[1] * 3.4, ahead[0] * 3.4
    pen.capsule(
        (cuff[0] + 2.2 * ahead[0] + across[0], cuff[1] + 2.2 * ahead[1] + across[1]),
        (cuff[0] + 2.2 * ahead[0] - across[0], cuff[1] + 2.2 * ahead[1] - across[1]),
        1.3, 1.3, tone(look.trim, shade),
    )  # fmt: skip


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def _draw_torso(pen: Pen, joints: dict[str, Point], look: Look, turn: float) -> None:
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
        pen.polygon(skirt, look.top, outline=OUTLINE_WIDTH)
        seam = [(left[0] - wide, left[1] - 3.0), (right[0] + wide, right[1] - 3.0)]
        pen.polygon([*skirt[2:], *seam], look.trim)
    shoulders, chest = (joints["shoulder_l"], joints["shoulder_r"]), at(0.0, 9.0)
    end = size - 4.0 if look.hem else size + 3.5
    trunk = [at(-10.2, 9.0), at(10.2, 9.0), at(8.4, end), at(-8.4, end)]
    pen.polygon(trunk, look.top, outline=OUTLINE_WIDTH)
    for grow, color in ((OUTLINE_WIDTH, OUTLINE), (0.0, look.top)):
        pen.disc(chest, 10.2 + grow, color)
        pen.capsule(*shoulders, 5.4 + grow, 5.4 + grow, color)
    pen.polygon(trunk, look.top)
    # Shade on the back, an open front, a belt or a hem.
    pen.capsule(at(-7.0 * turn, 8.5), at(-5.6 * turn, end - 3.0), 3.2, 2.8, tone(look.top, -0.2))
    pen.capsule(at(4.5 * turn, 3.5), at(4.0 * turn, end - 2.5), 2.6, 1.6, look.trim)
    band = tone(look.trim if look.hem else look.top, -0.3)
    pen.polygon([at(-8.4, end - 2.8), at(8.4, end - 2.8), at(8.4, end), at(-8.4, end)], band)


def _paint_body(pen: Pen, joints: dict[str, Point], look: Look, head: Head) -> None:
    turn = head.turn
    near, far = ("r", "l") if turn >= 0.0 else ("l", "r")
    legs = {s: [joints[f"{j}_{s}"] for j in ("hip", "knee", "ankle")] for s in "lr"}
    arms = {s: [joints[f"{j}_{s}"] for j in ("shoulder", "elbow", "wrist")] for s in "lr"}
    _draw_arm(pen, arms[far], look, -0.3)
    draw_back_hair(head, look)
    _draw_leg(pen, legs[far], look, turn, -0.3)
    _draw_leg(pen, legs[near], look, turn, 0.0)
    neck, center = joints["neck"], joints["head"]
    pen.limb((neck, center), (4.2, 4.2), tone(look.skin, -0.15))
    _draw_torso(pen, joints, look, turn)


@lru_cache(maxsize=8)
def _buffer(width: int, height: int) -> pygame.Surface:
    return pygame.Surface((width, height), pygame.SRCALPHA, 32)


def _shrink(buffer: pygame.Surface, size: tuple[int, int], light: Color) -> pygame.Surface:
    """Return the buffer scaled down to a sprite of `size` pixels under a light."""
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
    brows: float = 0.0,
    light: Color = (255, 255, 255),
    flash: float = 0.0,
    turn: float | None = None,
    scale: int = 1,
) -> None:
    """Draw the character on the surface.

    Args:
        surface: RGB surface of the frame.
        keypoints: (15, 2) px of the 192 x 320 frame, in the order of `KEYPOINTS`.
        facing: +1 right, -1 left.
        outfit: One of `OUTFITS`.
        mouth_open: 0 closed to 1 wide open.
        eye_open: 0 closed to 1 open.
        gaze: -1 looks to the left of the screen, +1 to the right.
        brows: 0 at rest to 1 raised.
        light: Colour of the scene's light, multiplied in.
        flash: 0 to 1, mixes the figure to red when it is hurt.
        turn: The way the body points while turning around, -1 to 1; `facing` where None.
        scale: Pixels of the surface per px.
    """
    look = LOOKS[outfit]
    turn = float(facing) if turn is None else turn
    points = [(float(x), float(y)) for x, y in keypoints]
    joints = dict(zip(KEYPOINTS, points, strict=True))
    left = math.floor(min(x for x, _ in points)) - _MARGIN
    top = math.floor(min(y for _, y in points)) - _MARGIN
    width = math.ceil(max(x for x, _ in points)) + _MARGIN - left
    height = math.ceil(max(y for _, y in points)) + 10 - top
    zoom = Pen.zoom_of(scale)
    buffer = _buffer(_LARGEST * zoom, _LARGEST * zoom)
    width, height = min(width, _LARGEST), min(height, _LARGEST)
    buffer = buffer.subsurface((0, 0, width * zoom, height * zoom))
    buffer.fill((*OUTLINE, 0))
    pen = Pen(buffer, origin=(left, top), scale=scale)
    center, neck = joints["head"], joints["neck"]
    tilt = math.atan2(center[0] - neck[0], neck[1] - center[1])
    head = Head(pen, center, HEAD_RADIUS, tilt, turn)
    _paint_body(pen, joints, look, head)
    draw_head(head, look, mouth_open=mouth_open, eye_open=eye_open, gaze=gaze, brows=brows)
    near = "r" if turn >= 0.0 else "l"
    _draw_arm(pen, [joints[f"{j}_{near}"] for j in ("shoulder", "elbow", "wrist")], look, 0.0)

    sprite = _shrink(buffer, (width * scale, height * scale), light)
    if flash > 0.0:
        keep = round(255 * (1.0 - 0.75 * flash))
        sprite.fill((keep, keep, keep), special_flags=pygame.BLEND_RGB_MULT)
        red, green, blue = (round(0.75 * flash * c) for c in _HURT)
        sprite.fill((red, green, blue), special_flags=pygame.BLEND_RGB_ADD)
    rim = sprite.copy()
    rim.fill((255, 255, 255, 0), special_flags=pygame.BLEND_RGBA_MAX)
    rim.fill((*light, _RIM_ALPHA), special_flags=pygame.BLEND_RGBA_MULT)
    x, y = left * scale, top * scale
    surface.blits([(rim, (x + dx * scale, y + dy * scale)) for dx, dy in _RIM_SHIFTS])
    surface.blit(sprite, (x, y))


def draw_portrait(
    surface: pygame.Surface,
    rect: pygame.Rect | tuple[int, int, int, int],
    *,
    facing: int,
    outfit: str,
    mouth_open: float,
    eye_open: float,
    gaze: float = 0.0,
    brows: float = 0.0,
    head_tilt: float = 0.0,
    nod: float = 0.0,
    light: Color = (255, 255, 255),
    scale: int = 1,
) -> None:
    """Draw a close-up of the face with shoulders in a frame, a rect in px; see `draw_character`.

    `nod` says how far the head is lowered, 0 to 1.
    """
    look = LOOKS[outfit]
    frame = pygame.Rect(rect)
    width, height = frame.size
    zoom = Pen.zoom_of(scale)
    buffer = _buffer(width * zoom, height * zoom)
    pen = Pen(buffer, origin=(0.0, 0.0), scale=scale)
    buffer.fill((*OUTLINE, 0))
    border = buffer.get_rect()
    corner = round(0.16 * width * zoom)
    backdrop = tone(look.trim, 0.35) if look.style != "curly" else (120, 196, 214)
    buffer.fill((*backdrop, 255))
    radius = PORTRAIT_RADIUS * height
    middle = width / 2.0
    pen.disc((middle, 0.5 * height), 0.44 * width, tone(backdrop, 0.4))
    turn = PORTRAIT_TURN * facing
    center = (middle + 0.4 * radius * math.sin(head_tilt), 0.5 * height + 0.2 * radius * nod)
    head = Head(pen, center, radius, head_tilt, turn)
    draw_back_hair(head, look)
    pen.limb(((middle, 0.95 * height), center), (0.1 * width, 0.1 * width), tone(look.skin, -0.15))
    pen.limb(((0.2 * width, 1.06 * height), (0.8 * width, 1.06 * height)),
             (0.2 * width, 0.2 * width), look.top)  # fmt: skip
    pen.capsule((middle, 0.88 * height), (middle, 1.1 * height), 4.0, 3.0, look.trim)
    draw_head(head, look, mouth_open=mouth_open, eye_open=eye_open, gaze=gaze, brows=brows)
    mask = _frame_mask(width * zoom, height * zoom, corner)
    buffer.blit(mask, (0, 0), special_flags=pygame.BLEND_RGBA_MULT)
    pygame.draw.rect(buffer, (*OUTLINE, 255), border, 5 * zoom // 2, border_radius=corner)
    inner = border.inflate(-4 * scale, -4 * scale)
    pygame.draw.rect(
        buffer, (255, 255, 255, 255), inner, 4 * scale, border_radius=corner - 2 * scale
    )
    portrait = _shrink(buffer, (width * scale, height * scale), light)
    surface.blit(portrait, (frame.left * scale, frame.top * scale))


@lru_cache(maxsize=8)
def _frame_mask(width: int, height: int, corner: int) -> pygame.Surface:
    mask = pygame.Surface((width, height), pygame.SRCALPHA, 32)
    mask.fill((255, 255, 255, 0))
    pygame.draw.rect(mask, (255, 255, 255, 255), mask.get_rect(), border_radius=corner)
    return mask
