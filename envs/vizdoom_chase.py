"""Doom, seen from behind the marine: ViZDoom's chase camera as a Gymnasium environment.

A teacher that this project did not write, in the third person, so that there is a character to be
seen. It is free to ship: ViZDoom's wheel holds the Freedoom game files. Needs the extra "doom".
"""

import contextlib
import tempfile
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import DependencyNotInstalled

from envs.contract import check_action, check_running, may_render
from midas_world.packages import needs

with needs("midas/DoomChase-v0", extra="doom", error=DependencyNotInstalled):
    import vizdoom  # pyright: ignore[reportMissingImports]

TICS_PER_SECOND = 35
# In this order a button's place in an action is its place here.
BUTTONS = (
    vizdoom.Button.MOVE_FORWARD,
    vizdoom.Button.MOVE_BACKWARD,
    vizdoom.Button.TURN_LEFT,
    vizdoom.Button.TURN_RIGHT,
    vizdoom.Button.ATTACK,
)
ACTIONS: dict[str, tuple[int, ...]] = {
    "idle": (),
    "forward": (0,),
    "backward": (1,),
    "turn_left": (2,),
    "turn_right": (3,),
    "forward_left": (0, 2),
    "forward_right": (0, 3),
    "attack": (4,),
    "forward_attack": (0, 4),
}
ACTION_KEYS: dict[str, list[str]] = {
    "forward_left": ["up", "left"],
    "forward_right": ["up", "right"],
    "forward_attack": ["up", "space"],
    "forward": ["up"],
    "backward": ["down"],
    "turn_left": ["left"],
    "turn_right": ["right"],
    "attack": ["space"],
}


