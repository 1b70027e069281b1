"""The section on the voice: does the mouth follow it, on time and as far as the teacher's?

Shapes: T steps, H W pixels.
"""

import math
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from midas_world.evaluate.plots import save_curves
from midas_world.evaluate.probes.pictures import MouthProbe, cut, train_mouth_probe
from midas_world.evaluate.report import Section, Table
from midas_world.evaluate.rollouts import (
    Moment,
    Script,
    check_held_out,
    play_world,
    teacher_moments,
    to_episode,
)
from midas_world.evaluate.study import VOICE_SEED, NotApplicableError, Study
from midas_world.tables import Cell
from midas_world.train.strips import save_strip
from midas_world.types import StepConditions

_FIRST = 4  # steps until the close-up is there
_MAX_LAG = 5
_CONSTANT = 1e-9
_PER_SEED = 4  # seeds that may be tried for each sentence
_STRIP_FRAMES = 8


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One sentence: how far the mouth was open at each step, in [0, 1].

    Attributes:
        language: Its code.
        teacher: (T,) as drawn by the teacher.
        probe: (T,) the probe's reading of the teacher's frames.
        world: (T,) its reading of the world's.
        silent: (T,) its reading of the world's when the sound told is silence.
    """

    language: str
    teacher: np.ndarray
    probe: np.ndarray
    world: np.ndarray
    silent: np.ndarray


def follows(shown: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """Return correlation and slope (least squares of shown on real), both (T,); NaN if constant."""
    x, y = real - real.mean(), shown - shown.mean()
    if len(x) < 3 or x.std() < _CONSTANT:
        return math.nan, math.nan
    slope = float((x * y).sum() / (x * x).sum())
    if y.std() < _CONSTANT:
        return 0.0, slope
    return float((x * y).sum() / math.sqrt((x * x).sum() * (y * y).sum())), slope


def best_lag(shown: list[np.ndarray], real: list[np.ndarray]) -> int:
    """Return by how many steps shown sequences are late: where the correlation is largest."""

    def correlation(lag: int) -> float:
        pairs = [
            (s[max(0, lag) : len(s) + min(0, lag)], r[max(0, -lag) : len(r) - max(0, lag)])
            for s, r in zip(shown, real, strict=True)
        ]
        late, early = (np.concatenate(part) for part in zip(*pairs, strict=True))
        found = follows(late, early)[0]
        return -math.inf if math.isnan(found) else found

    return max(range(-_MAX_LAG, _MAX_LAG + 1), key=lambda lag: (correlation(lag), -abs(lag)))


def voice_section(study: Study) -> Section:
    """Measure how the mouth in the close-up follows the voice, language by language."""
    config, probe = study.config, study.once("mouth probe", lambda: _mouth_probe(study))
    sentences = _play(study, probe)
    languages = sorted({item.language for item in sentences})
    table: list[tuple[Cell, ...]] = []
    values: dict[str, Any] = {"num_sentences": len(sentences)}
    for name in (*languages, "all"):
        chosen = [item for item in sentences if name in ("all", item.language)]
        real = np.concatenate([item.teacher for item in chosen])
        correlation, slope = follows(np.concatenate([item.world for item in chosen]), real)
        control, _ = follows(np.concatenate([item.silent for item in chosen]), real)
        lag = best_lag([item.world for item in chosen], [item.teacher for item in chosen])
        own, own_slope = follows(np.concatenate([item.probe for item in chosen]), real)
        row = (correlation, slope, lag, control, own, own_slope)
        table.append((name, len(chosen), *row))
        names = ("correlation", "slope", "lag", "control", "probe_correlation", "probe_slope")
        suffix = "" if name == "all" else f"_{name}"
        values |= {f"{key}{suffix}": value for key, value in zip(names, row, strict=True)}
    values["control_size"] = abs(values["control"])
    values["worst_language"] = min(values[f"correlation_{name}"] for name in languages)
    shown = sentences[: min(3, len(sentences))]
    real, world = (np.concatenate([getattr(s, n) for s in shown]) for n in ("teacher", "world"))
    x = np.arange(len(real))
    save_curves(
        study.output / "voice.png",
        {"world, by the probe": (x, world), "teacher (baseline)": (x, real)},
        title=f"How far the mouth is open, {len(shown)} sentences one after another",
        x_label="step",
        y_label="opening",
    )
    return Section(
        title="Voice",
        method=(
            f"{len(sentences)} sentences, {config.talk_action!r} held for {config.sentence_steps} "
            f"steps each, from {study.context_frames} frames of the teacher before. A probe that "
            "learned from the teacher's close-ups reads how far the mouth is open in the world's; "
            "against how far the teacher drew it, over all steps of a language from step "
            f"{_FIRST + 1} on: correlation, slope (1: as wide as the teacher's), and the lag in "
            "steps at which the correlation is largest (positive: late). Control: the same with "
            "silence told to the world instead of the voice. The probe's own correlation and slope "
            "on the teacher's close-ups stand beside them. Strip: teacher, world, world in silence."
        ),
        values=values,
        tables=(
            Table(
                columns=(
                    *("language", "sentences", "correlation", "slope", "lag", "control"),
                    *("probe's correlation", "probe's slope"),
                ),
                rows=tuple(table),
            ),
        ),
        notes=("The teacher's sentences are those of training: its bank of speech has no others.",),
        pictures=("voice.png", "voice-strip.png"),
    )


def _play(study: Study, probe: MouthProbe) -> list[Sentence]:
    """Return the sentences as teacher and world say them."""
    config, context = study.config, study.context_frames
    env, _ = study.make_endless_world(config.sentence_steps, action="conditions")
    sentences = []
    for language, moments in tqdm(
        _spoken(study), total=config.num_sentences, desc="voice", mininterval=5.0
    ):
        episode = to_episode(moments, name="", seed=len(sentences))
        region = moments[-1].info["regions"][-1]
        told = [moment.conditions for moment in moments[context:]]
        silence = [
            replace(step, audio=None if step.audio is None else np.zeros_like(step.audio))
            for step in told
        ]
        views = [cut(episode.frames[context:], region)]
        for steps in (told, silence):
            actions = [as_action(step) for step in steps]
            played = play_world(env, episode.start_state(context), actions, seed=len(sentences))
            views.append(cut(np.stack([moment.frame for moment in played]), region))
        if not sentences:
            rows = np.linspace(_FIRST, len(told) - 1, _STRIP_FRAMES).astype(int)
            save_strip([list(view[rows]) for view in views], study.output / "voice-strip.png")
        own, world, silent = (probe.read(view)[_FIRST:] for view in views)
        truth = np.array([moment.info["mouth"] for moment in moments[context + _FIRST :]])
        sentences.append(
            Sentence(language=language, teacher=truth, probe=own, world=world, silent=silent)
        )
    if not sentences:
        raise NotApplicableError("the teacher's character says nothing")
    return sentences


def as_action(step: StepConditions) -> dict[str, Any]:
    """Return conditions as an action of the world's env with action="conditions"."""
    return {name: value for name, value in vars(step).items() if value is not None}


