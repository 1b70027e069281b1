"""The window: shows the newest frame, reads keys and gamepads, and writes over the picture.

It never waits for a step: a game's thread makes the frames. It opens before anything is loaded.
"""

import contextlib
import time

import pygame

from envs.picture import draw_frame
from envs.play.game.compare import Pair
from envs.play.game.game_thread import GameThread
from envs.play.game.inputs import Inputs
from envs.play.game.moments import View
from envs.play.game.playable import Loading
from envs.play.game.samples import Samples
from envs.play.game.settings import SettingsFile
from envs.play.voice.sentences import languages
from envs.play.window import hud
from envs.play.window.attract import Attract
from envs.play.window.commands import NOBODY_SPEAKS, Commands
from envs.play.window.film_controls import COMMANDS, KEYS, FilmControls, band_height, draw_bar
from envs.play.window.full_screen import START_SIZE, FullScreen
from envs.play.window.gallery import Gallery, save_screenshot
from envs.play.window.keys import meaning_of, place_of
from envs.play.window.layout import Layout, Plate, arrange, draw
from envs.play.window.letters import letter_size
from envs.play.window.menu import PAD_AS_KEYS, move_of
from envs.play.window.overlays import OverlayLook, Overlays
from envs.play.window.pads import Pads
from envs.play.window.panels import draw_beside
from envs.play.window.prompt_line import PromptLine
from envs.play.window.screens import Screens

_DRAW_PERIOD_S = 1 / 60
_WAIT_MS = 10
_QUICK_PERIOD_S, _IDLE_PERIOD_S = 0.06, 0.25  # of what moves while nothing is played
_SAY = '"'  # before words that the character is to say


