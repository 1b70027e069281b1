"""Sprites stay in their boxes, loop, and show what the game says."""

from collections.abc import Callable

import numpy as np
import pygame
import pytest

from envs.stage import sprites

BACKDROP = (40, 80, 120)
DAY = (255, 255, 255)


def drawn(draw: Callable[[pygame.Surface], None]) -> np.ndarray:
    """Return the (192, 320, 3) picture after draw on a plain backdrop."""
    surface = pygame.Surface((320, 192), 0, 32)
    surface.fill(BACKDROP)
    draw(surface)
    return pygame.surfarray.array3d(surface).swapaxes(0, 1)


def box(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of what was drawn; the last two are exclusive."""
    rows, columns = np.nonzero((picture != BACKDROP).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def test_rocks_differ() -> None:
    pictures = {
        drawn(lambda s, v=v: sprites.draw_rock(s, 160, 168, light=DAY, variant=v)).tobytes()
        for v in range(sprites.NUM_ROCKS)
    }
    assert len(pictures) == sprites.NUM_ROCKS


def test_fire_stays_in_its_glow_and_loops() -> None:
    pictures = [drawn(lambda s, i=i: sprites.draw_fire(s, 160, 168, step=i)) for i in range(9)]
    for picture in pictures:
        left, top, right, bottom = box(picture)
        assert 138 <= left < right <= 182
        assert 126 <= top < bottom <= 172
    np.testing.assert_array_equal(pictures[0], pictures[8])
    assert len({picture.tobytes() for picture in pictures}) == 8


@pytest.mark.parametrize("hearts", [0, 1, 2])
def test_each_heart_is_visible(hearts: int) -> None:
    fewer = drawn(lambda s: sprites.draw_hearts(s, hearts, 3)).astype(int)
    more = drawn(lambda s: sprites.draw_hearts(s, hearts + 1, 3)).astype(int)
    left, top, right, bottom = box(fewer)
    assert 8 <= left < right <= 8 + 3 * 15 + 2 * 4
    assert 8 <= top < bottom <= 22
    changed = np.abs(more - fewer).max(axis=2) > 60
    columns = np.nonzero(changed.any(axis=0))[0]
    assert changed.sum() > 60
    assert 8 + hearts * 19 <= columns.min() <= columns.max() < 8 + hearts * 19 + 15
