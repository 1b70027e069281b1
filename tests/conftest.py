"""Fixtures for all tests: a tiny world with random weights, and no window and no sound."""

import gc
import os

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch comes: processes with two threads each would slow one another many times over.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from midas_world.types import BackendUnavailableError
from midas_world.world import CONFIG_NAME, World, find_world, load_world
from tests.fakes import FakeEngine, make_tiny_world
from tests.training import CPU, save_data, tiny

SLOW_FIXTURES = {"kept_graphs", "trained_autoencoder", "shards", "runs"}
BRIEFLY = (
    "train_autoencoder.optimizer.train_steps=60",
    "train_autoencoder.evaluate_every=60",
    "train_dynamics.scenery.train_steps=40",
    "train_dynamics.optimizer.train_steps=40",
    "train_dynamics.evaluate_every=40",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none; let one process make the slow fixtures.

    The first process begins with those who need them; what another one takes over is the last.
    """
    items.sort(key=lambda item: not SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())))
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Let collections of garbage pass over what stays anyway: a whole one took a quarter second."""
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Let no test's random weights hang on which tests ran before it."""
    torch.random.set_rng_state(torch.Generator().manual_seed(0).get_state())


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is measured, built, set and won out of the user's folders, also in children."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIDAS_WORLD_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        patch.setenv("SB3_LOGDIR", str(tmp_path_factory.mktemp("sb3")))
        patch.setenv("GOMP_SPINCOUNT", "1000")  # `play.main` sets it where nothing is
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the empty folder that a test runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a tiny world of Stage with random weights."""
    return make_tiny_world(tmp_path_factory.mktemp("worlds") / "tiny")


@pytest.fixture
def own_world(tiny_folder: Path, tmp_path: Path) -> Path:
    """Return the folder of such a world that a test may change."""
    return shutil.copytree(tiny_folder, tmp_path / "world")


@pytest.fixture(scope="session")
def tiny_world(tiny_folder: Path) -> World:
    """Return that world, loaded."""
    return load_world(tiny_folder)


@pytest.fixture
def fake(tiny_world: World) -> FakeEngine:
    """Return an engine of plain sums for it."""
    return FakeEngine(tiny_world.config.world)


@pytest.fixture(scope="session")
def shipped_world() -> World:
    """Return the world that comes with the package."""
    folder = find_world("stage")
    if "\n  head:" not in (folder / CONFIG_NAME).read_text():
        pytest.skip("the shipped world is of an older kind")
    return load_world(folder)


@pytest.fixture(scope="session")
def kept_graphs(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, tiny_world: World
) -> Path:
    """Return where exported graphs are kept, the tiny world's among them.

    From one test run to the next, if anything is: their folders are named by all that they follow
    from, so none is stale. One process exports, for that takes half a minute; the others wait.
    """
    from engine.on_onnx.export import export_graphs

    cache = getattr(pytestconfig, "cache", None)
    above = cache.mkdir("graphs") if cache else tmp_path_factory.mktemp("graphs")
    folder = above / "onnx"  # as in a cache folder
    folder.mkdir(exist_ok=True)
    # Tests of torch ask for it, too, where nothing can be exported.
    with FileLock(folder / "exporting.lock"), suppress(BackendUnavailableError, ImportError):
        export_graphs(tiny_world, folder=folder)
    return folder


@pytest.fixture(scope="session")
def outlined(
    tiny_folder: Path, kept_graphs: Path, tmp_path_factory: pytest.TempPathFactory
) -> World:
    """Return a world whose folder holds outlines."""
    from engine.on_onnx.export import write_outlines

    folder = tmp_path_factory.mktemp("outlined") / "world"
    shutil.copytree(tiny_folder, folder)
    world = load_world(folder)
    write_outlines(world, folder=kept_graphs)
    return world


@pytest.fixture
def own_outlined(outlined: World, tmp_path: Path) -> World:
    """Return such a world whose folder a test may change."""
    return load_world(shutil.copytree(outlined.folder, tmp_path / "world"))


@pytest.fixture(scope="session")
def engine(tiny_world: World) -> Any:
    """Return the plain engine of that world."""
    from engine.on_torch.engine import TorchEngine

    return TorchEngine(tiny_world, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a session of episodes of 12, 12 and 6 steps: 33 frames."""
    from tests.sessions import record_slides

    return record_slides(tmp_path_factory.mktemp("sessions") / "slides run")


@pytest.fixture(scope="session")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file in which a sentence is said."""
    from tests.voices import write_hello

    return write_hello(tmp_path_factory.mktemp("voice"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two training episodes and one held out."""
    return save_data(tmp_path_factory.mktemp("data"))


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]
) -> Path:
    """Return a folder that one process makes and all of them read."""
    above = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        above = above.parent  # of this run's processes
    done = above / f"{name} is made"
    (above / name).parent.mkdir(exist_ok=True)
    with FileLock(above / f"{name}.lock"):
        if not done.exists():
            make(above / name)
            done.touch()
    return above / name


@pytest.fixture(scope="session")
def trained_autoencoder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the first stage, trained a little."""
    from midas_world.train.autoencoder import train_autoencoder

    def train(folder: Path) -> None:
        train_autoencoder(tiny(*BRIEFLY), data, folder, device=CPU)

    return made_once(tmp_path_factory, "trained/autoencoder", train)


@pytest.fixture(scope="session")
def trained(
    data: Path, trained_autoencoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the folder of both stages, trained a little."""
    from midas_world.train.dynamics import train_dynamics

    def train(folder: Path) -> None:
        coder = trained_autoencoder
        train_dynamics(tiny(*BRIEFLY), data, folder, autoencoder=coder, device=CPU)

    return made_once(tmp_path_factory, "trained/dynamics", train).parent


@pytest.fixture(scope="session")
def coder(trained_autoencoder: Path) -> Any:
    """Return the trained autoencoder, which learns no more."""
    from midas_world.train.autoencoder import load_autoencoder

    return load_autoencoder(trained_autoencoder, tiny()).requires_grad_(requires_grad=False)


@pytest.fixture(scope="session")
def store(data: Path, coder: Any) -> Any:
    """Return what it makes of the training episodes."""
    from midas_world.train.latents import open_latents

    return open_latents(data / "train", coder, tiny().world, device=CPU)


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with twelve training episodes and two held out, numbered by their seeds."""
    from tests.shard_data import save_all

    folder = tmp_path_factory.mktemp("numbered")
    save_all(folder / "train", range(1, 13))
    save_all(folder / "validation", (20, 21))
    return folder


@pytest.fixture(scope="session")
def shards(numbered: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of those, in six shards of two."""
    from midas_world.data.packing import pack
    from tests.shard_data import two_episodes

    url = str(tmp_path_factory.mktemp("shards"))
    pack(numbered, url, shard_bytes=two_episodes(numbered))
    return url
