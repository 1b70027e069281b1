"""What a stage looks like, in words: the scene and its description.

Drawing is left to scenery.py and character.py, which also define the names of what they can draw;
free text turned into a scene, to words.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np

from envs.contract import check_names
from envs.stage.controller import ACTIONS
from envs.stage.looks import OUTFITS, load_tables
from envs.stage.moods import PLACES, TIMES, WEATHERS

_WEATHER_WEIGHTS = {"clear": 0.55, "rain": 0.15, "snow": 0.15, "fog": 0.15}
NUM_TEXT_VARIANTS = 64


@dataclass(frozen=True)
class Scene:
    """Place, time of day, weather and outfit: all that a picture of the stage shows besides play.

    Raises:
        ValueError: A word is not one of those that can be drawn; the message names the nearest.
    """

    place: str = "meadow"
    time_of_day: str = "noon"
    weather: str = "clear"
    outfit: str = "red jacket"

    def __post_init__(self) -> None:
        check_names("place", [self.place], PLACES)
        check_names("time_of_day", [self.time_of_day], TIMES)
        check_names("weather", [self.weather], WEATHERS)
        check_names("outfit", [self.outfit], OUTFITS)

    def __str__(self) -> str:
        """Return the four names, as start states are described."""
        return ", ".join((self.place, self.time_of_day, self.weather, self.outfit))

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Self:
        """Return a random scene; the weather is clear more often than not."""
        weights = [_WEATHER_WEIGHTS[weather] for weather in WEATHERS]
        return cls(
            place=PLACES[rng.integers(len(PLACES))],
            time_of_day=TIMES[rng.integers(len(TIMES))],
            weather=WEATHERS[rng.choice(len(WEATHERS), p=weights)],
            outfit=OUTFITS[rng.integers(len(OUTFITS))],
        )


# Phrases by meaning, as describe writes them. words.py understands them, and more.
PHRASES = {
    name: load_tables(name, file="phrases.toml")
    for name in ("place", "time_of_day", "weather", "outfit")
}
VERBS = load_tables("verbs", file="phrases.toml")
_WHOLE = load_tables("whole", file="phrases.toml")
assert tuple(VERBS) == ACTIONS


@lru_cache(maxsize=4096)
def verb_phrase(action_name: str, variant: int) -> str:
    """Return words for an action, such as "runs right"."""
    return _pick(VERBS[action_name], np.random.default_rng((variant, 1)))


@lru_cache(maxsize=4096)
def describe(scene: Scene, action_name: str, variant: int) -> str:
    """Return a sentence that says what the picture shows; equal arguments, equal sentence."""
    rng = np.random.default_rng((variant, 0))
    return _pick(_WHOLE["forms"], rng).format(
        person=_pick(_WHOLE["persons"], rng),
        outfit=_pick(PHRASES["outfit"][scene.outfit], rng),
        place=_pick(PHRASES["place"][scene.place], rng),
        time=_pick(PHRASES["time_of_day"][scene.time_of_day], rng),
        weather=_pick(PHRASES["weather"][scene.weather], rng),
        verb=verb_phrase(action_name, variant),
    )


def _pick(phrases: Sequence[str], rng: np.random.Generator) -> str:
    return phrases[int(rng.integers(len(phrases)))]
