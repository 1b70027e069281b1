"""Text as pictures: whatever a player types, in a font that has its letters where there is one."""

from functools import lru_cache

import pygame

TEXT_COLOR = (240, 240, 235)
_LEAST_SIZE = 12

# Families that bring scripts which pygame's own font lacks.
_OTHER_FONTS = (
    "notosanscjksc,notosanscjkjp,notosanscjk,wenquanyizenhei,microsoftyahei,pingfang,hiraginosans",
    "notosans,dejavusans,arialunicodems,segoeui,arial,freesans",
    "notosansarabic,notosanshebrew,notosansdevanagari,notosansthai,unifont",
)


def letter_size(window: tuple[int, int]) -> int:
    """Return how large letters are in a window of (width, height) px."""
    return min(max(window[0] // 34, 15), max(window[1] // 20, 15), 60)


def font(size: int, family: str | None = None) -> pygame.font.Font:
    """Return the letters of a size in px."""
    known = _opened(size, family)
    try:
        known.get_height()
    except pygame.error:  # somebody quit pygame meanwhile, as environments of Gymnasium's own do
        _opened.cache_clear()
        return _opened(size, family)
    return known


@lru_cache(maxsize=64)
def _opened(size: int, family: str | None) -> pygame.font.Font:
    pygame.font.init()  # may be called often
    return pygame.font.Font(family, size)


def written(
    text: str, size: int, *, color: tuple[int, int, int] = TEXT_COLOR, width: int = 0
) -> pygame.Surface:
    """Return a text as a picture, without what is no letter; lines break at a width, if any."""
    text = "".join(letter for letter in text if letter.isprintable())
    return _font_of(text, size).render(text, True, color, wraplength=max(0, width))


def width_of(text: str, size: int) -> int:
    """Return how wide a line of text is, px."""
    return _font_of(text, size).size(text)[0]


def fitted(
    text: str, size: int, *, width: int, color: tuple[int, int, int] = TEXT_COLOR
) -> pygame.Surface:
    """Return a text in one line no wider than a width in px: in smaller letters, or else cut."""
    least = max(_LEAST_SIZE, round(0.7 * size))
    while size > least and width_of(text, size) > width:
        size -= 1
    if width_of(text, size) > width:
        while text and width_of(f"{text}...", size) > width:
            text = text[:-1]
        text = f"{text}..."
    return written(text, size, color=color)


def _font_of(text: str, size: int) -> pygame.font.Font:
    own = font(size)
    if text.isascii() or _has_all(own, text):
        return own
    for names in _OTHER_FONTS:
        path = _installed(names)
        if path is not None and _has_all(font(size, path), text):
            return font(size, path)
    return own


@lru_cache(maxsize=8)
def _installed(names: str) -> str | None:
    return pygame.font.match_font(names)


def _has_all(letters: pygame.font.Font, text: str) -> bool:
    return all(metrics is not None for metrics in letters.metrics(text))
