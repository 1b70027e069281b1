"""Nothing that stands over the picture lies over something else, at any size of the window."""

from itertools import combinations

import numpy as np
import pygame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.play.game.playable import TeacherLink
from envs.play.window.layout import Plate, arrange
from tests.fakes import CountingEnv
from tests.test_compare import MarkedEnv
from tests.windows import playing, press, press_until, run_until

SIZES = ((320, 192), (321, 200), (480, 270), (640, 384), (400, 800), (960, 576), (1280, 768))

plates_of_any_size = st.lists(
    st.tuples(
        st.integers(1, 900),
        st.integers(1, 500),
        st.sampled_from(("top", "bottom")),
        st.sampled_from(("left", "center", "right")),
    ),
    max_size=9,
)


def check(rects: dict[str, pygame.Rect], area: pygame.Rect) -> None:
    for name, rect in rects.items():
        assert area.contains(rect), (name, rect, area)
    for (name, rect), (other, its_rect) in combinations(rects.items(), 2):
        assert not rect.colliderect(its_rect), (name, rect, other, its_rect)


@given(plates_of_any_size, st.sampled_from(SIZES), st.integers(0, 150))
def test_plates_of_any_size_never_meet(sizes, size, middle):
    plates = [
        Plate(name=str(number), picture=pygame.Surface((w, h)), edge=edge, side=side)
        for number, (w, h, edge, side) in enumerate(sizes)
    ]
    area = pygame.Rect((0, 0), size)
    layout = arrange(area, plates, middle=middle)
    check(layout.rects, area)
    assert layout.free.height >= min(middle, area.height - 12)
    assert not any(layout.free.colliderect(rect) for rect in layout.rects.values())


def test_the_first_plate_is_there_and_the_last_is_left_out():
    plates = [Plate(name=name, picture=pygame.Surface((200, 80)), edge="bottom") for name in "abc"]
    assert set(arrange(pygame.Rect(0, 0, 320, 192), plates).rects) == {"a", "b"}


@pytest.mark.parametrize("is_split", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_all_that_a_window_can_show_lies_apart(size, is_split, here):
    link = TeacherLink(make=MarkedEnv, start=lambda: {"mark": np.array(1)})
    with playing(CountingEnv(), fps=50, teacher=link) as (window, session):
        window._surface = pygame.display.set_mode(size, pygame.RESIZABLE)
        if is_split:
            press_until(window, session, pygame.K_F2, lambda: window._drawn_pair is not None)
        wanted = {"score", "message", "recording", "bookmarks"}
        session.recording.error = "the disk is full"
        for key in (pygame.K_F4, *[pygame.K_b] * 9, pygame.K_h, pygame.K_F3):
            press(key)
        run_until(window, session, lambda: len(session.past.bookmarks.shown) == 9)
        session.message = "some words that are long enough to be told on more than one line " * 2
        shown: set[str] = set()
        for key in (pygame.K_F1, pygame.K_F1, pygame.K_F3, pygame.K_t, pygame.K_ESCAPE, pygame.K_p):
            drawn = window._drawn_at
            window._is_dirty = True
            run_until(window, session, lambda since=drawn: window._drawn_at > since)
            rects = window.layout.rects
            check(rects, window._surface.get_rect())
            shown |= set(rects)
            if "trace" in rects:
                assert rects["trace"].height >= 24
                assert rects["left"].right < rects["right"].left
                assert rects["left"].size == rects["right"].size
                assert min(rects["left"].size) > 20
            press(key)
        if size >= (960, 576):
            assert shown >= wanted | {"measurements", "keys"}
        else:
            assert {"message", "keys"} <= shown
        assert is_split == ("trace" in shown)
