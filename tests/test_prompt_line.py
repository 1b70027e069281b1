"""The line that prompts are typed into, key by key."""

import pygame
import pytest

from envs.play.window.letters import written
from envs.play.window.prompt_line import PromptLine

SHIFT, CTRL = pygame.KMOD_SHIFT, pygame.KMOD_CTRL


@pytest.fixture
def line(monkeypatch):
    pygame.display.init()
    pygame.display.set_mode((320, 192))
    clipboard = [""]
    monkeypatch.setattr(pygame.scrap, "put_text", lambda text: clipboard.__setitem__(0, text))
    monkeypatch.setattr(pygame.scrap, "get_text", lambda: clipboard[0])
    line = PromptLine()
    line.open("a beach at noon")
    yield line
    pygame.display.quit()


def hit(line: PromptLine, key: int, mod: int = 0) -> str | None:
    return line.handle(pygame.Event(pygame.KEYDOWN, key=key, mod=mod))


def put(line: PromptLine, text: str) -> None:
    line.handle(pygame.Event(pygame.TEXTINPUT, text=text))


def test_letters_go_in_at_the_cursor(line):
    hit(line, pygame.K_LEFT, CTRL)
    put(line, "high ")
    hit(line, pygame.K_HOME)
    hit(line, pygame.K_DELETE)
    put(line, "A")
    hit(line, pygame.K_RIGHT, CTRL)
    hit(line, pygame.K_BACKSPACE, CTRL)
    assert line.text == "A  at high noon"
    assert line.cursor == 2


def test_a_selection_is_typed_over_copied_cut_and_pasted(line):
    hit(line, pygame.K_LEFT, CTRL | SHIFT)
    assert line.selection == "noon"
    hit(line, pygame.K_x, CTRL)
    assert line.text == "a beach at "
    put(line, "midnight, ")
    hit(line, pygame.K_v, CTRL)
    assert line.text == "a beach at midnight, noon"
    hit(line, pygame.K_a, CTRL)
    hit(line, pygame.K_c, CTRL)
    put(line, "x")
    hit(line, pygame.K_v, CTRL)
    assert line.text == "xa beach at midnight, noon"


def test_earlier_lines_come_back(line):
    assert hit(line, pygame.K_RETURN) == "a beach at noon"
    line.open()
    put(line, "rain")
    assert hit(line, pygame.K_KP_ENTER) == "rain"
    line.open()
    shown = []
    for key in (pygame.K_UP, pygame.K_UP, pygame.K_UP, pygame.K_DOWN, pygame.K_DOWN):
        hit(line, key)
        shown.append(line.text)
    assert shown == ["rain", "a beach at noon", "a beach at noon", "rain", ""]


def test_escape_closes_and_a_line_that_is_too_long_takes_no_more(line):
    put(line, "x" * 400)
    assert line.text == "a beach at noon"
    hit(line, pygame.K_ESCAPE)
    assert not line.is_open


def test_the_cursor_stays_in_sight_and_any_letters_are_drawn(line):
    surface = pygame.Surface((320, 192))
    for text in ("пляж на закате", "海辺の夕焼け", "half \ud800 and \0", "long " * 50):
        put(line, text)
        surface.fill((0, 0, 0))
        line.draw(surface)
        columns = pygame.surfarray.array3d(surface)[:, 174:182].min(axis=(1, 2))
        assert columns.max() == 255  # the cursor
    assert written("\0\ud800", 20).get_width() <= 1


def test_letters_outlive_others_who_quit_pygame():
    size = written("words", 20).get_size()
    pygame.font.quit()
    pygame.font.init()  # as a new window does
    assert written("words", 20).get_size() == size
    pygame.font.quit()
    assert written("words", 20).get_size() == size
