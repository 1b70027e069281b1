"""What stands over a game's picture, as plates: score, recording, messages, keys, measurements.

Where they lie is layout.py's business.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from envs.play.game.film import Projector
from envs.play.game.game_thread import GameThread
from envs.play.game.moments import View
from envs.play.game.samples import Samples, milliseconds
from envs.play.game.settings import Settings
from envs.play.window import hud, panels
from envs.play.window.layout import Plate, Side
from envs.play.window.scoreboard import Flashes, clock, first_keys, score_plate

_MESSAGE_S = 5.0
_FIRST_KEYS_S = 10.0
_WIDE = 500  # px


@dataclass(frozen=True, kw_only=True)
class OverlayLook:
    """How plates are drawn."""

    size: int
    area: tuple[int, int]
    settings: Settings

    @property
    def width(self) -> int:
        """How wide a plate may be, px."""
        return self.area[0] - 2 * hud.MARGIN

    def words(self, name: str, text: str, *, side: Side = "left") -> Plate:
        """Return words along the lower edge."""
        picture = hud.words_plate(text, self.size, width=self.width)
        return Plate(name=name, picture=picture, edge="bottom", side=side)

    def table(self, name: str, rows: Sequence[Sequence[str]]) -> Plate:
        """Return lines in columns along the lower edge."""
        picture = hud.table(rows, self.size, width=self.width)
        return Plate(name=name, picture=picture, edge="bottom", least=0.3)


class Overlays:
    """What stands over the picture of a game, and what the player has asked to see."""

    def __init__(self) -> None:
        self.shows_measurements = False
        self.message = ""
        self.flashes = Flashes()
        self._message_until = 0.0
        self._max_lives = 0
        self._first_view_at: float | None = None
        self.wants_screenshot = False
        self._keys_page: int | None = None
        self._num_key_pages = 1

    def say(self, message: str) -> None:
        """Tell the player something, for a few seconds."""
        self.message = message
        self._message_until = time.perf_counter() + _MESSAGE_S

    @property
    def shows_keys(self) -> bool:
        """Whether the key map is shown."""
        return self._keys_page is not None

    def toggle_keys(self) -> None:
        """Show the key map, the next part of it if it does not fit at once, or hide it."""
        page = 0 if self._keys_page is None else self._keys_page + 1
        self._keys_page = page if page < self._num_key_pages else None

    def toggle_measurements(self) -> None:
        """Show the game's numbers, or hide them."""
        self.shows_measurements = not self.shows_measurements

    def wish_screenshot(self) -> None:
        """Let the next picture that is drawn be saved."""
        self.wants_screenshot = True

    def told(self, look: OverlayLook, now: float) -> list[Plate]:
        """Return the message, while there is one."""
        if now >= self._message_until:
            self.message = ""
        return [look.words("message", self.message, side="center")] if self.message else []

    def of_film(self, thread: GameThread, projector: Projector, look: OverlayLook) -> list[Plate]:
        """Return what is shown over a film, the most important first."""
        plates: list[Plate] = []
        if thread.status == "loading":
            plates.append(look.words("status", thread.progress))
        facts = projector.film.facts(projector.number) if self.shows_measurements else ()
        if facts:
            plates.append(look.table("measurements", facts))
        return plates

    def of_game(
        self, thread: GameThread, view: View, look: OverlayLook, now: float, latencies: Samples
    ) -> list[Plate]:
        """Return what is shown over a game, the most important first."""
        always = [
            *self._score(thread, view, look, now),
            *_recording(thread, look),
            *_status(thread, look),
        ]
        plates: list[Plate] = []
        playable, settings = thread.playable, look.settings
        if self.shows_measurements:
            plates.append(look.table("measurements", _measurements(thread, view, latencies)))
        if settings.shows_held_keys and playable is not None:
            caps = hud.keycaps(playable.keymap.keys.get(view.action_name, ()), look.size)
            if caps is not None:
                plates.append(Plate(name="held", picture=caps, edge="bottom", side="center"))
        is_free = not (self.message or plates or thread.comparison)
        begins = self._first_view_at is not None and now - self._first_view_at < _FIRST_KEYS_S
        if begins and playable is not None and is_free:
            rows = first_keys(playable.keymap.keys, takes_words=playable.takes_words)
            plates.append(look.table("first keys", rows))
        if settings.shows_bookmarks and thread.past.bookmarks.shown:
            pictures = [(number, item.view.frame) for number, item in thread.past.bookmarks.shown]
            picture = panels.bookmarks_plate(pictures, look.size)
            plates.append(
                Plate(name="bookmarks", picture=picture, edge="bottom", side="right", least=0.4)
            )
        build = playable.background_build if playable is not None else None
        if build is not None and build.words:
            plates.append(look.words("build", build.words))
        return always + plates

    def keys(self, rows: Sequence[Sequence[str]], look: OverlayLook) -> Plate:
        """Return the key map."""
        area = look.width, look.area[1] - 2 * hud.MARGIN
        pages = hud.keys_plates(tuple(map(tuple, rows)), look.size, area=area)
        self._num_key_pages = len(pages)
        picture = pages[min(self._keys_page or 0, len(pages) - 1)]
        return Plate(name="keys", picture=picture, edge="bottom", side="center", least=0.2)

    def _score(self, thread: GameThread, view: View, look: OverlayLook, now: float) -> list[Plate]:
        run, playable = thread.goals.run, thread.playable
        if run is None or playable is None:
            return []
        self._first_view_at = self._first_view_at or now
        self._max_lives = max(self._max_lives, view.lives or 0)
        self.flashes.see(view, now)
        picture = score_plate(
            run,
            view,
            max_lives=self._max_lives,
            counts_coins=playable.counts_coins,
            size=look.size,
            glow=self.flashes.glow(now),
        )
        side = "center" if look.width > _WIDE else "right"  # where a game draws its own hearts
        return [Plate(name="score", picture=picture, edge="top", side=side, least=0.3)]


