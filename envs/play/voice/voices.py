"""Live voices: sound from outside that the character, or the other speaker, says step by step.

A voice gives 50 ms of sound for each step of the game, however late the step is, so that sound and
picture stay together. What a microphone is, is microphone.py's business.

Shape letter: S = 800 samples of one step.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from envs.play.voice.sentences import BankVoice, in_steps, language_name, languages, synthesise
from envs.stage.speech import features_from_audio, loudness
from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, SoundError, read_sound
from midas_world.sessions.log import Heard

TALK = "talk"  # the action under which a live voice is the character's

# Steps without voice after which the character stops talking: pauses between words are shorter.
_HOLD_STEPS = 8
_AUDIBLE = 0.1  # of the loudness of features: a quiet room is below, a voice from afar above
_FULL = 32768.0


class Voice(Protocol):
    """Somebody who is heard step by step.

    Attributes:
        message: What the player should be told of it, in words; taken by who tells it.
        listens: Whether a microphone is open.
    """

    message: str

    @property
    def listens(self) -> bool: ...  # noqa: D102 - see above

    def step(self, *, talks: bool) -> np.ndarray | None:
        """Return the next (S,) int16; None leaves the voice of this step to the world."""
        ...

    def close(self) -> None:
        """Let go of what it holds; may be called twice."""
        ...


class FileVoice:
    """A voice from an audio file, once from its beginning to its end; read as it is needed.

    Raises:
        SoundError: There is no such file, or no sound in it.
    """

    listens = False

    def __init__(self, path: Path) -> None:
        self.message = ""
        self._path = path
        self._pieces: Iterator[np.ndarray] | None = read_sound(path)
        self._left = np.zeros(0, np.int16)
        self._is_silent = True
        self._fill()

    def step(self, *, talks: bool) -> np.ndarray | None:
        """Return the next (S,) int16 of the file; None after its end."""
        try:
            self._fill()
        except SoundError as error:
            self.message = str(error)
        if not self._left.size:
            return None
        samples, self._left = np.split(self._left, [SAMPLES_PER_STEP])
        self._is_silent &= not samples.any()
        if not self._left.size and self._pieces is None and self._is_silent and not self.message:
            self.message = f"{self._path} is silent from its beginning to its end"
        return np.pad(samples, (0, SAMPLES_PER_STEP - samples.size))

    def close(self) -> None:
        """Close the file."""
        self._pieces = None

    def _fill(self) -> None:
        """Read on until more than a step waits, or the file ends."""
        parts = [self._left]
        size = self._left.size
        try:
            while size <= SAMPLES_PER_STEP and self._pieces is not None:
                if (piece := next(self._pieces, None)) is None:
                    self._pieces = None
                else:
                    parts.append(piece)
                    size += piece.size
        except SoundError:
            self._pieces = None
            raise
        finally:
            self._left = np.concatenate(parts)


def num_voice_steps(path: Path) -> int:
    """Return how many steps an audio file lasts; the last one may be a part.

    Raises:
        SoundError: There is no such file, or it cannot be read to its end.
    """
    size = sum(piece.size for piece in read_sound(path))
    return max(1, -(-size // SAMPLES_PER_STEP))


class LiveVoices:
    """The voices of a game from outside: the character's own and the other speaker's.

    Args:
        own: The character's; None leaves it to the world.
        other: The other speaker's; likewise.
        language: In which texts are said; a code of espeak-ng.
    """

    def __init__(
        self, own: Voice | None = None, other: Voice | None = None, *, language: str = "en-us"
    ) -> None:
        self.language = language
        self._own, self._other = own, other
        self._said: Iterator[np.ndarray] | None = None
        self._num_quiet = _HOLD_STEPS

    @property
    def is_live(self) -> bool:
        """Whether a voice comes from outside all the time."""
        return bool(self._voices)

    @property
    def has_said(self) -> bool:
        """Whether there was ever a text to say."""
        return self._said is not None

    @property
    def listens(self) -> bool:
        """Whether a microphone is open."""
        return any(voice.listens for voice in self._voices)

    def say(self, text: str) -> int:
        """Let the character say a text from the next step on; return how many steps it lasts.

        Raises:
            SoundError: espeak-ng is not here, or cannot say it.
        """
        samples = synthesise(text, language=self.language)
        self._said = in_steps(samples)
        return -(-samples.size // SAMPLES_PER_STEP)

    def say_or_tell(self, text: str) -> str:
        """Let the character say a text from the next step on; return in words what comes."""
        try:
            self.say(text)
        except SoundError as error:
            return str(error)
        return f"the character says: {text}"

    def next_language(self) -> str:
        """Go on in another language of the bank, and return it in words."""
        known = languages()
        place = known.index(self.language) if self.language in known else -1
        return self.speak(known[(place + 1) % len(known)])

    def speak(self, language: str) -> str:
        """Go on in a language of the bank, or with "" as the world has it; return it in words."""
        if self._own is not None and not isinstance(self._own, BankVoice):
            return "the character says what you say: it has no language of its own"
        self._own = BankVoice(language, np.random.default_rng()) if language else None
        self.language = language or self.language
        return f"the character speaks {language_name(language) or 'as the world has it'}"

    @property
    def _voices(self) -> list[Voice]:
        return [voice for voice in (self._own, self._other) if voice is not None]

    def take_message(self) -> str:
        """Return what the player should be told, once; empty if there is nothing."""
        for voice in self._voices:
            if voice.message:
                words, voice.message = voice.message, ""
                return words
        return ""

    def step(
        self, *, talks: bool
    ) -> tuple[tuple[np.ndarray | None, np.ndarray | None], Heard, bool]:
        """Return the sound of the next step, its features, and whether the own voice is heard."""
        # The own voice may answer what the other one says in this step.
        other = self._other.step(talks=talks) if self._other is not None else None
        own = self._own.step(talks=talks) if self._own is not None else None
        said = next(self._said, None) if self._said is not None else None
        own = own if said is None else said
        heard = (_features(own), _features(other))
        is_audible = heard[0] is not None and loudness(heard[0]) > _AUDIBLE
        self._num_quiet = 0 if is_audible else self._num_quiet + 1
        return (own, other), heard, own is not None and self._num_quiet < _HOLD_STEPS

    def close(self) -> None:
        """Let go of files and devices; may be called twice."""
        for voice in self._voices:
            voice.close()


def _features(samples: np.ndarray | None) -> np.ndarray | None:
    """Return (20,) features of the (S,) sound of a step."""
    if samples is None:
        return None
    return features_from_audio(samples / _FULL, SAMPLE_RATE_HZ)[0]
