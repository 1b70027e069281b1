"""The import rule: play -> envs -> engine -> midas_world, and one owner per heavy package."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A room imports itself and what stands before it.
ROOMS = ("midas_world", "engine", "envs", "play")

# Inside the model: a module imports only what stands in a line above its own.
MODEL = (
    ("types", "autoencoder_config", "conditions_config", "refiner_config", "train_config"),
    ("config",),
    ("layers", "checkpoint"),
    ("dc_blocks", "kv_cache", "skeleton_maps", "motion"),
    ("autoencoder", "backbone", "conditions", "scenery", "entries", "head", "diffusion"),
    ("refiner", "world_model"),
    ("foreign_weights", "world"),
    ("train",),
)

# Started by name, not imported: it runs the command line's verbs one after another.
SCRIPTS = ("midas_world/train/shipped.py",)

# Which files may import a heavy package: a folder's name stands for all files in it.
OWNERS = {
    "pygame": ("envs/", "play.py"),
    "fsspec": ("midas_world/shards.py",),
    "rapidfuzz": ("envs/vocabulary.py",),
    "platformdirs": ("envs/play/",),
    "av": ("midas_world/video.py",),
    "pynput": ("envs/play/hotkey.py",),
    "minari": ("midas_world/export/minari_dataset.py",),
    "pyarrow": ("midas_world/export/lerobot_dataset.py",),
    "pandas": ("midas_world/export/lerobot_dataset.py",),
    "omegaconf": ("midas_world/config.py", "midas_world/world.py", "engine/"),
    "matplotlib": ("midas_world/train/strips.py", "midas_world/evaluate/plots.py"),
    "tensorboard": (),
    "torch.utils.tensorboard": ("midas_world/train/loop.py",),
    "transformers": (),
    "diffusers": (),
    "onnx": ("engine/",),
    "onnxruntime": ("engine/",),
    "tensorrt": ("engine/",),
    "tensorrt_rtx": ("engine/",),
    "pycuda": ("engine/",),
}


@cache
def imports() -> dict[str, frozenset[str]]:
    """Return the modules that each file imports anywhere, also inside functions."""
    files = [ROOT / "play.py"]
    for room in ROOMS[:-1]:
        files += sorted((ROOT / room).rglob("*.py"))
    found: dict[str, set[str]] = defaultdict(set)
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name} imports relatively"
                assert node.module is not None
                # "from a import b" may mean the module a.b.
                found[name] |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return {name: frozenset(modules) for name, modules in found.items()}


def is_of(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_the_walk_finds_imports_of_every_room():
    assert {Path(name).parts[0] for name in imports()} >= {"midas_world", "engine", "envs"}
    assert "torch" in imports()["midas_world/backbone.py"]
    assert "midas_world.kv_cache.KVCache" in imports()["midas_world/backbone.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_never_imports_one_above_it(room):
    above = ROOMS[ROOMS.index(room) + 1 :]
    wrong = [
        f"{file} imports {module}"
        for file, modules in imports().items()
        if is_of(Path(file).with_suffix("").as_posix().replace("/", "."), room)
        for module in modules
        if any(is_of(module, other) for other in above)
    ]
    assert not wrong


def test_inside_the_model_imports_point_down_and_its_parts_never_meet():
    places = {name: line for line, names in enumerate(MODEL) for name in names}
    wrong = []
    for file, modules in imports().items():
        path = Path(file).with_suffix("")
        if file in SCRIPTS or path.parts[0] != "midas_world" or path.parts[1] not in places:
            continue
        own = places[path.parts[1]]
        for module in modules:
            parts = module.split(".")
            if parts[0] != "midas_world" or len(parts) < 2 or parts[1] == path.parts[1]:
                continue
            # Training reads episodes and packs what policies play; no other part knows them.
            beside = ("episodes", "shards", "shard_packing", "collect", "teachers")
            allowed = path.parts[1] == "train" and parts[1] in beside
            if not allowed and places.get(parts[1], len(MODEL)) >= own:
                wrong.append(f"{file} imports {module}")
    assert not wrong


# The ids are not the packages' names: a name that is also a mark would be taken for one.
@pytest.mark.parametrize("package", sorted(OWNERS), ids="of-{}".format)
def test_a_heavy_package_has_its_owners_and_no_others(package):
    wrong = [
        file
        for file, modules in imports().items()
        if any(is_of(module, package) for module in modules)
        and not any(file == owner or file.startswith(owner) for owner in OWNERS[package])
    ]
    assert not wrong


@pytest.mark.parametrize(
    "package", ["tensorrt", "tensorrt_rtx", "onnxruntime", "pycuda"], ids="of-{}".format
)
def test_a_backend_is_imported_in_one_file(package):
    files = {
        file
        for file, modules in imports().items()
        if any(is_of(module, package) for module in modules)
    }
    assert len(files) <= 1, files


def test_the_teacher_and_what_it_needs_run_without_torch():
    wrong = [
        file
        for file, modules in imports().items()
        if file.startswith("envs/stage/")
        or file in ("midas_world/types.py", "midas_world/episodes.py", "midas_world/shards.py")
        if any(is_of(module, "torch") for module in modules)
    ]
    assert not wrong
