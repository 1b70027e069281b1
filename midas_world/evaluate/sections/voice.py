"""The section on the voice: does the mouth follow it, on time and as far as the teacher's?

Shapes: T steps, H W pixels.
"""

from typing import Any

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.metrics import best_lag, centred, follows
from midas_world.evaluate.plots import save_curves
from midas_world.evaluate.probes.pictures import NumberProbe, cut
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import Script
from midas_world.evaluate.study import NotApplicableError, Study
from midas_world.evaluate.voices import TALK, Moved, Said, new_sentences, taught_sentences
from midas_world.tables import Cell

_FIRST = 4  # steps until the close-up is there
_STRIP_FRAMES = 8
_NAMES = (
    *("correlation", "slope", "lag", "control", "control_slope"),
    *("probe_correlation", "probe_slope"),
)


def voice_section(study: Study) -> Section:
    """Measure how the mouth in the close-up follows the voice, language by language."""
    config = study.config
    talks = Script([study.action(TALK)])
    probe = study.number_probe(
        "mouth", lambda info: info["regions"][-1], study.make_teacher(), talks
    )
    said, sentences = _play(study, probe)
    languages = {_group(item): item.language for item in said}
    groups = {
        name: [moved for item, moved in zip(said, sentences, strict=True) if _group(item) == name]
        for name in languages
    }
    if new := [moved for item, moved in zip(said, sentences, strict=True) if item.is_new]:
        groups["all new"] = new
    groups["all"] = sentences
    suffixes = {name: f"_{code}" for name, code in languages.items()}
    suffixes |= {"all new": "_new", "all": ""}
    table: list[tuple[Cell, ...]] = []
    values: dict[str, Any] = {"num_sentences": len(sentences)}
    for name, chosen in groups.items():
        real, own, world, silent = (
            [getattr(moved, part) for moved in chosen]
            for part in ("teacher", "probe", "world", "silent")
        )
        row = (
            *follows(np.concatenate(world), np.concatenate(real)),
            best_lag(world, real),
            *follows(centred(silent), centred(real)),
            *follows(np.concatenate(own), np.concatenate(real)),
        )
        table.append((name, len(chosen), *row))
        values |= {key + suffixes[name]: value for key, value in zip(_NAMES, row, strict=True)}
    values["control_size"] = abs(values["control"])
    values["worst_language"] = min(values[f"correlation_{code}"] for code in languages.values())
    shown = sentences[: min(3, len(sentences))]
    real, world = (np.concatenate([getattr(s, n) for s in shown]) for n in ("teacher", "world"))
    save_curves(
        study.output / "voice.png",
        {"world, by the probe": world, "teacher (baseline)": real},
        title=f"How far the mouth is open, {len(shown)} sentences one after another",
        y_label="opening",
    )
    return Section(
        title="Voice",
        method=(
            f"{len(sentences)} sentences, {TALK!r} held for {config.sentence_steps} "
            f"steps each, from {study.context_frames} frames of the teacher before. A probe that "
            "learned from the teacher's close-ups reads how far the mouth is open in the world's; "
            "against how far the teacher drew it, over all steps of a language from step "
            f"{_FIRST + 1} on: correlation, slope (1: as wide as the teacher's), and the lag in "
            "steps at which the correlation is largest (positive: late). Control: the same with "
            "silence told to the world instead of the voice, and a body that rests; each sentence "
            "about its own mean, for in silence little but the mean is left. Of languages marked "
            "new the world has heard no sentence. The probe's own correlation and slope on the "
            "teacher's close-ups stand beside them. Strip: teacher, world, world in silence."
        ),
        values=values,
        tables=(
            Table(
                columns=(
                    *("language", "sentences", "correlation", "slope", "lag", "control"),
                    *("control's slope", "probe's correlation", "probe's slope"),
                ),
                rows=table,
            ),
        ),
        pictures=("voice.png", "voice-strip.png"),
    )


def _group(said: Said) -> str:
    """Return what a sentence is counted under."""
    return f"{said.language} (new)" if said.is_new else said.language


def _play(study: Study, probe: NumberProbe) -> tuple[list[Said], list[Moved]]:
    """Return the sentences, and how far the mouth is open at each step, in [0, 1]."""
    steps = study.config.sentence_steps
    env = study.make_endless_world(steps, action="conditions")
    sentences: list[Moved] = []
    chosen = [*taught_sentences(study), *new_sentences(study, "own", num_steps=steps)]
    for said in tqdm(chosen, desc="voice", mininterval=5.0):
        shown = said.moments[-steps:]
        region = shown[-1].info["regions"][-1]
        views = [cut(frames, region) for frames in said.frames(env)]
        if not sentences:
            rows = np.linspace(_FIRST, steps - 1, _STRIP_FRAMES).astype(int)
            study.save_strip("voice-strip.png", [list(view[rows]) for view in views])
        teacher = np.array([moment.info["mouth"] for moment in shown[_FIRST:]])
        own, world, silent = (probe(view)[_FIRST:] for view in views)
        quiet = np.zeros_like(teacher)
        sentences.append(Moved(teacher=teacher, probe=own, world=world, silent=silent, quiet=quiet))
    if not sentences:
        raise NotApplicableError("the teacher's character says nothing")
    return chosen, sentences
