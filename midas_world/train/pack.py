"""Make a world folder of a trained run: weights, start states, key map."""

import contextlib
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from midas_world.checkpoint import WEIGHTS_NAME, load_part, load_weights
from midas_world.config import ProjectConfig
from midas_world.data.episodes import list_episodes, read_episodes
from midas_world.locks import alone_in
from midas_world.model.autoencoder import Autoencoder, normalize_frames, to_tokens
from midas_world.model.world_model import WorldModel
from midas_world.teachers.collect import load_policy
from midas_world.teachers.env import make_teacher
from midas_world.teachers.recordings import recorded_infos
from midas_world.train.autoencoder import load_autoencoder
from midas_world.train.sources import episodes_folder
from midas_world.types import StepConditions
from midas_world.world import KeyMap, StartState, save_world, things_in_view

logger = logging.getLogger(__name__)

NUM_START_STATES = 48
START_FRAMES = 8
# Of each place, and of each place and time of day: as for six places and four times.
_SHARES = {0: NUM_START_STATES, 1: 8, 2: 2}
FIRST_START_SEED = 2_000_000


def pack_world(
    config: ProjectConfig,
    world: Path,
    *,
    autoencoder: Path,
    dynamics: Path,
    data: Path | None = None,
) -> Path:
    """Write a world folder of the stages' checkpoints and return it.

    Start states come from fresh teacher episodes, whose seeds were neither trained on nor are
    held out. Each place and time of day (in ``info["scene"]``, where the teacher gives them) takes
    an equal share of them, so that words find what they ask for. Without a teacher they are pieces
    of the recordings that were trained on, which then lie in the folder `data`; so they are of a
    foreign env, which may be slow, if its episodes are there.

    Raises:
        ValueError: There is nothing to begin from.
        BusyError: Another process is packing the same world.
    """
    with alone_in(world):
        return _pack_world(config, world, autoencoder=autoencoder, dynamics=dynamics, data=data)


def _pack_world(
    config: ProjectConfig, world: Path, *, autoencoder: Path, dynamics: Path, data: Path | None
) -> Path:
    coder = load_autoencoder(autoencoder, config)
    model = WorldModel(config.world)
    load_weights(model, load_part(dynamics, "model"), source=str(dynamics))
    folder = _recordings(config, data)
    if folder is None:
        with contextlib.closing(make_teacher(config.data)) as env:
            states, keymap = make_start_states(env, coder, config), keymap_of(env)
    else:
        states = recorded_start_states(folder, coder, config)
        assert config.data.teacher is not None, "recorded_infos asks for it"
        keymap = KeyMap.of(config.data.teacher.actions)
    save_world(
        world, config=config, autoencoder=coder, model=model, start_states=states, keymap=keymap
    )
    size = (world / WEIGHTS_NAME).stat().st_size / 1e6
    logger.info("packed %s: weights %.1f MB, %d start states", world, size, len(states))
    return world


def _recordings(config: ProjectConfig, data: Path | None) -> Path | None:
    """Return the episodes that start states are taken from; None: a teacher plays for them."""
    own = config.data
    if not own.has_teacher:
        return episodes_folder(config, data or Path()) / "train"
    if own.teacher is None or own.conditioner or data is None:
        return None  # all scenes are to be shown; a conditioner's state was not recorded
    folder = Path(own.folder or data) / "train"
    return folder if folder.is_dir() and list_episodes(folder) else None


def keymap_of(env: gymnasium.Env[Any, Any]) -> KeyMap:
    """Return the key map that the teacher names (``action_names``, ``action_keys``).

    A teacher that names none gets its actions numbered and called by the number keys.

    Raises:
        ValueError: The action space is not Discrete.
    """
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise ValueError(f"the key map needs a Discrete action space, got {space}")
    inner = env.unwrapped
    names = tuple(getattr(inner, "action_names", [f"action_{i}" for i in range(int(space.n))]))
    numbered = {name: [str(index)] for index, name in enumerate(names[:10])}
    return KeyMap(actions=names, keys=dict(getattr(inner, "action_keys", numbered)))


