"""How the Stage character looks: the colours and cuts of its outfits. No drawing here."""

from dataclasses import dataclass
from functools import lru_cache

Color = tuple[int, int, int]
Point = tuple[float, float]

OUTLINE: Color = (30, 22, 46)


@dataclass(frozen=True, kw_only=True)
class Look:
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


LOOKS: dict[str, Look] = {
    "red jacket": Look(
        top=(226, 48, 52),
        trim=(255, 240, 225),
        legs=(44, 62, 118),
        shoes=(245, 245, 250),
        skin=(250, 200, 160),
        hair=(104, 58, 34),
        style="short",
    ),
    "blue hoodie": Look(
        top=(42, 122, 232),
        trim=(150, 205, 255),
        legs=(196, 168, 122),
        shoes=(255, 128, 40),
        skin=(202, 140, 96),
        hair=(34, 28, 36),
        style="spiky",
    ),
    "green coat": Look(
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
    "yellow raincoat": Look(
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
    "purple dress": Look(
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
    "white suit": Look(
        top=(244, 246, 252),
        trim=(24, 178, 190),
        legs=(226, 230, 242),
        shoes=(60, 60, 76),
        skin=(136, 86, 58),
        hair=(22, 20, 28),
        style="curly",
    ),
}
OUTFITS: tuple[str, ...] = tuple(LOOKS)


@lru_cache(maxsize=256)
def tone(color: Color, amount: float) -> Color:
    """Return a colour darkened (amount < 0, towards the outline) or lightened (towards white)."""
    end = OUTLINE if amount < 0.0 else (255, 255, 255)
    weight = abs(amount)
    red, green, blue = (round(c + (e - c) * weight) for c, e in zip(color, end, strict=True))
    return red, green, blue
