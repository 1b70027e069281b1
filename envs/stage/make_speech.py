"""Makes the shipped speech bank with espeak-ng: `python -m envs.stage.make_speech`.

Needed only to change the bank; playing and training read the file that ships.
"""

import logging
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from envs.stage.speech import BANK_PATH, features_from_audio

_logger = logging.getLogger(__name__)

# espeak-ng's voice variants: a deep, a high and a bright voice.
VOICES = ("m3", "f2", "f4")

# Language code of espeak-ng -> sentences.
SENTENCES: dict[str, tuple[str, ...]] = {
    "en-us": (
        "Hello there, how are you today?",
        "What a beautiful place this is.",
        "Watch out for the rocks on the road!",
        "I have found another golden coin.",
        "Let us run a little further.",
    ),
    "de": (
        "Guten Tag, wie geht es dir?",
        "Heute ist ein schöner Tag zum Laufen.",
        "Pass auf, da vorne brennt ein Feuer!",
        "Ich habe noch eine Münze gefunden.",
        "Komm mit, wir gehen weiter.",
    ),
    "fr-fr": (
        "Bonjour, comment vas-tu ce matin?",
        "Quel beau paysage autour de nous.",
        "Attention, il y a un rocher devant toi!",
        "J'ai trouvé une pièce d'or.",
        "Allons un peu plus loin ensemble.",
    ),
    "es": (
        "Hola, qué tal estás hoy?",
        "Me gusta mucho caminar por aquí.",
        "Cuidado con el fuego en el camino!",
        "He encontrado otra moneda de oro.",
        "Vamos a correr un poco más.",
    ),
    "it": (
        "Ciao, come va la giornata?",
        "Che bel posto per una passeggiata.",
        "Attento alla pietra davanti a te!",
        "Ho trovato una moneta d'oro.",
        "Andiamo avanti, il sole è ancora alto.",
    ),
    "pt-br": (
        "Olá, tudo bem com você?",
        "Que lugar bonito para passear.",
        "Cuidado com as pedras no caminho!",
        "Eu encontrei mais uma moeda.",
        "Vamos correr mais um pouco.",
    ),
    "ru": (
        "Привет, как твои дела?",
        "Какое красивое место вокруг нас.",
        "Осторожно, впереди огонь!",
        "Я нашёл ещё одну монету.",
        "Пойдём дальше вместе.",
    ),
    "id": (
        "Halo, apa kabar hari ini?",
        "Pemandangan di sini indah sekali.",
        "Awas, ada batu di depan kamu!",
        "Saya menemukan satu koin emas lagi.",
        "Ayo kita lari sedikit lebih jauh.",
    ),
}


def synthesise(sentence: str, *, language: str, voice: str) -> tuple[np.ndarray, int]:
    """Return a spoken sentence as mono float32 samples and their rate in Hz.

    Raises:
        FileNotFoundError: espeak-ng is not installed.
        subprocess.CalledProcessError: espeak-ng knows no such language or voice.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise FileNotFoundError("espeak-ng is needed to make the speech bank; install espeak-ng")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sentence.wav"
        command = [program, "-v", f"{language}+{voice}", "-w", str(path), sentence]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - fixed program
        with wave.open(str(path), "rb") as audio:
            data = np.frombuffer(audio.readframes(audio.getnframes()), "<i2")
            return data.astype(np.float32) / 32768.0, audio.getframerate()


def make_bank(path: Path) -> int:
    """Write the speech bank to `path` and return its size in bytes."""
    features: list[np.ndarray] = []
    languages: list[str] = []
    for language, sentences in SENTENCES.items():
        for sentence in sentences:
            voice = VOICES[len(features) % len(VOICES)]
            samples, rate = synthesise(sentence, language=language, voice=voice)
            features.append(_trim(features_from_audio(samples, rate)))
            languages.append(language)
    tensors = {
        "features": np.concatenate(features).astype(np.float16),
        "lengths": np.array([len(item) for item in features], np.int32),
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(save(tensors, metadata={"languages": ",".join(languages)}))
    temporary.replace(path)
    return path.stat().st_size


def _trim(features: np.ndarray) -> np.ndarray:
    """Return features without the silent steps at both ends."""
    loud = np.flatnonzero(features.max(axis=1) > 0.1)
    return features[loud[0] : loud[-1] + 1]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    _logger.info("wrote %s, %d bytes", BANK_PATH, make_bank(BANK_PATH))
