"""Texts as the tokens of a `tokenizer.json`, for worlds whose words are those of a language model.

A config names a tokenizer by the SHA-256 of its file, which lies beside the preset or in the
world's folder. Whoever opens these makes it known here; so the same words are the same tokens
everywhere, and a file that was exchanged is refused. The file is data: nothing in it is run.
"""

import hashlib
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

TOKENIZER_NAME = "tokenizer.json"

_known: dict[str, Path] = {}


def hash_of(path: Path) -> str:
    """Return by what a config names a tokenizer's file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def know_tokenizer(name: str, folder: Path) -> None:
    """Find the tokenizer of a config in the folder that the config comes from.

    Args:
        name: Of the tokenizer; empty: there is none to be found.
        folder: Where its file lies.

    Raises:
        ValueError: It is not there, or is another one.
    """
    if not name:
        return
    path = folder / TOKENIZER_NAME
    if not path.is_file():
        if name not in _known:
            raise ValueError(f"{path} is missing, by which this world reads words")
    elif hash_of(path) != name:
        raise ValueError(f"{path} is not the tokenizer that this world learned with")
    else:
        _known[name] = path.resolve()


def keep_tokenizer(name: str, folder: Path) -> None:
    """Copy the tokenizer of a config to where the config is written; nothing without one."""
    if name and not (folder / TOKENIZER_NAME).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_known[name], folder / TOKENIZER_NAME)


def token_ids(text: str, name: str) -> tuple[int, ...]:
    """Return the tokens of a text by a tokenizer that is known.

    Raises:
        ValueError: It is not known, or its file is none.
        ImportError: The package tokenizers is missing.
    """
    return tuple(_tokenizer(name).encode(text, add_special_tokens=False).ids)


def vocabulary_size(name: str) -> int:
    """Return how many tokens a tokenizer has; errors as in `token_ids`."""
    return _tokenizer(name).get_vocab_size()


@lru_cache(maxsize=8)
def _tokenizer(name: str) -> Any:
    if name not in _known:
        raise ValueError(
            f"this world's {TOKENIZER_NAME} is not beside its preset, nor in its folder"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(
            f"this world reads words by a language model's tokenizer ({error}): pip install "
            "'midas-world[qwen]'"
        ) from error
    try:
        return Tokenizer.from_file(str(_known[name]))
    except Exception as error:  # its own kind of error is Exception itself
        raise ValueError(f"{_known[name]} is no tokenizer: {error}") from error
