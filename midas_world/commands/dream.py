"""From an environment's id to a world that can be played: every stage, resumable.

The work folder keeps what is decided (dream.yaml: the project's config; dream.json: the request,
the train steps that fit the time, and what is done), the episodes and the runs. The same request
goes on where it was stopped; another one in the same folder is refused.

How an env becomes a teacher is teachers/project.py's business, what a stage does its own module's.
"""

import csv
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from midas_world.commands.dream_card import write_card
from midas_world.commands.dream_work import DreamRequest, Stage, WorkFolder
from midas_world.config import OptimizerConfig, ProjectConfig, load_config, save_config
from midas_world.evaluate.command import QUICK, SECTIONS, evaluate
from midas_world.evaluate.config import EvaluationConfig
from midas_world.evaluate.report import JSON_NAME, read_report
from midas_world.locks import alone_in
from midas_world.teachers.collect import CollectConfig, collect, measure_pace
from midas_world.teachers.project import (
    CPU_TOKENS,
    GPU_TOKENS,
    collect_configs,
    project_for,
    summary_of,
)
from midas_world.teachers.rewards import with_reward_scale
from midas_world.train.autoencoder import train_autoencoder
from midas_world.train.dynamics import train_dynamics
from midas_world.train.loop import LOG_NAME
from midas_world.train.pack import pack_world
from midas_world.types import MidasWorldError
from midas_world.world import load_world

logger = logging.getLogger(__name__)

CONFIG_FILE = "dream.yaml"
# What becomes of the time; the rest is for packing and evaluation.
COLLECT_SHARE = 0.15
TRAIN_SHARES: dict[Stage, float] = {"autoencoder": 0.25, "dynamics": 0.55}

_CPU_FRAMES, _GPU_FRAMES = 50_000, 100_000
_GPU_OVERRIDES = (
    "world.autoencoder.widths=[96,192]",
    "world.autoencoder.decoder_depths=[3,3]",
    "world.backbone.num_layers=8",
    "world.backbone.width=512",
    "world.backbone.num_heads=8",
    "world.backbone.mlp_width=1408",
    "world.head.widths=[128,256,384]",
    "train_autoencoder.optimizer.batch_size=32",
    "train_dynamics.optimizer.batch_size=32",
)
_DISK_SHARE = 0.5
_RATE_STEPS = 12
_MIN_STEPS = 20
_EVALUATIONS = 5


class DreamError(MidasWorldError):
    """A world cannot be made of an env; the message says why."""


def dream(request: DreamRequest) -> Path:
    """Make a world as asked, going on where an earlier call was stopped; return its folder.

    Raises:
        ValueError: The env cannot be a teacher, an option cannot be used, or the work folder was
            begun with another request.
        DreamError: No episode could be collected.
        BusyError: Another process is at it.
    """
    with alone_in(request.work):
        return _dream(request)


def _dream(request: DreamRequest) -> Path:
    work = WorkFolder(request)
    config = _decide(request, work)
    logger.info("%s", summary_of(config))
    data = request.work / "data"
    with work.doing("collect"):
        _collect(config, request)
    if not any(word.startswith("world.reward_") for word in request.overrides):
        config = with_reward_scale(config, data / "train")
    runs = {"autoencoder": request.work / "autoencoder", "dynamics": request.work / "dynamics"}

    def train_first(config: ProjectConfig, folder: Path, stop_at: int | None) -> None:
        train_autoencoder(config, data, folder, stop_at=stop_at)

    def train_second(config: ProjectConfig, folder: Path, stop_at: int | None) -> None:
        coder = runs["autoencoder"]
        train_dynamics(config, data, folder, autoencoder=coder, stop_at=stop_at)

    stages: dict[Stage, Callable[[ProjectConfig, Path, int | None], None]] = {
        "autoencoder": train_first,
        "dynamics": train_second,
    }
    for stage, train in stages.items():
        if stage not in work.train_steps:
            work.decide(stage, _fitting_steps(stage, train, config, request))
        config = with_train_steps(config, stage, work.train_steps[stage])
        if not work.is_done(stage, runs[stage] / "weights.safetensors"):
            with work.doing(stage):
                train(config, runs[stage], None)
    if not work.is_done("pack", request.output / "config.yaml"):
        with work.doing("pack"):
            pack_world(config, request.output, **runs)
    report = request.work / "evaluation"
    part = f"{request.evaluation} evaluation"
    if request.evaluation != "none":
        missing = list(SECTIONS)
        if work.is_done(part, report / JSON_NAME):
            missing = _failed_sections(report)
        if missing:
            with work.doing(part):
                _evaluate(config, request, report, sections=missing)
    write_card(request.output, config, evaluation=report / JSON_NAME)
    return request.output


def with_train_steps(config: ProjectConfig, stage: Stage, train_steps: int) -> ProjectConfig:
    """Return a config in which a stage takes so many train steps, and what hangs on them fits."""
    if stage == "dynamics":
        old = config.train_dynamics
        optimizer = _shortened(old.optimizer, train_steps)
        changed = replace(old, optimizer=optimizer, evaluate_every=_part(train_steps))
        return replace(config, train_dynamics=changed)
    settings = config.train_autoencoder
    after = settings.freeze_encoder_after
    if after > 0:
        after = max(1, round(after * train_steps / settings.optimizer.train_steps))
    changed = replace(
        settings,
        optimizer=_shortened(settings.optimizer, train_steps),
        freeze_encoder_after=after,
        evaluate_every=_part(train_steps),
    )
    return replace(config, train_autoencoder=changed)


