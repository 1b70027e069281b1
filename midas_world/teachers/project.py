"""From a Gymnasium id and a few options to a project config that fits that env.

What `midas-world collect --env` and `midas-world dream` have in common: the env is tried out, and
frame size, speed, actions and conditions are decided once and kept in a preset of its own.
"""

import argparse
import contextlib
import dataclasses
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from midas_world.config import (
    ActionConfig,
    ConditionsConfig,
    DataConfig,
    EntriesConfig,
    ProjectConfig,
    SceneryConfig,
    TeacherConfig,
    WorldConfig,
    load_config,
    load_preset,
    override_config,
    save_preset,
)
from midas_world.teachers.collect import CollectConfig, load_policy
from midas_world.teachers.env import TeacherEnv, adapt, check_teacher, shipped_keymap
from midas_world.teachers.options import WANTED_FPS

logger = logging.getLogger(__name__)

CPU_TOKENS = 16
GPU_TOKENS = 64

_PROBE_EPISODES = 2
_PROBE_SEED = 3_000_000


@dataclass(frozen=True, kw_only=True)
class KeyMapFile:
    """A user's key map: actions by name, the first being what happens while no key is held."""

    actions: dict[str, ActionConfig] = field(default_factory=dict)


def name_of(env_id: str) -> str:
    """Return a folder's name for an env: "midas/DoomChase-v0" -> "doomchase".

    Raises:
        ValueError: The id has no name in it.
    """
    name = re.sub(r"-v\d+$", "", re.split("[:/]", env_id)[-1])
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not name:
        raise ValueError(f"an env's id is such as CarRacing-v3 or module:Name-v0, got {env_id!r}")
    return name


def preset_of(folder: Path) -> Path:
    """Return where the preset lies that a folder of data, or of weights, brings."""
    return folder / f"{folder.resolve().name}.yaml"


def project_for(
    env_id: str,
    options: argparse.Namespace,
    *,
    preset: str,
    overrides: Sequence[str],
    max_tokens: int,
    is_to_play: bool,
) -> ProjectConfig:
    """Return a preset's config fitted to an env: size, speed, actions, conditions and policies.

    The tokens are the most where neither options nor preset say the size. Of a world that is to be
    played, the env's own pose and sound are of no use unless something gives them then.

    Raises:
        ValueError: The env cannot be a teacher, or an option cannot be used.
    """
    neutral = for_any_env(load_preset(preset))
    base = override_config(neutral, overrides)
    keymap = options.keymap or shipped_keymap(env_id)
    actions = load_config(KeyMapFile, keymap).actions if keymap is not None else {}
    first = TeacherConfig(fit=options.fit, frames=options.frames, actions=actions)
    kwargs = parse_kwargs(options.env_kwargs)
    with contextlib.closing(adapt(env_id, kwargs, first)) as env:
        fps = float(env.metadata["render_fps"])
        repeat = options.repeat or max(1, round(fps / WANTED_FPS))
        size = options.size or size_for(
            env.env_frame_size, base, preset=preset, overrides=overrides, max_tokens=max_tokens
        )
        teacher = dataclasses.replace(
            first,
            height=size[0],
            width=size[1],
            repeat=repeat,
            actions=env.actions_config,
            conditions=_conditions(env, options, is_to_play=is_to_play),
        )
    factory, policies = _policies(options.policy, base.data)
    data = dataclasses.replace(
        base.data,
        env_id=env_id,
        env_kwargs=kwargs,
        teacher=teacher,
        conditioner=options.conditioner,
        policy_factory=factory,
        policies=policies,
        num_episodes=options.episodes or base.data.num_episodes,
        num_steps=options.steps or base.data.num_steps,
    )
    fitted = [*words_for(size, fps / repeat, base), *_tried_out(data, base)]
    config = override_config(neutral, overrides, fitted=fitted)
    return dataclasses.replace(config, data=data)


