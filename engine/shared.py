"""Worlds and engines that run in this process, for all who ask for the same ones.

Neither is changed by playing, and they are most of what an environment weighs. They go with the
last environment that plays on them.
"""

import os
from pathlib import Path
from weakref import WeakValueDictionary

import torch

from engine.make import make_engine
from engine.spec import Engine
from midas_world.user_folders import cache_folder
from midas_world.world import World, find_world, load_world

_worlds: WeakValueDictionary[tuple[object, ...], World] = WeakValueDictionary()
_engines: WeakValueDictionary[tuple[object, ...], Engine] = WeakValueDictionary()


def shared_world(name: str | Path, *, trust: bool) -> World:
    """Return what `load_world` does; the world that is loaded, while its files are the same."""
    key = (*_files(name), trust)
    world = _worlds.get(key)
    return world if world is not None else _worlds.setdefault(key, load_world(name, trust=trust))


def shared_engine(
    name: str | Path, world: World, backend: str, *, num_denoise_steps: int | None
) -> Engine:
    """Return what `make_engine` does for a `shared_world`; the engine that runs it so already."""
    threads = torch.get_num_threads()
    key = (*_files(name), backend, num_denoise_steps, threads, cache_folder())
    engine = _engines.get(key)
    if engine is None:
        made = make_engine(world, backend, num_denoise_steps=num_denoise_steps)
        engine = _engines.setdefault(key, made)
    return engine


def _files(name: str | Path) -> tuple[object, ...]:
    """Return what tells the files of a world from others, in this process: none outlives a fork."""
    folder = find_world(name).resolve()
    files = sorted((path.name, path.stat()) for path in folder.iterdir() if path.is_file())
    stamps = ((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in files)
    return os.getpid(), folder, *stamps
