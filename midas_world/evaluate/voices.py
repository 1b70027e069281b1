"""What teachers say, for sections that play a world to it: sentences, and the same in silence.

A teacher may have sentences that no world has heard, `new_sentences`: pairs of a language and
(S, A) features, S steps long; they are said through its `set_voices`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, SupportsFloat, TypeVar

import gymnasium
import numpy as np

from midas_world.evaluate.rollouts import (
    EnvFrame,
    Script,
    play_world,
    start_after,
    teacher_moments,
)
from midas_world.evaluate.study import VOICE_SEED, NotApplicableError, Study
from midas_world.types import StepConditions

T = TypeVar("T")
Speaker = Literal["own", "other"]

TALK = "talk"  # the action that makes a character talk
_PER_SEED = 4  # seeds that may be tried for each sentence
_NEW_SEED = VOICE_SEED + 500


@dataclass(frozen=True, kw_only=True)
class Said:
    """A sentence, and the frames of the teacher while it was said.

    Attributes:
        moments: Of the teacher: the context, in which nothing is said, and the sentence's steps.
        silent: What a world is told at the sentence's steps to see what it does without a voice.
        quiet: The teacher's moments in that silence; none where it cannot be silenced.
    """

    language: str
    is_new: bool
    moments: Sequence[EnvFrame]
    silent: Sequence[StepConditions]
    quiet: Sequence[EnvFrame]

    def frames(self, world: gymnasium.Env) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the frames of the teacher, of a world, and of a world in silence.

        Returns:
            Three of (T, H, W, 3) uint8, after the context.
        """
        steps = len(self.silent)
        start = start_after(self.moments[:-steps])
        shown = self.moments[-steps:]
        made = [
            play_world(world, start, [step.given() for step in told], seed=0)
            for told in ([moment.conditions for moment in shown], self.silent)
        ]
        own, heard, silent = (np.stack([m.frame for m in moments]) for moments in (shown, *made))
        return own, heard, silent


@dataclass(frozen=True)
class Moved:
    """What a voice moves, at each step of a sentence: (T, ...) numbers.

    Attributes:
        silent: The probe's reading of the world's when it was told what it is told in silence.
        quiet: The teacher's in silence; 0 where it cannot be silenced.
    """

    teacher: np.ndarray
    probe: np.ndarray
    world: np.ndarray
    silent: np.ndarray
    quiet: np.ndarray


class LiveTeacher(gymnasium.Wrapper):
    """A teacher in which live audio, (S, A), is a voice from a step on, and then silence."""

    def __init__(
        self, env: gymnasium.Env, speaker: Speaker, features: np.ndarray, *, first: int
    ) -> None:
        super().__init__(env)
        self._features, self._first, self._speaker = features, first, speaker
        self._num_steps = 0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset, and begin anew."""
        self._num_steps = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Step under the voice."""
        row = self._num_steps - self._first
        self._num_steps += 1
        if row >= 0:
            is_over = row >= len(self._features)
            voice = np.zeros_like(self._features[0]) if is_over else self._features[row]
            voices = (voice, None) if self._speaker == "own" else (None, voice)
            self.env.unwrapped.set_voices(*voices)  # pyright: ignore[reportAttributeAccessIssue]
        return self.env.step(action)


def taught_sentences(study: Study) -> list[Said]:
    """Return different sentences that the teacher says by itself, as many of each language.

    Raises:
        NotApplicableError: The teacher does not tell how far the mouth is open.
    """
    config, context = study.config, study.context_frames
    env, policy = study.make_teacher(), _script(study, "own")
    if "mouth" not in env.reset(seed=VOICE_SEED)[1]:
        raise NotApplicableError('the teacher gives no info["mouth"]')
    found: dict[str, dict[bytes, Said]] = {}
    length = context + config.sentence_steps
    seeds = range(VOICE_SEED, VOICE_SEED + _PER_SEED * config.num_sentences)
    for seed in seeds:
        played = teacher_moments(env, policy, seed=seed, options=config.teacher_options)
        moments = list(islice(played, context + 3))
        language, voice = moments[-1].info.get("language", ""), moments[-1].conditions.audio
        if not language or voice is None or voice.tobytes() in found.get(language, {}):
            continue
        moments += islice(played, length - len(moments))
        if len(moments) == length:
            found.setdefault(language, {})[voice.tobytes()] = Said(
                language=language,
                is_new=False,
                moments=moments,
                **_silence(study, env, moments, seed=seed, speaker="own"),
            )
    return _spread({name: items.values() for name, items in found.items()}, config.num_sentences)


def new_sentences(study: Study, speaker: Speaker, *, num_steps: int) -> list[Said]:
    """Return sentences of the teacher's that no world has heard; none if it has none.

    The character says them, or listens for so many steps: silence follows on the sentence's own.
    """
    config, context = study.config, study.context_frames
    env, policy = study.make_teacher(), _script(study, speaker)
    known: dict[str, list[np.ndarray]] = {}
    for language, features in getattr(env.unwrapped, "new_sentences", ()):
        known.setdefault(language, []).append(features)
    made = []
    chosen = _spread(
        {name: [(name, item) for item in items] for name, items in known.items()},
        config.num_new_sentences,
    )
    seeds = range(_NEW_SEED, _NEW_SEED + len(chosen))
    for seed, (language, features) in zip(seeds, chosen, strict=True):
        spoken = features[: config.sentence_steps]
        live = LiveTeacher(env, speaker, spoken, first=context - 1)
        played = teacher_moments(live, policy, seed=seed, options=config.teacher_options)
        moments = list(islice(played, context + num_steps))
        if len(moments) == context + num_steps:
            silence = _silence(study, env, moments, seed=seed, speaker=speaker)
            made.append(Said(language=language, is_new=True, moments=moments, **silence))
    return made


def _script(study: Study, speaker: Speaker) -> Script:
    """Return who does nothing during the context, and then talks or goes on doing nothing."""
    if speaker == "other":
        return Script([0])
    talk = study.action(TALK)
    return Script([*[0] * (study.context_frames - 1), talk])


def _silence(
    study: Study, env: gymnasium.Env, moments: Sequence[EnvFrame], *, seed: int, speaker: Speaker
) -> dict[str, Any]:
    """Return `silent` and `quiet` of `Said`: of a body at rest if it can be."""
    told = [moment.conditions for moment in moments[study.context_frames :]]
    silent = [
        replace(step, audio=None if step.audio is None else np.zeros_like(step.audio))
        for step in told
    ]
    audio = told[0].audio
    if audio is None or not hasattr(env.unwrapped, "set_voices"):
        return {"silent": silent, "quiet": ()}
    nothing = np.zeros((1, audio.size // 2), np.float32)
    live = LiveTeacher(env, speaker, nothing, first=study.context_frames - 1)
    options = study.config.teacher_options
    played = teacher_moments(live, _script(study, speaker), seed=seed, options=options)
    quiet = list(islice(played, study.context_frames, len(moments)))
    silent = [replace(a, pose=b.conditions.pose) for a, b in zip(silent, quiet, strict=True)]
    return {"silent": silent, "quiet": quiet}


def _spread(found: Mapping[str, Iterable[T]], count: int) -> list[T]:
    """Return so many items at most, as many of each language as can be, language by language."""
    ranked = [
        (place, language, item)
        for language, items in found.items()
        for place, item in enumerate(items)
    ]
    ranked.sort(key=lambda entry: entry[:2])
    chosen = sorted(ranked[:count], key=lambda entry: entry[1])
    return [item for _, _, item in chosen]