def for_any_env(config: ProjectConfig) -> ProjectConfig:
    """Return a preset's config without what only its own teacher declares."""
    plain = ConditionsConfig()
    conditions = dataclasses.replace(
        config.world.conditions,
        num_keypoints=plain.num_keypoints,
        limbs=plain.limbs,
        camera=plain.camera,
        clock=plain.clock,
    )
    motion = config.world.motion
    if motion.parallax:
        motion = load_preset("dream").world.motion
    world = dataclasses.replace(
        config.world,
        conditions=conditions,
        motion=motion,
        scenery=SceneryConfig(),
        entries=EntriesConfig(),
        outcome_width=WorldConfig.outcome_width,
        lives=0,
    )
    dynamics = dataclasses.replace(config.train_dynamics, face=None)
    return dataclasses.replace(config, world=world, train_dynamics=dynamics)


def keep_preset(config: ProjectConfig, path: Path) -> None:
    """Write the config of a data folder, or check that the one there is of the same teacher.

    Raises:
        ValueError: What is there was begun with another teacher.
    """
    if path.is_file():
        there = load_config(ProjectConfig, path).data
        for name in ("env_id", "env_kwargs", "teacher", "conditioner"):
            if getattr(there, name) != getattr(config.data, name):
                raise ValueError(
                    f"{path.parent} was begun with another {name}: {getattr(there, name)}, now "
                    f"{getattr(config.data, name)}; choose another folder"
                )
    save_preset(config, path)


def episodes_root(data: DataConfig, folder: Path) -> Path:
    """Return where episodes are collected: where training will look for them.

    Raises:
        ValueError: That is no folder of this machine.
    """
    if "://" in data.folder:
        raise ValueError(
            f"data.folder must be a folder of this machine to collect into, got {data.folder}"
        )
    return Path(data.folder or folder)


def collect_configs(
    data: DataConfig, folder: Path, *, num_workers: int, codec: Literal["h264", "raw"]
) -> tuple[CollectConfig, CollectConfig]:
    """Return what to collect into a data folder: the held-out episodes, and those to train on.

    Raises:
        ValueError: There is no teacher to collect from.
    """
    check_teacher(data)
    train = CollectConfig(
        data=data,
        output=folder / "train",
        num_episodes=data.num_episodes,
        first_seed=data.first_seed,
        num_workers=num_workers,
        codec=codec,
    )
    held = dataclasses.replace(
        train,
        output=folder / "validation",
        num_episodes=data.num_validation_episodes,
        first_seed=data.first_validation_seed,
    )
    return held, train


def summary_of(config: ProjectConfig) -> str:
    """Return what was decided about an env, for people."""
    data, world, teacher = config.data, config.world, config.data.teacher
    assert teacher is not None
    named = ", ".join(
        f"{name} ({'+'.join(action.keys)})" if action.keys else name
        for name, action in teacher.actions.items()
    )
    lines = [
        f"{data.env_id} {dict(data.env_kwargs) or ''}".rstrip(),
        f"  frames   {world.height}x{world.width} ({teacher.fit}), {world.tokens_per_frame} tokens",
        f"  speed    {world.fps} steps a second, {teacher.repeat} of the env's in each",
        f"  actions  {named}",
        f"  policies {data.policy_factory or dict(data.policy_weights)}",
    ]
    return "\n".join(lines)


def parse_kwargs(words: Sequence[str]) -> dict[str, Any]:
    """Return keyword arguments of words such as "continuous=false"; values are YAML.

    Raises:
        ValueError: A word has no "=".
    """
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--env-kwargs takes words such as continuous=false, got {word!r}")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--env-kwargs {word!r}: {error}") from error
    return found


def size_for(
    frame: tuple[int, int],
    base: ProjectConfig,
    *,
    preset: str,
    overrides: Sequence[str],
    max_tokens: int,
) -> tuple[int, int]:
    """Return a preset's H and W; of one that is for any size, what fits frames of (h, w)."""
    is_given = any(word.startswith(("world.height=", "world.width=")) for word in overrides)
    if preset != "dream" or is_given:
        return base.world.height, base.world.width
    step = base.world.autoencoder.downsampling * base.world.token_block
    return fitting_size(frame, step=step, max_tokens=max_tokens)


def words_for(size: tuple[int, int], fps: float, base: ProjectConfig) -> list[str]:
    """Return overrides for frames of a size, at so many steps a second."""
    words = [f"world.height={size[0]}", f"world.width={size[1]}"]
    words.append(f"world.fps={max(1, round(fps))}")
    for stage in ("train_autoencoder", "train_dynamics"):
        words.append(f"{stage}.crop_size={min(getattr(base, stage).crop_size, *size)}")
    return words


