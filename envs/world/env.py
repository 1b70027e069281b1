"""A learned world as a Gymnasium environment: a network draws every frame.

Keeps Gymnasium's contract for one game; what a game is lies in games.py, what it begins from in
starts.py, and many games at once in vector_env.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from envs.contract import check_running, may_render
from envs.world.base import WorldBase
from envs.world.games import Games
from envs.world.options import GameOptions
from envs.world.state import WorldState
from midas_world.world import World

if TYPE_CHECKING:
    from envs.picture import FrameWindow
    from envs.world.vector_env import WorldVectorEnv


class WorldEnv(WorldBase, gym.Env[Any, Any]):
    """A world that a network learned from a teacher, such as Stage.

    ## Description

    There is no game engine behind the picture: each step the network draws the next frame from what
    it drew before and from what the action means (a pose, words, sounds), and tells the reward,
    hits, and whether the episode is over. Its whole state is a value: `save_state`,
    `restore_state`, `fork`; an environment can be pickled and copied. Threads may play on one
    engine, each an environment of its own, and a caller's settings of torch change nothing.

    ## Action Space

    `action="discrete"`: `Discrete(n)`; the names are in `action_names`. The shipped world `stage`
    has 15, each held for one step of 1/20 s:

    | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |
    |---|---|---|---|---|---|---|---|
    | idle | walk_left | walk_right | run_left | run_right | jump | jump_left | jump_right |

    | 8 | 9 | 10 | 11 | 12 | 13 | 14 |
    |---|---|---|---|---|---|---|
    | leap_left | leap_right | crouch | wave | punch | kick | talk |

    `action="keys"`: `MultiBinary(k)`, 1 for each key that is held; their order is in `key_names`
    (`stage`: space, left shift, left, right, k, j, h, e, down). They mean an action by the world's
    key map: the first entry whose keys are all held, else the first action.

    `action="conditions"`: a `Dict` of what steers the network, for those who do without the
    world's own pose controller and voices. One may be left out: it is then absent.

    | Key     | Space                          | Meaning                                           |
    |---------|--------------------------------|---------------------------------------------------|
    | `pose`  | `Box(-1, 1, (P,), float32)`    | the skeleton as the teacher lays it out (P = 39)  |
    | `text`  | `Text(0 to 512)`               | words: ASCII letters, digits, punctuation, spaces |
    | `audio` | `Box(0, 1, (A,), float32)`     | log-mel features of this step's sound (A = 40)    |

    ## Observation Space

    | `observation` | Space                                                                    |
    |---------------|--------------------------------------------------------------------------|
    | `"pixels"`    | `Box(0, 255, (H, W, 3), uint8)`: the frame as RGB; 192 x 320 for `stage` |
    | `"latent"`    | `Box(-32, 32, (N, C), float32)`: the frame's latent tokens, which are    |
    |               | never decoded unless you `render()`; (15, 2048) for `stage`              |
    | `"dict"`      | `Dict` of `pixels`, and `pose` and `audio` as above, where the world has |
    |               | them: the conditions of this frame, zeros for an absent one              |

    ## Rewards

    The network tells the reward that it expects. `outcomes` says what is paid of it:

    | `outcomes`    | Reward                          | `info["cost"]`, lives, and the end      |
    |---------------|---------------------------------|-----------------------------------------|
    | `"threshold"` | the expectation, or 0 if that   | where the probability is above          |
    |               | is at most `reward_threshold`   | `cost_threshold`,                       |
    |               | in size                         | `termination_threshold`                 |
    | `"expected"`  | the expectation: right in the   | as above, but the cost is the           |
    |               | mean, never sure                | probability of a hit                    |
    | `"sample"`    | whole units, drawn from the     | drawn likewise                          |
    |               | game's own chance: right in     |                                         |
    |               | the mean, too                   |                                         |

    The unit is the world's `reward_unit` (`stage`: 1, a coin), and half of it the threshold unless
    another one is given: teachers give whole rewards at single steps, and small expectations in
    between would add up to one that nobody earned.

    `reward`, `cost` and `end` are functions of your own in their place. Each takes an
    `envs.world.outcomes.Outlook` of all B games (`x`, `height`, `velocity`, `keypoints`, `pose`,
    `latents`, `step`, and what the network tells) and returns (B,) values; B is 1 here.

    ## Starting State

    One of the world's start states, short real contexts from the teacher, drawn by the seed.

    ## Episode End

    1. Termination: no life is left. The world says how many there are (`stage`: 3 hearts), and
       each hit costs one.
    2. Termination: the network tells the end, as `outcomes` reads it; or your own `end` does, in
       the place of both.
    3. Truncation: the episode is `horizon` steps long.

    ## Info

    `step`: steps since the reset. `cost`: hits, 0 or 1 in each step. `lives` that are left, where
    the world has some. `expected_reward`; `reward_probability`, of a unit; `hit_probability`;
    `termination_probability`. While an action is held for several steps (`frame_skip`), rewards,
    costs and expectations add up, and probabilities are of one event at least. `text`, `pose`,
    `audio`: the conditions of this
    frame, those that it has. `action_name`, but for `action="conditions"`, and where somebody
    speaks `spoken`, (2, 2): sentence of the speech bank and its step, of the character and of the
    other speaker; -1 is silence. `start_state`: the index of what the episode began from, or -1 if
    that was given as frames. With `infos="numeric"` only what is a number or an array of numbers,
    as wrappers to torch need it.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import midas_world
    >>> env = gym.make("midas/Stage-v0", horizon=500)
    >>> frame, info = env.reset(seed=1, options={"prompt": "a beach at sunset"})
    ```

    | Parameter               | Type       | Default      | Description                            |
    |-------------------------|------------|--------------|----------------------------------------|
    | `world`                 | **str**    | `"stage"`    | A shipped world's name or a folder     |
    | `observation`           | **str**    | `"pixels"`   | `"pixels"`, `"latent"`, `"dict"`       |
    | `action`                | **str**    | `"discrete"` | `"discrete"`, `"keys"`, `"conditions"` |
    | `render_mode`           | **str**    | `None`       | `"rgb_array"`, or `"human"`: a window  |
    | `horizon`               | **int**    | `1000`       | Steps until an episode is truncated    |
    | `backend`               | **str**    | `"auto"`     | What runs the networks                 |
    | `num_denoise_steps`     | **int**    | `None`       | Quality for speed; None: the world's   |
    | `outcomes`              | **str**    |`"threshold"` | See Rewards                            |
    | `reward_threshold`      | **float**  | `None`       | None: half the world's `reward_unit`   |
    | `cost_threshold`        | **float**  | `0.5`        | Probability above which there is a hit |
    | `termination_threshold` | **float**  | `0.5`        | Probability above which it is the end  |
    | `reward`, `cost`, `end` | callable   | `None`       | Your own, see Rewards                  |
    | `frame_skip`            | **int**    | `1`          | Steps for which an action is held      |
    | `actions`               | **list**   | `None`       | Names of those that may be chosen      |
    | `task`, `goal`          |            | `None`       | See `envs.tasks`; `goal` is x or words |
    | `start_states`          | any        | `None`       | A `start_state` as below, or a list of |
    |                         |            |              | them, of which each reset draws one    |
    | `prompt`                | **str**    | `None`       | Words of every episode                 |
    | `infos`                 | **str**    | `"all"`      | `"numeric"`: no words in the infos     |
    | `weights_sha256`        | **str**    | `None`       | What the world's weights must have     |
    | `engine`                | **Engine** | `None`       | In place of the one that all           |
    |                         |            |              | environments of a world share          |
    | `trust`                 | **bool**   | `False`      | Import modules that the world names    |

    | Option of `reset` | Type | Description                                                     |
    |-------------------|------|-----------------------------------------------------------------|
    | `prompt`          | str  | Words for the network, and for the scene: the game begins from  |
    |                   |      | the start state that is most like it                            |
    | `things`          | bool | False: no coin, rock or fire ever comes (default True)          |
    | `start_state`     | int  | Index of a start state                                          |
    |                   | str  | Words; one of the start states that they fit best is drawn      |
    |                   | dict | Real frames to go on from, see below                            |

    The dict has `frames`, (F, H, W, 3) uint8, oldest first; `conditions`, F StepConditions, which
    may be left out if F is 1; `conditioner_state`, the teacher's at the last frame, without which
    the conditioner starts anew; and `things`, (O, 6), likewise, without which the world knows of
    none that the frame shows.

    ## Version History
    * v0: Initial version
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 20}
    _STREAMS = ("_np_random", "_np_random_seed")

    def __init__(
        self, world: str | Path | World = "stage", *, render_mode: str | None = None, **options: Any
    ) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            known = self.metadata["render_modes"]
            raise ValueError(f"render_mode must be None or one of {known}, got {render_mode!r}")
        self._games = Games(world, num_games=1, options=GameOptions(**options))
        self._arguments = {"world": world, "render_mode": render_mode, **options}
        self.render_mode = render_mode
        self.metadata = {
            **self.metadata,
            "render_fps": self.engine.spec.fps,
            "action_names": self.action_names,
        }
        self.action_space = self._games.action_space
        self.observation_space = self._games.observation_space
        self._window: FrameWindow | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode and return its first observation and info.

        Raises:
            ValueError: An option is unknown or has a value that cannot be used.
        """
        super().reset(seed=seed)
        self._games.reset([0], rngs=[self.np_random], options=[options or {}])
        self._show_if_human()
        return self.observe(), self._games.info(0)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Hold an action for one step; return observation, reward, terminated, truncated, info.

        Raises:
            ResetNeeded: There is no running episode.
            InvalidAction: The action is not in the action space.
        """
        check_running(self._games.course.over[0])
        outcome = self._games.step([action])
        self._show_if_human()
        return (
            self.observe(),
            float(outcome.rewards[0]),
            bool(outcome.terminated[0]),
            bool(outcome.truncated[0]),
            self._games.info(0),
        )

    def observe(self) -> Any:
        """Return the present observation, as after `restore_state`, which returns none.

        Raises:
            ResetNeeded: There is none yet.
        """
        self._check_begun("observe")
        return self._games.views.observe(0)

    def things(self) -> np.ndarray:
        """Return what the world knows to be near, (O, 2): class, and px from the picture's middle.

        Raises:
            ResetNeeded: No episode has begun.
        """
        self._check_begun("things")
        return self._games.course.rollout.things(0)

    def set_prompt(self, text: str | None) -> None:
        """Let words steer the world from the next step on; None gives the old words back.

        Where the world's ``prompt_scenes`` is set, words for another scene cut to the start state
        that is most like it; the network goes on from there, pose, clock and noise go on.

        Raises:
            ValueError: The text is too long or not understood, or words come with each action;
                nothing was changed.
        """
        self._games.set_prompt(text, [0])

    def understand(self, text: str) -> str:
        """Return what of a player's words is understood, in words; changes nothing.

        Raises:
            ValueError: As with `set_prompt`.
        """
        return self._games.understand(text)

    def set_voices(self, own: np.ndarray | None, other: np.ndarray | None) -> None:
        """Let live audio be the voices of the next step: (20,) features; None leaves one alone.

        `envs.stage.speech.features_from_audio` makes the features of 50 ms of sound.

        Raises:
            ValueError: Nobody speaks in this world, or sounds come with each action.
        """
        self._games.set_voices([(own, other)])

    def save_state(self) -> WorldState:
        """Return a copy of all that changes: equal states and actions give equal frames.

        Cache, latents, conditioner, clock, lives, noise, and the stream that resets draw from.

        Raises:
            ResetNeeded: No episode has begun.
        """
        self._check_begun("save_state")
        return self._games.course.state([self.np_random])

    def restore_state(self, state: WorldState) -> None:
        """Go on exactly from what `save_state` gave, here or in another process.

        Costs less than a step: nothing is decoded until someone looks.

        Raises:
            ValueError: The state is of another world, engine or version, or of several games, or
                damaged; nothing was changed.
        """
        self._games.load_state(state, [self.np_random])
        self._np_random_seed = -1  # Gymnasium's word for a stream without a seed

    def fork(
        self,
        num_games: int,
        *,
        seeds: Sequence[int] | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> "WorldVectorEnv":
        """Return games that all go on from here, on the same engine; this one is untouched.

        Args:
            num_games: How many.
            seeds: One per game, for its noise from now on. None: all share this game's noise, so
                that they differ by their actions alone.
            autoreset_mode: Of the games, as in `WorldVectorEnv`.

        Raises:
            ResetNeeded: No episode has begun.
            ValueError: The number of seeds is not that of games.
        """
        # A vector of games is not needed to play one.
        from envs.world.vector_env import WorldVectorEnv

        self._check_begun("fork")
        games = WorldVectorEnv(
            num_games,
            **self._arguments
            | {"world": self.world, "engine": self.engine, "render_mode": "rgb_array"},
            autoreset_mode=autoreset_mode,
        )
        games.restore_state(self.save_state())
        if seeds is not None:
            games.reseed(seeds)
        return games

    def render(self) -> np.ndarray | None:
        """Return the last frame ("rgb_array") or show it in the window ("human").

        Raises:
            ResetNeeded: There is no frame yet.
        """
        if not may_render(self.render_mode, has_begun=self._games.course.has_begun):
            return None
        if self.render_mode == "rgb_array":
            return self._games.views.frames()[0].copy()
        self._show_if_human()
        return None

    def close(self) -> None:
        """Close the window if there is one; may be called twice."""
        if self._window is not None:
            self._window.close()
            self._window = None

    def _show_if_human(self) -> None:
        """Show the present frame if there is to be a window."""
        if self.render_mode != "human":
            return
        if self._window is None:
            # pygame is loaded by those who want a window.
            from envs.picture import FrameWindow

            self._window = FrameWindow(self.world.folder.name, self.engine.spec.frame_shape)
        self._window.show(self._games.views.frames()[0], fps=self.metadata["render_fps"])
