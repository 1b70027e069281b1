"""The snow forest: firs under snow, a cabin and blue mountains."""

from envs.stage.canvas import WARM, Canvas, Color, Layer, mix, placed
from envs.stage.looks import load_tables

_TABLES = load_tables("snow_forest", file="paintings/tables.toml")


def paint_snow_forest(far: Layer, mid: Layer, ground: Layer) -> None:
    """Paint firs under snow before blue mountains."""
    c = far.base
    for x, top, width in _TABLES["mountains"]:
        _mountain(c, x, top, width, 140)
    c.ridge(126, [(5, 2, 0.5), (3, 5, 1.0)], (176, 200, 224), (212, 226, 240))
    for i in range(20):
        x = i * 20 + (i * 7 % 5) * 2
        _fir(c, x, 140 + i % 3 * 2, 24 + (i * 5 % 4) * 5, 0.55)

    c = mid.base
    back = [(6.0, 2, 0.9), (3.0, 5, 2.0)]
    c.ridge(136, back, (232, 241, 252), (204, 222, 242))
    for x, size in _TABLES["firs"]:
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
        c.polygon(placed(_TABLES["rock"], x, 161, size), (142, 152, 180), (104, 114, 148))
        c.polygon(placed(_TABLES["rock_snow"], x, 161, size), (255, 255, 255), (232, 242, 253))
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
    for name, color, low in (
        ("mountain", (128, 158, 204), (178, 202, 228)),
        ("shadow", (98, 128, 184), (160, 186, 220)),
        ("snow", (252, 254, 255), (232, 241, 252)),
        ("shaded_snow", (206, 222, 244), (190, 210, 238)),
    ):
        c.polygon(placed(_TABLES[name], x, top, half, tall), color, low)


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
    c.polygon(placed(_TABLES["roof"], x, y), (118, 82, 74))
    c.polygon(placed(_TABLES["roof_snow"], x, y), (255, 255, 255), (226, 238, 252))
    c.rect(x - 5, y - 16, 11, 20, (110, 72, 62), radius=2)
    for dx in (-19, 10):
        c.rect(x + dx, y - 17, 10, 10, (170, 200, 224))
        layer.lamp.rect(x + dx, y - 17, 10, 10, WARM)
        layer.lamp.glow(x + dx + 5, y - 12, 22, 18, (255, 190, 100), 0.45)
