"""What a session's header says of an environment: its id, world, backend, versions, machine.

Shapes: H W frame size.
"""

import hashlib
import importlib.metadata
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym

from midas_world.data.episodes import current_versions
from midas_world.sessions.session import SessionHeader, current_machine
from midas_world.sessions.values import space_to_json, to_json

_PACKAGES = ("torch", "pygame-ce", "onnxruntime")


def header_of(
    env: gym.Env[Any, Any],
    *,
    fps: float,
    frame_size: tuple[int, int],
    begin: Mapping[str, Any],
    teacher: str | None = None,
) -> SessionHeader:
    """Return the header of a session of an environment."""
    inner: Any = env.unwrapped
    world: dict[str, Any] = {}
    if (loaded := getattr(inner, "world", None)) is not None:
        world = {
            "name": loaded.folder.name,
            "folder": str(loaded.folder),
            "weights_sha256": weights_hash(loaded.folder),
        }
    backend: dict[str, Any] = {}
    if (spec := getattr(getattr(inner, "engine", None), "spec", None)) is not None:
        keys = ("backend", "device", "dtype", "num_denoise_steps")
        backend = {**{key: getattr(spec, key) for key in keys}, "words": str(spec)}
    keymap = getattr(inner, "keymap", None)
    keys = getattr(inner, "action_keys", {}) if keymap is None else keymap.keys
    machine = current_machine()
    if "torch" in sys.modules:
        machine["torch_threads"] = sys.modules["torch"].get_num_threads()
    prompt = begin.get("prompt") or (begin.get("options") or {}).get("prompt")
    return SessionHeader(
        env_id=_env_id(env),
        env_kwargs=_env_kwargs(env, world),
        fps=fps,
        frame_size=(int(frame_size[0]), int(frame_size[1])),
        seed=begin.get("seed"),
        prompt=prompt if isinstance(prompt, str) else None,
        start_state=begin.get("start_state"),
        horizon=getattr(inner, "horizon", None) or (env.spec and env.spec.max_episode_steps),
        action_names=tuple(getattr(inner, "action_names", ())),
        action_keys={name: list(held) for name, held in keys.items()},
        action_space=space_to_json(env.action_space),
        world=world,
        teacher=teacher,
        backend=backend,
        versions=current_versions() | _other_versions(),
        machine=machine,
    )


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of the weights of the world in a folder."""
    weights = folder / "weights.safetensors"
    return _sha256(weights, weights.stat().st_mtime_ns)


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that a session can hold; the others are left out."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        try:
            kept[key] = to_json(value)
        except ValueError:
            continue
    return kept


def _env_id(env: gym.Env[Any, Any]) -> str:
    """Return an environment's id, with the module that registers it if that is ours."""
    kind = type(env.unwrapped)
    entry = f"{kind.__module__}:{kind.__qualname__}"
    if env.spec is not None:
        name = env.spec.id
    else:
        entries = entry, f"midas_world.environments:{kind.__qualname__}"
        names = [name for name, spec in gym.registry.items() if spec.entry_point in entries]
        name = names[0] if names else entry
    return f"envs:{name}" if entry.startswith("envs.") and not name.startswith("envs") else name


def _env_kwargs(env: gym.Env[Any, Any], world: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an environment was made with, as far as it can be written down."""
    kwargs = dict(env.spec.kwargs) if env.spec is not None else {}
    kwargs.pop("engine", None)
    if world:
        kwargs["world"] = world["folder"]
    return plain(kwargs)


@cache
def _sha256(path: Path, _changed_at: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _other_versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