def _status(thread: GameThread, look: OverlayLook) -> list[Plate]:
    """Return what the game is doing, unless it is played."""
    if thread.status == "rewinding" and thread.past.rewind is not None:
        before = thread.past.rewind.num_before
        picture = panels.rewind_plate(
            share=before / max(len(thread.past.rewind) - 1, 1),
            seconds=before * thread.clock.period_s,
            size=look.size,
        )
        return [Plate(name="rewind", picture=picture, edge="top", side="center")]
    if thread.status == "paused":
        words = "paused: P goes on, N makes one step"
    elif thread.pilot is not None and thread.pilot.is_flying:
        words = "an agent plays: press a key of the game, and it is your turn"
    else:
        return []
    return [look.words("status", words, side="center")]


def _recording(thread: GameThread, look: OverlayLook) -> list[Plate]:
    """Return how the recording is doing, or why it is not, and whether the microphone is open."""
    text, color = "", hud.TEXT_COLOR
    if thread.recording.error:
        text, color = (
            f"not recording: {thread.recording.error} (F9 tries again)",
            hud.RECORDING_COLOR,
        )
    elif (recording := thread.recording.status) is not None:
        text = f"{clock(recording.seconds)}  {recording.num_bytes / 1e6:.1f} MB"
        if recording.waited_s >= 1.0:
            text += f"  the disk is slow: waited {recording.waited_s:.0f} s"
    said = [("recording", text, color)] if text else []
    if thread.voices.listens:
        said.append(("microphone", "the microphone is open", hud.TEXT_COLOR))
    return [
        Plate(
            name=name,
            picture=hud.words_plate(
                words, look.size, width=look.width, color=color, has_light=True
            ),
            edge="top",
            side="right" if name == "recording" else "left",
        )
        for name, words, color in said
    ]


def _measurements(thread: GameThread, view: View, latencies: Samples) -> list[tuple[str, str]]:
    """Return the game's numbers: what, and how much."""
    interval = thread.clock.intervals.mean()
    rate = f"{1 / interval:.1f}" if interval > 0 else "-"
    return [
        ("steps per second", rate),
        ("step p50 / p99", milliseconds(thread.step_times, (50, 99))),
        ("key to picture p50 / p95 / p99", milliseconds(latencies, (50, 95, 99))),
        ("missed deadlines", str(thread.clock.num_missed)),
        ("action", view.action_name.replace("_", " ")),
        ("prompt", thread.prompt or "-"),
        ("words", view.text),
        ("step, score", f"{view.num_steps}, {round(view.score, 1):g}"),
        ("backend", thread.playable.backend if thread.playable else "-"),
        ("because", (thread.playable.why if thread.playable else "") or "-"),
    ]
