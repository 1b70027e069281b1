"""The snow forest: firs under snow, a cabin and blue mountains."""

from envs.stage.canvas import WARM, Canvas, Color, Layer, mix


def paint_snow_forest(far: Layer, mid: Layer, ground: Layer) -> None:
    """Paint firs under snow before blue mountains."""
    c = far.base
    for x, top, width in (
        (40, 66, 130),
        (330, 60, 150),
        (190, 54, 170),
        (110, 88, 100),
        (270, 84, 100),
    ):
        _mountain(c, x, top, width, 140)
    c.ridge(126, [(5, 2, 0.5), (3, 5, 1.0)], (176, 200, 224), (212, 226, 240))
    for i in range(20):
        x = i * 20 + (i * 7 % 5) * 2
        _fir(c, x, 140 + i % 3 * 2, 24 + (i * 5 % 4) * 5, 0.55)

    c = mid.base
    back = [(6.0, 2, 0.9), (3.0, 5, 2.0)]
    c.ridge(136, back, (232, 241, 252), (204, 222, 242))
    for x, size in (
        (20, 62),
        (62, 46),
        (170, 70),
        (208, 50),
        (300, 44),
        (390, 66),
        (430, 52),
        (560, 72),
        (600, 48),
        (700, 58),
        (740, 44),
    ):
        _fir(c, x, c.ridge_height(x, 139, back), size, 0.18)
    _cabin(mid, 330, 140)
    front = [(4.0, 3, 3.0), (2.0, 4, 1.0)]
    c.ridge(149, front, (244, 249, 255), (214, 229, 246))

    c = ground.base
    c.ridge(154, [(2.0, 3, 0.4), (1.0, 7, 2)], (255, 255, 255))
    c.ridge(156, [(2.0, 3, 0.4), (1.0, 7, 2)], (240, 247, 255), (206, 224, 246))
    c.ridge(165, [(1.2, 4, 1.0), (0.8, 6, 0)], (214, 228, 246), (228, 238, 251), bottom=181)
    c.ridge(181, [(1.6, 4, 2.0), (1.0, 6, 0)], (255, 255, 255))
    c.ridge(183, [(1.6, 4, 2.0), (1.0, 6, 0)], (226, 238, 252), (190, 210, 238))
    for x, size in ((60, 104), (340, 92), (600, 110)):
        _fir(c, x, 160, size, 0.0)
    for x, size in ((110, 34), (390, 28), (560, 36)):
        _fir(c, x, 161, size, 0.0)
    for x, size in ((190, 14), (480, 17), (752, 15)):
        c.polygon(
            [
                (x - size, 161),
                (x - size * 0.8, 153),
                (x - size * 0.2, 148),
                (x + size * 0.5, 150),
                (x + size, 157),
                (x + size, 161),
            ],
            (142, 152, 180),
            (104, 114, 148),
        )
        c.polygon(
            [
                (x - size * 0.86, 154),
                (x - size * 0.2, 146.5),
                (x + size * 0.5, 148.5),
                (x + size, 156),
                (x + size * 0.5, 153.5),
                (x + size * 0.1, 156),
                (x - size * 0.4, 153),
            ],
            (255, 255, 255),
            (232, 242, 253),
        )
    for x in (250, 672):
        c.rect(x, 150, 44, 12, (146, 102, 78), (104, 70, 62), radius=5)
        c.ellipse(x + 43, 156, 4, 6, (222, 184, 140))
        c.ellipse(x + 43, 156, 2, 3.4, (190, 146, 108))
        c.rect(x + 1, 147.5, 40, 5, (255, 255, 255), (228, 240, 252), radius=2.5)
    for x, y in ((150, 188), (300, 187), (440, 189), (540, 187), (770, 188)):
        c.ellipse(x, y + 2, 14, 4, (255, 255, 255), (214, 228, 246))
    for x in (312, 440, 786):
        c.stroke([(x, 160), (x - 3, 150), (x - 8, 145)], 2, (126, 90, 76), 1)
        c.stroke([(x - 2, 153), (x + 5, 146)], 1.6, (126, 90, 76), 1)
        for dx, dy in ((-8, 144), (5, 145), (-2, 149)):
            c.ellipse(x + dx, dy, 2.4, 2.4, (228, 70, 76))


