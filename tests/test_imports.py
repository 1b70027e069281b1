"""The import rule: rooms import what stands below them, and a heavy package has its owners."""

import ast
import contextlib
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A room imports itself and what stands in a line above it; those of one line never meet. A name
# stands for a module, or for a package and all in it that no longer name stands for. "a. b c" are
# a.b and a.c.
ROOMS = """
midas_world
midas_world. types typed files packages machine arguments psnr tables plain_torch \
    user_folders tokenizing
midas_world. edge locks
midas_world. config checkpoint data
midas_world. trust
midas_world. model.layers sessions teachers
midas_world.model. dc_blocks kv_cache skeleton_maps
midas_world.model. autoencoder
midas_world.model. motion
midas_world.model. backbone conditions scenery entries entry_book head diffusion
midas_world.model. windows outcome
midas_world.model. world_model
midas_world. model.foreign_weights world
midas_world. train
engine. spec
engine. on_torch
engine. on_onnx
engine. on_tensorrt
engine. rollout prepare
engine. backends
engine. select
engine. make
engine
engine. bench build shared
envs. contract tasks picture recording vocabulary
envs. stage vizdoom_chase
envs. world soundtrack choices
envs. sb3 recording.record keyboard
envs. capture
envs
midas_world. evaluate.probes sessions.export
midas_world. evaluate importing
midas_world.evaluate. sections
midas_world.evaluate. command
envs.play. voice
envs.play. game
envs.play. replay
envs.play. studio
envs.play. window headless
play
midas_world. commands
midas_world. environments
"""
PLACES = {
    f"{package}{name}": line
    for line, (package, *names) in enumerate(map(str.split, ROOMS.strip().splitlines()))
    for name in names or [""]
}

WITHOUT_TORCH = ("midas_world/types.py", "midas_world/data/", "midas_world/config/", "envs/stage/")

# Which files may import a heavy package: a folder's name stands for all files in it.
OWNERS = {
    "pygame": ("envs/", "play.py", "midas_world/commands/soak.py"),
    "fsspec": ("midas_world/data/shard_index.py",),
    "rapidfuzz": ("envs/vocabulary.py",),
    "platformdirs": ("midas_world/user_folders.py",),
    "av": ("midas_world/data/video.py",),
    "pynput": ("envs/keyboard.py",),
    "mss": ("envs/capture/screen.py",),
    "espeakng_loader": ("envs/play/voice/sentences.py",),
    "sounddevice": ("envs/play/voice/microphone.py",),
    "webrtcvad": ("envs/play/voice/conversation.py",),
    "stable_baselines3": ("envs/sb3.py",),
    "minari": ("midas_world/sessions/export/minari_dataset.py",),
    "pyarrow": (
        "midas_world/sessions/export/lerobot_dataset.py",
        "midas_world/importing/lerobot.py",
        "midas_world/importing/minari_tables.py",
    ),
    "pandas": ("midas_world/sessions/export/lerobot_dataset.py",),
    "omegaconf": ("midas_world/config/", "midas_world/world.py", "engine/"),
    "matplotlib": ("midas_world/train/strips.py", "midas_world/evaluate/plots.py"),
    "tensorboard": (),
    "torch.utils.tensorboard": ("midas_world/train/loop.py",),
    "tokenizers": ("midas_world/tokenizing.py",),
    "transformers": (),
    "diffusers": (),
    "onnx": ("engine/",),
    "onnxruntime": ("engine/on_onnx/runtime.py",),
    "tensorrt": (),  # of both, runtime.py takes the one that is asked for, by its name
    "tensorrt_rtx": (),
}

# What ids stand for: values, which are never imported there.
NAMED_AS_VALUES = (("midas_world/__init__.py", "midas_world.environments"),)

# A module, "module:attribute", or an id of Gymnasium behind the module that registers it.
NAMED = re.compile(r"(midas_world|engine|envs)((\.\w+)+(:\w+)?|:[\w/.-]+)")


def imports_of(source: str, name: str = "") -> set[str]:
    """Return what a file imports anywhere, also inside functions and by a string."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                assert not node.level, f"{name} imports relatively"
                assert node.module is not None
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            case ast.Call(args=[ast.Constant(value=str(module)), *_]):
                if ast.unparse(node.func).rpartition(".")[2] == "import_module":
                    found.add(module)
            case ast.Constant(value=str(text)) if NAMED.fullmatch(text):
                found.add(text.partition(":")[0])
    return found


@cache
def imports() -> dict[str, frozenset[str]]:
    """Return the modules that each file imports."""
    files = [ROOT / "play.py"]
    for package in ("midas_world", "engine", "envs"):
        files += sorted((ROOT / package).rglob("*.py"))
    return {
        file.relative_to(ROOT).as_posix(): frozenset(
            imports_of(file.read_text(encoding="utf-8"), file.name)
            - {module for config, module in NAMED_AS_VALUES if file == ROOT / config}
        )
        for file in files
    }


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def graph() -> dict[str, frozenset[str]]:
    """Return which of our modules each of them imports."""
    modules = {module_of(file) for file in imports()}

    def ours(name: str) -> str:
        # "from a import b" means the module a.b, or what is called b in a.
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    return {
        module_of(file): frozenset(map(ours, names)) - {"", module_of(file)}
        for file, names in imports().items()
    }


def is_of(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def room_of(module: str) -> str:
    while module not in PLACES:
        module = module.rpartition(".")[0]
        assert module, "every module has a room"
    return module


def test_the_walk_finds_imports_of_every_kind():
    assert {Path(name).parts[0] for name in imports()} >= {"midas_world", "engine", "envs"}
    assert "midas_world.model.kv_cache" in graph()["midas_world.model.backbone"]
    assert "midas_world.model" not in graph()["midas_world.model.backbone"]
    source = """
def run():
    import torch
    from engine import rollout
    importlib.import_module("play").main()
    import_module("midas_world.evaluate.command")
    gymnasium.make("envs:midas/Stage-v0")
    register(entry_point="envs.stage.env:StageEnv")
    print("midas_world.train is slow", "envs:", "play", "engine")
"""
    expected = {"torch", "engine.rollout", "play", "midas_world.evaluate.command"}
    assert imports_of(source) == expected | {"envs", "envs.stage.env"}


def test_every_room_of_the_table_is_there():
    modules = {module_of(file) for file in imports()}
    assert PLACES.keys() <= modules


def test_rooms_import_only_what_stands_below_them():
    wrong = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if room_of(module) != room_of(other) and PLACES[room_of(other)] >= PLACES[room_of(module)]
    ]
    assert not wrong


def test_no_modules_import_one_another_in_a_circle():
    with contextlib.suppress(CycleError):
        TopologicalSorter({"a": ["b"], "b": ["a"]}).prepare()
        pytest.fail("a circle would not be seen")
    TopologicalSorter(graph()).prepare()


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


def test_the_teacher_and_what_it_needs_run_without_torch():
    wrong = [
        file
        for file, modules in imports().items()
        if file.startswith(WITHOUT_TORCH)
        if any(is_of(module, "torch") for module in modules)
    ]
    assert not wrong


def test_the_packages_themselves_load_nothing_slow():
    """Torch takes seconds, and the others tenths; gymnasium is what registers the envs."""
    slow = ("torch", *OWNERS)
    code = f"import sys, midas_world, envs; print(*(n for n in {slow} if n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout.strip(), done.stderr) == ("", "")
