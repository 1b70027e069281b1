"""A line that the player types a prompt into: cursor, selection, the clipboard, earlier lines."""

import pygame

from envs.play.window.hud import PADDING, SHADE
from envs.play.window.letters import font, letter_size, width_of, written

_SELECTED_COLOR = (70, 90, 150)
_MAX_BYTES = 300
_ASKS = "the world shows: "


class PromptLine:
    """A line that the player types a prompt into."""

    def __init__(self) -> None:
        self.is_open = False
        self.text = ""
        self.cursor = 0
        self._anchor = 0  # where a selection began; the cursor's own place if there is none
        self._history: list[str] = []
        self._place = 0

    def open(self, text: str = "") -> None:
        """Start typing, from a text."""
        self.is_open = True
        self._show(text)
        self._place = len(self._history)
        pygame.key.start_text_input()

    def close(self) -> None:
        """Stop typing."""
        self.is_open = False
        pygame.key.stop_text_input()

    @property
    def selection(self) -> str:
        """The letters that are selected."""
        first, last = sorted((self.cursor, self._anchor))
        return self.text[first:last]

    def handle(self, event: pygame.Event) -> str | None:
        """Take an event and return the finished text once Enter is pressed; Esc closes."""
        if event.type == pygame.TEXTINPUT:
            self._insert(event.text)
        elif event.type == pygame.KEYDOWN:
            if event.key in (pygame.K_RETURN, pygame.K_KP_ENTER):
                self.close()
                return self._finish()
            if event.key == pygame.K_ESCAPE:
                self.close()
            elif event.mod & (pygame.KMOD_CTRL | pygame.KMOD_META) and self._shortcut(event.key):
                pass
            elif event.key in (pygame.K_BACKSPACE, pygame.K_DELETE):
                self._delete(event)
            elif event.key in (pygame.K_UP, pygame.K_DOWN):
                self._recall(-1 if event.key == pygame.K_UP else 1)
            else:
                self._move(event)
        return None

    def height(self, surface: pygame.Surface) -> int:
        """Return how much of a surface's lower edge the line takes, px."""
        return font(letter_size(surface.get_size())).get_linesize() + 2 * PADDING

    def draw(self, surface: pygame.Surface) -> None:
        """Draw the line on a dark band along the lower edge; the cursor stays in sight."""
        width, height = surface.get_size()
        size = letter_size((width, height))
        line = font(size).get_linesize()
        band = pygame.Surface((width, line + 2 * PADDING), pygame.SRCALPHA)
        band.fill(SHADE)
        ask = width_of(_ASKS, size)
        first, last, cursor = (
            ask + width_of(self.text[:place], size)
            for place in (*sorted((self.cursor, self._anchor)), self.cursor)
        )
        left = min(PADDING, width - 2 * PADDING - cursor)
        if last > first:
            band.fill(_SELECTED_COLOR, (left + first, PADDING, last - first, line))
        band.blit(written(_ASKS + self.text, size), (left, PADDING))
        band.fill((255, 255, 255), (left + cursor, PADDING, 2, line))
        surface.blit(band, (0, height - band.get_height()))

    def _finish(self) -> str:
        text = self.text.strip()
        if text and text not in self._history[-1:]:
            self._history.append(text)
        return text

    def _show(self, text: str) -> None:
        self.text = text
        self.cursor = self._anchor = len(text)

    def _insert(self, text: str) -> None:
        text = "".join(letter for letter in text if letter.isprintable())
        first, last = sorted((self.cursor, self._anchor))
        new = self.text[:first] + text + self.text[last:]
        if len(new.encode()) <= _MAX_BYTES:
            self.text = new
            self.cursor = self._anchor = first + len(text)

    def _shortcut(self, key: int) -> bool:
        """Select all, copy, cut or paste; return whether the key does one of these."""
        if key == pygame.K_a:
            self._anchor, self.cursor = 0, len(self.text)
        elif key in (pygame.K_c, pygame.K_x):
            if self.selection:
                pygame.scrap.put_text(self.selection)
            if key == pygame.K_x:
                self._insert("")
        elif key == pygame.K_v:
            self._insert(" ".join(pygame.scrap.get_text().split()))
        else:
            return False
        return True

    def _delete(self, event: pygame.Event) -> None:
        """Delete the selection, or a letter or, with Ctrl, a word beside the cursor."""
        if not self.selection:
            is_back = event.key == pygame.K_BACKSPACE
            by_word = bool(event.mod & pygame.KMOD_CTRL)
            self._anchor = self._beside(-1 if is_back else 1, by_word=by_word)
        self._insert("")

    def _move(self, event: pygame.Event) -> None:
        by_word = bool(event.mod & pygame.KMOD_CTRL)
        if event.key in (pygame.K_LEFT, pygame.K_RIGHT):
            self.cursor = self._beside(-1 if event.key == pygame.K_LEFT else 1, by_word=by_word)
        elif event.key in (pygame.K_HOME, pygame.K_END):
            self.cursor = 0 if event.key == pygame.K_HOME else len(self.text)
        else:
            return
        if not event.mod & pygame.KMOD_SHIFT:
            self._anchor = self.cursor

    def _beside(self, direction: int, *, by_word: bool) -> int:
        """Return the place one letter or word before the cursor, or after it."""
        place = self.cursor
        if not by_word:
            return min(max(place + direction, 0), len(self.text))
        if direction < 0:
            return self.text[:place].rstrip().rfind(" ") + 1
        after = self.text[place:]
        start = len(after) - len(after.lstrip())
        end = after.find(" ", start)
        return len(self.text) if end < 0 else place + end

    def _recall(self, direction: int) -> None:
        """Show the line typed before or after the present one."""
        self._place = min(max(self._place + direction, 0), len(self._history))
        self._show(self._history[self._place] if self._place < len(self._history) else "")