def _spoken(study: Study) -> list[tuple[str, list[Moment]]]:
    """Return different sentences of the teacher with their languages, as many of each as can be.

    The character says nothing during the context.

    Raises:
        NotApplicableError: The teacher does not tell how far the mouth is open.
    """
    config, context = study.config, study.context_frames
    env, talk = study.make_teacher(), study.action(config.talk_action)
    if "mouth" not in env.reset(seed=VOICE_SEED)[1]:
        raise NotApplicableError('the teacher gives no info["mouth"]')
    found: dict[str, dict[bytes, list[Moment]]] = {}
    length = context + config.sentence_steps
    policy = Script([*[0] * (context - 1), talk])
    seeds = range(VOICE_SEED, VOICE_SEED + _PER_SEED * config.num_sentences)
    check_held_out(seeds, study.world.config.data)
    for seed in seeds:
        played = teacher_moments(env, policy, seed=seed, options=config.teacher_options)
        moments = list(islice(played, context + 3))
        language, voice = moments[-1].info.get("language", ""), moments[-1].conditions.audio
        if not language or voice is None or voice.tobytes() in found.get(language, {}):
            continue
        moments += islice(played, length - len(moments))
        if len(moments) == length:
            found.setdefault(language, {})[voice.tobytes()] = moments
    ranked = [
        (place, language, moments)
        for language, items in found.items()
        for place, moments in enumerate(items.values())
    ]
    ranked.sort(key=lambda item: item[:2])
    chosen = [(language, moments) for _, language, moments in ranked[: config.num_sentences]]
    return sorted(chosen, key=lambda item: item[0])


def _mouth_probe(study: Study) -> MouthProbe:
    """Return the probe, newly trained.

    Raises:
        NotApplicableError: The teacher has no close-up or does not tell how far the mouth is open.
    """
    config, env = study.config, study.make_teacher()
    policy = Script([study.action(config.talk_action)])
    views, openings = [], []
    for moment in study.sample_moments(env, config.mouth_probe, policy=policy):
        if "mouth" not in moment.info or "regions" not in moment.info:
            raise NotApplicableError('the teacher gives no info["mouth"] or no info["regions"]')
        region = moment.info["regions"][-1]
        if region[2]:
            views.append(cut(moment.frame[None], region)[0])
            openings.append(moment.info["mouth"])
    if not views:
        raise NotApplicableError("the teacher never shows the face from near")
    return train_mouth_probe(np.stack(views), np.array(openings), config.mouth_probe)
