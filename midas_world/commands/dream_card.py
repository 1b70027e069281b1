"""The model card of a world that was made of a foreign env: what it is, its keys, its numbers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midas_world.config import ProjectConfig
from midas_world.files import write_whole
from midas_world.tables import table_lines
from midas_world.teachers.collected import FEW_FRAMES, Collected

CARD_NAME = "README.md"

# Section, value, what it says, unit.
_NUMBERS = (
    ("autoencoder", "psnr", "autoencoder PSNR, held-out frames", "dB"),
    ("next_frame", "psnr", "next-frame PSNR", "dB"),
    ("next_frame", "repeat_psnr", "the same of repeating the last frame", "dB"),
    ("next_frame", "psnr_moving", "next-frame PSNR, moving frames", "dB"),
    ("next_frame", "repeat_psnr_moving", "the same of repeating the last frame", "dB"),
    ("horizon", "psnr_20", "PSNR after 20 steps of rollout", "dB"),
    ("horizon", "hold_psnr_20", "the same of holding the last real frame", "dB"),
    ("horizon", "psnr_100", "PSNR after 100 steps of rollout", "dB"),
    ("horizon", "hold_psnr_100", "the same of holding the last real frame", "dB"),
    ("horizon", "other_psnr_100", "the same of another episode of the env, at that step", "dB"),
    ("sharpness", "level_late", "gradient energy over the env's, end of long rollouts", ""),
    ("speed", "median_ms", "env.step, median", "ms"),
)

# Fewer train steps than these of the two stages explain much.
_FEW_STEPS = 1000
# dB; a game whose frames are so much like one another leaves nothing to win.
_STILL = 35.0


def write_card(
    world: Path, config: ProjectConfig, found: Collected, sections: Mapping[str, Any]
) -> list[str]:
    """Write a world's model card; return its verdict.

    Args:
        world: The world's folder.
        config: Of the world.
        found: What it learned from.
        sections: Of the evaluation's report; without any the card says that it was not measured.
    """
    data, teacher = config.data, config.data.teacher
    assert teacher is not None
    steps = _train_steps(config)
    said = verdict(config, found, sections)
    actions = [
        (name, " + ".join(action.keys) or "-", f"{100 * found.shares[name]:.1f} %")
        for name, action in teacher.actions.items()
    ]
    lines = [
        f"# {world.name}",
        "",
        f"A world that learned from `{data.env_id}`"
        + (f" with `{dict(data.env_kwargs)}`" if data.env_kwargs else "")
        + f": {config.world.height}x{config.world.width} px, {config.world.fps} steps a second, "
        f"{config.world.tokens_per_frame} tokens a frame. Made by `midas-world dream`.",
        "",
        f"Trained on {found.num_frames:,} frames, {found.num_episodes} episodes of "
        f"{found.mean_steps:.0f} steps on average (at most {data.num_steps}); {steps[0]} and "
        f"{steps[1]} train steps (autoencoder, dynamics).",
        "",
        *table_lines(("action", "keys", "share of the steps"), actions, digits=1),
        "",
        *_number_lines(sections),
        *(f"\n**{line}**" for line in said),
    ]
    write_whole(world / CARD_NAME, "\n".join(lines) + "\n")
    return said


def verdict(config: ProjectConfig, found: Collected, sections: Mapping[str, Any]) -> list[str]:
    """Return that a world is worse than repeating the last frame, if it is, and why.

    Of a rollout no more is asked than another episode of the env is worth: where chance decides
    what comes, the picture that stands still has the better PSNR.
    """
    values = {name: section.get("values", {}) for name, section in sections.items()}
    single, rollout = values.get("next_frame", {}), values.get("horizon", {})
    pairs = [("the next frame", single.get("psnr"), single.get("repeat_psnr"))]
    for step in (20, 100):
        own, still, other = (rollout.get(f"{of}psnr_{step}") for of in ("", "hold_", "other_"))
        if own is None or other is None or own < other:
            pairs.append((f"{step} steps on", own, still))
    worse = [
        f"{what} {own:.1f} dB against {still:.1f}"
        for what, own, still in pairs
        if own is not None and still is not None and own < still
    ]
    if not worse:
        return []
    reasons = []
    if found.num_frames < FEW_FRAMES:
        reasons.append(f"it saw {found.num_frames:,} frames, of which {FEW_FRAMES:,} are few")
    steps = _train_steps(config)
    if min(steps) < _FEW_STEPS:
        reasons.append(
            f"it had {steps[0]} and {steps[1]} train steps, of which {_FEW_STEPS} are few"
        )
    ceiling, repeat = single.get("ceiling_psnr"), single.get("repeat_psnr")
    if ceiling is not None and repeat is not None and ceiling < repeat:
        reasons.append(
            f"its autoencoder alone loses more ({ceiling:.1f} dB) than changes between two frames"
        )
    if found.rare_actions:
        reasons.append(f"it hardly saw the actions {', '.join(found.rare_actions)}")
    if repeat is not None and repeat > _STILL:
        reasons.append("little changes in this game from frame to frame")
    why = "; ".join(reasons) or "nothing that was counted tells; more train steps may help"
    return [f"Worse than repeating the last frame: {', '.join(worse)}.", f"Why: {why}."]


def _train_steps(config: ProjectConfig) -> tuple[int, int]:
    stages = config.train_autoencoder, config.train_dynamics
    return stages[0].optimizer.train_steps, stages[1].optimizer.train_steps


def _number_lines(sections: Mapping[str, Any]) -> list[str]:
    if not sections:
        return ["It was not measured: `midas-world eval --world` does that."]
    rows = [
        (words, f"{value:.1f} {unit}".rstrip())
        for section, name, words, unit in _NUMBERS
        if (value := sections.get(section, {}).get("values", {}).get(name)) is not None
    ]
    reasons: dict[str, list[str]] = {}
    for name, section in sections.items():
        if section["status"] != "ok":
            reasons.setdefault(f"{section['status']}, {section['reason']}", []).append(name)
    others = [f"- {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    table = table_lines(("what", "measured"), rows, digits=1)
    head = ["Measured against the env, by `evaluation.json`:", ""]
    return [*head, *table, *(["", *others] if others else [])]
