"""The beach: a turquoise sea, palms, huts and parasols."""

import math

from envs.stage.canvas import WARM, Canvas, Color, Layer, mix
from envs.stage.looks import load_tables

_TABLES = load_tables("beach", file="paintings/tables.toml")


def paint_beach(far: Layer, mid: Layer, ground: Layer) -> None:
    """Paint a turquoise sea, palms and parasols."""
    c = far.base
    c.rect(-2, 108, 404, 60, (44, 140, 206), (104, 220, 220))
    c.rect(-2, 108, 404, 2, (150, 212, 236))
    for x, width, height in ((70, 58, 15), (104, 34, 9), (300, 44, 11)):
        c.polygon(
            [
                (
                    x + width * math.cos(t / 10 * math.pi),
                    109 - height * math.sin(t / 10 * math.pi) ** 1.3,
                )
                for t in c.steps(10)
            ],
            (112, 170, 150),
            (146, 196, 170),
        )
    for x, y, width in _TABLES["glints"]:
        c.ellipse(x, y, width / 2, 1.1, (200, 240, 244, 150))
    for x, y, size in ((190, 112, 1.0), (365, 116, 1.4)):
        c.polygon([(x, y - 22 * size), (x, y - 3), (x + 12 * size, y - 3)], (255, 252, 244))
        c.polygon(
            [(x - 1.5, y - 19 * size), (x - 1.5, y - 3), (x - 9 * size, y - 3)], (246, 132, 108)
        )
        c.polygon(
            [
                (x - 10 * size, y - 2),
                (x + 12 * size, y - 2),
                (x + 8 * size, y + 2.5 * size),
                (x - 7 * size, y + 2.5 * size),
            ],
            (178, 100, 76),
        )

    c = mid.base
    shore = [(2.6, 3, 0.3), (1.6, 5, 1.7)]
    c.ridge(141, shore, (240, 252, 250, 220))
    c.ridge(144, shore, (120, 216, 214), (150, 226, 216))
    c.ridge(148, [(2.2, 4, 1.0)], (250, 254, 252))
    c.ridge(150, [(2.2, 4, 1.0)], (226, 200, 152), (240, 216, 166))
    for x, size, lean in ((90, 0.9, 10), (130, 1.15, -14), (420, 1.1, 12), (690, 1.0, -10)):
        _palm(c, x, 152, 74 * size, lean)
    _hut(mid, 270)
    _hut(mid, 560)

    c = ground.base
    c.ridge(152, [(1.4, 3, 0.4), (0.8, 6, 2)], (255, 238, 190))
    c.ridge(154, [(1.4, 3, 0.4), (0.8, 6, 2)], (248, 220, 158), (240, 200, 134))
    c.ridge(166, [(1.4, 2, 1.0), (0.8, 5, 0)], (252, 228, 172), (246, 212, 148), bottom=184)
    c.ridge(184, [(1.5, 4, 2.0)], (250, 224, 166))
    c.ridge(186, [(1.5, 4, 2.0)], (232, 190, 124), (218, 172, 108))
    _parasol(c, 70, 160, (236, 84, 92))
    _parasol(c, 470, 160, (62, 140, 214))
    _towel(c, 96, 159, (84, 180, 214))
    _towel(c, 496, 159, (250, 196, 86))
    _palm(c, 330, 160, 108, 16)
    for x, y, color in ((200, 186, (244, 122, 100)), (610, 188, (244, 122, 100))):
        points = [
            (
                x + math.cos(i * math.pi / 5 - 1.57) * (6.5 if i % 2 == 0 else 2.8),
                y + math.sin(i * math.pi / 5 - 1.57) * (4.5 if i % 2 == 0 else 2.0),
            )
            for i in range(10)
        ]
        c.polygon(points, color, mix(color, (190, 70, 80), 0.5))
    for x, y in ((260, 189), (390, 187), (740, 188), (40, 188)):
        c.ellipse(x, y, 4.5, 3, (255, 246, 234), (232, 196, 186))
    c.ellipse(650, 152, 9, 9, (255, 250, 244), (226, 214, 214))
    c.polygon([(650, 152), (642, 148), (645, 144), (650, 143)], (240, 90, 96))
    c.polygon([(650, 152), (658, 148), (659, 153), (656, 158)], (80, 150, 220))
    c.polygon([(650, 152), (650, 161), (644, 159), (641, 154)], (250, 200, 80))
    for x, size in ((560, 12), (580, 9), (220, 10)):
        for turn in (-0.9, -0.45, 0.0, 0.45, 0.9):
            c.stroke(
                [(x, 158), (x + math.sin(turn) * size, 158 - math.cos(turn) * size)],
                3,
                (118, 190, 96),
                1.0,
            )


