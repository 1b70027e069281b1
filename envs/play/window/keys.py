"""Names of keys: by their place on the keyboard for playing, by what they say for commands.

A layout moves letters about, or has others: a French A lies where others have Q, a Russian keyboard
says no P at all. Fingers that play know places; who is told "P pauses" looks for a P.
"""

import string

import pygame

# USB's numbers for places, which SDL uses: the letters' and digits' on a US keyboard.
_PLACES = {4 + index: letter for index, letter in enumerate(string.ascii_lowercase)}
_PLACES |= {30 + index: digit for index, digit in enumerate("1234567890")}


def place_of(event: pygame.Event) -> str:
    """Return what a key that went down or up is called where it lies, on a US keyboard."""
    return _PLACES.get(event.scancode) or pygame.key.name(event.key)


def meaning_of(event: pygame.Event) -> str:
    """Return what a key says; where that is no Latin letter, digit or word, its place."""
    name = pygame.key.name(event.key)
    is_plain = name.isascii() and (name.isalnum() or len(name) > 1)
    return name if is_plain else place_of(event)
