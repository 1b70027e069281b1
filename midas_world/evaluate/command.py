"""``midas-world eval``: measure a world against its teacher and write the report.

Each section stands alone: one that fails is reported with its reason, the others go on, and the
exit status is 1. Sections of the same world that were measured before, with the same settings, stay
in the report when only others are asked for.
"""

import argparse
import json
import logging
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tqdm.contrib.logging import logging_redirect_tqdm

from midas_world.arguments import add_trust_option
from midas_world.data.episodes import current_versions
from midas_world.evaluate.config import EvaluationConfig
from midas_world.evaluate.probes.training import ProbeConfig
from midas_world.evaluate.report import MARKDOWN_NAME, Section, read_report, write_report
from midas_world.evaluate.sections.frames import autoencoder_section, next_frame_section
from midas_world.evaluate.sections.game import game_section
from midas_world.evaluate.sections.gestures import gestures_section
from midas_world.evaluate.sections.outcome import outcomes_section
from midas_world.evaluate.sections.play import horizon_section, pose_section, speed_section
from midas_world.evaluate.sections.prompt import prompt_section
from midas_world.evaluate.sections.revisit import revisit_section
from midas_world.evaluate.sections.sharpness import sharpness_section
from midas_world.evaluate.sections.stillness import stillness_section
from midas_world.evaluate.sections.thing import thing_section
from midas_world.evaluate.sections.voice import voice_section
from midas_world.evaluate.sections.weather import weather_section
from midas_world.evaluate.study import NotApplicableError, Study
from midas_world.machine import cpu_name
from midas_world.world import World, load_world

logger = logging.getLogger(__name__)

SECTIONS: dict[str, Callable[[Study], Section]] = {
    "autoencoder": autoencoder_section,
    "next_frame": next_frame_section,
    "horizon": horizon_section,
    "pose": pose_section,
    "things": thing_section,
    "sharpness": sharpness_section,
    "stillness": stillness_section,
    "prompts": prompt_section,
    "outcomes": outcomes_section,
    "games": game_section,
    "voice": voice_section,
    "gestures": gestures_section,
    "weather": weather_section,
    "revisit": revisit_section,
    "speed": speed_section,
}

FIRST = ("autoencoder", "next_frame", "horizon")
"""What tells whether a world is worth anything."""

