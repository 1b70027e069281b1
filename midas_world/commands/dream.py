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
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from midas_world.commands.dream_card import write_card
from midas_world.commands.dream_work import DreamRequest, Stage, WorkFolder
from midas_world.config import OptimizerConfig, ProjectConfig, load_preset, save_preset
from midas_world.data.episodes import is_episode
from midas_world.evaluate.command import QUICK, SECTIONS, evaluate
from midas_world.evaluate.config import EvaluationConfig
from midas_world.evaluate.report import JSON_NAME, read_report
from midas_world.locks import alone_in
from midas_world.teachers.collect import CollectConfig, CollectResult, collect
from midas_world.teachers.collected import FEW_FRAMES, look_at
from midas_world.teachers.project import (
    CPU_TOKENS,
    GPU_TOKENS,
    collect_configs,
    episodes_root,
    project_for,
    summary_of,
)
from midas_world.train.autoencoder import train_autoencoder
from midas_world.train.dynamics import train_dynamics
from midas_world.train.loop import LOG_NAME
from midas_world.train.pack import pack_world
from midas_world.types import MidasWorldError
from midas_world.world import load_world

logger = logging.getLogger(__name__)

CONFIG_FILE = "dream.yaml"

_CPU_FRAMES, _GPU_FRAMES = 50_000, 100_000
GPU_OVERRIDES = (
    "world.autoencoder.widths=[96,192]",
    "world.autoencoder.decoder_depths=[3,3]",
    "world.backbone.num_layers=8",
    "world.backbone.width=512",
    "world.backbone.num_heads=8",
    "world.backbone.mlp_width=1408",
    "world.head.widths=[128,256,384]",
    "world.head.depths=[2,2,2]",
    "train_autoencoder.optimizer.batch_size=32",
    "train_dynamics.optimizer.batch_size=32",
    "train_dynamics.optimizer.muon_learning_rate=1.0e-3",
)
_DISK_SHARE = 0.5
_RATE_STEPS, _SHORT_S = 12, 120.0
_MIN_STEPS = 20
# Of CartPole on one free core, that many steps of each stage, packing and measuring took 160 s.
_LEAST_MINUTES = 3.0
_EVALUATIONS, _EVALUATE_EVERY = 5, 200
# Train steps that fit, but for what saving and evaluating take on the way.
_TRAIN_SHARE = 0.9
# Seeds are for so many episodes; with more failed ones than this and none collected, all would.
_MOST_EPISODES, _MOST_FAILED = 100_000, 8
# From here on the world is measured in full.
_FULL_MINUTES = 60.0
# Options of Stage's reset are left out: another env may not know them.
_QUICK = replace(QUICK, num_episodes=2, num_next_frames=40, rollout_steps=20, teacher_options={})


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
    if request.train_steps is None and request.budget_s < 60 * _LEAST_MINUTES:
        logger.warning(
            "the least is about %g minutes, on a slow machine or of a slow game more: so long take "
            "%d train steps of each stage, packing and measuring, which are done in any case",
            *(_LEAST_MINUTES, _MIN_STEPS),
        )
    data = episodes_root(config.data, request.work / "data")
    config = _collect(config, request, work, data)
    assert config.data.teacher is not None
    found = look_at(data / "train", list(config.data.teacher.actions))
    if found.num_frames < FEW_FRAMES:
        logger.warning(
            "%d frames in %d episodes are few: under %d a world knows little; give it more "
            "--minutes, or a --policy that lives longer",
            *(found.num_frames, found.num_episodes, FEW_FRAMES),
        )
    if not request.gives("world.reward_"):
        config = found.scale(config)
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
            seconds = work.seconds_for(stage)
            work.decide(stage, _fitting_steps(stage, train, config, request, seconds))
        config = with_train_steps(config, stage, work.train_steps[stage])
        if not work.is_done(stage, runs[stage] / "weights.safetensors"):
            with work.doing(stage):
                train(config, runs[stage], None)
    if not work.is_done("pack", request.output / "config.yaml"):
        with work.doing("pack"):
            pack_world(config, request.output, **runs, data=data)
    report = request.work / "evaluation"
    part = f"{request.evaluation} evaluation"
    if request.evaluation != "none":
        missing = list(SECTIONS)
        if work.is_done(part, report / JSON_NAME):
            # What an earlier call could not measure is tried again.
            known = {name: item["status"] for name, item in _measured(report).items()}
            missing = [name for name in SECTIONS if known.get(name, "failed") == "failed"]
        if missing:
            # Measured anew, it is because somebody wants to know: time no longer counts.
            left = work.left_s if len(missing) == len(SECTIONS) else None
            with work.doing(part):
                _evaluate(config, request, report, sections=missing, seconds=left)
    for line in write_card(request.output, config, found, _measured(report)):
        logger.warning("%s", line)
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
    return max(_EVALUATE_EVERY, -(-train_steps // _EVALUATIONS))


def _decide(request: DreamRequest, work: WorkFolder) -> ProjectConfig:
    """Return the project's config: the one decided on earlier, or a new one for this machine."""
    path = work.folder / CONFIG_FILE
    if path.is_file():
        try:
            return load_preset(str(path))
        except ValueError as error:
            logger.warning("%s; it is decided anew", error)
    has_gpu = torch.cuda.is_available()
    is_own = request.preset == "dream"
    scaled = GPU_OVERRIDES if has_gpu and is_own else ()
    config = project_for(
        request.env_id,
        request.options,
        preset=request.preset,
        overrides=[*scaled, *request.overrides],
        max_tokens=GPU_TOKENS if has_gpu else CPU_TOKENS,
        is_to_play=True,
    )
    work.save()  # nothing is kept of an env that cannot be a teacher
    save_preset(config, path)
    return config


def _collect(
    config: ProjectConfig, request: DreamRequest, work: WorkFolder, folder: Path
) -> ProjectConfig:
    """Collect the episodes that are asked for, or what time, disk and machine are for.

    Return the config with their number: how long episodes are shows only as they come.
    """
    held, train = collect_configs(
        config.data, folder, num_workers=request.num_workers, codec=request.codec
    )
    is_open = (
        request.preset == "dream"
        and request.options.episodes is None
        and not request.gives("data.num_episodes=")
        and not work.is_done("collect", train.output)
    )
    with work.doing("collect"):
        if is_open:
            is_given = request.gives("data.num_validation_episodes=")
            config = _collect_in_time(config, train, work, is_held_given=is_given)
            held = replace(held, num_episodes=config.data.num_validation_episodes)
        else:
            _check_collected(train, collect(train))
        _check_collected(held, collect(held))
    return config


def _collect_in_time(
    config: ProjectConfig, train: CollectConfig, work: WorkFolder, *, is_held_given: bool
) -> ProjectConfig:
    """Collect as many frames as can be used in the time, and return the config with what came."""
    until = time.monotonic() + work.seconds_for("collect")
    train = replace(train, num_episodes=_MOST_EPISODES)
    # Training reads frames that are decoded once: they are what fills the disk.
    frame_bytes = config.world.height * config.world.width * 3
    by_disk = int(_DISK_SHARE * shutil.disk_usage(work.folder).free / frame_bytes)
    wanted = min(by_disk, _GPU_FRAMES if torch.cuda.is_available() else _CPU_FRAMES)
    train.output.mkdir(parents=True, exist_ok=True)
    wanted -= look_at(train.output).num_frames
    logger.info(
        "until there are %d frames, or %.0f s are over", wanted, work.seconds_for("collect")
    )

    def enough(frames: int, failed: int) -> bool:
        is_over = time.monotonic() > until if frames else failed >= _MOST_FAILED
        return is_over or frames >= wanted

    if wanted > 0:
        _check_collected(train, collect(train, enough=enough))
    there = [place for place, seed in enumerate(train.seeds) if is_episode(train.path_of(seed))]
    # Of short episodes more are held out; of few, fewer.
    data, num_held = config.data, config.data.num_validation_episodes
    if not is_held_given:
        usual = num_held * data.num_steps / look_at(train.output).mean_steps
        num_held = max(1, int(min(usual, len(there) / 10)))
    data = replace(data, num_episodes=there[-1] + 1, num_validation_episodes=num_held)
    config = replace(config, data=data)
    save_preset(config, work.folder / CONFIG_FILE)
    return config


def _check_collected(part: CollectConfig, result: CollectResult) -> None:
    if not result.collected + result.skipped:
        # Of a traceback, which the log has, the last line says what was wrong.
        *_, reason = next(iter(result.failed.values()), "no reason given").splitlines()
        raise DreamError(f"no episode of {part.data.env_id} could be collected: {reason}")


def _fitting_steps(
    stage: Stage,
    train: Callable[[ProjectConfig, Path, int | None], None],
    config: ProjectConfig,
    request: DreamRequest,
    seconds: float,
) -> int:
    """Return the train steps that fit into so many seconds, at the rate measured here."""
    settings = config.train_autoencoder if stage == "autoencoder" else config.train_dynamics
    if request.train_steps is not None:
        return request.train_steps
    if request.gives(f"train_{stage}.optimizer.train_steps="):
        return settings.optimizer.train_steps
    started = time.monotonic()
    few = replace(
        config,
        train_autoencoder=replace(config.train_autoencoder, num_validation=4),
        train_dynamics=replace(config.train_dynamics, num_validation=2),
    )
    # A whole run, however short: later train steps take longer than the first.
    tried = _RATE_STEPS if seconds > _SHORT_S else _RATE_STEPS // 2
    few = with_train_steps(few, stage, tried)
    with tempfile.TemporaryDirectory(dir=request.work) as folder:
        place = Path(folder) / stage  # whose lock lies beside it
        train(few, place, tried)
        with (place / LOG_NAME).open() as file:
            rates = [row for row in csv.DictReader(file) if row["name"] == "items_per_s"]
    step_s = settings.optimizer.batch_size / float(rates[-1]["value"])
    seconds -= time.monotonic() - started
    fitting = int(_TRAIN_SHARE * seconds / step_s)
    train_steps = max(_MIN_STEPS, fitting)
    minutes = train_steps * step_s / 60
    logger.info("%s: %d train steps, about %.1f minutes", stage, train_steps, minutes)
    if fitting < _MIN_STEPS:
        logger.warning("those are the least: --minutes is too little for them here")
    return train_steps


def _measured(report: Path) -> dict[str, Any]:
    """Return the sections of the report in a folder, if there is one."""
    found = read_report(report)
    return found["sections"] if found else {}


def _evaluate(
    config: ProjectConfig,
    request: DreamRequest,
    output: Path,
    *,
    sections: Sequence[str],
    seconds: float | None,
) -> None:
    """Measure the world; a section that fails or does not apply is said in the report.

    When so many seconds are over, only the sections begin without which nothing is known.
    """
    settings, until = _QUICK, None
    if request.evaluation == "full":
        minutes = _FULL_MINUTES if request.train_steps else request.budget_s / 60
        settings = evaluation_for(minutes, episode_steps=config.data.num_steps)
        if request.train_steps is None and seconds is not None:
            until = time.monotonic() + seconds
    world = load_world(request.output, trust=True)  # whoever asked has named all of it
    evaluate(world, settings, output, sections=sections, until=until)
    shutil.copyfile(output / JSON_NAME, request.output / JSON_NAME)


def evaluation_for(minutes: float, *, episode_steps: int) -> EvaluationConfig:
    """Return how much is measured of a world that was made in so many minutes.

    Its share of the time is about the same at all of them.
    """
    full = replace(
        EvaluationConfig(),
        num_episodes=4,
        episode_steps=episode_steps,
        num_autoencoder_frames=100,
        num_next_frames=200,
        num_rollouts=4,
        num_long_runs=1,
        long_steps=1000,
        teacher_options=_QUICK.teacher_options,
    )
    share = min(1.0, minutes / _FULL_MINUTES)
    if share == 1.0:
        return full
    least, most = vars(_QUICK), vars(full)
    scaled = {
        name: round(least[name] + share * (most[name] - least[name]))
        for name in least
        if isinstance(most[name], int)
    }
    return replace(_QUICK, **scaled)
