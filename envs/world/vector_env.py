"""Many games of a learned world in one forward pass per step, as a Gymnasium vector environment.

Keeps the contract of `gymnasium.vector.VectorEnv`: who is reset when, and how infos of many games
lie together. What a game is lies in games.py.

Shapes: B games.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.seeding import np_random as make_rng
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space, iterate

from envs.contract import may_render
from envs.world.base import WorldBase
from envs.world.games import Games
from envs.world.options import GameOptions
from envs.world.state import WorldState
from midas_world.world import World


class WorldVectorEnv(WorldBase, VectorEnv[Any, Any, np.ndarray]):
    """B games of a learned world, played in step: one forward pass makes all their next frames.

    Game i is the game that `WorldEnv` plays alone with the same seed, up to the rounding of another
    batch size: latents to 1e-4 in float32, as on ONNX Runtime, whose eight bits are the decoder's
    alone and of scales that no batch changes; pixels to 1 of 255 in the mean in bfloat16.
    `gymnasium.make_vec("midas/Stage-v0", num_envs=B)` makes one. Actions, observations, rewards,
    ends, infos and the arguments not told here are those of `WorldEnv`, batched as Gymnasium
    batches them.

    ## Arguments

    | Parameter        | Type    | Default      | Description                                      |
    |------------------|---------|--------------|--------------------------------------------------|
    | `num_envs`       | **int** | `1`          | B                                                |
    | `render_mode`    | **str** | `None`       | `"rgb_array"`: `render` gives one frame per game |
    | `autoreset_mode` | **str** | `"NextStep"` | What happens to a game that has ended, see below |
    | `max_episode_steps` | **int** | `None`    | As Gymnasium's own: a smaller `horizon`          |

    | `autoreset_mode` | A game that has ended                                                     |
    |------------------|---------------------------------------------------------------------------|
    | `"NextStep"`     | is reset by the next `step`, which ignores its action and rewards it by 0 |
    | `"SameStep"`     | is reset at once; its last moment is in `final_obs` and `final_info`      |
    | `"Disabled"`     | must be reset by `reset(options={"reset_mask": mask})` before any `step`  |

    A reset touches its own games only; the others go on as if nothing had happened.

    | Option of `reset` | Type             | Description                                        |
    |-------------------|------------------|----------------------------------------------------|
    | `reset_mask`      | (B,) bool        | Which games to reset; the others keep their frames |
    | `prompt`          | as in `WorldEnv` | One for all games, or a list of one per game       |
    | `start_state`     | as in `WorldEnv` | One for all games, or a list of one per game       |

    `seed` may be an int, which gives game i the seed `seed + i`, or a list of one per game.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
    _STREAMS = ("_rngs", "_seeds")

    def __init__(
        self,
        num_envs: int = 1,
        world: str | Path | World = "stage",
        *,
        render_mode: str | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **options: Any,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be None or 'rgb_array', got {render_mode!r}")
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        game_options = GameOptions(**options)
        if max_episode_steps is not None:
            horizon = min(game_options.horizon, max_episode_steps)
            game_options = replace(game_options, horizon=horizon)
        self._games = Games(world, num_games=num_envs, options=game_options)
        self._arguments = {
            "num_envs": num_envs,
            "world": world,
            "render_mode": render_mode,
            "autoreset_mode": autoreset_mode,
            "max_episode_steps": max_episode_steps,
            **options,
        }
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.metadata = {
            **self.metadata,
            "render_fps": self.engine.spec.fps,
            "action_names": self.action_names,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_action_space = self._games.action_space
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.single_observation_space = self._games.observation_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self._rngs, self._seeds = map(
            list, zip(*(make_rng() for _ in range(num_envs)), strict=True)
        )

    @property
    def np_random(self) -> tuple[np.random.Generator, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Each game's own random stream, which its resets draw from."""
        return tuple(self._rngs)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The seed of each game's stream; -1 if it has none."""
        return tuple(self._seeds)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin all games anew, or those of `reset_mask`; return all observations, and infos.

        Raises:
            ValueError: An option is unknown or has a value that cannot be used.
        """
        options = dict(options or {})
        games = self._masked_games(options.pop("reset_mask", None))
        seeds = self._seed_list(seed)
        for game in games:
            if (own := seeds[game]) is not None:
                self._rngs[game], self._seeds[game] = make_rng(own)
        started = self._begin(games, self._options_per_game(options))
        if not self._games.course.has_begun:
            raise ResetNeeded("the first reset must be of all games, without reset_mask")
        infos: dict[str, Any] = {}
        for game, info in started.items():
            infos = self._add_info(infos, info, game)
        return self._games.views.observe(), infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Hold one action per game for one step.

        Returns:
            Observations, rewards (B,) float64, terminations and truncations (B,) bool, infos.

        Raises:
            ResetNeeded: A game has not begun, or has ended and nothing resets it.
            InvalidAction: An action is not in the action space; nothing was changed.
        """
        games = self._games
        ended = games.course.over.copy()
        self._check_begun("step")
        if self.autoreset_mode != AutoresetMode.NEXT_STEP and ended.any():
            which = np.flatnonzero(ended).tolist()
            raise ResetNeeded(f"games {which} have ended: reset them with option 'reset_mask'")
        outcome = games.step(self._action_list(actions))
        infos: dict[str, Any] = {}
        started: dict[int, dict[str, Any]] = {}
        if self.autoreset_mode == AutoresetMode.NEXT_STEP:
            started = self._begin(np.flatnonzero(ended).tolist())
        elif self.autoreset_mode == AutoresetMode.SAME_STEP and games.course.over.any():
            over = np.flatnonzero(games.course.over).tolist()
            for game in over:
                final = {
                    "final_obs": games.views.observe(game),
                    "final_info": games.info(game),
                }
                infos = self._add_info(infos, final, game)
            started = self._begin(over)
        for game in range(self.num_envs):
            infos = self._add_info(infos, started.get(game) or games.info(game), game)
        return games.views.observe(), outcome.rewards, outcome.terminated, outcome.truncated, infos

    def observe(self) -> Any:
        """Return the present observations, as after `restore_state`, which returns none.

        Raises:
            ResetNeeded: There are none yet.
        """
        self._check_begun("observe")
        return self._games.views.observe()

    def set_prompt(self, text: str | None, *, games: Sequence[int] | None = None) -> None:
        """Let words steer some games, or all, from the next step on; None gives back the old ones.

        Raises:
            ValueError: The text is too long or not understood, or words come with each action.
        """
        self._games.set_prompt(text, range(self.num_envs) if games is None else games)

    def save_state(self) -> WorldState:
        """Return a copy of all that changes in all games; see `WorldEnv.save_state`.

        Raises:
            ResetNeeded: The games have not begun.
        """
        self._check_begun("save_state")
        return self._games.course.state(self._rngs)

    def restore_state(self, state: WorldState) -> None:
        """Go on exactly from a state of B games; from a state of one game, let all go on from it.

        `state.select(games)` makes a state of B games of others, such as of the best few.

        Raises:
            ValueError: The state is of another world, engine, version or number of games.
        """
        self._games.load_state(state, self._rngs)
        self._seeds = [-1] * self.num_envs

    def reseed(self, seeds: Sequence[int]) -> None:
        """Let each game's noise and its later resets follow from a seed of its own.

        Raises:
            ValueError: There is not one seed per game.
        """
        if len(seeds) != self.num_envs:
            raise ValueError(f"seeds must be one per game ({self.num_envs}), got {len(seeds)}")
        self._games.reseed(seeds)
        for game, seed in enumerate(seeds):
            self._rngs[game], self._seeds[game] = make_rng(seed)

    def render(self) -> tuple[np.ndarray, ...] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the last frame of each game, if render_mode is "rgb_array".

        Raises:
            ResetNeeded: There are no frames yet.
        """
        if not may_render(self.render_mode, has_begun=self._games.course.has_begun):
            return None
        return tuple(self._games.views.frames().copy())

    def _begin(
        self, games: Sequence[int], options: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[int, dict[str, Any]]:
        """Begin some games anew and return their infos; `options` has one entry per game of B."""
        if not games:
            return {}
        self._games.reset(
            games,
            rngs=[self._rngs[game] for game in games],
            options=[options[game] if options else {} for game in games],
        )
        return {game: self._games.info(game) for game in games}

    def _masked_games(self, mask: Any) -> list[int]:
        if mask is None:
            return list(range(self.num_envs))
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise ValueError(f"reset_mask must be a NumPy array of bool, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must have shape ({self.num_envs},) and be true somewhere, got {mask}"
            )
        return np.flatnonzero(mask).tolist()

    def _seed_list(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + game for game in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed must have one entry per game ({self.num_envs}), got {seed}")
        return list(seed)

    def _options_per_game(self, options: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return each game's options of what may be one value for all or a list of one each."""
        per_game: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for name, value in options.items():
            is_list = isinstance(value, list | tuple | np.ndarray)
            if is_list and len(value) != self.num_envs:
                raise ValueError(
                    f"option {name} must be one for all games or a list of {self.num_envs}, "
                    f"got {len(value)}"
                )
            for game, own in enumerate(per_game):
                own[name] = value[game] if is_list else value
        return per_game

    def _action_list(self, actions: Any) -> list[Any]:
        """Return one action per game of a batch of them."""
        try:
            listed = list(iterate(self.action_space, actions))
        except (TypeError, KeyError) as error:
            raise InvalidAction(f"actions must be in {self.action_space}: {error}") from error
        if len(listed) != self.num_envs:
            raise InvalidAction(f"actions must be {self.num_envs}, one per game, got {len(listed)}")
        return listed
