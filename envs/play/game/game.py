"""One game being played: an environment, its episodes and what a window shows of them.

The same class runs under the window's stepping thread and without any display. Knows no keys, no
clock and no pixels beyond the frame that the environment gives.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from envs.play.game.moments import Branch, Snapshot, View
from envs.play.game.playable import Playable
from envs.play.game.recorder import GameRecorder
from envs.play.voice.voices import TALK, LiveVoices
from envs.recording.record import conditions_of
from envs.soundtrack import Live, Soundtrack
from midas_world.sessions.log import SPEAKERS, UNHEARD, Heard, turns_of
from midas_world.teachers.words import clean_prompt


class Game:
    """Plays episodes of an environment, one step at a time.

    Raises:
        ValueError: There are live voices, and nobody talks in this game.
    """

    def __init__(
        self,
        playable: Playable,
        *,
        seed: int,
        prompt: str | None = None,
        voices: LiveVoices | None = None,
    ) -> None:
        self._talks = TALK in playable.keymap.actions
        is_heard = voices is not None and (voices.is_live or voices.has_said)
        if is_heard and not playable.speaks:
            raise ValueError(f"{playable.title} has no action {TALK!r}: nobody speaks in it")
        self.playable = playable
        self.prompt = clean_prompt(prompt or "") or None
        self._voices = voices
        self._soundtrack = Soundtrack()
        self.branch = Branch(seed=seed)
        self.is_over = True
        self.recorder = GameRecorder(playable)
        self._env: Any = playable.env.unwrapped
        self._total_reward = 0.0
        self._score = 0.0
        self._num_hits = 0
        self.info: Mapping[str, Any] = {}

    @property
    def saves_states(self) -> bool:
        """Whether the environment's state can be kept; if not, going back plays again."""
        return hasattr(self._env, "save_state")

    def reset(self) -> View:
        """Begin the same episode again."""
        return self._reset(self.branch.seed, self.branch.options, self.prompt)

    def reset_to_seed(self, seed: int) -> View:
        """Begin the episode of a seed, in the game's own words."""
        return self._reset(seed, None, None)

    def reset_to_start(self, start: int) -> View:
        """Begin an episode from a start state, in its own words."""
        return self._reset(self.branch.seed, {"start_state": start}, None)

    def reset_to_next_start(self) -> View:
        """Begin an episode from the next start state, or of the next seed."""
        seed, options, start = self.branch.seed, self.branch.options, self.branch.start_state
        if self.playable.starts and start is not None:
            options = {"start_state": (start + 1) % len(self.playable.starts)}
        else:
            seed += 1
        return self._reset(seed, options, self.prompt)

    def step(self, action: int) -> View:
        """Hold an action for one step; a live voice lets who idles talk while it is heard."""
        if self._voices is None or not self.playable.speaks:
            return self._step(action)
        names = self.playable.keymap.actions
        talks = names[action] == TALK or not self._talks
        live, heard, is_heard = self._voices.step(talks=talks)
        if is_heard and action == 0 and self._talks:
            action = names.index(TALK)
        return self._step(action, heard, live)

    def _step(self, action: int, heard: Heard = UNHEARD, live: Live = (None, None)) -> View:
        """Hold an action for one step, under the features and the sound of live voices."""
        names = [name for name, item in zip(SPEAKERS, heard, strict=True) if item is not None]
        if names:
            self._env.set_voices(*heard)
            self.branch.voices[len(self.branch.actions)] = heard
        started = time.perf_counter()
        outcome = self._env.step(action)
        step_time = time.perf_counter() - started
        frame, reward, terminated, truncated, info = outcome
        self.branch.actions.append(action)
        self._total_reward += float(reward)
        self._score += round(float(reward)) if self.playable.counts_coins else float(reward)
        self._num_hits += bool(info.get("cost", 0.0))
        self.is_over = bool(terminated or truncated)
        sound = self._soundtrack.step(info, float(reward), is_over=self.is_over, live=live)
        self.recorder.step(
            action, outcome, self.branch, step_time=step_time, sound=sound, live=names
        )
        return replace(self._view(frame, info, self.playable.keymap.actions[action]), sound=sound)

    def set_prompt(self, text: str | None) -> None:
        """Let the player's words steer; None or nothing gives the world's own back.

        Raises:
            ValueError: The text is too long, or nothing of it is understood.
        """
        text = clean_prompt(text or "")
        self._env.set_prompt(text or None)
        self.prompt = text or None
        self.branch.prompts.append((len(self.branch.actions), self.prompt))
        self.recorder.prompt(self.prompt)

    def understand(self, text: str) -> str:
        """Return what of a player's words is understood, in words; changes nothing.

        Raises:
            ValueError: Nothing is.
        """
        return self._env.understand(text)

    def snapshot(self, view: View, *, with_state: bool = True) -> Snapshot:
        """Return the present moment, of which `view` is what is to be seen."""
        keeps = with_state and self.saves_states and not self.is_over
        return Snapshot(
            branch=self.branch,
            num_prompts=len(self.branch.prompts),
            view=view,
            state=self._env.save_state() if keeps else None,
        )

    def restore(
        self,
        goal: Snapshot,
        *,
        base: Snapshot | None = None,
        on_step: Callable[[int, int], object] = lambda *_: None,
    ) -> View:
        """Go to a snapshot, from where the game goes on exactly as it did then.

        Args:
            goal: Where to go.
            base: An earlier moment of the same branch, with its state: the steps from there on are
                played again. None plays all of them, if the goal has no state of its own.
            on_step: Called after each step that is played again, with how many are done and how
                many there are; what it raises ends the way there.
        """
        with self.recorder.jump():
            view = self._restore(goal, base=base, on_step=on_step)
        self._soundtrack.begin()
        told = vars(view.conditions)
        self.recorder.begin("restore", view.frame, told, self.branch, is_over=self.is_over)
        return view

    def _restore(
        self, goal: Snapshot, *, base: Snapshot | None, on_step: Callable[[int, int], object]
    ) -> View:
        base = goal if goal.state is not None else base
        branch = goal.branch
        if base is None or base.state is None:
            view = self._reset(branch.seed, branch.options, branch.prompt)
            num_prompts = 0
        else:
            self.branch = branch.beginning(base.num_steps, base.num_prompts)
            self.prompt = branch.prompt_after(base.num_prompts)
            self._total_reward, self.is_over = base.view.total_reward, False
            self._score, self._num_hits = base.view.score, base.view.num_hits
            self._env.restore_state(base.state)
            view, num_prompts = base.view, base.num_prompts
            if base.num_steps == goal.num_steps:
                # The frame as it was: the goal's own may be a JPEG.
                view = replace(goal.view, frame=self._env.observe())
        first = len(self.branch.actions)
        steps = range(first, goal.num_steps)
        deeds = [(branch.actions[step], branch.voices.get(step, UNHEARD)) for step in steps]
        typed = branch.prompts[num_prompts : goal.num_prompts]
        for done, turn in enumerate(turns_of(deeds, [(n - first, text) for n, text in typed]), 1):
            for text in turn.words:
                self.set_prompt(text)
            if turn.action is not None:
                view = self._step(turn.action, turn.heard)
                on_step(done, len(deeds))
        return view

    @property
    def can_change_over(self) -> bool:
        """Whether a faster engine was made meanwhile, and nothing that is recorded would break."""
        made, recording = self.playable.background_build, self.recorder.status
        is_recording = recording is not None and recording.error is None
        return made is not None and made.is_made and not is_recording

    def change_over(self) -> None:
        """Take the faster engine; states that were saved before are not its own.

        Raises:
            MidasWorldError: It cannot run after all; the game is as it was.
        """
        assert self.playable.reopen is not None, "what is prepared can be opened"
        playable = self.playable.reopen()
        self.close()
        self.playable, self._env = playable, playable.env.unwrapped
        self.recorder = GameRecorder(playable)
        self.is_over = True

    def close(self) -> None:
        """End a recording and what is built in the background, and close the environment."""
        self.recorder.stop(wait=True)
        if self.playable.background_build is not None:
            self.playable.background_build.close()
        self.playable.env.close()

    def _reset(self, seed: int, options: dict[str, Any] | None, prompt: str | None) -> View:
        if hasattr(self._env, "world"):  # whose resets choose a scene by words
            options = {**(options or {}), "prompt": prompt}
            options = {name: value for name, value in options.items() if value is not None} or None
        frame, info = self._env.reset(seed=seed, options=options)
        teacher = self.playable.teacher
        self.branch = Branch(
            seed=seed,
            options=options,
            prompt=prompt,
            start_state=info.get("start_state"),
            teacher_start=teacher.start() if teacher else None,
        )
        self.prompt = prompt
        if prompt and "prompt" not in (options or {}):
            self._env.set_prompt(prompt)
        self._total_reward, self._score, self._num_hits, self.is_over = 0.0, 0.0, 0, False
        self._soundtrack.begin()
        self.recorder.begin("reset", frame, info, self.branch)
        return self._view(frame, info, self.playable.keymap.actions[0])

    def _view(self, frame: np.ndarray, info: Mapping[str, Any], action_name: str) -> View:
        self.info = info
        return View(
            frame=frame,
            num_steps=len(self.branch.actions),
            action_name=action_name,
            total_reward=self._total_reward,
            is_over=self.is_over,
            conditions=conditions_of(info),
            score=self._score,
            lives=info.get("lives"),
            num_hits=self._num_hits,
        )
