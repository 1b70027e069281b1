"""Sentences as live voices: of the bank in one language, or of any text through espeak-ng."""

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np

from envs.stage.speech import by_program, load_speech_bank, load_speech_sound, resample
from midas_world.data.sound import SAMPLES_PER_STEP, SoundError, to_int16

MAX_CHARACTERS = 500

_NAMES = {
    "en-us": "English",
    "de": "German",
    "fr-fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt-br": "Portuguese",
    "ru": "Russian",
    "id": "Indonesian",
    "nl": "Dutch",
    "pl": "Polish",
    "sv": "Swedish",
    "fi": "Finnish",
}
_PAUSE_STEPS = 6
_VARIANT = "+f2"  # of espeak-ng's voices
_RETRIEVAL = 1  # espeak-ng's AUDIO_OUTPUT_RETRIEVAL: sound comes to a callback
_UTF8 = 1
_NOT_HERE = (
    "a text needs espeak-ng: install it (on Debian and Ubuntu, apt install espeak-ng), or "
    "pip install 'midas-world[speech]'"
)


def language_name(code: str) -> str:
    """Return what a language of the bank is called, in English; another's own code."""
    return _NAMES.get(code, code)


def languages() -> tuple[str, ...]:
    """Return the codes of the bank's languages, those first that worlds learned from."""
    return tuple(dict.fromkeys(load_speech_bank().languages))


def find_language(code: str) -> str:
    """Return the bank's language of a code such as "en" or "pt-br".

    Raises:
        ValueError: The bank has none; the message names those that it has.
    """
    known = languages()
    found = [name for name in known if name == code.lower()]
    found += [name for name in known if name.partition("-")[0] == code.lower()]
    if not found:
        raise ValueError(f"no sentences in {code!r}; there are: {', '.join(known)}")
    return found[0]


def choose_sentence(language: str, rng: np.random.Generator) -> np.ndarray:
    """Return (A,) int16 of a sentence of the bank in one of its languages."""
    of_all = load_speech_bank().languages
    places = [place for place, name in enumerate(of_all) if name == language]
    return load_speech_sound()[places[int(rng.integers(len(places)))]]


class BankVoice:
    """Says sentences of the bank in one language while the character talks.

    Raises:
        ValueError: The bank does not have the language.
    """

    listens = False

    def __init__(self, language: str, rng: np.random.Generator) -> None:
        self.message = ""
        self.language = find_language(language)
        self._rng = rng
        self._steps: Iterator[np.ndarray] = iter(())

    def step(self, *, talks: bool) -> np.ndarray | None:
        """Return the next (S,) int16; None while the character does not talk."""
        if not talks:
            self._steps = iter(())
            return None
        if (samples := next(self._steps, None)) is None:
            self._steps = self._next_sentence()
            samples = next(self._steps)
        return samples

    def close(self) -> None:
        """Fall silent."""
        self._steps = iter(())

    def _next_sentence(self) -> Iterator[np.ndarray]:
        yield from in_steps(choose_sentence(self.language, self._rng))
        for _ in range(_PAUSE_STEPS):
            yield np.zeros(SAMPLES_PER_STEP, np.int16)


def in_steps(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Yield (A,) int16 as (S,) of each step; the last one is filled up with silence."""
    for start in range(0, samples.size, SAMPLES_PER_STEP):
        part = samples[start : start + SAMPLES_PER_STEP]
        yield np.pad(part, (0, SAMPLES_PER_STEP - part.size))


def synthesise(text: str, *, language: str = "en-us") -> np.ndarray:
    """Return a spoken text as (A,) int16 at 16 kHz, by espeak-ng wherever it is.

    Raises:
        SoundError: espeak-ng is not installed, does not know the language, or has nothing to say.
    """
    if not text.strip() or len(text) > MAX_CHARACTERS:
        raise SoundError(f"a text must have 1 to {MAX_CHARACTERS} characters, got {len(text)}")
    samples, rate = by_program(text, language + _VARIANT) or _by_library(text, language)
    if not samples.any():
        raise SoundError(f"espeak-ng finds nothing to say in {text!r}")
    return to_int16(resample(samples / 32768.0, rate))


def _by_library(text: str, language: str) -> tuple[np.ndarray, int]:
    """Say it through the library that espeakng-loader brings; see espeak-ng's speak_lib.h."""
    try:
        import espeakng_loader
    except ModuleNotFoundError as error:
        raise SoundError(_NOT_HERE) from error
    library: Any = ctypes.CDLL(espeakng_loader.get_library_path())
    pieces: list[np.ndarray] = []
    kind = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
    )

    def take(samples: Any, size: int, _: Any) -> int:
        if samples and size > 0:
            pieces.append(np.ctypeslib.as_array(samples, (size,)).copy())
        return 0

    callback = kind(take)
    rate = library.espeak_Initialize(_RETRIEVAL, 0, espeakng_loader.get_data_path().encode(), 0)
    if rate <= 0:
        raise SoundError("the library of espeakng-loader cannot be used here")
    library.espeak_SetSynthCallback(callback)
    # The program finds "fr-fr" by a list of languages, the library by the names of files only.
    names = [language + _VARIANT, language.partition("-")[0] + _VARIANT]
    if all(library.espeak_SetVoiceByName(name.encode()) != 0 for name in names):
        raise SoundError(f"espeak-ng does not know the language {language!r}")
    data = text.encode() + b"\0"
    library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return (np.concatenate(pieces) if pieces else np.zeros(1, np.int16)), rate
