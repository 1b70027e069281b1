"""The window: shows the newest frame, reads keys and gamepads, and writes over the picture.

It never waits for a step: a session's thread makes the frames. It opens before anything is loaded.
"""

import time

import pygame

from envs.picture import draw_frame
from envs.play.game.compare import Pair
from envs.play.game.inputs import Inputs
from envs.play.game.loading import Loading
from envs.play.game.moments import View
from envs.play.game.samples import Samples
from envs.play.game.session import Session
from envs.play.game.settings import MAX_VOLUME, SettingsFile
from envs.play.window import hud, panels
from envs.play.window.attract import Attract
from envs.play.window.keys import meaning_of, place_of
from envs.play.window.overlays import (
    draw_past,
    draw_preparation,
    draw_recording,
    measurement_lines,
)
from envs.play.window.pads import Pads
from envs.play.window.prompt_line import PromptLine
from envs.play.window.scoreboard import Flashes, draw_score, first_keys
from envs.play.window.screens import Screens
from envs.play.window.screenshots import save_screenshot

_START_SIZE = (960, 576)
_DRAW_PERIOD_S = 1 / 60
_WAIT_MS = 10
_IDLE_PERIOD_S = 0.25
_MESSAGE_S = 5.0
_FIRST_KEYS_S = 10.0
_DIGITS = frozenset("123456789")
_SAY = '"'  # before words that the character is to say
_LOUDER, _QUIETER = frozenset({"=", "+", "[+]"}), frozenset({"-", "[-]"})
# Beside the teacher the measurements have this place of their own, where the window is large.
_MEASUREMENTS_HEIGHT = 220


