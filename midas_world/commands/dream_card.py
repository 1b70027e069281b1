"""The model card of a world that was made of a foreign env: what it is, its keys, its numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midas_world.config import ProjectConfig
from midas_world.files import write_whole

CARD_NAME = "README.md"

# Section, value, what it says, unit.
_NUMBERS = (
    ("autoencoder", "psnr", "autoencoder PSNR, held-out frames", "dB"),
    ("next_frame", "psnr", "next-frame PSNR", "dB"),
    ("next_frame", "repeat_psnr", "the same of repeating the last frame", "dB"),
    ("next_frame", "psnr_moving", "next-frame PSNR, moving frames", "dB"),
    ("next_frame", "repeat_psnr_moving", "the same of repeating the last frame", "dB"),
    ("horizon", "psnr_20", "PSNR after 20 steps of rollout", "dB"),
    ("horizon", "psnr_100", "PSNR after 100 steps of rollout", "dB"),
    ("sharpness", "ratio", "gradient energy at the end of long rollouts against step 20", ""),
    ("speed", "median_ms", "env.step, median", "ms"),
)


def write_card(world: Path, config: ProjectConfig, *, evaluation: Path) -> None:
    """Write a world's model card.

    Args:
        world: The world's folder.
        config: Of the world.
        evaluation: The report's JSON; without it the card says that nothing was measured.
    """
    data, teacher = config.data, config.data.teacher
    assert teacher is not None
    sections: Mapping[str, Any] = {}
    if evaluation.is_file():
        sections = json.loads(evaluation.read_text(encoding="utf-8"))["sections"]
    steps = [config.train_autoencoder.optimizer, config.train_dynamics.optimizer]
    lines = [
        f"# {world.name}",
        "",
        f"A world that learned from `{data.env_id}`"
        + (f" with `{dict(data.env_kwargs)}`" if data.env_kwargs else "")
        + f": {config.world.height}x{config.world.width} px, {config.world.fps} steps a second, "
        f"{config.world.tokens_per_frame} tokens a frame. Made by `midas-world dream`.",
        "",
        f"Trained on {data.num_episodes} episodes of at most {data.num_steps} steps, "
        f"{steps[0].train_steps} and {steps[1].train_steps} train steps (autoencoder, dynamics).",
        "",
        "| action | keys |",
        "|---|---|",
        *(
            f"| {name} | {' + '.join(action.keys) or '-'} |"
            for name, action in teacher.actions.items()
        ),
        "",
        *_number_lines(sections),
    ]
    write_whole(world / CARD_NAME, "\n".join(lines) + "\n")


def _number_lines(sections: Mapping[str, Any]) -> list[str]:
    if not sections:
        return ["It was not measured: `midas-world eval --world` does that."]
    rows = [
        f"| {words} | {value:.1f} {unit} |".replace("  |", " |")
        for section, name, words, unit in _NUMBERS
        if (value := sections.get(section, {}).get("values", {}).get(name)) is not None
    ]
    others = [
        f"- {name}: {section['status']}, {section['reason']}"
        for name, section in sections.items()
        if section["status"] != "ok"
    ]
    table = [
        "Measured against the env, by `evaluation.json`:",
        "",
        "| what | measured |",
        "|---|---|",
    ]
    return [*table, *rows, *(["", *others] if others else [])]
