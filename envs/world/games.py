"""B games of a learned world in step: all that one environment and a vector of them share.

Turns actions into conditions, lets the rollout make the frames, reads reward, hits and end from
what it tells, and builds infos. Where the games are, and saving that: course.py; what they show:
views.py; Gymnasium's calls: env.py and vector_env.py.

Shapes: B games, R rows of them, N latent tokens per frame, C latent channels, H W pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from engine.make import make_engine
from engine.rollout import RolloutStep
from engine.shared import shared_engine, shared_world
from envs.contract import check_names
from envs.recording.header import weights_hash
from envs.tasks import LOOP, goal_x, has_arrived
from envs.world.conditioners import SpeakingConditioner, load_conditioner, make_conditioner
from envs.world.course import Course
from envs.world.options import GameOptions
from envs.world.outcomes import Outcome, Outlook, Told
from envs.world.spaces import action_space, key_names, observation_space, read_action
from envs.world.starts import choose_start, find_scene
from envs.world.state import WorldState
from envs.world.views import Views
from midas_world.types import StepConditions, stack_vectors
from midas_world.world import StartState, World

OPTIONS = ("prompt", "start_state", "things")


class Games:
    """B games of one world; each has its own start state, conditioner, noise and clock.

    Attributes:
        world: As loaded.
        engine: What runs it.
        observation_space: Of one game.
        action_space: Of one game.
        actions: Names of the actions, in the order of a discrete action space.
        keys: Names of the keys, in the order in which action="keys" holds them.
        course: Where the games are.
        views: What they show.

    Raises:
        ValueError: An argument cannot be used; the message says why.
    """

    def __init__(self, world: str | Path | World, *, num_games: int, options: GameOptions) -> None:
        is_named = not isinstance(world, World)
        self.world = shared_world(world, trust=options.trust) if is_named else world
        self.options = options
        found = options.weights_sha256 and weights_hash(self.world.folder)
        if found != options.weights_sha256:
            raise ValueError(
                f"the world {self.world.folder.name} here is not the one that is asked for: its "
                f"weights have the SHA-256 {found}, not {options.weights_sha256}"
            )
        # First of all, for what they name may be refused.
        conditioners = [make_conditioner(self.world) for _ in range(num_games)]
        keymap = self.world.keymap
        self.actions = tuple(options.actions or keymap.actions)
        check_names("action", self.actions, keymap.actions)
        engine, steps = options.engine, options.num_denoise_steps
        if engine is None and is_named:
            engine = shared_engine(world, self.world, options.backend, num_denoise_steps=steps)
        elif engine is None:
            engine = make_engine(self.world, options.backend, num_denoise_steps=steps)
        self.engine = engine
        self.observation_space = observation_space(options.observation, engine.spec)
        self.action_space = action_space(options.action, engine.spec, keymap)
        if options.actions is not None:
            self.action_space = spaces.Discrete(len(self.actions))
        self.keys = key_names(keymap)
        self.course = Course(self.world, engine, conditioners)
        self.views = Views(self.course, self.observation_space)
        self._voices: list[tuple[np.ndarray | None, np.ndarray | None]] = []

    def reset(
        self,
        rows: Sequence[int],
        *,
        rngs: Sequence[np.random.Generator],
        options: Sequence[Mapping[str, Any]],
    ) -> None:
        """Begin some games anew.

        Args:
            rows: Which games; the others go on untouched.
            rngs: One per row; draws the start state, the voices and the noise.
            options: One per row; see `WorldEnv`.

        Raises:
            ValueError: An option is unknown or has a value that cannot be used.
        """
        self.course.over[list(rows)] = True  # should an option be wrong
        starts: list[StartState] = []
        things: list[bool] = []
        shared: dict[int, tuple[int, StartState]] = {}
        for row, rng, given in zip(rows, rngs, options, strict=True):
            option = self.options.of_reset(given, rng)
            check_names("reset option", option, OPTIONS)
            wanted = option.get("start_state")
            index, start = shared.get(id(wanted)) or choose_start(
                wanted, self.world.start_states, rng=rng, engine=self.engine
            )
            if isinstance(wanted, Mapping):  # games that share frames encode them once
                shared[id(wanted)] = index, start
            prompt = option.get("prompt")
            if wanted is None:
                index = self._scene_for(row, prompt, present=index)
                start = self.world.start_states[index]
            self._begin(row, start, rng, prompt)
            self.course.scenes[row] = index
            self.course.starts[row] = index
            starts.append(start)
            things.append(bool(option.get("things", True)))
        seeds = [int(rng.integers(2**63)) for rng in rngs]
        self.course.rollout.reset(starts, seeds=seeds, rows=rows, things=things)
        self.course.over[list(rows)] = False
        self.views.changed(list(rows))

    def step(self, actions: Sequence[Any]) -> Outcome:
        """Hold one action per game for one step; a game that is over ignores its own.

        Raises:
            InvalidAction: An action is not in the action space; nothing was changed.
        """
        keymap = self.world.keymap
        read = [
            None
            if is_over
            else read_action(action, space=self.action_space, keymap=keymap, keys=self.keys)
            for action, is_over in zip(actions, self.course.over, strict=True)
        ]
        if self.options.actions is not None:
            read = [
                keymap.actions.index(self.actions[meant]) if isinstance(meant, int) else None
                for meant in read
            ]
        self.views.last = {}
        self.course.forget_told()
        sums = Outcome.none(len(self.course.over))
        for number in range(self.options.frame_skip):
            was_over = self.course.over.copy()
            sums = sums.joined(self._step_once(read))
            if self.course.over.all():
                break
            if number < self.options.frame_skip - 1:
                for row in np.flatnonzero(self.course.over & ~was_over):
                    self.views.last[int(row)] = self.views.moment(int(row))
        for row, last in self.views.last.items():
            self.course.conditions[row], self.course.actions[row] = last.conditions, last.action
        return sums

    def _step_once(self, read: Sequence[int | StepConditions | None]) -> Outcome:
        """Make the next frame of all games, under what is held."""
        voices, self._voices = self._voices, []
        for row, meant in enumerate(read):
            if self.course.over[row] or meant is None:
                self.course.actions[row], self.course.conditions[row] = None, StepConditions()
            elif isinstance(meant, int):
                self.course.actions[row] = meant
                self.course.conditions[row] = self._condition(row, meant, *voices[row : row + 1])
            else:
                self.course.actions[row], self.course.conditions[row] = None, meant
        made = self.course.rollout.step(self.course.conditions)
        self.views.changed()
        outlook = self._outlook(made)
        told, plays = self._told_of(outlook), ~self.course.over
        self.course.told["cost"] += told.costs * plays
        self.course.told["expected_reward"] += outlook.expected_reward * plays
        for name, chance in (
            ("reward_probability", told.reward_probabilities),
            ("hit_probability", outlook.hit_probability),
            ("termination_probability", outlook.termination_probability),
        ):  # of one at least, while the action is held
            before = self.course.told[name]
            before += np.where(plays, chance - before * chance, 0.0)
        ends = told.ends.copy()
        rollout = self.course.rollout
        rollout.hit(told.hits & plays)
        ends_without_lives = self.options.end is None and self.options.task != "care"
        if self.world.config.world.lives and ends_without_lives:
            ends |= rollout.lives == 0
        truncated = rollout.num_steps >= self.options.horizon
        outcome = Outcome(
            rewards=told.rewards * plays, terminated=ends & plays, truncated=truncated & plays
        )
        self.course.over |= ends | truncated
        return outcome

    def _told_of(self, outlook: Outlook) -> Told:
        """Return what comes of a step by the rules, and by the task."""
        told = self.options.apply(outlook, self.course.rollout.chance)
        if self.options.task == "care" and self.options.end is None:
            # The network tells the end that the third hit brought where it learned.
            return replace(told, ends=np.zeros_like(told.ends))
        if self.options.task != "goal":
            return told
        px = LOOP / self.world.config.world.conditions.camera.loop
        arrived = has_arrived(outlook.x * px, self.course.goals)
        return replace(told, rewards=arrived.astype(np.float64), ends=told.ends | arrived)

    def _outlook(self, made: RolloutStep) -> Outlook:
        """Return what the network told, and of which frames."""
        size = self.world.config.world.conditions.pose_size
        return Outlook(
            config=self.world.config.world,
            step=self.course.rollout.num_steps.copy(),
            pose=stack_vectors(self.course.conditions, "pose", size, absent=np.nan),
            latents=self.course.rollout.latents.numpy(),
            expected_reward=made.reward.astype(np.float64),
            hit_probability=made.cost.astype(np.float64),
            termination_probability=made.termination_probability.astype(np.float64),
            entries=getattr(self.course.conditioners[0], "pose_entries", {}),
        )

    def info(self, row: int) -> dict[str, Any]:
        """Return what there is to know about a game's present frame."""
        last = self.views.last.get(row)
        info: dict[str, Any] = {
            "step": last.step if last else int(self.course.rollout.num_steps[row]),
            "start_state": int(self.course.starts[row]),
            **{name: float(values[row]) for name, values in self.course.told.items()},
        }
        if self.world.config.world.lives:
            info["lives"] = int(self.course.rollout.lives[row])
        if (action := self.course.actions[row]) is not None:
            if self.options.infos == "all":
                info["action_name"] = self.world.keymap.actions[action]
            conditioner = self.course.conditioners[row]
            if isinstance(conditioner, SpeakingConditioner):
                info["spoken"] = conditioner.spoken
        conditions = self.course.conditions[row]
        if conditions.text is not None and self.options.infos == "all":
            info["text"] = conditions.text
        if conditions.pose is not None:
            info["pose"] = conditions.pose.copy()
        if conditions.audio is not None:
            info["audio"] = conditions.audio.copy()
        return info

    def set_prompt(self, text: str | None, rows: Sequence[int]) -> None:
        """Let words steer some games from the next step on; see `WorldEnv.set_prompt`."""
        self._check_prompt(text)
        for row in rows:
            self.course.conditioners[row].set_prompt(text)
            if not self.course.over[row]:
                self._cut(row, text)

    def understand(self, text: str) -> str:
        """Return what of a player's words is understood; see `WorldEnv.understand`."""
        self._check_prompt(text)
        return self.course.conditioners[0].understand(text)

    def _check_prompt(self, text: Any) -> None:
        if text is not None and not isinstance(text, str):
            raise ValueError(f"prompt must be a str, got {type(text).__name__}")
        if isinstance(self.action_space, spaces.Dict):
            raise ValueError("with action='conditions' the words come with each action: no prompt")

    def set_voices(self, voices: Sequence[tuple[np.ndarray | None, np.ndarray | None]]) -> None:
        """Let live audio be each game's own and other voice; see `WorldEnv.set_voices`."""
        if isinstance(self.action_space, spaces.Dict):
            raise ValueError("with action='conditions' the sounds come with each action")
        if not isinstance(self.course.conditioners[0], SpeakingConditioner):
            raise ValueError(f"nobody speaks in the world {self.world.folder.name}")
        self._voices = list(voices)

    def load_state(self, state: WorldState, rngs: Sequence[np.random.Generator]) -> None:
        """Go on exactly from a state, and show what it shows; see `Course.load_state`."""
        self.course.load_state(state, rngs)
        self.views.last = {}
        self.views.changed()

    def reseed(self, seeds: Sequence[int]) -> None:
        """Let each game's noise follow from a seed of its own from now on."""
        self.course.rollout.reseed(seeds)

    def _condition(
        self,
        row: int,
        action: int,
        voices: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    ) -> StepConditions:
        """Advance a game's conditioner, under live voices if there are some."""
        conditioner = self.course.conditioners[row]
        if isinstance(conditioner, SpeakingConditioner):
            own, other = voices
            return conditioner.step(action, own_voice=own, other_voice=other)
        return conditioner.step(action)

    def _begin(
        self, row: int, start: StartState, rng: np.random.Generator, prompt: str | None
    ) -> None:
        """Let a game's conditioner begin where a start state ends."""
        conditioner = self.course.conditioners[row]
        conditions = conditioner.reset(rng=rng, description=start.description)
        if start.conditioner_state:
            load_conditioner(conditioner, start.conditioner_state)
            conditions = start.conditions[-1]
        if prompt is not None:
            self.set_prompt(prompt, [row])
        self.course.conditions[row] = replace(conditions)
        camera, pose = self.world.config.world.conditions.camera, conditions.pose
        x = np.nan if pose is None or not camera.is_declared else pose[camera.index] * LOOP
        self.course.goals[row] = goal_x(self.options.goal, x)
        self.course.actions[row] = None if isinstance(self.action_space, spaces.Dict) else 0
        self.course.forget_told([row])
        self.views.last.pop(row, None)

    def _scene_for(self, row: int, prompt: str | None, *, present: int) -> int:
        """Return the start state of the scene that a prompt speaks of; else the present one."""
        starts = self.world.start_states
        if not isinstance(prompt, str) or present < 0:
            return present
        wanted = self.course.conditioners[row].scene_after(prompt, starts[present].description)
        return find_scene(wanted, starts, present=present)

    def _cut(self, row: int, prompt: str | None) -> None:
        """Let a game go on in the scene that a prompt speaks of, where the world wants it so.

        Pose and voices go on: what the conditioner says follows from actions and words alone, so
        that a teacher under the same ones stays beside the world.
        """
        if not self.world.config.world.prompt_scenes:
            return
        index = self._scene_for(row, prompt, present=int(self.course.scenes[row]))
        if index == self.course.scenes[row]:
            return
        self.course.scenes[row] = index
        self.course.rollout.replace_context([self.world.start_states[index]], rows=[row])
        self.views.changed([row])
