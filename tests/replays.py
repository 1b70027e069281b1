"""A recorded session with words, a way back and a second episode."""

from pathlib import Path

import numpy as np
import pytest

from envs.play.game.game import Game
from envs.play.game.playable import Playable
from envs.play.game.rewind import Rewind
from envs.stage.controller import ACTIONS

KICK, RUN_RIGHT, WALK_LEFT = (ACTIONS.index(n) for n in ("kick", "run_right", "walk_left"))

# Frame: 0 reset; 1-4 run; words; 5-8 kick; back to 6 (frame 9); 10-13 walk; reset (14); 15-17 kick.
NUM_FRAMES = 18


def record(folder: Path, played: Playable) -> list[np.ndarray]:
    """Record a session with words, a way back and a second episode; return its frames."""
    game, rewind = Game(played, seed=4, prompt="a beach"), Rewind(100)
    frames: list[np.ndarray] = []

    def see(view, **values) -> None:
        frames.append(view.frame)
        rewind.add(game, view, **values)

    game.recorder.start(folder, fps=20, on_error=pytest.fail)
    see(game.reset(), is_jump=True)
    for _ in range(4):
        see(game.step(RUN_RIGHT))
    game.set_prompt("rain at night")
    for _ in range(4):
        see(game.step(KICK))
    rewind.back()
    rewind.back()
    frames.append(rewind.resume(game).frame)
    for _ in range(4):
        see(game.step(WALK_LEFT))
    see(game.reset_to_next_start(), is_jump=True)
    for _ in range(3):
        see(game.step(KICK))
    game.recorder.stop(wait=True)
    return frames
