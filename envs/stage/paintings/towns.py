"""The city by day and the night city with its neon, painted once each."""

from envs.stage.canvas import WARM, Canvas, Color, Layer, mix
from envs.stage.looks import load_tables

_TABLES = load_tables("towns", file="paintings/tables.toml")
NEON: tuple[Color, ...] = _TABLES["neon"]


def paint_city(far: Layer, mid: Layer, ground: Layer) -> None:
    """Paint a street of shops before a skyline."""
    for i, (x, width, height) in enumerate(_TABLES["towers"]):
        tone = mix((120, 150, 196), (150, 172, 206), (i * 5 % 7) / 6)
        top = 152 - height
        far.base.rect(x, top, width, height + 10, tone, mix(tone, (206, 218, 230), 0.6))
        far.base.rect(x, top, width * 0.34, height + 10, (255, 255, 255, 34))
        if i % 4 == 1:
            far.base.rect(x + width / 2 - 1, top - 12, 2, 13, tone)
        for row in range(int(height // 16) - 1):
            for column in range(int(width // 12) - 1):
                wx, wy = x + 6 + column * 12, top + 8 + row * 16
                far.base.rect(wx, wy, 6, 8, mix(tone, (70, 100, 150), 0.3))
                if (row * 3 + column * 5 + i * 7) % 4 < 2:
                    far.lamp.rect(wx, wy, 6, 8, (255, 212, 140, 190))

    for i, (x, width, height, wall, awning) in enumerate(_TABLES["shops"]):
        _shop(mid, x, width, height, wall, awning, i)
    for x in (119, 350, 584, 796):
        mid.base.rect(x - 2, 128, 4, 26, (130, 96, 74))
        for dx, dy, r in ((0, 0, 15), (-8, 8, 10), (8, 8, 10), (-3, -5, 9)):
            light = 0.5 if r == 9 else 0.0
            mid.base.ellipse(
                x + dx,
                122 + dy,
                r,
                r,
                mix((104, 178, 96), (160, 216, 118), light),
                mix((72, 144, 84), (120, 190, 100), light),
            )

    c = ground.base
    c.rect(0, 150, 800, 32, (196, 198, 206), (222, 220, 222))
    c.rect(0, 150, 800, 3, (168, 170, 184))
    for x in range(0, 800, 50):
        c.polygon([(x, 153), (x + 1.6, 153), (x - 10, 178), (x - 12, 178)], (184, 184, 196))
    c.rect(0, 163, 800, 1.2, (190, 190, 200))
    c.rect(0, 177, 800, 3, (238, 236, 236))
    c.rect(0, 180, 800, 4, (150, 152, 166), (120, 122, 138))
    c.rect(0, 184, 800, 8, (92, 96, 112), (78, 82, 98))
    for x in range(20, 800, 100):
        c.rect(x, 188, 46, 3, (244, 222, 130))
    for x in (60, 260, 460, 660):
        _street_lamp(ground, x, 158, (74, 86, 104), WARM)
    for x in (150, 560):
        _bench(c, x, 159)
    c.rect(345, 146, 9, 14, (228, 76, 72), (186, 50, 56), radius=3)
    c.ellipse(349.5, 145, 5.5, 4, (240, 100, 90), (206, 64, 66))
    c.rect(342, 149, 15, 4, (240, 110, 96), (196, 58, 62), radius=2)
    c.rect(725, 134, 15, 18, (76, 128, 206), (50, 92, 168), radius=4)
    c.rect(728, 138, 9, 2, (30, 60, 120))
    c.rect(731, 151, 3, 9, (70, 80, 100))
    for x in (395, 415):
        c.polygon(
            [(x - 8, 148), (x + 8, 148), (x + 6, 160), (x - 6, 160)], (206, 126, 92), (166, 92, 72)
        )
        c.ellipse(x, 145, 10, 7, (112, 190, 96), (70, 146, 80))
        c.ellipse(x - 3, 142, 3, 2.6, (255, 130, 150))
        c.ellipse(x + 4, 144, 2.6, 2.4, (255, 214, 110))


def _shop(
    layer: Layer, x: float, width: float, height: float, wall: Color, awning: Color, kind: int
) -> None:
    c, top = layer.base, 152 - height
    c.rect(x, top, width, height + 4, mix(wall, (255, 255, 255), 0.14), wall)
    c.rect(
        x - 2,
        top - 4,
        width + 4,
        6,
        mix(wall, (255, 255, 255), 0.45),
        mix(wall, (120, 96, 96), 0.12),
    )
    c.rect(x + width - 6, top + 2, 6, height, (70, 50, 80, 26))
    glass, low_glass = (150, 192, 216), (190, 220, 228)
    count = 3 if width > 110 else 2
    rows = max(1, int((height - 52) // 26))
    for row in range(rows):
        for column in range(count):
            wx = x + width * (column + 0.5) / count - 8
            wy = top + 9 + row * 26
            c.rect(wx - 2, wy - 2, 20, 21, mix(wall, (255, 255, 255), 0.5))
            c.rect(wx, wy, 16, 17, glass, low_glass)
            if (row + column + kind) % 3 != 1:
                layer.lamp.rect(wx, wy, 16, 17, (255, 224, 160), (255, 190, 110))
                layer.lamp.glow(wx + 8, wy + 8, 20, 18, (255, 190, 110), 0.25)
    c.rect(x + 6, 113, width - 12, 38, mix(wall, (110, 90, 100), 0.3))
    c.rect(x + 9, 117, width - 42, 28, (132, 178, 204), (186, 218, 226), radius=1)
    layer.lamp.rect(x + 9, 117, width - 42, 28, (255, 230, 170), (255, 198, 120), radius=1)
    layer.lamp.glow(x + width / 2 - 12, 134, width * 0.5, 32, (255, 190, 110), 0.4)
    c.rect(x + width - 28, 117, 17, 34, mix(awning, (70, 50, 60), 0.35), radius=2)
    c.rect(x + width - 25, 121, 11, 14, glass, low_glass, radius=1)
    stripes = round((width - 4) / 12)
    step = (width - 4) / stripes
    for i in range(stripes):
        tone = awning if i % 2 == 0 else (250, 244, 236)
        sx = x + 2 + i * step
        c.rect(
            sx, 104, step + 0.4, 12, mix(tone, (255, 255, 255), 0.16), mix(tone, (60, 40, 70), 0.1)
        )
        c.ellipse(sx + step / 2, 116, step / 2, 3, mix(tone, (60, 40, 70), 0.12))


def _street_lamp(layer: Layer, x: float, y: float, metal: Color, light: Color) -> None:
    c = layer.base
    c.rect(x - 1.6, 84, 3.2, y - 84, mix(metal, (255, 255, 255), 0.2), metal)
    c.rect(x - 4, y - 7, 8, 8, metal, radius=2)
    c.stroke([(x, 86), (x + 4, 78), (x + 13, 75)], 3, metal)
    c.polygon([(x + 8, 75), (x + 20, 75), (x + 24, 81), (x + 6, 81)], metal)
    c.ellipse(x + 15, 81.5, 7, 2.6, (250, 244, 214))
    layer.lamp.ellipse(x + 15, 81.5, 7, 2.8, (255, 246, 214))
    layer.lamp.glow(x + 15, 84, 30, 30, light, 0.6)
    layer.lamp.polygon(
        [(x + 8, 82), (x + 22, 82), (x + 42, 160), (x - 12, 160)], (*light[:3], 50), (*light[:3], 0)
    )
    layer.lamp.glow(x + 15, 164, 46, 11, light, 0.42)


def _bench(c: Canvas, x: float, y: float) -> None:
    for dx in (4, 40):
        c.rect(x + dx, y - 16, 3, 16, (74, 80, 96))
    for dy in (-19, -14, -8):
        c.rect(x, y + dy, 47, 3.6, (206, 142, 92), (168, 106, 70), radius=1.5)


def paint_night_city(far: Layer, mid: Layer, ground: Layer) -> None:
    """Paint a street of neon signs that mirror in wet asphalt."""
    for i, (x, width, height) in enumerate(_TABLES["towers"]):
        tall = height * 1.05
        tone = mix((50, 44, 110), (74, 54, 130), (i * 5 % 7) / 6)
        far.base.rect(x, 152 - tall, width, tall + 10, tone, (112, 70, 150))
        far.base.rect(x, 152 - tall, width * 0.3, tall + 10, (150, 130, 230, 26))
        for row in range(int(tall // 16) - 1):
            for column in range(int(width // 12) - 1):
                if (row * 3 + column * 5 + i * 7) % 4 < 2:
                    glass = ((255, 214, 140), (140, 210, 255), (255, 150, 200))[(i + row) % 3]
                    far.lamp.rect(x + 6 + column * 12, 160 - tall + row * 16, 6, 8, (*glass, 190))
        if i % 3 == 0:
            far.lamp.rect(x + 2, 151 - tall, width - 4, 2, NEON[i % 6])
            far.lamp.glow(x + width / 2, 152 - tall, width * 0.7, 12, NEON[i % 6], 0.5)

    for i, (x, width, height) in enumerate(_TABLES["blocks"]):
        _neon_block(mid, x, width, height, i)

    c = ground.base
    c.rect(0, 150, 800, 42, (58, 50, 104), (30, 28, 66))
    c.rect(0, 150, 800, 2.5, (110, 92, 168))
    c.rect(0, 164, 800, 14, (52, 48, 98), (44, 42, 88))
    c.rect(0, 178, 800, 3, (116, 100, 176), (80, 70, 134))
    c.rect(0, 181, 800, 11, (34, 32, 72), (24, 22, 54))
    for i, x in enumerate((40, 130, 215, 300, 400, 480, 590, 680, 760)):
        tone = NEON[(i * 2 + i // 3) % 6]
        ground.lamp.glow(x, 158, 34, 10, tone, 0.5)
        ground.lamp.glow(x + 4, 168, 20, 24, tone, 0.34)
        ground.lamp.glow(x + 2, 187, 30, 7, tone, 0.55)
    for x, y, size in ((90, 173, 26), (350, 174, 34), (640, 173, 28)):
        c.ellipse(x, y, size, 2.6, (96, 92, 170), (70, 66, 140))
    for x, light in ((90, NEON[1]), (290, NEON[0]), (490, NEON[1]), (690, NEON[0])):
        _street_lamp(ground, x, 158, (66, 60, 116), light)
    for x, tone in ((180, NEON[4]), (555, NEON[5])):
        c.rect(x, 124, 22, 36, (64, 56, 120), (44, 38, 92), radius=2)
        ground.lamp.rect(x + 3, 127, 16, 18, mix(tone, (255, 255, 255), 0.35), tone, radius=1)
        ground.lamp.rect(x + 3, 149, 16, 4, mix(tone, (40, 30, 80), 0.4), radius=1)
        ground.lamp.glow(x + 11, 138, 28, 30, tone, 0.35)
    c.rect(395, 143, 13, 17, (74, 66, 126), (48, 42, 96), radius=2)
    c.rect(393, 141, 17, 4, (98, 88, 156), radius=2)


def _neon_block(layer: Layer, x: float, width: float, height: float, kind: int) -> None:
    c, shine, top = layer.base, layer.lamp, 152 - height
    wall = mix((50, 42, 96), (70, 50, 112), kind * 3 % 5 / 4)
    first, second = NEON[kind % 6], NEON[(kind * 2 + 3) % 6]
    c.rect(x, top, width, height + 4, mix(wall, (130, 110, 200), 0.12), wall)
    c.rect(x - 1, top - 3, width + 2, 5, mix(wall, (150, 130, 220), 0.3))
    c.rect(x + width - 5, top, 5, height + 4, (20, 14, 50, 110))
    for row in range(max(1, int((height - 52) // 24))):
        for column in range(3):
            wx, wy = x + 10 + column * (width - 46) / 3, top + 9 + row * 24
            c.rect(wx, wy, 14, 15, (36, 34, 82))
            if (row * 2 + column + kind) % 3 != 0:
                tone = (255, 206, 130) if (row + column + kind) % 2 else (130, 190, 255)
                shine.rect(wx, wy, 14, 15, (*mix(tone, wall, 0.1), 255), mix(tone, wall, 0.4))
    c.rect(x + 7, 116, width - 14, 36, (34, 28, 74))
    shine.rect(
        x + 10,
        120,
        width - 44,
        27,
        mix(first, (255, 240, 230), 0.55),
        mix(first, wall, 0.35),
        radius=1,
    )
    c.rect(x + width - 29, 120, 18, 32, mix(wall, (20, 16, 50), 0.4), radius=1)
    shine.rect(x + width - 26, 123, 12, 12, mix(second, wall, 0.35), radius=1)
    shine.glow(x + width / 2 - 10, 134, width * 0.55, 34, first, 0.42)
    c.rect(x + 5, 105, width - 38, 12, (30, 24, 68), radius=2)
    _tube(layer, x + 8, 106.5, x + width - 36, 115.5, first)
    for i in range(4):
        size = (width - 56) / 4
        shine.rect(
            x + 13 + i * size, 109.4, size * 0.66, 3.4, mix(first, (255, 255, 255), 0.6), radius=1.5
        )
    sx, sy = x + width - 26, top + 10
    tall = height - 58
    c.rect(sx, sy, 18, tall, (30, 24, 68), radius=3)
    _tube(layer, sx + 1, sy + 1, sx + 17, sy + tall - 1, second)
    for i in range(max(1, int((tall - 6) // 13))):
        cy = sy + 9 + i * 13
        if (i + kind) % 3 == 0:
            shine.ellipse(sx + 9, cy, 4.4, 4.4, mix(second, (255, 255, 255), 0.5))
        elif (i + kind) % 3 == 1:
            shine.polygon(
                [(sx + 9, cy - 5), (sx + 14, cy + 4), (sx + 4, cy + 4)],
                mix(first, (255, 255, 255), 0.5),
            )
        else:
            shine.rect(sx + 5, cy - 4, 8, 8, mix(second, (255, 255, 255), 0.5), radius=2)
    shine.glow(sx + 9, sy + tall / 2, 26, tall * 0.8, second, 0.4)


def _tube(layer: Layer, left: float, top: float, right: float, bottom: float, color: Color) -> None:
    points = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    layer.lamp.stroke(points, 3.0, (*color[:3], 110))
    layer.lamp.stroke(points, 1.8, mix(color, (255, 255, 255), 0.3))
