"""The desert: mesas, dunes, a stone arch and cacti."""

import math

from envs.stage.canvas import Canvas, Color, Layer
from envs.stage.looks import load_tables

_TABLES = load_tables("desert", file="paintings/tables.toml")


def paint_desert(far: Layer, mid: Layer, ground: Layer) -> None:
    """Paint dunes and cacti before red mesas."""
    c = far.base
    for x, top, width in ((90, 84, 86), (300, 74, 70), (355, 98, 64), (200, 104, 52)):
        _mesa(c, x, top, width)
    c.ridge(126, [(7, 1, 0.6), (4, 3, 1.0)], (240, 196, 142), (244, 206, 150))
    c.ridge(138, [(4, 2, 2.6), (3, 3, 0.0)], (238, 186, 122), (240, 190, 124))

    c = mid.base
    for x, top, width in ((60, 134, 260), (330, 122, 300), (610, 130, 280), (790, 138, 200)):
        _dune(c, x, top, width)
    for x, size in ((180, 30), (470, 36), (520, 24), (720, 32)):
        _cactus(c, x, 152, size)
    c.polygon(_TABLES["arch"], (222, 138, 96), (190, 106, 82))
    c.polygon(_TABLES["arch_light"], (244, 172, 122))
    c.ridge(149, [(2.0, 3, 1.0), (1.5, 4, 0)], (248, 200, 130), (240, 186, 116))

    c = ground.base
    c.ridge(153, [(1.6, 3, 0.3), (0.8, 7, 1)], (255, 216, 144))
    c.ridge(155, [(1.6, 3, 0.3), (0.8, 7, 1)], (246, 188, 108), (232, 160, 86))
    c.ridge(165, [(1.4, 2, 1.0), (0.8, 5, 0)], (250, 202, 128), (240, 178, 104), bottom=182)
    c.ridge(182, [(1.6, 4, 2.0), (1.0, 5, 0)], (244, 186, 108))
    c.ridge(184, [(1.6, 4, 2.0), (1.0, 5, 0)], (214, 138, 76), (190, 114, 66))
    for x, size in ((70, 74), (390, 84), (640, 64)):
        _cactus(c, x, 160, size)
    for x, size in ((120, 16), (350, 12), (560, 19), (760, 13)):
        c.polygon(
            [
                (x - size, 161),
                (x - size * 0.8, 154),
                (x - size * 0.2, 161 - size * 0.8),
                (x + size * 0.6, 155),
                (x + size, 161),
            ],
            (216, 130, 90),
            (170, 92, 72),
        )
        c.polygon(
            [
                (x - size * 0.8, 154),
                (x - size * 0.2, 161 - size * 0.8),
                (x + size * 0.6, 155),
                (x - size * 0.1, 156.5),
            ],
            (244, 172, 122),
        )
    for x in (210, 480, 720):
        for turn in (-1.0, -0.5, 0.0, 0.5, 1.0):
            c.stroke(
                [(x, 160), (x + math.sin(turn) * 12, 160 - math.cos(turn) * 11)],
                3.2,
                (158, 168, 92),
                1.0,
            )
    for x in (270, 290, 305, 600, 618):
        c.ellipse(x, 159 + x % 3, 5.5, 3.2, (226, 150, 100), (178, 102, 76))
    for x, y in ((40, 188), (200, 187), (330, 189), (500, 187), (690, 188)):
        c.ellipse(x, y, 16, 1.6, (244, 182, 106))
    c.stroke([(440, 158), (452, 155), (464, 158)], 3, (255, 244, 222))
    c.ellipse(436, 156, 6, 5, (255, 246, 226), (226, 206, 180))
    c.ellipse(434, 156, 1.6, 1.6, (120, 84, 76))


def _mesa(c: Canvas, x: float, top: float, width: float) -> None:
    half = width / 2
    outline = [
        (x - half * 0.78, top),
        (x + half * 0.72, top),
        (x + half * 0.78, top + 26),
        (x + half, 142),
        (x - half, 142),
        (x - half * 0.86, top + 26),
    ]
    c.polygon(outline, (222, 130, 104), (238, 176, 136))
    c.polygon(
        [
            (x + half * 0.2, top),
            (x + half * 0.72, top),
            (x + half * 0.78, top + 26),
            (x + half, 142),
            (x + half * 0.3, 142),
        ],
        (190, 100, 94),
        (226, 156, 126),
    )
    c.rect(x - half * 0.8, top + 9, width * 0.77, 4, (240, 160, 124, 170))
    c.rect(x - half * 0.8, top - 2, width * 0.77, 4, (246, 178, 136), radius=1.5)


def _dune(c: Canvas, x: float, top: float, width: float) -> None:
    half, low = width / 2, 158.0
    ease = [(t, (1 - math.cos(math.pi * t / 12)) / 2) for t in c.steps(12)]
    left = [(x - half + half * t / 12, low - (low - top) * e) for t, e in ease]
    right = [(x + half * t / 12, top + (low - top) * e) for t, e in ease]
    c.polygon([*left, *right], (252, 206, 136), (242, 188, 118))
    crest = [
        (x - 24 * math.sin(t / 8 * math.pi) + t * 5, top + (low - top) * t / 8) for t in c.steps(8)
    ]
    c.polygon([*right, *crest[::-1]], (220, 150, 98), (228, 162, 102))


def _cactus(c: Canvas, x: float, y: float, height: float) -> None:
    width = height * 0.2
    for light, shift, thin in (((62, 138, 84), 0.0, 1.0), (None, -0.2, 0.34)):
        tone: Color = light or (126, 196, 112)
        dx = shift * width
        for side, base, tip in ((-1, 0.42, 0.74), (1, 0.56, 0.88)):
            arm = side * height * 0.27
            c.stroke(
                [
                    (x + dx, y - height * base),
                    (x + dx + arm * 0.8, y - height * base),
                    (x + dx + arm, y - height * (base + 0.07)),
                    (x + dx + arm, y - height * tip),
                ],
                width * 0.7 * thin,
                tone,
            )
        c.stroke([(x + dx, y), (x + dx, y - height + width / 2)], width * thin, tone)
    c.ellipse(x, y - height, width * 0.34, width * 0.3, (255, 120, 150))