_QUICK_PROBE = ProbeConfig(
    first_seed=22_000, num_frames=32, episode_steps=32, width=8, train_steps=10, batch_size=8
)
QUICK = EvaluationConfig(
    num_episodes=1,
    episode_steps=24,
    num_autoencoder_frames=8,
    num_next_frames=8,
    num_rollouts=2,
    rollout_steps=10,
    num_long_runs=1,
    long_steps=40,
    num_still_runs=2,
    still_steps=30,
    num_prompt_runs=2,
    prompt_steps=12,
    num_outcome_episodes=2,
    outcome_steps=24,
    num_games=1,
    game_steps=24,
    num_thing_runs=2,
    thing_steps=5,
    num_travel_starts=2,
    travel_seeds=1,
    travel_steps=16,
    num_sentences=2,
    num_new_sentences=2,
    sentence_steps=12,
    num_weather_runs=1,
    weather_steps=12,
    num_revisits=1,
    num_speed_steps=20,
    probe=ProbeConfig(num_frames=32, episode_steps=32, width=16, train_steps=20, batch_size=8),
    thing_probe=_QUICK_PROBE,
    mouth_probe=replace(_QUICK_PROBE, first_seed=26_000),
)
"""Says that everything runs, and little about the world."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status: 0 fine, 1 a section failed.

    Raises:
        CheckpointError: There is no such world, or it cannot be loaded.
        ValueError: An argument is outside its limits.
    """
    arguments = _parser().parse_args(argv)
    config = QUICK if arguments.quick else EvaluationConfig()
    if arguments.episodes is not None:
        count = arguments.episodes
        long_runs = min(config.num_long_runs, max(1, count // 4))
        config = replace(config, num_episodes=count, num_rollouts=count, num_long_runs=long_runs)
    world = load_world(arguments.world, trust=arguments.trust)
    report = evaluate(
        world, config, arguments.output, sections=arguments.sections, data=arguments.data
    )
    statuses = {name: report["sections"][name]["status"] for name in arguments.sections}
    return int("failed" in statuses.values())


def evaluate(
    world: World,
    config: EvaluationConfig,
    output: Path,
    *,
    sections: Sequence[str],
    data: Path | None = None,
    until: float | None = None,
) -> dict[str, Any]:
    """Measure a world, write the report after each section, and return it; `data` as in `Study`.

    No section but those of `FIRST` begins after `until`, by time.monotonic().
    """
    output.mkdir(parents=True, exist_ok=True)
    study = Study(world, config, output, data)
    subject = {
        "world": world.folder.resolve().name,
        "weights": study.weights_hash,
        "teacher": world.config.data.env_id or "none: its held-out recordings",
        "settings": json.loads(json.dumps(asdict(config))),
        "versions": {**current_versions(), "torch": torch.__version__},
        "machine": f"{cpu_name()}, {platform.system()}",
    }
    found = _earlier(output, subject)
    report: dict[str, Any] = {"subject": subject, "sections": found}
    for name in (name for name in SECTIONS if name in sections):
        with logging_redirect_tqdm():
            section = run_section(study, name, until=None if name in FIRST else until)
        found[name] = section.to_dict() | {"measured_at": _now()}
        if section.status == "ok":
            logger.info("%s: %.0f s", name, section.seconds)
        else:
            logger.warning("%s %s: %s", name, section.status, section.reason)
        ordered = {key: found[key] for key in SECTIONS if key in found}
        report = {"subject": subject | {"written_at": _now()}, "sections": ordered}
        write_report(report, output)
    logger.info("the report is in %s", output / MARKDOWN_NAME)
    return report


def run_section(study: Study, name: str, *, until: float | None = None) -> Section:
    """Return what a section finds; if it fails, why."""
    started = time.perf_counter()
    title = name.replace("_", " ").capitalize()
    try:
        if until is not None and time.monotonic() > until:
            raise NotApplicableError("the time was over")
        section = SECTIONS[name](study)
    except NotApplicableError as error:
        section = Section(title=title, values={}, status="skipped", reason=str(error))
    # Whatever it was that failed, the other sections' hours must not be lost with it.
    except Exception as error:
        logger.exception("section %s failed", name)
        reason = f"{type(error).__name__}: {error}"
        section = Section(title=title, values={}, status="failed", reason=reason)
    return replace(section, seconds=time.perf_counter() - started)


def _earlier(output: Path, subject: dict[str, Any]) -> dict[str, Any]:
    """Return the sections of the report in a folder, if it is of the same world and settings."""
    report = read_report(output)
    if report is None:
        return {}
    there, settings = report["subject"], subject["settings"]
    known = {name: value for name, value in there["settings"].items() if name in settings}
    same = (there["weights"], known) == (subject["weights"], settings)
    return dict(report["sections"]) if same else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _section_names(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in SECTIONS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"unknown sections {', '.join(unknown)}; there are {', '.join(SECTIONS)}"
        )
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="midas-world eval", description="Measure a world against its teacher."
    )
    defaults = EvaluationConfig()
    parser.add_argument("--world", default="stage", help="a shipped world's name, or a folder")
    parser.add_argument("--output", type=Path, default=Path("runs/eval"), help="folder to write")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="recordings, of a world that learned from an import; default: data/NAME",
    )
    parser.add_argument(
        "--episodes",
        type=int,
        metavar="N",
        help=f"held-out episodes and rollouts; default: {defaults.num_episodes} and "
        f"{defaults.num_rollouts}",
    )
    parser.add_argument("--quick", action="store_true", help="as little as shows that it runs")
    parser.add_argument(
        "--sections",
        type=_section_names,
        default=list(SECTIONS),
        metavar="NAME[,NAME]",
        help=f"of {', '.join(SECTIONS)}; default: all",
    )
    add_trust_option(parser)
    return parser
