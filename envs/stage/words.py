"""The words that Stage understands, in the eight languages that its characters speak.

They are in words.toml, and those that Stage writes itself in phrases.toml; how a text is read is
the business of envs/vocabulary.py.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

from envs.stage.scene import PHRASES, VERBS, Scene
from envs.vocabulary import Understanding, Vocabulary

_LISTS = ("wearing", "negations", "alternatives", "turns", "fillers", "others")
_PATH = Path(__file__).with_name("words.toml")


@lru_cache(maxsize=1)
def vocabulary() -> Vocabulary:
    """Return the words that Stage understands."""
    known = tomllib.loads(_PATH.read_text(encoding="utf-8"))
    names = {name_of: _listed(table) for name_of, table in known["names"].items()}
    for name_of in ("place", "time_of_day", "weather"):
        for name, phrases in PHRASES[name_of].items():
            names[name_of][name] += phrases
    for action, phrases in VERBS.items():
        names["activity"][action.partition("_")[0].replace("leap", "jump")] += phrases
    names["outfit"] = {name: (name,) for name in PHRASES["outfit"]}
    return Vocabulary(
        names={name_of: names[name_of] for name_of in (*PHRASES, "activity")},
        hints={name_of: _listed(table) for name_of, table in known["hints"].items()},
        opposites={
            (name_of, denied): left
            for name_of, table in known["opposites"].items()
            for denied, left in table.items()
        },
        nouns=_listed(known["nouns"]),
        colours=_listed(known["colours"]),
        coloured="outfit",
        **{kind: _phrases(known[kind]) for kind in _LISTS},
    )


def understand(text: str, present: Scene) -> tuple[Scene, str]:
    """Return the scene that a player's words make of the present one, and what was understood.

    Raises:
        ValueError: They say nothing about a scene; the message says what is known.
    """
    heard = vocabulary().understand(text)
    scene = _changed(present, heard)
    named = [name for name_of, name in heard.names.items() if name_of != "activity"]
    ignored = [f"not understood: {heard.not_understood}"] if heard.unknown else []
    if "activity" in heard.names:
        ignored.append(f"{heard.names['activity']}: with keys, not with words")
    if not named:
        known = "; ".join(", ".join(names) for names in PHRASES.values())
        said = "; ".join(ignored) or f"nothing of {text.strip()!r} is about the scene"
        raise ValueError(f"{said}. Known are: {known}")
    return scene, "; ".join([" · ".join(named), *ignored])


def scene_from_text(text: str, default: Scene) -> Scene:
    """Return the scene that a description speaks of; what it leaves open stays as in `default`."""
    return _changed(default, vocabulary().understand(text))


def _changed(scene: Scene, heard: Understanding) -> Scene:
    fields = asdict(scene)
    return replace(scene, **{f: name for f, name in heard.names.items() if f in fields})


def _listed(table: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {name: _phrases(text) for name, text in table.items()}


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split(",") if phrase.strip())
