"""The stepping thread: plays a game at a fixed rate beside the window that shows it.

The window's thread never waits for the network: it asks for things by the methods here and looks
at `view`, the newest frame made. Keys are read right before each step.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Literal

from envs.play.game import Game, Playable, View
from envs.play.hud import Samples
from envs.play.inputs import Inputs

Status = Literal["loading", "playing", "paused", "over", "failed", "closed"]

# Sleeping is not exact: a step that starts this share of a period late still counts as on time.
_TOLERANCE = 0.1


class StepClock:
    """When steps are due at a fixed rate. A late step delays the next ones: none are caught up.

    Attributes:
        num_missed: Steps that started late.
    """

    def __init__(self, period_s: float) -> None:
        self.period_s = period_s
        self.num_missed = 0
        self._due: float | None = None

    def restart(self) -> None:
        """Let the next step be due at once, as after a pause."""
        self._due = None

    def wait_s(self, now: float) -> float:
        """Return the seconds until the next step is due, at least 0."""
        return 0.0 if self._due is None else max(0.0, self._due - now)

    def start_step(self, now: float) -> None:
        """Note that a step starts."""
        due = now if self._due is None else self._due
        is_late = now > due + _TOLERANCE * self.period_s
        self.num_missed += is_late
        self._due = (now if is_late else due) + self.period_s


class Session:
    """A game in its own thread.

    Args:
        open_game: Makes what is played; called in the thread, since loading takes seconds.
        inputs: What the player holds down.
        seed: Of the first episode.
        prompt: The player's words.
        fps: Steps per second; None takes the game's own number.
        notify: Called in the thread after each new view and each change of status.

    Attributes:
        status: What the thread does.
        view: The newest frame and what belongs to it; None while loading.
        playable: What is played; None while loading.
        prompt: The player's words at present.
        error: What ended the thread, if its status is "failed".
        message: What the player should be told, such as why a prompt was refused.
        step_times: Seconds of each step.
        step_intervals: Seconds between the starts of steps.
    """

    def __init__(
        self,
        open_game: Callable[[], Playable],
        inputs: Inputs,
        *,
        seed: int = 0,
        prompt: str | None = None,
        fps: float | None = None,
        notify: Callable[[], object] = lambda: None,
    ) -> None:
        self.status: Status = "loading"
        self.view: View | None = None
        self.playable: Playable | None = None
        self.prompt = prompt
        self.error: Exception | None = None
        self.message = ""
        self.step_times = Samples()
        self.step_intervals = Samples()
        self._open_game = open_game
        self._inputs = inputs
        self._seed = seed
        self._fps = fps
        self._notify = notify
        self._clock = StepClock(1.0)
        self._last_start: float | None = None
        self._commands: queue.SimpleQueue[Callable[[Game], None]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._presses: list[float] = []
        self._thread = threading.Thread(target=self._run, name="stepper", daemon=True)

    def newest(self) -> tuple[View | None, list[float]]:
        """Return the newest view, and when each key press was that it is the first to show."""
        with self._lock:
            presses, self._presses = self._presses, []
            return self.view, presses

    @property
    def num_missed(self) -> int:
        """Steps that started late."""
        return self._clock.num_missed

    def start(self) -> None:
        """Start loading, then playing."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and close the game; may be called twice."""
        self._closing.set()
        self._commands.put(lambda _: None)
        if self._thread.is_alive():
            self._thread.join(timeout=60.0)

    def toggle_pause(self) -> None:
        """Pause, or go on."""
        self._commands.put(self._toggle_pause)

    def single_step(self) -> None:
        """Pause if need be, and make one step."""
        self._commands.put(self._single_step)

    def reset(self) -> None:
        """Begin the same episode again."""
        self._commands.put(lambda game: self._begin(game.reset()))

    def reset_to_next_start(self) -> None:
        """Begin an episode from the next start state."""
        self._commands.put(lambda game: self._begin(game.reset_to_next_start()))

    def set_prompt(self, text: str | None) -> None:
        """Let the player's words steer from the next step on."""
        self._commands.put(lambda game: self._set_prompt(game, text))

    def _run(self) -> None:
        try:
            self._play()
        # The thread's edge: whatever it was, the window's thread must hear of it and end.
        except Exception as error:
            self.error = error
            self._set_status("failed")

    def _play(self) -> None:
        self.playable = self._open_game()
        self._inputs.use_keys(self.playable.keymap.keys)
        game = Game(self.playable, seed=self._seed, prompt=self.prompt)
        try:
            self._clock = StepClock(1.0 / (self._fps or self.playable.fps))
            self._begin(game.reset())
            while not self._closing.is_set():
                self._turn(game)
        finally:
            game.close()
        self._set_status("closed")

    def _turn(self, game: Game) -> None:
        """Obey a command if there is one before the next step is due; else make that step."""
        wait_s = self._clock.wait_s(time.perf_counter()) if self.status == "playing" else None
        try:
            # SimpleQueue.get takes a timeout of 0 for "do not wait".
            command = self._commands.get(timeout=wait_s)
        except queue.Empty:
            self._step(game)
        else:
            command(game)

    def _step(self, game: Game) -> None:
        started = time.perf_counter()
        self._clock.start_step(started)
        held = self._inputs.take()
        action = game.playable.keymap.action_of(held.keys)
        view = game.step(action)
        with self._lock:
            self.view = view
            if held.pressed_at is not None:
                self._presses.append(held.pressed_at)
        self.step_times.add(time.perf_counter() - started)
        if self._last_start is not None:
            self.step_intervals.add(started - self._last_start)
        self._last_start = started
        if game.is_over:
            self._set_status("over")
        else:
            self._tell()

    def _begin(self, view: View) -> None:
        self.view = view
        self._go_on()

    def _go_on(self) -> None:
        self._clock.restart()
        self._last_start = None
        self._inputs.take()  # what was tapped meanwhile is not meant for the game
        self._set_status("playing")

    def _toggle_pause(self, game: Game) -> None:
        if self.status == "playing":
            self._set_status("paused")
        elif self.status == "paused":
            self._go_on()

    def _single_step(self, game: Game) -> None:
        if self.status == "playing":
            self._set_status("paused")
        if self.status == "paused":
            self._last_start = None
            self._clock.restart()
            self._step(game)

    def _set_prompt(self, game: Game, text: str | None) -> None:
        try:
            game.set_prompt(text)
        except ValueError as error:
            self.message = str(error)
        else:
            self.prompt = game.prompt
            self.message = f"prompt: {text}" if text else "the world's own words"
        self._tell()

    def _set_status(self, status: Status) -> None:
        self.status = status
        self._tell()

    def _tell(self) -> None:
        if not self._closing.is_set():
            self._notify()