def _mountain(c: Canvas, x: float, top: float, width: float, bottom: float) -> None:
    half, tall = width / 2, bottom - top
    c.polygon([(x - half, bottom), (x, top), (x + half, bottom)], (128, 158, 204), (178, 202, 228))
    c.polygon(
        [
            (x, top),
            (x + half, bottom),
            (x + half * 0.1, bottom),
            (x + half * 0.16, top + tall * 0.55),
            (x - half * 0.04, top + tall * 0.3),
        ],
        (98, 128, 184),
        (160, 186, 220),
    )
    snow = 0.46
    c.polygon(
        [
            (x - half * snow, top + tall * snow),
            (x, top),
            (x + half * snow, top + tall * snow),
            (x + half * 0.24, top + tall * 0.36),
            (x + half * 0.08, top + tall * 0.5),
            (x - half * 0.12, top + tall * 0.36),
            (x - half * 0.26, top + tall * 0.5),
        ],
        (252, 254, 255),
        (232, 241, 252),
    )
    c.polygon(
        [
            (x, top),
            (x + half * snow, top + tall * snow),
            (x + half * 0.24, top + tall * 0.36),
            (x + half * 0.1, top + tall * 0.46),
            (x - half * 0.02, top + tall * 0.26),
        ],
        (206, 222, 244),
        (190, 210, 238),
    )


def _fir(c: Canvas, x: float, y: float, height: float, haze: float) -> None:
    pale: Color = (196, 214, 234)
    width = height * 0.46
    c.rect(
        x - height * 0.04,
        y - height * 0.16,
        height * 0.08,
        height * 0.17,
        mix((122, 86, 72), pale, haze),
        mix((92, 64, 62), pale, haze),
    )
    for i in range(4):
        low = y - height * (0.1 + 0.21 * i)
        high = low - height * (0.37 - 0.02 * i)
        half = width * (0.5 - 0.1 * i)
        dark = mix((40, 104, 100), pale, haze)
        c.polygon(
            [
                (x, high),
                (x + half, low),
                (x + half * 0.5, low + height * 0.025),
                (x, low + height * 0.005),
                (x - half * 0.5, low + height * 0.025),
                (x - half, low),
            ],
            mix((66, 140, 124), pale, haze),
            dark,
        )
        mid_y = low + (high - low) * 0.36
        c.polygon(
            [
                (x, high),
                (x + half * 0.64, mid_y),
                (x + half * 0.34, mid_y - height * 0.015),
                (x + half * 0.12, mid_y + height * 0.03),
                (x - half * 0.2, mid_y - height * 0.005),
                (x - half * 0.46, mid_y + height * 0.035),
                (x - half * 0.72, mid_y + height * 0.02),
            ],
            (255, 255, 255),
            mix((216, 232, 248), pale, haze),
        )


def _cabin(layer: Layer, x: float, y: float) -> None:
    c = layer.base
    c.rect(x - 25, y - 24, 50, 28, (182, 126, 92), (140, 94, 76))
    for dy in (-18, -11, -4):
        c.rect(x - 25, y + dy, 50, 1.4, (128, 84, 68))
    c.rect(x + 10, y - 50, 8, 16, (150, 120, 116))
    c.rect(x + 8, y - 52, 12, 4, (255, 255, 255), radius=2)
    c.polygon([(x - 32, y - 21), (x, y - 47), (x + 32, y - 21)], (118, 82, 74))
    c.polygon(
        [
            (x - 33, y - 23),
            (x, y - 51),
            (x + 33, y - 23),
            (x + 27, y - 23),
            (x, y - 42),
            (x - 27, y - 23),
        ],
        (255, 255, 255),
        (226, 238, 252),
    )
    c.rect(x - 5, y - 16, 11, 20, (110, 72, 62), radius=2)
    for dx in (-19, 10):
        c.rect(x + dx, y - 17, 10, 10, (170, 200, 224))
        layer.lamp.rect(x + dx, y - 17, 10, 10, WARM)
        layer.lamp.glow(x + dx + 5, y - 12, 22, 18, (255, 190, 100), 0.45)