class Window:
    """A resizable window on a game.

    Raises:
        pygame.error: There is no display.
    """

    def __init__(
        self, title: str, *, loading: Loading | None = None, settings: SettingsFile | None = None
    ) -> None:
        self._title = title
        self._loading = loading or Loading()
        self._settings = settings or SettingsFile(None)
        pygame.display.init()
        pygame.font.init()
        pygame.display.set_caption(title)
        self._surface = pygame.display.set_mode(START_SIZE, pygame.RESIZABLE)
        self._opened_at = time.perf_counter()
        self.inputs = Inputs()
        self.latencies = Samples()
        self._pads = Pads(self.inputs)
        self._prompt = PromptLine()
        self._film = FilmControls()
        self.overlays = Overlays()
        self._told = ""  # by another thread
        self._gallery = Gallery(self._settings, tell=self._tell)
        self._screens = Screens(
            self._settings,
            apply=self._apply_settings,
            show_keys=self.overlays.toggle_keys,
            gallery=self._gallery,
        )
        self._commands = Commands(
            self._settings,
            overlays=self.overlays,
            screens=self._screens,
            gallery=self._gallery,
            ask=self._ask,
        )
        self._attract = Attract()
        self.layout = Layout(rects={}, free=pygame.Rect(0, 0, 0, 0))
        self._has_begun = False
        self._is_flashing = False
        self._new_view_event = pygame.event.custom_type()
        self._drawn: View | None = None
        self._drawn_pair: Pair | None = None
        self._drawn_menu: object = None
        self._drawn_at = 0.0
        self._is_dirty = True
        self._full_screen = FullScreen()
        self._apply_settings()
        if self._settings.problem:
            self._say(self._settings.problem)
        hud.draw_loading(self._surface, title, 0.0)
        pygame.display.flip()
        pygame.key.stop_text_input()

    def notify(self) -> None:
        """Wake the window from another thread: there is something new to show."""
        with contextlib.suppress(pygame.error):  # it is closed meanwhile
            pygame.event.post(pygame.Event(self._new_view_event))

    def run(self, thread: GameThread) -> None:
        """Show a game until the player quits or it fails; it is closed then."""
        try:
            while thread.status != "failed" and self.run_once(thread):
                pass
        finally:
            thread.close()

    def run_once(self, thread: GameThread) -> bool:
        """Handle what has happened and draw if there is something new; False at the end."""
        events = [pygame.event.wait(_WAIT_MS), *pygame.event.get()]
        answers = [self._handle(event, thread) for event in events]
        self._film.repeat(time.perf_counter())
        if thread.message:
            self._say(thread.message)
            thread.message = ""
        if self._told:
            self._say(self._told)
            self._told = ""
            self._gallery.refresh(self._screens.menu)
        if thread.playable is not None and not self._has_begun:
            self._begin(thread)
        build = thread.playable.background_build if thread.playable else None
        if build is not None and (end := build.take_end()):
            self._say(end)
        is_busy = self._prompt.is_open or self._screens.takes_all
        self._attract.follow(thread, is_busy=is_busy, is_held=self.inputs.is_held)
        if not self._attract.is_on:
            self._screens.follow(thread)
        now = time.perf_counter()
        since_drawn = now - self._drawn_at
        is_quick = thread.status == "loading" or self._is_flashing or self._screens.is_behind
        is_slow = (
            self.overlays.shows_measurements
            or self.overlays.message
            or (build is not None and build.words)
        )
        if (is_quick and since_drawn >= _QUICK_PERIOD_S) or (
            is_slow and since_drawn >= _IDLE_PERIOD_S
        ):
            self._is_dirty = True
        if self._has_news(thread) and since_drawn >= _DRAW_PERIOD_S:
            self._draw(thread, now)
        return all(answers) and not self._screens.quits

    def close(self, *, waits: bool = True) -> None:
        """Close the window, and wait for films that are still written; may be called twice."""
        self._pads.close()
        pygame.display.quit()
        if waits:
            self._gallery.jobs.close()

    def _handle(self, event: pygame.Event, thread: GameThread) -> bool:
        """Change what an event asks for; return False if it asks to quit."""
        if event.type == pygame.QUIT:
            return False
        if event.type in (pygame.VIDEORESIZE, pygame.WINDOWEXPOSED):
            self._surface = pygame.display.get_surface() or self._surface
            self._is_dirty = True
        elif event.type == pygame.WINDOWFOCUSLOST:
            self.inputs.release_all()
            self._film.let_go()
            thread.past.stop_rewind()
        elif event.type == pygame.MOUSEBUTTONUP:
            self._film.let_go()
        elif event.type == pygame.KEYUP:
            self._film.let_go()
            place = place_of(event)
            self.inputs.release(place)
            if self.inputs.command_of(place, meaning_of(event)) == "backspace":
                thread.past.stop_rewind()
        elif self._attract.notice(event, thread):
            self._is_dirty = True
        elif self._full_screen.is_its_key(event):
            self._settings.change(is_fullscreen=not self._full_screen.is_on)
            self._apply_settings()
        else:
            return self._use(event, thread)
        return True

    def _use(self, event: pygame.Event, thread: GameThread) -> bool:
        """Obey a key, a button or the mouse; return False if it asks to quit."""
        if self._pads.is_told_twice(event):
            return True
        button = self._pads.handle(event)
        event = self._pads.push_of(event) or event
        if self._prompt.is_open:
            self._type(event, thread)
        elif self._screens.handle(event):
            self._is_dirty = True
        elif thread.films.projector is not None:
            return self._direct(event, button, thread)
        elif button is not None:
            name, is_down = button
            if name == "escape":
                return not is_down or self._escape(thread)
            if is_down:
                self._command(name, thread)
            elif name == "backspace":
                thread.past.stop_rewind()
        elif event.type == pygame.KEYDOWN:
            return self._press(event, thread)
        return True

    def _apply_settings(self) -> None:
        """Let the window and what it listens to be as the player wants."""
        settings = self._settings.settings
        self._full_screen.turn(is_on=settings.is_fullscreen)
        self._surface = pygame.display.get_surface() or self._surface
        self.inputs.bind(settings.keys, settings.pad)
        if settings.uses_pads:
            self._pads.open()
        else:
            self._pads.close()
        self._is_dirty = True

    def _type(self, event: pygame.Event, thread: GameThread) -> None:
        if event.type != pygame.KEYDOWN and (key := PAD_AS_KEYS.get(move_of(event))):
            # By buttons: earlier lines, taking one, and leaving.
            event = pygame.Event(pygame.KEYDOWN, key=key, mod=0, unicode="", scancode=0)
        text = self._prompt.handle(event)
        if text is not None and text.startswith(_SAY):
            speaks = thread.playable is not None and thread.playable.speaks
            self._say(thread.voices.say_or_tell(text.strip(_SAY)) if speaks else NOBODY_SPEAKS)
        elif text is not None:
            thread.set_prompt(text or None)
        self._is_dirty = True

    def _press(self, event: pygame.Event, thread: GameThread) -> bool:
        if event.key == pygame.K_ESCAPE:
            return self._escape(thread)
        place, meaning = place_of(event), meaning_of(event)
        if meaning == "r" and event.mod & pygame.KMOD_SHIFT:
            meaning = "shift r"
        # A key map may use letters that are commands here: the game has them, Ctrl reaches these.
        has_ctrl = bool(event.mod & pygame.KMOD_CTRL)
        name = meaning if has_ctrl else self.inputs.command_of(place, meaning)
        if not name or not self._command(name, thread):
            self.inputs.press(place)
        return True

    def _escape(self, thread: GameThread) -> bool:
        if thread.status == "loading":
            return False
        self._screens.open_main(thread)
        self._is_dirty = True
        return True

    def _direct(
        self, event: pygame.Event, button: tuple[str, bool] | None, thread: GameThread
    ) -> bool:
        """Obey while a film is shown; return False if it is left, and there is nothing else."""
        if event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEMOTION):
            self._film.point(event, thread, self._surface.get_size())
            return True
        if hasattr(event, "instance_id"):  # of a pad, which is another place than it was
            self._film.let_go()
        name = button[0] if button is not None and button[1] else self._film.name_of(event)
        if thread.status == "loading":  # the world, to be taken over
            return name != "escape"
        if name in COMMANDS:
            self._command(name, thread)
            return True
        is_far = bool(getattr(event, "mod", 0) & pygame.KMOD_SHIFT)
        if name == "escape" and self._gallery.has_shown(thread.films.projector):
            thread.films.end()
            self._screens.open_gallery(thread)
            return True
        return self._film.obey(name, thread, is_far=is_far, now=time.perf_counter())

    def _ask(self, thread: GameThread) -> None:
        self.inputs.release_all()
        self._prompt.open(thread.prompt or "")

    def _begin(self, thread: GameThread) -> None:
        """Let a game that is loaded be as the player wants."""
        self._has_begun = True
        language = self._settings.settings.language
        speaks = thread.playable is not None and thread.playable.speaks
        if language in languages() and speaks and not thread.voices.is_live:
            thread.voices.speak(language)

    def _command(self, name: str, thread: GameThread) -> bool:
        """Obey a command key; return whether it is one, or means nothing where a menu is open."""
        if self._screens.takes_all and not self._screens.lets_through(name):
            return True
        is_one = self._commands.obey(name, thread)
        self._is_dirty |= is_one
        return is_one

    def _has_news(self, thread: GameThread) -> bool:
        """Return whether what is on the window is not the newest there is."""
        comparison = thread.comparison
        pair = comparison.pair if comparison is not None else None
        return (
            self._is_dirty
            or thread.view is not self._drawn
            or pair is not self._drawn_pair
            or self._screens.menu is not self._drawn_menu
        )

    def _say(self, message: str) -> None:
        self.overlays.say(message)
        self._is_dirty = True

    def _tell(self, message: str) -> None:
        """Say something from another thread."""
        self._told = message
        self.notify()

    def _draw(self, thread: GameThread, now: float) -> None:
        """Draw everything, and measure how long key presses took to get here."""
        view, presses = thread.newest()
        area = self._surface.get_rect()
        if thread.films.projector is not None:
            area.height -= band_height(area.size)
        if self._prompt.is_open:
            area.height -= self._prompt.height(self._surface)
        size = letter_size(self._surface.get_size())
        look = OverlayLook(size=size, area=area.size, settings=self._settings.settings)
        if view is None:
            elapsed = now - self._opened_at
            hud.draw_loading(self._surface, self._title, elapsed, stage=self._loading.stage)
            plates = self.overlays.told(look, now)
            if self.overlays.shows_keys:
                plates = [self.overlays.keys(self._key_rows(thread), look)]
            self.layout = arrange(area, plates)
            draw(self._surface, plates, self.layout)
        else:
            plates = self._plates(thread, view, look, now)
            self._draw_view(thread, view, area, plates)
            if thread.films.projector is not None:
                draw_bar(self._surface, thread.films.projector)
            self._is_flashing = self.overlays.flashes.draw(self._surface, now)
            draw(self._surface, plates, self.layout)
        if self._screens.menu is not None:
            self._screens.menu.draw(self._surface, self.layout.free)
        if self._prompt.is_open:
            self._prompt.draw(self._surface)
        pygame.display.flip()
        shown_at = time.perf_counter()
        for pressed_at in presses:
            self.latencies.append(shown_at - pressed_at)
        self._drawn, self._drawn_at, self._is_dirty = view, now, False
        self._drawn_menu = self._screens.menu

    def _plates(self, thread: GameThread, view: View, look: OverlayLook, now: float) -> list[Plate]:
        """Return what stands over the picture, the most important first."""
        if self.overlays.shows_keys and self._screens.menu is None:
            return [self.overlays.keys(self._key_rows(thread), look)]
        told = self.overlays.told(look, now)
        if words := self._gallery.jobs.words:
            told.append(look.words("saving", words))
        if self._screens.menu is not None:
            return told
        if (projector := thread.films.projector) is not None:
            return told + self.overlays.of_film(thread, projector, look)
        return told + self.overlays.of_game(thread, view, look, now, self.latencies)

    def _draw_view(
        self, thread: GameThread, view: View, area: pygame.Rect, plates: list[Plate]
    ) -> None:
        """Draw the frame, or the world's beside the teacher's of the same step."""
        surface, comparison = self._surface, thread.comparison
        is_film = thread.films.projector is not None
        if comparison is None or is_film or self.overlays.shows_keys:
            is_whole = not (self._settings.settings.fills_window or is_film)
            shown = draw_frame(surface, view.frame, is_whole=is_whole)
            self.layout, self._drawn_pair = arrange(area, plates), None
        else:
            pair = self._drawn_pair = comparison.pair
            self.layout = draw_beside(surface, area, view, plates, comparison, pair)
            first, *others = (self.layout.rects[name] for name in ("left", "right", "trace"))
            shown = first.unionall(others)
        if self.overlays.wants_screenshot:
            self.overlays.wants_screenshot = False
            self._say(save_screenshot(surface.subsurface(shown.clip(surface.get_rect()))))

    def _key_rows(self, thread: GameThread) -> list[tuple[str, str, str]]:
        if thread.films.projector is not None:
            return [*KEYS]
        if thread.playable is None:
            return hud.key_rows(self._loading.keys, self.inputs)
        keymap, without = thread.playable.keymap, []
        if not thread.playable.takes_words:
            without.append("t")
        if not thread.playable.speaks:
            without += [hud.SAY, "l"]
        return hud.key_rows(keymap.keys, self.inputs, without=without)