def _palm(c: Canvas, x: float, y: float, height: float, lean: float) -> None:
    trunk = [(x + lean * (t / 8) ** 2, y - height * t / 8) for t in c.steps(8)]
    c.stroke(trunk, height * 0.085, (150, 108, 74), height * 0.05)
    c.stroke(
        [(px - height * 0.012, py) for px, py in trunk],
        height * 0.03,
        (196, 150, 104),
        height * 0.02,
    )
    hx, hy = trunk[-1]
    length = height * 0.4
    for turn, tone in _TABLES["leaves"]:
        dx, dy = math.cos(turn), math.sin(turn)
        spine = [
            (hx + dx * length * s, hy + dy * length * s + length * 0.55 * s * s)
            for s in (0, 0.25, 0.5, 0.75, 1)
        ]
        thick = (0.06, 0.13, 0.14, 0.09, 0)
        upper = [(px, py - length * w) for (px, py), w in zip(spine, thick, strict=True)]
        lower = [(px, py + length * w * 0.6) for (px, py), w in zip(spine, thick, strict=True)]
        tones = ((52, 146, 92), (76, 172, 96), (118, 200, 104))
        c.polygon(upper + lower[::-1], tones[tone], mix(tones[tone], (30, 104, 80), 0.45))
    for dx in (-0.035, 0.03):
        c.ellipse(hx + dx * height, hy + height * 0.03, height * 0.03, height * 0.03, (150, 96, 66))


def _hut(layer: Layer, x: float) -> None:
    c = layer.base
    c.rect(x - 24, 122, 48, 30, (232, 190, 140), (206, 158, 112))
    c.rect(x - 18, 127, 36, 12, (96, 74, 70))
    layer.lamp.rect(x - 18, 127, 36, 12, WARM)
    layer.lamp.glow(x, 134, 40, 26, (255, 190, 100), 0.4)
    c.rect(x - 21, 138, 42, 3.5, (255, 236, 200))
    c.polygon(
        [(x - 34, 123), (x - 14, 104), (x + 14, 104), (x + 34, 123)],
        (222, 180, 104),
        (180, 132, 72),
    )
    c.polygon([(x - 34, 123), (x - 31, 120), (x + 31, 120), (x + 34, 123)], (240, 204, 130))


def _parasol(c: Canvas, x: float, y: float, color: Color) -> None:
    c.stroke([(x, y), (x + 5, y - 52)], 2.4, (250, 244, 232))
    cx, cy, radius, height = x + 5, y - 36, 34, 24
    slopes = [t * math.pi / 12 for t in c.steps(6)]
    for i in range(5):
        edges = [math.cos(math.pi * (1 - (i + side) / 5)) * radius for side in (0, 1)]
        left = [(cx + edges[0] * math.sin(s), cy - height * math.cos(s)) for s in slopes]
        right = [(cx + edges[1] * math.sin(s), cy - height * math.cos(s)) for s in slopes[::-1]]
        tone = color if i % 2 == 0 else (255, 250, 242)
        hem = ((left[-1][0] + right[0][0]) / 2, cy + 4)
        c.polygon([*left, hem, *right], tone, mix(tone, (120, 60, 90), 0.2))
    c.ellipse(cx, cy - height, 2, 2, (255, 250, 242))


def _towel(c: Canvas, x: float, y: float, color: Color) -> None:
    c.polygon([(x, y - 4), (x + 34, y - 4), (x + 40, y + 2), (x + 4, y + 2)], color)
    c.polygon([(x + 8, y - 4), (x + 13, y - 4), (x + 18, y + 2), (x + 12, y + 2)], (255, 250, 244))
    c.polygon([(x + 22, y - 4), (x + 27, y - 4), (x + 33, y + 2), (x + 27, y + 2)], (255, 250, 244))