def fitting_size(frame: tuple[int, int], *, step: int, max_tokens: int) -> tuple[int, int]:
    """Return the size, in whole tokens, that shows most of a frame's shape with few bars."""
    height, width = frame
    best, size = -1.0, (1, 1)
    for rows in range(1, max_tokens + 1):
        for columns in range(1, max_tokens // rows + 1):
            scale = min(rows / height, columns / width)
            shown = scale * scale * height * width  # tokens that show something
            worth = shown - 0.5 * (rows * columns - shown)
            if worth > best:
                best, size = worth, (rows, columns)
    return size[0] * step, size[1] * step


def _conditions(
    env: TeacherEnv, options: argparse.Namespace, *, is_to_play: bool
) -> Literal["action", "info"]:
    """Return what steers the world, and say what is not used or will be missing."""
    own = " and ".join(sorted(env.env_info_keys & {"pose", "audio"}))
    if options.conditions == "info" and not own:
        raise ValueError("--conditions info: the env gives neither info['pose'] nor ['audio']")
    if not own or options.conditions == "action":
        return "action"
    if options.conditions == "auto" and is_to_play and not options.conditioner:
        logger.info("not used: the env's own %s; a --conditioner would give it at play", own)
        return "action"
    if not options.conditioner:
        logger.info("nothing will give the env's %s at play; name a --conditioner for that", own)
    return "info"


def _tried_out(data: DataConfig, base: ProjectConfig) -> list[str]:
    """Return overrides for the sizes of the env's conditions and for short episodes.

    Raises:
        ValueError: Its episodes are too short to learn from.
    """
    assert data.teacher is not None
    name = max(data.policy_weights, key=lambda name: data.policy_weights[name])
    lengths, found = [], []
    with contextlib.closing(adapt(data.env_id, data.env_kwargs, data.teacher)) as env:
        for seed in range(_PROBE_SEED, _PROBE_SEED + _PROBE_EPISODES):
            policy = load_policy(data.policy_factory, name, env.action_space)
            policy.reset(np.random.default_rng(seed))
            observation, info = env.reset(seed=seed)
            found = [
                f"world.conditions.{key}_size={len(info[key]) if key in info else 0}"
                for key in ("pose", "audio")
            ]
            ended, length = False, 0
            while not ended and length < data.num_steps:
                action = policy.act(observation, info)
                observation, _, terminated, truncated, info = env.step(action)
                ended, length = terminated or truncated, length + 1
            lengths.append(length)
    if data.teacher.conditions == "info" and not data.conditioner:
        found.append("world.conditions.drop_rate=0.1")  # so that it can do without, at play
    usual = max(lengths)
    if usual < 3:
        raise ValueError(f"episodes of {data.env_id} end after {usual} steps: too short to learn")
    context = max(2, usual // 2)
    if context >= base.world.backbone.context_frames:
        return found
    logger.info("episodes end after %d steps: contexts of %d frames", usual, context)
    return [*found, f"world.backbone.context_frames={context}"]


def _policies(words: Sequence[str], data: DataConfig) -> tuple[str, dict[str, float]]:
    """Return policy factory and weights of --policy words.

    Raises:
        ValueError: A weight is no number, or policies of two kinds are mixed.
    """
    if "human" in words:
        raise ValueError(
            "a human plays in a window, alone: midas-world collect --env ID --policy human. For "
            "dream, add --data WORK/data and give both the same --size; it trains on all there"
        )
    if not words:
        # A teacher's own policies play nothing else.
        is_for_any = not data.policy_factory
        return "", dict(data.policies) if is_for_any else {"sticky": 0.85, "random": 0.15}
    if len(words) == 1 and ":" in words[0]:
        return words[0], {"own": 1.0}
    weights: dict[str, float] = {}
    for word in words:
        name, _, weight = word.partition("=")
        try:
            weights[name] = float(weight or 1.0)
        except ValueError:
            raise ValueError(f"--policy takes NAME=WEIGHT, got {word!r}") from None
        if ":" in name:
            raise ValueError(f"a policy of your own, {name!r}, plays alone: name no other")
    return "", weights
