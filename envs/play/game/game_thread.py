"""Playing a game at a fixed rate, in a thread beside the window that shows it.

The window's thread never waits for the network: it asks for things by the methods here and looks
at `view`, the newest frame made. Keys are read right before each step.
"""

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from envs.play.game.agents import Pilot
from envs.play.game.compare import Comparison
from envs.play.game.film import Film
from envs.play.game.game import Game
from envs.play.game.goals import BestList, Goals, Mode
from envs.play.game.inputs import Inputs, unknown_keys
from envs.play.game.moments import View
from envs.play.game.playable import Playable
from envs.play.game.recorder import RecordSwitch
from envs.play.game.rewind import DEFAULT_SECONDS
from envs.play.game.samples import Samples
from envs.play.game.stepper import Status, StepClock, Stepper, in_turn
from envs.play.game.time_travel import Past, Screening
from envs.play.voice.speaker import Speaker
from envs.play.voice.voices import LiveVoices
from midas_world.types import MidasWorldError


class GameThread(Stepper):
    """A game in its own thread; its parts are goals, a past, films, a pilot, a recording.

    Args:
        open_game: Makes what is played; called in the thread, since loading takes seconds.
        fps: Steps per second; None takes the game's own number.
        film: To be watched first; the player may take over. Its rate is that of play.
        record: Folder of a session to record from the start; None waits for the player.
        speaker: Where the sound goes; None plays nothing.
        best: Where results are kept; None keeps them in memory alone.
    """

    def __init__(
        self,
        open_game: Callable[[], Playable],
        inputs: Inputs,
        *,
        seed: int = 0,
        prompt: str | None = None,
        fps: float | None = None,
        rewind_seconds: float = DEFAULT_SECONDS,
        film: Film | None = None,
        record: Path | None = None,
        voices: LiveVoices | None = None,
        speaker: Speaker | None = None,
        best: BestList | None = None,
        notify: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(notify=notify)
        self.goals = Goals(best or BestList(None))
        self.past = Past(
            self,
            self.goals,
            seconds=rewind_seconds,
            arrive=self._arrive,
            on_back=lambda view: self.comparison and self.comparison.show_past(view),
        )
        self.films = Screening(self, self.past)
        self.comparison: Comparison | None = None
        self.playable: Playable | None = None
        self.prompt = prompt
        self.step_times = Samples()
        self.voices = voices or LiveVoices()
        self.speaker = speaker or Speaker()
        self._is_heard = speaker is not None
        self.start_pictures: dict[int, np.ndarray] = {}
        self.pilot: Pilot | None = None
        self._record = record
        self.recording = RecordSwitch(notify=self.tell)
        self._open_game = open_game
        self._inputs = inputs
        self._seed = seed
        self._film = film
        self._takes_over = False
        self._fps = fps if film is None else film.fps
        self._lock = threading.Lock()
        self._presses: list[float] = []

    def newest(self) -> tuple[View | None, list[float]]:
        """Return the newest view, and when each key press was that it is the first to show."""
        with self._lock:
            presses, self._presses = self._presses, []
            return self.view, presses

    @in_turn
    def toggle_pause(self, _: Game, only: Status | None = None) -> None:
        """Pause, or go on; given a status, only if it is that when the turn comes."""
        if only not in (None, self.status):
            return
        if self.status == "playing":
            self.set_status("paused")
        elif self.status == "paused":
            self._go_on()

    @in_turn
    def single_step(self, game: Game) -> None:
        """Pause if need be, and make one step."""
        if self.status == "playing":
            self.set_status("paused")
        if self.status == "paused":
            self.clock.restart()
            self.goals.spoil()
            self._step(game)

    @in_turn
    def reset(self, game: Game) -> None:
        """Begin the same episode again."""
        self._begin(game, game.reset)

    @in_turn
    def reset_to_next_start(self, game: Game) -> None:
        """Begin an episode from the next start state."""
        self._begin(game, game.reset_to_next_start)

    @in_turn
    def begin_mode(self, game: Game, mode: Mode) -> None:
        """Begin a run of a mode, from the day's start if it is daily."""
        seed = self.goals.choose(mode)
        self._begin(game, game.reset if seed is None else partial(game.reset_to_seed, seed))

    @in_turn
    def begin_at(self, game: Game, start: int) -> None:
        """Begin an episode from a start state."""
        self._begin(game, partial(game.reset_to_start, start))

    @in_turn
    def ask_for_start(self, game: Game, start: int) -> None:
        """Let `start_pictures` have the picture of a start state soon."""
        show = game.playable.show_start
        if show is not None and start not in self.start_pictures:
            self.start_pictures[start] = show(start)
            self.tell()

    @in_turn
    def fly(self, _: Game, is_flying: bool) -> None:
        """Let the agent play, or take over from it."""
        assert self.pilot is not None
        self.pilot.take(is_flying=is_flying)
        if is_flying:
            self.goals.spoil()
        self.tell()

    def take_over(self) -> None:
        """Play on from the frame of the film that is shown, if that can be."""
        if self._film is not None and self.past.rewind is None:
            self.put(lambda _: setattr(self, "_takes_over", True))
            return
        self.message = "to play on from a recorded session: python play.py --replay SESSION"
        self.tell()

    @in_turn
    def set_prompt(self, game: Game, text: str | None) -> None:
        """Let the player's words steer from the next step on."""
        try:
            game.set_prompt(text)
        except ValueError as error:
            self.message = str(error)
        else:
            self.prompt = game.prompt
            self.message = game.understand(game.prompt) if game.prompt else "the world's own words"
        self.tell()

    def toggle_recording(self) -> None:
        """Record from now on into a new session, or stop that."""
        if self.recording.is_new_press():
            self.put(self._toggle_recording)

    @in_turn
    def toggle_compare(self, game: Game) -> None:
        """Let the teacher play beside the world, or stop it."""
        if self.comparison is not None:
            self._stop_comparison()
        elif game.playable.teacher is None:
            self.message = game.playable.no_teacher
        else:
            self.comparison = Comparison(game.playable.teacher, notify=self.tell)
            self.comparison.start()
            # While the game runs backwards it is not where the view is: the teacher waits.
            if self.view is not None and self.status not in ("rewinding", "watching"):
                self.comparison.begin(game, self.view)
        self.tell()

    def _play(self) -> None:
        if self._film is None:
            self._play_game()
        else:
            self._show_first(self._film)
        self.set_status("closed")

    def _show_first(self, film: Film) -> None:
        """Show a film until the player takes over."""
        self._open_speaker(film.fps)
        self.films.show(film)
        while not self._closing.is_set():
            # None of the commands that come while a film is shown look at the game.
            self._turn(None)  # pyright: ignore[reportArgumentType]
            if self._takes_over and not self._closing.is_set():
                self._try_to_play()
        self.speaker.close()

    def _try_to_play(self) -> None:
        """Take over, or say why that cannot be and show the film again."""
        self._takes_over = False
        self.progress = "loading the world, then it is your turn"
        self.set_status("loading")
        try:
            self._play_game()
        except (MidasWorldError, ValueError, OSError) as error:
            if self.films.projector is None:
                raise
            self.message = f"cannot take over: {error}"
            self.films.projector.is_paused = True
            self.past.rewind = None
            self.set_status("watching")

    def _play_game(self) -> None:
        self._is_opening = True
        self._end_if_closing()
        self.playable = self._open_game()
        self._is_opening = False
        game = Game(self.playable, seed=self._seed, prompt=self.prompt, voices=self.voices)
        try:
            self._end_if_closing()  # and its window is no more
            self._inputs.use_keys(self.playable.keymap.keys)
            self.message = unknown_keys(self.playable.keymap.keys) or self.message
            fps = self._fps or self.playable.fps
            self._open_speaker(fps)
            self.clock = StepClock(1.0 / fps)
            self.past.begin(fps)
            self.recording.recorder = game.recorder
            self.pilot = Pilot(self.playable)
            self.goals.begin(game.playable, is_counted=self._is_counted(game))
            if self._record is not None:
                self.recording.start(self._record, fps=fps)
            self._arrive(game, self._first_view(game), False)
            if game.prompt and not self.message:
                self.message = game.understand(game.prompt)
            while not self._closing.is_set():
                self._turn(game)
        finally:
            self._stop_comparison()
            self.speaker.close()
            self.goals.finish(self.view)
            game.close()

    def _turn(self, game: Game) -> None:
        """Obey a command if there is one before the next step is due; else make that step."""
        clocks = {"playing": self.clock, "rewinding": self.clock, "watching": self.films.clock}
        command = self._next_command(clocks.get(self.status))
        if command is not None:
            command(game)
        elif self.films.projector is not None:
            self.films.show_next(time.perf_counter())
            projector = self.films.projector
            if self.view is not None and projector is not None and projector.speed == 1:
                self.speaker.play(self.view.sound)
        elif self.status == "rewinding":
            self.past.step_back()
        else:
            self._step(game)

    def _step(self, game: Game) -> None:
        started = time.perf_counter()
        self.clock.start_step(started)
        held = self._inputs.take()
        assert self.pilot is not None
        if held.keys:
            self.pilot.take(is_flying=False)
        if self.pilot.is_flying and self.view is not None:
            action = self.pilot.act(self.view.frame, game.info)
        else:
            action = game.playable.keymap.action_of(held.keys)
        view = game.step(action)
        with self._lock:
            self.view = view
            if held.pressed_at is not None:
                self._presses.append(held.pressed_at)
        self.speaker.play(view.sound)
        self.message = self.voices.take_message() or self.message
        self._remember(game, view)
        self.step_times.append(time.perf_counter() - started)
        if self.goals.is_done(view):
            self.goals.finish(view)
            self.set_status("over")
        else:
            self.tell()

    def _open_speaker(self, fps: float) -> None:
        if self._is_heard:
            self.speaker.open(fps)
            self.message = self.speaker.problem or self.message

    def _is_counted(self, game: Game) -> bool:
        """Return whether results are kept: slow motion would be too easy."""
        return self._fps in (None, game.playable.fps)

    def _first_view(self, game: Game) -> View:
        """Bring a game to where playing begins."""
        projector = self.films.projector
        if self._film is None or self._film.go_to is None or projector is None:
            return game.reset()
        view, is_equal = self._film.go_to(game, projector.number, self.tell_progress)
        self.message = "your turn"
        if not is_equal:
            self.message += "; the frame is not bit-equal to the recorded one"
        self.films.projector = None
        return view

    def _remember(self, game: Game, view: View, *, is_jump: bool = False) -> None:
        """Keep what is shown now, to go back to, and let the teacher follow."""
        assert self.past.rewind is not None
        self.past.rewind.add(game, view, is_jump=is_jump)
        if self.comparison is not None and not is_jump:
            self.comparison.follow(game.branch, view)

    def _go_on(self) -> None:
        self.clock.restart()
        self._inputs.take()  # what was tapped meanwhile is not meant for the game
        self.set_status("playing")

    def _begin(self, game: Game, begin: Callable[[], View]) -> None:
        """Begin an episode, on a faster engine if one was made meanwhile."""
        self.goals.finish(self.view)
        if game.can_change_over:
            self._change_over(game)
        view = begin()
        self.goals.begin(game.playable, is_counted=self._is_counted(game))
        self._arrive(game, view, False)

    def _change_over(self, game: Game) -> None:
        self.message = "changing over to a faster engine"
        self.tell()
        try:
            game.change_over()
        except MidasWorldError as error:
            self.message = f"still on {game.playable.backend}: {error}"
            return
        self.playable, self.recording.recorder = game.playable, game.recorder
        # What the old engine saved is not the new one's.
        self.pilot = Pilot(self.playable)
        self.past.bookmarks.drop_states()
        self.past.begin(1.0 / self.clock.period_s)
        self.step_times, self.clock = Samples(), StepClock(self.clock.period_s)
        self.message = f"now on {game.playable.backend}"

    def _arrive(self, game: Game, view: View, is_known: bool) -> None:
        """Go on from a moment that does not follow from the one before."""
        self.view, self.prompt = view, game.prompt
        if not is_known:
            self._remember(game, view, is_jump=True)
        if self.comparison is not None:
            self.comparison.begin(game, view)
        if self.goals.is_done(view):
            self.set_status("over")
        else:
            self._go_on()

    def _toggle_recording(self, game: Game) -> None:
        fps = 1.0 / self.clock.period_s
        may_start = self.status not in ("rewinding", "watching")
        self.message = self.recording.toggle(game.playable.title, fps=fps, may_start=may_start)
        self.tell()

    def _stop_comparison(self) -> None:
        if self.comparison is not None:
            self.comparison.close()
            self.comparison = None
