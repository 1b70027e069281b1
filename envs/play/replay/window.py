"""The window on a recorded session: its own keys, and a bar to scrub on, until it is taken over."""

import time
from collections.abc import Callable
from typing import TypeGuard

import pygame

from envs.play.game.moments import View
from envs.play.game.session import Session
from envs.play.game.settings import SettingsFile
from envs.play.replay.session import ReplaySession
from envs.play.window import hud, panels
from envs.play.window.keys import meaning_of
from envs.play.window.layout import Plate
from envs.play.window.overlays import Look
from envs.play.window.window import Window

KEYS: tuple[tuple[str, str], ...] = (
    ("Space, P", "pause, go on"),
    ("Left, Right", "one second back, on; with Shift ten"),
    ("Comma, Period", "one frame back, on (also N)"),
    ("Home, End", "first frame, last frame"),
    ("Down, Up", "slower, faster"),
    ("mouse", "click or drag on the bar"),
    ("T, Enter", "take over: play on from here"),
    ("F12", "save a screenshot"),
    ("M, - and +", "sound off, quieter and louder (heard at speed 1)"),
    ("F1, F3", "these keys, measurements of that time"),
    ("Esc", "quit"),
)

# A held arrow key moves on after the first wait, and again after each of the second.
_REPEAT_S = (0.35, 0.1)


class ReplayWindow(Window):
    """A window on a `ReplaySession`."""

    def __init__(self, title: str, *, settings: SettingsFile | None = None) -> None:
        super().__init__(title, settings=settings)
        self._is_dragging = False
        self._held: tuple[int, Callable[[], object]] | None = None
        self._repeats_at = 0.0

    def run_once(self, session: Session) -> bool:
        """Handle what has happened and draw if there is something new; False at the end."""
        if self._held is not None and time.perf_counter() >= self._repeats_at:
            self._held[1]()
            self._repeats_at = time.perf_counter() + _REPEAT_S[1]
        return super().run_once(session)

    def _is_film(self, session: Session) -> bool:
        return _is_replay(session)

    def _handle(self, event: pygame.Event, session: Session) -> bool:
        if not _is_replay(session):
            return super()._handle(event, session)
        if event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            bar = panels.timeline_rect(self._surface.get_size())
            self._is_dragging = bar.inflate(0, 16).collidepoint(event.pos)
        elif event.type == pygame.MOUSEBUTTONUP or event.type == pygame.WINDOWFOCUSLOST:
            self._is_dragging = False
        if event.type in (pygame.KEYUP, pygame.WINDOWFOCUSLOST):
            self._held = None
        is_pointing = event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEMOTION)
        if self._is_dragging and is_pointing:
            bar = panels.timeline_rect(self._surface.get_size())
            share = (event.pos[0] - bar.left) / max(1, bar.width - 1)
            session.seek(round(share * (len(session.tape) - 1)))
            return True
        return super()._handle(event, session)

    def _press(self, event: pygame.Event, session: Session) -> bool:
        if not _is_replay(session):
            return super()._press(event, session)
        if event.key == pygame.K_ESCAPE:
            return False
        second = max(1, round(session.tape.fps)) * (10 if event.mod & pygame.KMOD_SHIFT else 1)
        moves: dict[int, Callable[[], object]] = {
            pygame.K_LEFT: lambda: session.skip(-second),
            pygame.K_RIGHT: lambda: session.skip(second),
            pygame.K_COMMA: lambda: session.skip(-1, pauses=True),
            pygame.K_PERIOD: lambda: session.skip(1, pauses=True),
            pygame.K_n: lambda: session.skip(1, pauses=True),
        }
        if (move := moves.get(event.key)) is not None:
            move()
            self._held = event.key, move
            self._repeats_at = time.perf_counter() + _REPEAT_S[0]
        else:
            self._command(meaning_of(event), session)
        return True

    def _command(self, name: str, session: Session) -> bool:
        if not _is_replay(session):
            return super()._command(name, session)
        if name in ("space", "p"):
            session.toggle_pause()
        elif name in ("t", "return", "enter"):
            if session.status != "loading":
                self._held = None
                session.take_over()
        elif name in ("home", "end"):
            session.seek(0 if name == "home" else len(session.tape))
        elif name in ("up", "down"):
            session.change_speed(faster=name == "up")
        elif name in ("f12", "f1", "f3", "m", "=", "+", "-", "[+]", "[-]"):
            return super()._command(name, session)
        else:
            return False
        self._is_dirty = True
        return True

    def _draw_view(
        self, session: Session, view: View, area: pygame.Rect, plates: list[Plate]
    ) -> None:
        super()._draw_view(session, view, area, plates)
        if not _is_replay(session):
            return
        tape = session.tape
        last = max(len(tape) - 1, 1)
        panels.draw_timeline(
            self._surface,
            share=session.number / last,
            marks=[number / last for number in tape.beginnings[1:]],
            seconds=(session.number / tape.fps, last / tape.fps),
            speed=session.speed,
            is_paused=session.status != "playing",
        )

    def _band_height(self, session: Session) -> int:
        return panels.timeline_height(self._surface.get_size()) if _is_replay(session) else 0

    def _plates(self, session: Session, view: View, look: Look, now: float) -> list[Plate]:
        if not _is_replay(session):
            return super()._plates(session, view, look, now)
        plates = self.overlays.told(look, now)
        if session.status == "loading":
            plates.append(look.words("status", session.progress))
        if self.overlays.shows_keys:
            plates.append(self.overlays.keys(self._key_rows(session), look))
        elif self.overlays.shows_measurements:
            picture = hud.table(self._measurements(session, view), look.size, width=look.width)
            plates.append(Plate(name="measurements", picture=picture, edge="bottom"))
        return plates

    def _measurements(self, session: Session, view: View) -> list[tuple[str, str]]:
        if not _is_replay(session):
            return super()._measurements(session, view)
        header, record = session.tape.session.header, session.mark.record
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.wall_time))
        step_time = f"{1000 * record.step_time:.0f} ms" if record.step_time else "-"
        return [
            ("recorded", moment),
            ("frame", f"{session.number} of {len(session.tape) - 1}"),
            ("action", view.action_name.replace("_", " ")),
            ("prompt", session.prompt or "-"),
            ("words", view.text),
            ("step, score", f"{view.num_steps}, {round(view.score, 1):g}"),
            ("this step took", step_time),
            ("backend", header.backend.get("words", "-")),
            *(("note", problem) for problem in session.tape.session.problems),
        ]

    def _key_rows(self, session: Session) -> list[tuple[str, str, str]]:
        if not _is_replay(session):
            return super()._key_rows(session)
        return [(words, meaning, "") for words, meaning in KEYS]


def _is_replay(session: Session) -> TypeGuard[ReplaySession]:
    """Return whether it is the film that is shown, and not a game that was taken over."""
    return isinstance(session, ReplaySession) and session.is_replaying