def make_start_states(
    env: gymnasium.Env[Any, Any], autoencoder: Autoencoder, config: ProjectConfig
) -> list[StartState]:
    """Play short seeded pieces of the teacher and encode them; see `pack_world`.

    In them the character does nothing, so that games begin at rest. Those of a foreign env are of
    its own policy, anywhere in the first half of an episode: where its episodes begin may be all
    alike, and nobody knows which of its actions does nothing.

    Raises:
        ValueError: Every episode of the teacher ends within the world's context.
    """
    data = config.data
    length = min(config.world.backbone.context_frames, START_FRAMES)
    weights = data.policy_weights
    name = max(weights, key=lambda name: weights[name])
    taken: Counter[tuple[str, ...]] = Counter()
    states: list[StartState] = []
    longest = data.num_steps
    for seed in range(FIRST_START_SEED, FIRST_START_SEED + 20 * NUM_START_STATES):
        if len(states) == NUM_START_STATES:
            break
        observation, info = env.reset(seed=seed)
        kind = _kind(info)
        if taken[kind] >= _SHARES[len(kind)]:
            continue
        policy = load_policy(data.policy_factory, name, env.action_space)
        policy.reset(np.random.default_rng(seed))
        skipped = 0
        if data.teacher is not None:
            skipped = int(np.random.default_rng((seed, 2)).integers(longest // 2 + 1))
        frames, infos, ended = [observation], [info], False
        while len(frames) < length + skipped and not ended:
            action = 0 if data.teacher is None else policy.act(observation, info)
            observation, _, terminated, truncated, info = env.step(action)
            ended = bool(terminated or truncated)
            frames.append(observation)
            infos.append(info)
        if ended:
            longest = min(longest, len(frames))
            continue
        kind = _kind(infos[-1])  # the scene may have changed on the way
        if taken[kind] >= _SHARES[len(kind)]:
            continue
        taken[kind] += 1
        latents = _encode(np.stack(frames[-length:]), autoencoder, config.world.token_block)
        states.append(_start_state(latents, infos[-length:], width=config.world.width))
    if not states:
        raise ValueError(
            f"every episode of {data.env_id} ends within {length} frames: none can be begun from"
        )
    return states


def recorded_start_states(
    folder: Path, autoencoder: Autoencoder, config: ProjectConfig
) -> list[StartState]:
    """Encode pieces of a folder's episodes, spread over all of them.

    Raises:
        ValueError: There are none, or none that is long enough.
    """
    length = min(config.world.backbone.context_frames, START_FRAMES)
    paths = list_episodes(folder) if folder.is_dir() else []
    if not paths:
        raise ValueError(f"no recordings in {folder}: name their folder with --data")
    rng = np.random.default_rng(FIRST_START_SEED)
    states: list[StartState] = []
    chosen = np.linspace(0, len(paths) - 1, NUM_START_STATES).round().astype(int)
    for episode in read_episodes(paths[n] for n in np.unique(chosen)):
        infos = recorded_infos(episode, config.data)
        share = -(-NUM_START_STATES // len(np.unique(chosen)))
        last = episode.num_steps + 1 - length
        for first in rng.choice(last + 1, min(share, last + 1), replace=False) if last >= 0 else ():
            frames = episode.frames[first : first + length]
            latents = _encode(frames, autoencoder, config.world.token_block)
            piece = infos[first : first + length]
            states.append(_start_state(latents, piece, width=config.world.width))
    if not states:
        raise ValueError(f"no recording in {folder} has {length} frames to begin from")
    return states[:NUM_START_STATES]


def _kind(info: dict[str, Any]) -> tuple[str, ...]:
    """Return what a start state shows, as far as the teacher tells: place and time of day."""
    scene = dict(info.get("scene", {}))
    return tuple(str(scene[name]) for name in ("place", "time_of_day") if name in scene)


@torch.no_grad()
def _encode(frames: np.ndarray, autoencoder: Autoencoder, token_block: int) -> Tensor:
    """Return the tokens of frames (F, H, W, 3), (F, N, C) float32."""
    inputs = normalize_frames(torch.from_numpy(frames))
    latents = autoencoder.encode(inputs.contiguous(memory_format=torch.channels_last))
    return to_tokens(latents, token_block)


def _start_state(latents: Tensor, infos: list[dict[str, Any]], *, width: int) -> StartState:
    last = infos[-1]
    scene = dict(last.get("scene", {}))
    return StartState(
        latents=latents,
        conditions=tuple(map(StepConditions.of, infos)),
        things=things_in_view(last.get("things", np.zeros((0, 6), np.float32)), width=width),
        conditioner_state=last.get("conditioner_state", {}),
        description=", ".join(map(str, scene.values())) or str(last.get("text", "")),
    )
