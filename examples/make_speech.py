"""Makes the shipped speech bank with espeak-ng: `python -m examples.make_speech`.

Needed only to change the bank; playing and training read the files that ship: features, and the
sound that they are of.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from envs.stage.looks import load_tables
from envs.stage.speech import BANK_PATH, SOUND_PATH, by_program, features_from_audio, resample
from midas_world.data.sound import (
    SAMPLE_RATE_HZ,
    SAMPLES_PER_STEP,
    SoundError,
    to_int16,
    write_opus,
)
from midas_world.edge import run_command
from midas_world.files import whole, write_whole

_logger = logging.getLogger(__name__)

# espeak-ng's voice variants: a deep, a high and a bright voice.
VOICES = ("m3", "f2", "f4")

_BITS_PER_SECOND = 32_000

# Language code of espeak-ng -> sentences, in the order of the bank.
SENTENCES = load_tables("taught", file="sentences.toml")
FURTHER = load_tables("further", file="sentences.toml")


def make_bank(features_path: Path, sound_path: Path) -> None:
    """Write the features and the sound of all sentences."""
    features: list[np.ndarray] = []
    sound: list[np.ndarray] = []
    languages: list[str] = []
    for language, sentences in (*SENTENCES.items(), *FURTHER.items()):
        for sentence in sentences:
            voice = VOICES[len(features) % len(VOICES)]
            said = by_program(sentence, f"{language}+{voice}")
            if said is None:
                raise SoundError("espeak-ng is needed to make the speech bank: install it")
            of_sentence, samples = _steps(*said)
            features.append(of_sentence)
            sound.append(samples)
            languages.append(language)
    tensors = {
        "features": np.concatenate(features).astype(np.float16),
        "lengths": np.array([len(item) for item in features], np.int32),
    }
    num_taught = sum(len(sentences) for sentences in SENTENCES.values())
    metadata = {"languages": ",".join(languages), "num_taught": str(num_taught)}
    with whole(sound_path) as place:
        write_opus(place, to_int16(np.concatenate(sound)), bits_per_second=_BITS_PER_SECOND)
    write_whole(features_path, save(tensors, metadata=metadata))


def _steps(samples: np.ndarray, sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features (S, 20) and 16 kHz samples (800 S,), without silent steps at the ends."""
    samples = resample(samples / 32768.0, sample_rate_hz)
    features = features_from_audio(samples, SAMPLE_RATE_HZ)
    samples = np.pad(samples, (0, len(features) * SAMPLES_PER_STEP - samples.size))
    loud = np.flatnonzero(features.max(axis=1) > 0.1)
    first, end = loud[0], loud[-1] + 1
    return features[first:end], samples[first * SAMPLES_PER_STEP : end * SAMPLES_PER_STEP]


def main(argv: Sequence[str]) -> None:
    """Make the bank."""
    argparse.ArgumentParser(description=__doc__).parse_args(argv)
    logging.basicConfig(level=logging.INFO)
    make_bank(BANK_PATH, SOUND_PATH)
    for path in (BANK_PATH, SOUND_PATH):
        _logger.info("wrote %s, %d bytes", path, path.stat().st_size)


if __name__ == "__main__":
    sys.exit(run_command("make_speech", main, sys.argv[1:]))
