"""How the Stage character looks: the colours and cuts of its outfits, from looks.toml."""

import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

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


def load_tables(kind: str, *, file: str = "looks.toml") -> dict[str, Any]:
    """Return the tables of a kind in a file beside this one by their names, lists as tuples."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    return {name: _frozen(table) for name, table in tomllib.loads(text)[kind].items()}


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


LOOKS = {name: Look(**table) for name, table in load_tables("outfits").items()}
OUTFITS: tuple[str, ...] = tuple(LOOKS)


@lru_cache(maxsize=256)
def tone(color: Color, amount: float) -> Color:
    """Return a colour darkened (amount < 0, towards the outline) or lightened (towards white)."""
    end = OUTLINE if amount < 0.0 else (255, 255, 255)
    weight = abs(amount)
    red, green, blue = (round(c + (e - c) * weight) for c, e in zip(color, end, strict=True))
    return red, green, blue