class Window:
    """A resizable window on a session.

    Args:
        title: Shown on top and while loading.
        loading: How far loading has come.
        settings: The player's; None keeps none.

    Raises:
        pygame.error: There is no display.
    """

    # Where lists of lines end, in px over the lower edge.
    _lines_above = 3 * hud.MARGIN

    def __init__(
        self,
        title: str,
        *,
        loading: Loading | None = None,
        settings: SettingsFile | None = None,
    ) -> None:
        self._title = title
        self._loading = loading or Loading()
        self._settings = settings or SettingsFile(None)
        pygame.display.init()
        pygame.font.init()
        pygame.display.set_caption(title)
        self._surface = pygame.display.set_mode(_START_SIZE, pygame.RESIZABLE)
        self._opened_at = time.perf_counter()
        self.inputs = Inputs()
        self.latencies = Samples()
        self._pads, self._prompt = Pads(self.inputs), PromptLine()
        self._screens = Screens(
            self._settings, apply=self._apply_settings, show_keys=self._toggle_keys
        )
        self._attract = Attract()
        self._flashes = Flashes()
        self._max_lives = 0
        self._first_view_at: float | None = None
        self._is_flashing = False
        self._new_view_event = pygame.event.custom_type()
        self._shows_keys = False
        self._shows_measurements = False
        self._drawn: View | None = None
        self._drawn_pair: Pair | None = None
        self._drawn_at = 0.0
        self._is_dirty = True
        self._message = ""
        self._message_until = 0.0
        self._is_fullscreen = False
        self._apply_settings()
        if self._settings.problem:
            self._say(self._settings.problem)
        hud.draw_loading(self._surface, title, 0.0)
        pygame.display.flip()
        pygame.key.stop_text_input()

    def notify(self) -> None:
        """Wake the window from another thread: there is something new to show."""
        pygame.event.post(pygame.Event(self._new_view_event))

    def run(self, session: Session) -> None:
        """Show a session until the player quits or it fails; the session is closed then."""
        try:
            while session.status != "failed" and self.run_once(session):
                pass
        finally:
            session.close()

    def run_once(self, session: Session) -> bool:
        """Handle what has happened and draw if there is something new; False at the end."""
        events = [pygame.event.wait(_WAIT_MS), *pygame.event.get()]
        answers = [self._handle(event, session) for event in events]
        if session.message:
            self._say(session.message)
            session.message = ""
        preparation = session.playable.preparation if session.playable else None
        if preparation is not None and (end := preparation.take_end()):
            self._say(end)
        if not self._is_film(session):
            is_busy = self._prompt.is_open or (
                self._screens.menu is not None and session.status != "over"
            )
            self._attract.follow(session, is_busy=is_busy)
            if not self._attract.is_on:
                self._screens.follow(session)
        now = time.perf_counter()
        since_drawn = now - self._drawn_at
        is_idle = (
            session.status == "loading"
            or self._shows_measurements
            or self._message
            or self._is_flashing
            or (preparation is not None and preparation.words)
        )
        if is_idle and since_drawn >= (
            0.03 if session.status == "loading" or self._is_flashing else _IDLE_PERIOD_S
        ):
            self._is_dirty = True
        if self._has_news(session) and since_drawn >= _DRAW_PERIOD_S:
            self._draw(session, now)
        return all(answers) and not self._screens.quits

    def close(self) -> None:
        """Close the window; may be called twice."""
        self._pads.close()
        pygame.display.quit()

    def _is_film(self, session: Session) -> bool:
        """Return whether a film is shown, and nothing is played."""
        return False

    def _handle(self, event: pygame.Event, session: Session) -> bool:
        """Change what an event asks for; return False if it asks to quit."""
        if event.type == pygame.QUIT:
            return False
        if event.type in (pygame.VIDEORESIZE, pygame.WINDOWEXPOSED):
            self._surface = pygame.display.get_surface() or self._surface
            self._is_dirty = True
        elif event.type == pygame.WINDOWFOCUSLOST:
            self.inputs.release_all()
            session.stop_rewind()
        elif event.type == pygame.KEYUP:
            self.inputs.release(place_of(event))
            if event.key == pygame.K_BACKSPACE:
                session.stop_rewind()
        elif self._attract.notice(event, session):
            self._is_dirty = True
        elif self._is_fullscreen_key(event):
            self._settings.change(is_fullscreen=not self._is_fullscreen)
            self._apply_settings()
        elif button := self._pads.handle(event):
            if not self._prompt.is_open:
                self._command("return" if button == "start" else "p", session)
        elif self._prompt.is_open:
            self._type(event, session)
        elif self._screens.handle(event):
            self._is_dirty = True
        elif event.type == pygame.KEYDOWN:
            return self._press(event, session)
        return True

    def _is_fullscreen_key(self, event: pygame.Event) -> bool:
        if event.type != pygame.KEYDOWN:
            return False
        is_enter = event.key in (pygame.K_RETURN, pygame.K_KP_ENTER)
        return event.key == pygame.K_F11 or (is_enter and bool(event.mod & pygame.KMOD_ALT))

    def _apply_settings(self) -> None:
        """Let the window and what it listens to be as the player wants."""
        settings = self._settings.settings
        if settings.is_fullscreen != self._is_fullscreen:
            self._is_fullscreen = settings.is_fullscreen
            size, flag = (
                ((0, 0), pygame.FULLSCREEN)
                if self._is_fullscreen
                else (_START_SIZE, pygame.RESIZABLE)
            )
            self._surface = pygame.display.set_mode(size, flag)
        self.inputs.bind(settings.keys)
        if settings.uses_pads:
            self._pads.open()
        else:
            self._pads.close()
        self._is_dirty = True

    def _toggle_keys(self) -> None:
        self._shows_keys = not self._shows_keys
        self._is_dirty = True

    def _type(self, event: pygame.Event, session: Session) -> None:
        text = self._prompt.handle(event)
        if text is not None and text.startswith(_SAY):
            actions = session.playable.keymap.actions if session.playable is not None else ()
            self._say(session.voices.say_or_tell(text.strip(_SAY), actions))
        elif text is not None:
            session.set_prompt(text or None)
        self._is_dirty = True

    def _press(self, event: pygame.Event, session: Session) -> bool:
        if event.key == pygame.K_ESCAPE:
            if session.status == "loading":
                return False
            self._screens.open_main(session)
            self._is_dirty = True
            return True
        place, name = place_of(event), meaning_of(event)
        if name == "r" and event.mod & pygame.KMOD_SHIFT:
            name = "shift r"
        # A key map may use letters that are commands here: the game has them, Ctrl reaches these.
        is_game_key = self.inputs.is_game_key(place) and not event.mod & pygame.KMOD_CTRL
        if is_game_key or not self._command(name, session):
            self.inputs.press(place)
        return True

    def _command(self, name: str, session: Session) -> bool:
        """Obey a command key; return whether it is one."""
        if name in ("return", "enter"):
            if session.status == "over":
                session.reset()
            elif session.status == "paused":
                session.toggle_pause()
        elif name == "r":
            self._screens.ask_again(session)
        elif name == "g":
            session.fly(session.pilot is not None and not session.pilot.is_flying)
        elif name == "shift r":
            session.reset_to_next_start()
        elif name == "p":
            session.toggle_pause()
        elif name == "n":
            session.single_step()
        elif name == "t":
            self.inputs.release_all()
            self._prompt.open(session.prompt or "")
        elif name == "f12":
            if session.view is not None:
                self._say(save_screenshot(session.view.frame))
        elif name == "backspace":
            session.start_rewind()
        elif name == "b":
            session.drop_bookmark()
        elif name in _DIGITS:
            session.jump(int(name))
        elif name == "f9":
            session.toggle_recording()
        elif name == "f2":
            session.toggle_compare()
        elif name == "l":
            self._say(session.voices.next_language())
        elif name == "m":
            session.speaker.toggle_mute()
            self._say(session.speaker.words)
        elif name in _LOUDER or name in _QUIETER:
            session.speaker.change_volume(louder=name in _LOUDER)
            self._settings.change(volume=round(MAX_VOLUME * session.speaker.volume))
            self._say(session.speaker.words)
        elif name == "f1":
            self._toggle_keys()
        elif name == "f3":
            self._shows_measurements = not self._shows_measurements
        else:
            return False
        self._is_dirty = True
        return True

    def _has_news(self, session: Session) -> bool:
        """Return whether what is on the window is not the newest there is."""
        comparison = session.comparison
        pair = comparison.pair if comparison is not None else None
        return self._is_dirty or session.view is not self._drawn or pair is not self._drawn_pair

    def _say(self, message: str) -> None:
        self._message = message
        self._message_until = time.perf_counter() + _MESSAGE_S
        self._is_dirty = True

    def _draw(self, session: Session, now: float) -> None:
        """Draw everything, and measure how long key presses took to get here."""
        view, presses = session.newest()
        page = self._surface
        if view is None:
            elapsed = now - self._opened_at
            hud.draw_loading(page, self._title, elapsed, stage=self._loading.stage)
        else:
            page = self._draw_view(session, view)
            self._write_over(page, session, view)
            if not self._is_film(session):
                self._draw_score(page, session, view, now)
        if self._shows_keys:
            hud.draw_lines(page, self._key_lines(session), above=self._lines_above)
        if self._message:
            if now < self._message_until:
                hud.draw_bottom_line(page, self._message)
            else:
                self._message = ""
        if self._screens.menu is not None:
            self._screens.menu.draw(self._surface)
        if self._prompt.is_open:
            self._prompt.draw(page)
        pygame.display.flip()
        shown_at = time.perf_counter()
        for pressed_at in presses:
            self.latencies.add(shown_at - pressed_at)
        self._drawn, self._drawn_at, self._is_dirty = view, now, False

    def _draw_score(self, page: pygame.Surface, session: Session, view: View, now: float) -> None:
        """Draw what is counted, what just happened, and at first the first keys."""
        run, playable = session.goals.run, session.playable
        if run is None or playable is None:
            return
        self._max_lives = max(self._max_lives, view.lives or 0)
        draw_score(page, run, view, max_lives=self._max_lives, counts_coins=playable.counts_coins)
        self._flashes.see(view, now)
        self._is_flashing = self._flashes.draw(page, now)
        if self._first_view_at is None:
            self._first_view_at = now
        is_free = not (
            self._shows_keys or self._message or self._screens.menu or session.comparison
        )
        if now - self._first_view_at < _FIRST_KEYS_S and is_free:
            hud.draw_lines(page, first_keys(playable.keymap.keys), above=self._lines_above)

    def _draw_view(self, session: Session, view: View) -> pygame.Surface:
        """Draw the frame, or both worlds' of the same step; return where may be written over it."""
        comparison = session.comparison
        if comparison is None:
            self._drawn_pair = None
            is_whole = not self._settings.settings.fills_window
            draw_frame(self._surface, view.frame, is_whole=is_whole)
            return self._surface
        pair = self._drawn_pair = comparison.pair
        note, left = "", view
        if comparison.error is not None:
            note = f"it failed: {comparison.error}"
        elif pair is None or abs(view.num_steps - pair.view.num_steps) > 1:
            note = f"catching up, {comparison.num_behind} steps to go"
        else:
            left = pair.view  # the same step on both sides
        trace = panels.draw_split(
            self._surface,
            left.frame,
            pair.teacher_frame if pair is not None else None,
            names=("the world", "the teacher"),
            trace=pair.trace if pair is not None else (),
            note=note,
            text_height=_MEASUREMENTS_HEIGHT if self._shows_measurements else 0,
        )
        return self._surface.subsurface((0, 0, self._surface.get_width(), trace.top))

    def _write_over(self, page: pygame.Surface, session: Session, view: View) -> None:
        """Write over what is drawn, on that part of the window."""
        draw_past(page, session)
        if not self._message and not self._prompt.is_open:
            bookmarks = [(number, item.view.frame) for number, item in session.bookmarks.shown]
            panels.draw_bookmarks(page, bookmarks, bottom=page.get_height() - hud.MARGIN)
        draw_recording(page, session)
        draw_preparation(page, session)
        if session.status == "paused" and self._screens.menu is None:
            hud.draw_banner(page, "paused: P goes on, N makes one step")
        elif session.status == "watching":
            hud.draw_bottom_line(page, "the replay")
        if self._attract.is_on:
            hud.draw_bottom_line(page, "an agent plays: any key, and it is your turn")
        if self._shows_measurements and not self._shows_keys:
            lines = self._measurements(session, view)
            hud.draw_lines(page, lines, above=self._lines_above)

    def _key_lines(self, session: Session) -> list[str]:
        keys = session.playable.keymap.keys if session.playable else self._loading.keys
        return hud.key_lines(keys, self.inputs.aliases)

    def _measurements(self, session: Session, view: View) -> list[str]:
        return measurement_lines(session, view, self.latencies)
