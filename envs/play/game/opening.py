"""Opening what is played: a learned world, or Stage, the game that the shipped one learned from."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from envs.play.game.playable import Playable, TeacherLink

if TYPE_CHECKING:
    from midas_world.world import World

ENDLESS = 10**9

_STAGE_ID = "midas/StageTeacher-v0"
_CONDITIONER_PREFIX = "conditioner."  # of the names in a world's state


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
