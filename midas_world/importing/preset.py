"""The preset of an imported world: how large, how fast, which actions, and no teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from midas_world.config import (
    ActionConfig,
    DataConfig,
    ProjectConfig,
    TeacherConfig,
    load_preset,
    override_config,
)
from midas_world.importing.sound import AUDIO_SIZE
from midas_world.teachers.project import CPU_TOKENS, fitting_size, for_any_env

# More points than these are told as numbers alone, without a map of each.
_MOST_MAPS = 24


def project_for_recordings(
    *,
    preset: str,
    overrides: Sequence[str],
    actions: Mapping[str, ActionConfig],
    source_size: tuple[int, int],
    size: tuple[int, int] | None,
    fit: str,
    fps: float,
    num_points: int,
    limbs: tuple[tuple[int, int], ...],
    has_sound: bool,
) -> ProjectConfig:
    """Return the project config of a world that learns from recordings alone.

    Args:
        preset: Name or file of the preset to begin with.
        overrides: Dotted; they win.
        actions: By name, the first being what happens while no key is held.
        source_size: (h, w) of the recorded pictures.
        size: H and W; None: what fits the recording.
        fit: See `TeacherConfig`.
        fps: Steps per second.
        num_points: K; with none, the action is the pose.
        limbs: Pairs of keypoints with a bone in between; none: each is a disc.
        has_sound: Whether there is sound.

    Raises:
        ValueError: Sizes or overrides do not fit.
    """
    neutral = for_any_env(load_preset(preset))
    base = override_config(neutral, overrides)
    is_free = preset == "dream" and not any(
        word.startswith(("world.height=", "world.width=")) for word in overrides
    )
    if is_free and size is None:
        step = base.world.autoencoder.downsampling * base.world.token_block
        size = fitting_size(source_size, step=step, max_tokens=CPU_TOKENS)
    size = size or (base.world.height, base.world.width)
    count = num_points
    limbs = limbs or tuple((k, k) for k in range(count if count <= _MOST_MAPS else 0))
    fitted = [
        f"world.height={size[0]}",
        f"world.width={size[1]}",
        f"world.fps={max(1, round(fps))}",
        f"world.conditions.pose_size={2 * count or len(actions)}",
        f"world.conditions.num_keypoints={count}",
        f"world.conditions.limbs={[list(limb) for limb in limbs]}",
        f"world.conditions.audio_size={AUDIO_SIZE * has_sound}",
        *(
            f"{stage}.crop_size={min(getattr(base, stage).crop_size, *size)}"
            for stage in ("train_autoencoder", "train_dynamics")
        ),
    ]
    if count or has_sound:
        fitted.append("world.conditions.drop_rate=0.1")  # so that it can do without, at play
    config = override_config(neutral, [*fitted, *overrides])
    teacher = TeacherConfig(
        height=size[0],
        width=size[1],
        fit=fit,  # pyright: ignore[reportArgumentType]
        conditions="info" if count else "action",
        actions=dict(actions),
    )
    data = replace(config.data, env_id="", env_kwargs={}, teacher=teacher, policy_factory="")
    return replace(config, data=replace(data, policies={}, conditioner=""))


def with_episodes(
    config: ProjectConfig, *, num_train: int, num_held: int, num_steps: int
) -> ProjectConfig:
    """Return a config of so many episodes."""
    data = replace(
        config.data,
        num_episodes=num_train,
        num_validation_episodes=num_held,
        first_seed=max(DataConfig.first_seed, num_held),
        num_steps=num_steps,
    )
    return replace(config, data=data)