def _shortened(optimizer: OptimizerConfig, train_steps: int) -> OptimizerConfig:
    warmup = min(optimizer.warmup_steps, train_steps // 10)
    return replace(optimizer, train_steps=train_steps, warmup_steps=warmup)


def _part(train_steps: int) -> int:
    return max(1, -(-train_steps // _EVALUATIONS))


def _decide(request: DreamRequest, work: WorkFolder) -> ProjectConfig:
    """Return the project's config: the one decided on earlier, or a new one for this machine."""
    path = work.folder / CONFIG_FILE
    if path.is_file():
        try:
            return load_config(ProjectConfig, path)
        except ValueError as error:
            logger.warning("%s; it is decided anew", error)
    has_gpu = torch.cuda.is_available()
    is_own = request.preset == "dream"
    scaled = _GPU_OVERRIDES if has_gpu and is_own else ()
    config = project_for(
        request.env_id,
        request.options,
        preset=request.preset,
        overrides=[*scaled, *request.overrides],
        max_tokens=GPU_TOKENS if has_gpu else CPU_TOKENS,
        is_to_play=True,
    )
    is_chosen = any(word.startswith("data.num_episodes=") for word in request.overrides)
    if is_own and request.options.episodes is None and not is_chosen:
        config = replace(
            config, data=replace(config.data, num_episodes=_num_episodes(config, request))
        )
    save_config(config, path)
    return config


def _num_episodes(config: ProjectConfig, request: DreamRequest) -> int:
    """Return how many episodes the time, the disk and the machine are for."""
    data, world = config.data, config.world
    _, train = _collect_configs(config, request)
    pace = measure_pace(train)
    wanted = _GPU_FRAMES if torch.cuda.is_available() else _CPU_FRAMES
    by_time = COLLECT_SHARE * request.budget_s / pace.seconds(1, request.num_workers)
    # Training reads frames that are decoded once: they are what fills the disk.
    by_disk = _DISK_SHARE * shutil.disk_usage(request.work).free / (world.height * world.width * 3)
    num_frames = min(wanted, by_time, by_disk)
    count = max(4, int(num_frames / data.num_steps))
    logger.info(
        "%d episodes of at most %d steps: %.1f GB with decoded frames",
        *(count, data.num_steps, count * data.num_steps * world.height * world.width * 3 / 1e9),
    )
    return count


def _collect_configs(
    config: ProjectConfig, request: DreamRequest
) -> tuple[CollectConfig, CollectConfig]:
    folder = request.work / "data"
    return collect_configs(
        config.data, folder, num_workers=request.num_workers, codec=request.codec
    )


def _collect(config: ProjectConfig, request: DreamRequest) -> None:
    for part in _collect_configs(config, request):
        result = collect(part)
        if not result.collected + result.skipped:
            reason = next(iter(result.failed.values()), "no reason given")
            raise DreamError(f"no episode of {config.data.env_id} could be collected: {reason}")


def _fitting_steps(
    stage: Stage,
    train: Callable[[ProjectConfig, Path, int | None], None],
    config: ProjectConfig,
    request: DreamRequest,
) -> int:
    """Return the train steps that fit the stage's share of the time, at the rate measured here."""
    settings = config.train_autoencoder if stage == "autoencoder" else config.train_dynamics
    if request.train_steps is not None:
        return request.train_steps
    if any(word.startswith(f"train_{stage}.optimizer.train_steps=") for word in request.overrides):
        return settings.optimizer.train_steps
    few = replace(
        config,
        train_autoencoder=replace(config.train_autoencoder, num_validation=4),
        train_dynamics=replace(config.train_dynamics, num_validation=2),
    )
    with tempfile.TemporaryDirectory(dir=request.work) as folder:
        train(few, Path(folder), _RATE_STEPS)
        with (Path(folder) / LOG_NAME).open() as file:
            rates = [row for row in csv.DictReader(file) if row["name"] == "items_per_s"]
    seconds = settings.optimizer.batch_size / float(rates[-1]["value"])
    train_steps = max(_MIN_STEPS, int(TRAIN_SHARES[stage] * request.budget_s / seconds))
    minutes = train_steps * seconds / 60
    logger.info("%s: %d train steps, about %.0f minutes", stage, train_steps, minutes)
    return train_steps


def _failed_sections(report: Path) -> list[str]:
    """Return what an earlier call could not measure, to be tried again."""
    found = read_report(report)
    sections = found["sections"] if found else {}
    return [name for name in SECTIONS if sections.get(name, {}).get("status", "failed") == "failed"]


def _evaluate(
    config: ProjectConfig, request: DreamRequest, output: Path, *, sections: Sequence[str]
) -> None:
    """Measure the world; a section that fails or does not apply is said in the report."""
    settings = QUICK
    if request.evaluation == "full":
        settings = EvaluationConfig(
            num_episodes=4,
            episode_steps=config.data.num_steps,
            num_autoencoder_frames=100,
            num_next_frames=200,
            num_rollouts=4,
            num_long_runs=1,
            long_steps=1000,
        )
    # Options of Stage's: another env may not know them.
    settings = replace(settings, teacher_options={})
    world = load_world(request.output, trust=True)  # whoever asked has named all of it
    report = evaluate(world, settings, output, sections=sections)
    shutil.copyfile(output / JSON_NAME, request.output / JSON_NAME)
    for name, section in report["sections"].items():
        if section["status"] != "ok":
            logger.info("evaluation: %s %s: %s", name, section["status"], section["reason"])
