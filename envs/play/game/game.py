"""One game being played: an environment, its episodes and what a window shows of them.

The same class runs under the window's stepping thread and without any display. Knows no keys, no
clock and no pixels beyond the frame that the environment gives.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from envs.play.game.recorder import GameRecorder
from midas_world.teachers.words import clean_prompt

if TYPE_CHECKING:
    from envs.play.game.preparation import Preparation
    from midas_world.world import KeyMap, World

ENDLESS = 10**9

_STAGE_ID = "midas/StageTeacher-v0"
_CONDITIONER_PREFIX = "conditioner."  # of the names in a world's state


@dataclass(frozen=True, kw_only=True)
class TeacherLink:
    """How the teacher of a world can be put where an episode of that world began.

    Attributes:
        make: Makes the teacher, whose reset takes `start` as the option "conditioner_state".
        start: Returns the conditioner's state at the present step of the world.
    """

    make: Callable[[], gym.Env[np.ndarray, np.int64]]
    start: Callable[[], Mapping[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Playable:
    """An environment ready to be played.

    Attributes:
        env: With `set_prompt(text | None)` and `understand(text)` beside Gymnasium's own methods.
        keymap: Names of the actions, and the keys that call them.
        fps: Steps per second at full speed.
        title: For the window.
        backend: What makes the frames, in words.
        why: Why that was chosen, in words.
        num_starts: Start states to choose from; 0: the seed alone chooses.
        teacher: What the world can be compared with; None if that is not here.
        no_teacher: What the player is told then.
        preparation: Builds in the background what a faster engine takes; None: nothing to build.
        reopen: Opens the same once more, on what was built.
    """

    env: gym.Env[np.ndarray, np.int64]
    keymap: "KeyMap"
    fps: int
    title: str
    backend: str
    why: str = ""
    num_starts: int = 0
    teacher: TeacherLink | None = None
    no_teacher: str = "the teacher of this world is not here: there is nothing to compare with"
    preparation: "Preparation | None" = None
    reopen: "Callable[[], Playable] | None" = None


@dataclass(frozen=True, kw_only=True)
class View:
    """What there is to see after a step.

    Attributes:
        frame: uint8 (H, W, 3).
        num_steps: Steps of this episode.
        action_name: The action that led here.
        text: The words that steer the world.
        total_reward: Sum of the episode's rewards.
        is_over: The episode has ended; only a reset goes on.
    """

    frame: np.ndarray
    num_steps: int
    action_name: str
    text: str
    total_reward: float
    is_over: bool


@dataclass(kw_only=True)
class Branch:
    """How an episode came about: all that it takes to play it again.

    Only grows at its end. Going back starts a new branch of the old one's beginning, so whoever
    remembers a place by a branch, a number of steps and a number of prompts finds it unchanged.

    Attributes:
        seed: Of the reset.
        options: Of the reset.
        prompt: The player's words at the reset.
        actions: One per step.
        prompts: What was typed on the way: after how many steps, and the words.
        start: Index of the start state, if the environment tells.
        teacher_start: Where the teacher has to begin to be compared; None without one.
    """

    seed: int
    options: dict[str, Any] | None = None
    prompt: str | None = None
    actions: list[int] = field(default_factory=list)
    prompts: list[tuple[int, str | None]] = field(default_factory=list)
    start: int | None = None
    teacher_start: Mapping[str, np.ndarray] | None = None

    def prompt_after(self, num_prompts: int) -> str | None:
        """Return the player's words after so many prompts."""
        return self.prompts[num_prompts - 1][1] if num_prompts else self.prompt

    def beginning(self, num_steps: int, num_prompts: int) -> "Branch":
        """Return the first steps as a branch of its own."""
        return replace(self, actions=self.actions[:num_steps], prompts=self.prompts[:num_prompts])


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A moment of a game to go back to.

    Attributes:
        branch: How it was reached, and what came later.
        num_prompts: How many of the branch's prompts came before.
        view: What was to be seen.
        state: Of the environment; None where it was not kept or the environment has none.
    """

    branch: Branch
    num_prompts: int
    view: View
    state: Any = None

    @property
    def num_steps(self) -> int:
        """Steps since the reset."""
        return self.view.num_steps


class Game:
    """Plays episodes of an environment, one step at a time.

    Args:
        playable: What to play.
        seed: Of the first episode.
        prompt: The player's words, kept over resets.

    Attributes:
        playable: As given.
        prompt: The player's words at present.
        branch: How the present moment was reached.
        is_over: The episode has ended; only a reset goes on.
        recorder: Records what happens while it is asked to.
    """

    def __init__(self, playable: Playable, *, seed: int, prompt: str | None = None) -> None:
        self.playable = playable
        self.prompt = clean_prompt(prompt or "") or None
        self.branch = Branch(seed=seed)
        self.is_over = True
        self.recorder = GameRecorder(playable)
        self._env: Any = playable.env.unwrapped
        self._total_reward = 0.0

    @property
    def saves_states(self) -> bool:
        """Whether the environment's state can be kept; if not, going back plays again."""
        return hasattr(self._env, "save_state")

    def reset(self) -> View:
        """Begin the same episode again."""
        return self._reset(self.branch.seed, self.branch.options, self.prompt)

    def reset_to_next_start(self) -> View:
        """Begin an episode from the next start state, or of the next seed."""
        seed, options, start = self.branch.seed, self.branch.options, self.branch.start
        if self.playable.num_starts and start is not None:
            options = {"start_state": (start + 1) % self.playable.num_starts}
        else:
            seed += 1
        return self._reset(seed, options, self.prompt)

    def step(self, action: int) -> View:
        """Hold an action for one step."""
        started = time.perf_counter()
        outcome = self._env.step(action)
        step_time = time.perf_counter() - started
        frame, reward, terminated, truncated, info = outcome
        self.branch.actions.append(action)
        self._total_reward += float(reward)
        self.is_over = bool(terminated or truncated)
        self.recorder.step(action, outcome, self.branch, step_time=step_time)
        return self._view(frame, info, self.playable.keymap.actions[action])

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
        self.recorder.restore(view.frame, {"text": view.text}, self.branch, is_over=self.is_over)
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
            self._env.restore_state(base.state)
            view, num_prompts = base.view, base.num_prompts
            if base.num_steps == goal.num_steps:
                # The frame as it was: the goal's own may be a JPEG.
                view = replace(goal.view, frame=self._env.observe())
        first = len(self.branch.actions)
        for step in range(first, goal.num_steps + 1):
            while num_prompts < goal.num_prompts and branch.prompts[num_prompts][0] <= step:
                self.set_prompt(branch.prompts[num_prompts][1])
                num_prompts += 1
            if step < goal.num_steps:
                view = self.step(branch.actions[step])
                on_step(step + 1 - first, goal.num_steps - first)
        return view

    @property
    def can_change_over(self) -> bool:
        """Whether a faster engine was made meanwhile, and nothing that is recorded would break."""
        made, recording = self.playable.preparation, self.recorder.status
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
        self.recorder.close()
        if self.playable.preparation is not None:
            self.playable.preparation.close()
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
            start=info.get("start_state"),
            teacher_start=teacher.start() if teacher else None,
        )
        self.prompt = prompt
        if prompt and "prompt" not in (options or {}):
            self._env.set_prompt(prompt)
        self._total_reward, self.is_over = 0.0, False
        self.recorder.reset(frame, info, self.branch)
        return self._view(frame, info, self.playable.keymap.actions[0])

    def _view(
        self,
        frame: np.ndarray,
        info: Mapping[str, Any],
        action_name: str,
    ) -> View:
        return View(
            frame=frame,
            num_steps=len(self.branch.actions),
            action_name=action_name,
            text=str(info.get("text", "")),
            total_reward=self._total_reward,
            is_over=self.is_over,
        )