class DoomChaseEnv(gym.Env[np.ndarray, np.int64]):
    """A marine runs through a room of Doom, filmed from behind.

    ## Description

    ViZDoom with its chase camera: a teacher in the third person that this project did not write.

    ## Action Space

    `Discrete(9)`; each is held for `tics` of 1/35 s:

    | 0 | 1 | 2 | 3 | 4 |
    |---|---|---|---|---|
    | idle | forward | backward | turn_left | turn_right |

    | 5 | 6 | 7 | 8 |
    |---|---|---|---|
    | forward_left | forward_right | attack | forward_attack |

    ## Observation Space

    `Box(0, 255, (240, 320, 3), uint8)`: the screen as RGB, without the status bar.

    ## Rewards

    +1 for each medkit (whenever health rises) and for each monster killed. In "health_gathering"
    the floor burns, and without medkits the marine dies.

    ## Starting State

    As the scenario has it, from the seed.

    ## Episode End

    Terminated when the marine dies; truncated at the scenario's time limit.

    ## Info

    `health`, `kills`, `action_name`.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import midas_world
    >>> env = gym.make("midas/DoomChase-v0", scenario="my_way_home")
    ```

    | Parameter     | Type    | Default              | Description                              |
    |---------------|---------|----------------------|------------------------------------------|
    | `scenario`    | **str** | `"health_gathering"` | A ViZDoom scenario, or a path to a .cfg  |
    | `tics`        | **int** | `2`                  | Tics for which an action is held         |
    | `render_mode` | **str** | `None`               | `"rgb_array"`                            |

    ## Version History
    * v0: Initial version

    Raises:
        ValueError: There is no such scenario, or an argument is outside its limits.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": TICS_PER_SECOND / 2}
    action_names = tuple(ACTIONS)
    action_keys = ACTION_KEYS

    def __init__(
        self, scenario: str = "health_gathering", *, tics: int = 2, render_mode: str | None = None
    ) -> None:
        if tics < 1:
            raise ValueError(f"tics must be at least 1, got {tics}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f'render_mode must be None or "rgb_array", got {render_mode!r}')
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": TICS_PER_SECOND / tics}
        self.action_space = spaces.Discrete(len(ACTIONS))
        self.observation_space = spaces.Box(0, 255, (240, 320, 3), np.uint8)
        self._tics = tics
        self._arguments = {"scenario": scenario, "tics": tics, "render_mode": render_mode}
        file = _scenario_file(scenario)
        # Doom writes its settings into a file, by default where the program was started.
        self._folder = tempfile.TemporaryDirectory(prefix="midas-doom-")
        self._game: Any = _make_game(file, settings=Path(self._folder.name) / "vizdoom.ini")
        self._has_started = False
        self._needs_reset = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it was made with: an episode of Doom cannot be carried along."""
        return _make_again, (self._arguments, self.spec)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode and return its first frame and info."""
        super().reset(seed=seed)
        self._game.set_seed(int(self.np_random.integers(2**31)))
        if not self._has_started:
            _start_game(self._game)
            # Once: it is a switch, which outlasts the episode.
            self._game.send_game_command("chase")
            self._has_started = True
        else:
            self._game.new_episode()
        self._game.advance_action(1)  # The camera moves behind the marine with the first tic.
        self._needs_reset = False
        self._keep_state()
        self._frame = self._screen()
        return self._frame.copy(), self._info(0)

    def step(
        self, action: np.int64 | int
    ) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """Hold an action's buttons for some tics; return frame, reward, ends and info.

        Raises:
            ResetNeeded: There is no running episode.
            InvalidAction: The action is not in the action space.
        """
        check_running(self._needs_reset)
        check_action(action, self.action_space)
        pressed = ACTIONS[self.action_names[int(action)]]
        self._game.make_action([int(place in pressed) for place in range(len(BUTTONS))], self._tics)
        health, kills = self._health, self._kills
        is_over = self._game.is_episode_finished()
        terminated = bool(self._game.is_player_dead())
        truncated = is_over and not terminated
        self._needs_reset = is_over
        if terminated:
            self._health = 0.0
        if not is_over:
            self._keep_state()
            self._frame = self._screen()
        reward = float(self._health > health) + float(self._kills - kills)
        return self._frame.copy(), reward, terminated, truncated, self._info(int(action))

    def render(self) -> np.ndarray | None:
        """Return the last frame, or None without a render mode.

        Raises:
            ResetNeeded: There is no frame yet.
        """
        if not may_render(self.render_mode, has_begun=self._has_started):
            return None
        return self._frame.copy()

    def close(self) -> None:
        """End the game; may be called twice."""
        self._game.close()
        self._folder.cleanup()
        self._has_started = False
        self._needs_reset = True

    def _keep_state(self) -> None:
        # The game forgets its variables when an episode ends.
        read = self._game.get_game_variable
        self._health = float(read(vizdoom.GameVariable.HEALTH))
        self._kills = int(read(vizdoom.GameVariable.KILLCOUNT))

    def _screen(self) -> np.ndarray:
        return np.array(self._game.get_state().screen_buffer)

    def _info(self, action: int) -> dict[str, Any]:
        return {
            "health": self._health,
            "kills": self._kills,
            "action_name": self.action_names[action],
        }


def _make_again(arguments: dict[str, Any], spec: EnvSpec | None) -> DoomChaseEnv:
    env = DoomChaseEnv(**arguments)
    env.spec = spec
    return env


def _scenario_file(name: str) -> Path:
    folder = Path(vizdoom.scenarios_path)
    for path in (Path(name), folder / f"{name}.cfg"):
        if path.suffix == ".cfg" and path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in folder.glob("*.cfg")))
    raise ValueError(f"no scenario {name!r}; there are {known}")


def _start_game(game: Any) -> None:
    # The engine makes an empty folder where the program was started, whatever it is told.
    litter = Path("_vizdoom")
    is_new = not litter.exists()
    game.init()
    if is_new:
        with contextlib.suppress(OSError):
            litter.rmdir()


def _make_game(scenario: Path, *, settings: Path) -> Any:
    game = vizdoom.DoomGame()
    game.load_config(str(scenario))
    game.set_doom_config_path(str(settings))
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_available_buttons(list(BUTTONS))
    game.set_render_hud(False)
    game.set_render_weapon(False)
    game.set_render_crosshair(False)
    game.set_render_messages(False)
    game.set_console_enabled(False)
    # The camera is a cheat; nearer than it usually is, so that the marine fills more of the frame.
    game.add_game_args("+sv_cheats 1 +chase_dist 80 +chase_height 12")
    return game
