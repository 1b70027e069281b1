"""Opening what is played: a learned world, or Stage, the game that the shipped one learned from."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from envs.play.game.agents import Seer
from envs.play.game.playable import Loading, Playable, SceneChoices, TeacherLink
from envs.stage import is_stage
from envs.stage.policies import make_policy
from midas_world.teachers.policies import Policy

if TYPE_CHECKING:
    from midas_world.world import World

ENDLESS = 10**9

NO_GAME = "this world learned from recordings: there is no game to compare it with"

_CONDITIONER_PREFIX = "conditioner."  # of the names in a world's state


def open_world(
    world: "str | Path | World",
    *,
    backend: str = "auto",
    num_denoise_steps: int | None = None,
    prepares: bool = False,
    trust: bool = False,
    loading: Loading | None = None,
) -> Playable:
    """Make a world ready to play, by its shipped name, its folder, or as it was loaded.

    With `prepares`, engine files that "auto" could take are built in the background.

    Raises:
        CheckpointError: A file is missing, corrupt or does not fit.
        BackendUnavailableError: The backend cannot run here.
    """
    loading = loading or Loading()
    loading.tell("loading PyTorch")
    # torch takes seconds to load: the window is up by then.
    from envs.world.conditioners import hears_alone, takes_words
    from envs.world.env import WorldEnv
    from midas_world.world import World, load_world

    if not isinstance(world, World):
        loading.tell(f"reading the world {Path(world).name}")
        world = load_world(world, trust=trust)
    loading.tell("preparing what runs it", keys=world.keymap.keys)
    options: Any = {"backend": backend, "num_denoise_steps": num_denoise_steps}
    env: Any = WorldEnv(world, horizon=ENDLESS, **options)
    build = None
    if prepares and backend == "auto":
        from envs.play.game.background_build import begin_build

        build = begin_build(env.world, env.engine, num_denoise_steps=num_denoise_steps)
    return Playable(
        env=env,
        keymap=env.keymap,
        fps=env.engine.spec.fps,
        title=env.world.folder.name,
        backend=str(env.engine.spec),
        why=env.engine.spec.reason,
        teacher=_teacher_of(env),
        hears=hears_alone(env.world),
        takes_words=takes_words(env.world),
        no_teacher=Playable.no_teacher if env.world.config.data.has_teacher else NO_GAME,
        counts_coins=_is_stage(env),
        starts=tuple(start.description for start in env.start_states),
        show_start=lambda index: env.engine.decode(env.start_states[index].latents[-1:].float())[0],
        scenes=_stage_scenes() if _is_stage(env) else None,
        make_agent=partial(_make_expert, env) if _is_stage(env) else None,
        background_build=build,
        reopen=build and partial(open_world, env.world, **options),
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
        counts_coins=True,
        make_agent=partial(make_policy, "expert"),
        scenes=_stage_scenes(),
        no_teacher="this is the teacher itself: F2 compares a learned world with it",
    )


def _stage_scenes() -> SceneChoices:
    """Return Stage's scenes, drawn by Stage itself."""
    from envs.stage.env import StageEnv
    from envs.stage.scene import PHRASES, Scene
    from envs.stage.words import scene_from_text

    make_painter = cache(StageEnv)  # by whoever wants to see one

    def draw(names: Mapping[str, str]) -> np.ndarray:
        return make_painter().reset(seed=1, options={"scene": dict(names), "things": False})[0]

    return SceneChoices(
        fields={name: tuple(known) for name, known in PHRASES.items()},
        read=lambda text: asdict(scene_from_text(text, Scene())),
        draw=draw,
    )


def _make_expert(env: Any) -> Policy:
    """Return Stage's expert, who sees what a world learned from Stage knows to be near."""
    from envs.stage.picture import objects_of_things

    return Seer(make_policy("expert"), lambda: objects_of_things(env.things()))


def _is_stage(env: Any) -> bool:
    return is_stage(env.world.config.data.env_id)


def _teacher_of(env: Any) -> TeacherLink | None:
    """Return how a world's teacher can be put where the world is, if it can."""
    if not _is_stage(env):
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