def open_world(
    world: "str | Path | World",
    *,
    backend: str = "auto",
    num_denoise_steps: int | None = None,
    prepares: bool = False,
    trust: bool = False,
) -> Playable:
    """Make a world ready to play, by its shipped name, its folder, or as it was loaded.

    Args:
        world: The world, or where it is.
        backend: What runs the networks.
        num_denoise_steps: Quality for speed; None takes the world's.
        prepares: Whether engine files that "auto" could take are built in the background.
        trust: Whether modules that the world names may be imported; see midas_world/trust.py.

    Raises:
        CheckpointError: A file is missing, corrupt or does not fit.
        BackendUnavailableError: The backend cannot run here.
    """
    # torch takes seconds to load: the window is up by then.
    from envs.world.env import WorldEnv

    options: Any = {"backend": backend, "num_denoise_steps": num_denoise_steps}
    env: Any = WorldEnv(world, horizon=ENDLESS, trust=trust, **options)
    preparation = None
    if prepares and backend == "auto":
        from envs.play.game.preparation import prepare_engines

        preparation = prepare_engines(env.world, env.engine, num_denoise_steps=num_denoise_steps)
    return Playable(
        env=env,
        keymap=env.keymap,
        fps=env.engine.spec.fps,
        title=env.world.folder.name,
        backend=str(env.engine.spec),
        why=env.engine.spec.reason,
        num_starts=len(env.start_states),
        teacher=_teacher_of(env),
        preparation=preparation,
        reopen=preparation and partial(open_world, env.world, **options),
    )


def open_teacher() -> Playable:
    """Open Stage itself, the game that the shipped world learned from."""
    from envs.stage.env import StageEnv
    from midas_world.world import KeyMap

    env = StageEnv(horizon=ENDLESS)
    return Playable(
        env=env,
        keymap=KeyMap(actions=env.action_names, keys=env.action_keys),
        fps=env.metadata["render_fps"],
        title="stage (the teacher)",
        backend="pygame drawing",
        no_teacher="this is the teacher itself: F2 compares a learned world with it",
    )


def _teacher_of(env: Any) -> TeacherLink | None:
    """Return how a world's teacher can be put where the world is, if it can."""
    if env.world.config.data.env_id.rpartition(":")[2] != _STAGE_ID:
        return None

    def make() -> gym.Env[np.ndarray, np.int64]:
        from envs.stage.env import StageEnv

        return StageEnv(**(env.world.config.data.env_kwargs | {"horizon": ENDLESS}))

    def start() -> dict[str, np.ndarray]:
        return {
            name.removeprefix(_CONDITIONER_PREFIX): rows[0].numpy()
            for name, rows in env.save_state().tensors.items()
            if name.startswith(_CONDITIONER_PREFIX)
        }

    return TeacherLink(make=make, start=start)
