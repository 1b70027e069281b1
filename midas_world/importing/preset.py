"""The preset of an imported world: how large, how fast, which actions, and no teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from midas_world.config import (
    ActionConfig,
    ProjectConfig,
    TeacherConfig,
    load_preset,
    override_config,
)
from midas_world.importing.recording import Source
from midas_world.importing.sound import AUDIO_SIZE
from midas_world.teachers.project import CPU_TOKENS, for_any_env, size_for, words_for

# More points than these are told as numbers alone, without a map of each.
_MOST_MAPS = 24


def project_for_recordings(
    source: Source,
    actions: Mapping[str, ActionConfig],
    *,
    preset: str,
    overrides: Sequence[str],
    size: tuple[int, int] | None,
    fit: str,
    fps: float,
    limbs: tuple[tuple[int, int], ...],
) -> ProjectConfig:
    """Return the project config of a world that learns from recordings alone.

    Where they tell of no keypoints and no pose, the action is it. Limbs are pairs of keypoints with
    a bone in between; none: each is a disc. Overrides win.

    Raises:
        ValueError: Sizes or overrides do not fit.
    """
    neutral = for_any_env(load_preset(preset))
    base = override_config(neutral, overrides)
    size = size or size_for(
        source.size, base, preset=preset, overrides=overrides, max_tokens=CPU_TOKENS
    )
    count = source.num_points
    limbs = limbs or tuple((k, k) for k in range(count if count <= _MOST_MAPS else 0))
    fitted = [
        *words_for(size, fps, base),
        f"world.conditions.pose_size={2 * count or source.pose_size or len(actions)}",
        f"world.conditions.num_keypoints={count}",
        f"world.conditions.limbs={[list(limb) for limb in limbs]}",
        f"world.conditions.audio_size={AUDIO_SIZE * source.has_sound}",
    ]
    if count or source.pose_size or source.has_sound:
        fitted.append("world.conditions.drop_rate=0.1")  # so that it can do without, at play
    config = override_config(neutral, [*fitted, *overrides])
    teacher = TeacherConfig(
        height=size[0],
        width=size[1],
        fit=fit,  # pyright: ignore[reportArgumentType]
        conditions="info" if count or source.pose_size else "action",
        actions=dict(actions),
    )
    data = replace(config.data, env_id="", env_kwargs={}, teacher=teacher, policy_factory="")
    return replace(config, data=replace(data, policies={}, conditioner=""))
