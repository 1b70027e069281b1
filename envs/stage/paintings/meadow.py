"""The meadow: hills, trees, a windmill and a farm."""

import math

from envs.stage.canvas import WARM, Canvas, Color, Layer, mix


def paint_meadow(far: Layer, mid: Layer, ground: Layer) -> None:
    """Paint rolling hills with trees, a windmill and a farm."""
    c = far.base
    c.ridge(98, [(10, 1, 0.4), (7, 2, 2.0), (3, 5, 1.0)], (120, 165, 205), (150, 200, 205))
    c.ridge(116, [(8, 1, 3.2), (5, 3, 0.5)], (128, 190, 160), (150, 205, 140))
    c.ridge(130, [(6, 2, 1.2), (3, 3, 2.5)], (128, 198, 120), (140, 205, 110))

    c = mid.base
    back = [(9.0, 2, 0.6), (5.0, 3, 2.2)]
    c.ridge(129, back, (158, 216, 106))
    c.ridge(131, back, (122, 192, 92), (110, 184, 84))
    for x, size in ((40, 1.0), (74, 0.8), (250, 0.85), (470, 0.9), (505, 1.1), (745, 0.8)):
        _tree(c, x, c.ridge_height(x, 133, back), 26 * size)
    _windmill(c, 350, c.ridge_height(350, 132, back))
    _farm(mid, 620, c.ridge_height(620, 134, back))
    front = [(7.0, 2, 3.6), (3.0, 4, 1.0)]
    c.ridge(146, front, (150, 214, 92))
    c.ridge(148, front, (104, 186, 74), (92, 172, 66))
    for x, size in ((140, 1.35), (560, 1.3), (690, 1.0)):
        _tree(c, x, c.ridge_height(x, 150, front), 32 * size)

    c = ground.base
    c.ridge(153, [(1.5, 4, 0), (1.0, 7, 1)], (146, 218, 84))
    c.ridge(155, [(1.5, 4, 0), (1.0, 7, 1)], (102, 190, 66), (70, 158, 58))
    c.ridge(164, [(1.2, 3, 0.5), (0.8, 5, 2)], (196, 158, 104), bottom=181)
    c.ridge(165.5, [(1.2, 3, 0.5), (0.8, 5, 2)], (232, 200, 144), (212, 174, 118), bottom=179)
    c.ridge(180, [(1.4, 5, 1.5), (1.2, 8, 0)], (120, 204, 74))
    c.ridge(182, [(1.4, 5, 1.5), (1.2, 8, 0)], (74, 164, 60), (52, 132, 52))
    for x in (20, 420):
        _fence(c, x, 157, 96)
    for x, size in ((180, 15), (200, 10), (345, 12), (610, 16), (640, 11), (760, 10)):
        _bush(c, x, 159, size)
    petals: tuple[Color, ...] = ((255, 92, 108), (255, 216, 72), (255, 255, 255), (190, 120, 240))
    for i, x in enumerate((140, 154, 240, 262, 278, 310, 385, 540, 556, 574, 690, 706, 728)):
        _flower(c, x, 158 + i % 3, petals[(i * 3 + i // 4) % 4], 3.6)
    for i, x in enumerate((30, 48, 190, 330, 352, 370, 480, 640, 662, 780)):
        _flower(c, x, 187 - i % 2 * 2, petals[(i * 3 + 1) % 4], 4.2)


def _tree(c: Canvas, x: float, y: float, size: float) -> None:
    c.rect(x - size * 0.11, y - size * 0.8, size * 0.22, size * 0.85, (146, 100, 66), (112, 76, 52))
    for dx, dy, r, shade in (
        (0.0, 1.25, 0.66, 0.0),
        (-0.46, 0.95, 0.48, 0.05),
        (0.46, 0.98, 0.48, 0.0),
        (-0.14, 1.42, 0.5, 0.5),
        (-0.4, 1.06, 0.3, 0.4),
        (0.28, 1.16, 0.28, 0.35),
    ):
        top, low = (
            mix((74, 164, 76), (146, 216, 96), shade),
            mix((48, 126, 68), (94, 180, 80), shade),
        )
        c.ellipse(x + dx * size, y - dy * size, r * size, r * size * 0.9, top, low)


def _windmill(c: Canvas, x: float, y: float) -> None:
    c.polygon(
        [(x - 11, y), (x - 7, y - 40), (x + 7, y - 40), (x + 11, y)],
        (250, 240, 222),
        (222, 204, 184),
    )
    c.polygon([(x - 9, y - 39), (x, y - 52), (x + 9, y - 39)], (214, 92, 76), (184, 70, 66))
    c.rect(x - 3, y - 12, 6, 12, (140, 96, 74), radius=2)
    for turn in (0.5, 2.07, 3.64, 5.21):
        dx, dy = math.cos(turn), math.sin(turn)
        tip = (x + dx * 27, y - 40 + dy * 27)
        c.polygon(
            [
                (x + dx * 7, y - 40 + dy * 7),
                (x + dx * 10 - dy * 6, y - 40 + dy * 10 + dx * 6),
                (tip[0] - dy * 6, tip[1] + dx * 6),
                tip,
            ],
            (255, 250, 238),
        )
        c.stroke([(x, y - 40), tip], 1.6, (150, 112, 88))
    c.ellipse(x, y - 40, 2.4, 2.4, (120, 84, 70))


def _farm(layer: Layer, x: float, y: float) -> None:
    c = layer.base
    c.rect(x - 20, y - 22, 40, 24, (248, 232, 206), (226, 204, 174))
    c.polygon(
        [(x - 25, y - 21), (x - 15, y - 37), (x + 15, y - 37), (x + 25, y - 21)],
        (222, 98, 78),
        (190, 74, 66),
    )
    c.rect(x + 8, y - 44, 6, 12, (176, 110, 92))
    c.rect(x - 4, y - 14, 9, 16, (150, 98, 72))
    for dx in (-15, 9):
        c.rect(x + dx, y - 16, 7, 8, (140, 190, 220))
        layer.lamp.rect(x + dx, y - 16, 7, 8, WARM)
        layer.lamp.glow(x + dx + 3.5, y - 12, 14, 12, (255, 190, 100), 0.4)


def _bush(c: Canvas, x: float, y: float, size: float) -> None:
    for dx, dy, r, top, low in (
        (-0.7, 0.35, 0.55, (70, 160, 70), (50, 128, 60)),
        (0.7, 0.35, 0.55, (70, 160, 70), (50, 128, 60)),
        (0.0, 0.55, 0.75, (92, 184, 76), (56, 138, 62)),
        (-0.2, 0.8, 0.4, (142, 214, 96), (100, 188, 78)),
    ):
        c.ellipse(x + dx * size, y - dy * size, r * size, r * size * 0.8, top, low)


def _flower(c: Canvas, x: float, y: float, color: Color, size: float) -> None:
    c.stroke([(x, y + size * 1.2), (x, y)], 1.4, (60, 140, 60))
    for i in range(5):
        turn = i * 2 * math.pi / 5 - 1.57
        c.ellipse(
            x + math.cos(turn) * size * 0.6,
            y + math.sin(turn) * size * 0.6,
            size * 0.48,
            size * 0.48,
            color,
        )
    c.ellipse(x, y, size * 0.36, size * 0.36, (255, 190, 60))


def _fence(c: Canvas, x: float, y: float, width: float) -> None:
    for dy in (-13, -7):
        c.rect(x, y + dy, width, 2.6, (226, 196, 150), (190, 152, 106))
    for i in range(int(width // 24) + 1):
        c.rect(x + i * 24 - 2, y - 17, 4.4, 18, (240, 212, 168), (188, 148, 104), radius=1.5)
