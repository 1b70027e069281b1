"""The pieces of gpu.py: what is run, in which order, and what needs what.

Imports nothing of the project before a piece begins: what is not installed there is that piece's
failure alone.
"""

import importlib.util
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from examples.resumable import Piece

ROOT = Path(__file__).parents[1]
PARTS = ("autoencoder", "dynamics", "refiner")
GROUPS = ("tests", "plans", "bench", "train")
FLAVOURS = {"tensorrt": "tensorrt", "tensorrt-rtx": "rtx"}
"""What TensorRT is called where plans are built, and where engines are chosen."""

SECTIONS = (
    *("autoencoder", "next_frame", "horizon", "pose", "things", "sharpness", "stillness"),
    *("prompts", "outcomes", "games", "voice", "weather", "revisit", "speed"),
)
# Each compiled batch size is compiled anew, which takes a minute.
BATCHES = {"stage": (1, 2, 4, 8, 16, 32, 64), "compiled": (1, 8, 64), "paper": (1, 2, 4, 8)}


@dataclass(frozen=True, kw_only=True)
class GpuConfig:
    """What is done, and where.

    Attributes:
        output: Folder that receives the results.
        work: Folder that survives from one call to the next.
        preset: What is trained, and how: a preset's name or a YAML file.
        scale: Multiplies its episodes and train steps.
        overrides: Of the preset's values; they stand above the scale.
        save_every: Train steps between states on disk: so many are lost when a call ends.
        data: Folder with episodes that are there already; None: in the work folder.
        init_from: World folder whose weights training starts from; None: from nothing.
        world: That plans are built for and that is benchmarked.
        workers: Processes that collect episodes.
    """

    output: Path
    work: Path
    preset: str = "stage"
    scale: float = 1.0
    overrides: tuple[str, ...] = ()
    save_every: int = 100
    data: Path | None = None
    init_from: Path | None = None
    world: str = "stage"
    workers: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.scale <= 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        for name in ("save_every", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def results(self) -> Path:
        """Folder for reports and logs, all of which goes to the output."""
        return self.work / "results"

    @property
    def trained(self) -> Path:
        """Folder of the trained world, once it is packed."""
        return self.work / "world"

    def settings(self) -> dict[str, object]:
        """Return what must not change from one call to the next."""
        return {
            "preset": self.preset,
            "scale": self.scale,
            "overrides": list(self.overrides),
            "data": self.data and str(self.data),
            "init_from": self.init_from and str(self.init_from),
            "world": self.world,
        }


def all_pieces(config: GpuConfig) -> list[Piece]:
    """Return every piece, in the order of GROUPS."""
    return [
        *_test_pieces(config),
        *_plan_pieces(config),
        *_bench_pieces(config),
        *_train_pieces(config),
    ]


def _test_pieces(config: GpuConfig) -> list[Piece]:
    # Plug-ins that the project's settings speak of may not be there.
    common = ("-m", "pytest", "-o", "addopts=-ra", "-p", "no:cacheprovider")
    common += ("-W", "ignore::pytest.PytestConfigWarning", "--continue-on-collection-errors")
    # Marks are keywords too. Two pieces, for those with TensorRT build engine files first.
    wanted = {
        "torch": ("-m", "gpu", "-k", "not tensorrt and not rtx"),
        "tensorrt": ("-m", "gpu or tensorrt", "-k", "tensorrt or rtx"),
    }
    pieces = []
    for name, words in wanted.items():
        report = config.results / f"tests-{name}.xml"
        command = (
            *common,
            f"--rootdir={ROOT}",
            f"--junitxml={report}",
            *words,
            str(ROOT / "tests"),
        )
        check = partial(told_by_tests, report)
        pieces.append(Piece(name=f"tests/{name}", command=partial(list, command), check=check))
    return pieces


def _plan_pieces(config: GpuConfig) -> list[Piece]:
    plans = sorted(path.stem for path in (ROOT / "trt_plans").glob("*.yaml"))
    pieces = []
    for flavour in FLAVOURS:
        for plan in plans:
            words = ("build", "--world", config.world, "--plan", plan, "--flavour", flavour)
            pieces.append(Piece(name=f"plans/{flavour}-{plan}", command=_verb(*words)))
    return pieces


def _bench_pieces(config: GpuConfig) -> list[Piece]:
    def words(name: str, backend: str, *more: object) -> tuple[object, ...]:
        return ("bench", "--backend", backend, "--output", config.results / "bench" / name, *more)

    quality = ("--quality", 50)
    of_world = ("--world", config.world, *quality, "--batches", *BATCHES["stage"])
    compiled = ("--world", config.world, *quality, "--batches", *BATCHES["compiled"])
    wanted = {
        "stage-torch": words("stage-torch", "torch", *of_world, "--drift", 2000),
        "stage-torch-compile": words("stage-torch-compile", "torch-compile", *compiled),
        **{
            f"stage-{flavour}": words(f"stage-{flavour}", backend, *of_world)
            for flavour, backend in FLAVOURS.items()
        },
    }
    of_paper = ("--preset", "paper", "--batches", *BATCHES["paper"], "--steps", 50)
    wanted["paper-torch"] = words("paper-torch", "torch", *of_paper)
    return [Piece(name=f"bench/{name}", command=_verb(*each)) for name, each in wanted.items()]


def _train_pieces(config: GpuConfig) -> list[Piece]:
    from midas_world.config import load_preset

    runs, data = config.work / "runs", config.data or config.work / "data"
    world = config.trained

    def verb(*words: object) -> Callable[[], list[str]]:
        return lambda: [*_verb(*words)(), "--preset", config.preset, *train_overrides(config)]

    codec = "h264" if importlib.util.find_spec("av") else "raw"
    where = ("--data", data, "--output", runs)
    start = ("--init-from", config.init_from) if config.init_from else ()
    collect = ("collect", "--data", data, "--codec", codec, "--workers", config.workers)
    pieces = [
        Piece(name="train/collect", command=verb(*collect), goes_on=True),
        Piece(
            name="train/autoencoder",
            command=verb("train", "autoencoder", *where, *start),
            goes_on=True,
            needs=("train/collect",),
        ),
        Piece(
            name="train/dynamics",
            command=verb("train", "dynamics", *where, *start),
            goes_on=True,
            needs=("train/autoencoder",),
        ),
    ]
    if load_preset(config.preset, config.overrides).world.is_refined:
        words = ("train", "refiner", *where, *start)
        needs = ("train/dynamics",)
        pieces.append(Piece(name="train/refiner", command=verb(*words), goes_on=True, needs=needs))
    words = ("pack", "--output", runs, "--world", world)
    pieces.append(Piece(name="train/pack", command=verb(*words), needs=(pieces[-1].name,)))
    for section in SECTIONS:
        words = ("--world", world, "--sections", section, "--output", config.results / "evaluation")
        name = f"train/eval-{section.replace('_', '-')}"
        pieces.append(Piece(name=name, command=_verb("eval", *words), needs=("train/pack",)))
    return pieces


def _verb(*words: object) -> Callable[[], list[str]]:
    return lambda: ["-m", "midas_world.commands.cli", *map(str, words)]


def train_overrides(config: GpuConfig) -> list[str]:
    """Return the overrides of the preset: the scale's, then those that were given.

    Raises:
        ValueError: There is no such preset, or no such value in it.
    """
    from midas_world.config import load_preset

    project = load_preset(config.preset, config.overrides)
    coder, dynamics = project.train_autoencoder, project.train_dynamics
    counts = {
        "data.num_episodes": project.data.num_episodes,
        "train_autoencoder.optimizer.train_steps": coder.optimizer.train_steps,
        "train_autoencoder.freeze_encoder_after": coder.freeze_encoder_after,
        "train_dynamics.optimizer.train_steps": dynamics.optimizer.train_steps,
        "train_refiner.optimizer.train_steps": project.train_refiner.optimizer.train_steps,
    }
    scaled = [
        f"{name}={max(1, round(config.scale * count))}"
        for name, count in counts.items()
        if count > 0
    ]
    saves = [f"train_{part}.save_every={config.save_every}" for part in PARTS]
    return [*saves, *scaled, *config.overrides]


def told_by_tests(report: Path) -> str:
    """Return how many tests ran, of a JUnit report.

    Raises:
        ValueError: None ran: where there is no GPU, all are skipped.
    """
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314 - our own
    count = sum(int(suite.get("tests", 0)) for suite in suites)
    skipped = sum(int(suite.get("skipped", 0)) for suite in suites)
    if count <= skipped:
        raise ValueError(f"no test ran: {skipped} were skipped, as where there is no CUDA device")
    return f"{count - skipped} tests passed, {skipped} skipped"
