"""What a stage looks like, in words: the scene and its description.

Drawing is left to scenery.py and character.py, which also define the names of what they can draw;
free text turned into a scene, to words.py.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np

from envs.stage.controller import ACTIONS
from envs.stage.looks import OUTFITS
from envs.stage.scenery import PLACES, TIMES, WEATHERS

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
        check_name("place", self.place, PLACES)
        check_name("time_of_day", self.time_of_day, TIMES)
        check_name("weather", self.weather, WEATHERS)
        check_name("outfit", self.outfit, OUTFITS)

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


def check_name(what: str, name: str, known: Sequence[str]) -> None:
    """Check that `name` is one of `known`.

    Raises:
        ValueError: It is not; the message names the nearest known word.
    """
    if name in known:
        return
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
    words = ", ".join(repr(word) for word in known)
    raise ValueError(f"{what} must be one of {words}; got {name!r}, did you mean {near!r}?")


# Phrases by meaning, as describe writes them. words.py understands them, and more.
_PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "meadow": ("a meadow", "a green meadow", "a grassy field", "the countryside"),
    "city": ("a city", "a city street", "the town", "a downtown street"),
    "beach": ("a beach", "a sandy beach", "the seaside", "the shore"),
    "snow forest": ("a snow forest", "a snowy forest", "a winter forest", "a frozen wood"),
    "desert": ("a desert", "the desert dunes", "a sandy desert", "a dry canyon"),
    "night city": ("a night city", "a neon city", "a city of neon lights", "a glowing night city"),
}
_TIME_PHRASES: dict[str, tuple[str, ...]] = {
    "morning": ("in the morning", "early in the morning", "at dawn", "at sunrise"),
    "noon": ("at noon", "at midday", "in broad daylight", "in the middle of the day"),
    "sunset": ("at sunset", "in the evening", "at dusk", "at nightfall"),
    "night": ("at night", "under the stars", "late at night", "in the dark"),
}
_WEATHER_PHRASES: dict[str, tuple[str, ...]] = {
    "clear": ("under a clear sky", "in clear weather", "in fine weather", "with no clouds"),
    "rain": ("in the rain", "in rainy weather", "while it rains", "in a rain shower"),
    "snow": ("in falling snow", "while it snows", "in a snowfall", "in snowy weather"),
    "fog": ("in the fog", "in the mist", "in foggy weather", "in a thick haze"),
}
_OUTFIT_PHRASES: dict[str, tuple[str, ...]] = {
    "red jacket": ("a red jacket", "a crimson jacket", "a scarlet jacket"),
    "blue hoodie": ("a blue hoodie", "a blue hooded sweater", "a navy hoodie"),
    "green coat": ("a green coat", "a long green coat", "an olive coat"),
    "yellow raincoat": ("a yellow raincoat", "a bright yellow raincoat", "a yellow slicker"),
    "purple dress": ("a purple dress", "a violet dress", "a purple gown"),
    "white suit": ("a white suit", "an elegant white suit", "a pale suit"),
}
PHRASES = {
    "place": _PLACE_PHRASES,
    "time_of_day": _TIME_PHRASES,
    "weather": _WEATHER_PHRASES,
    "outfit": _OUTFIT_PHRASES,
}
VERBS: dict[str, tuple[str, ...]] = {
    "idle": ("stands still", "stands and waits", "is standing"),
    "walk_left": ("walks left", "strolls to the left", "is walking left"),
    "walk_right": ("walks right", "strolls to the right", "is walking right"),
    "run_left": ("runs left", "sprints to the left", "is running left"),
    "run_right": ("runs right", "sprints to the right", "is running right"),
    "jump": ("jumps up", "hops in place", "is jumping"),
    "jump_left": ("jumps to the left", "hops left", "is jumping left"),
    "jump_right": ("jumps to the right", "hops right", "is jumping right"),
    "leap_left": ("leaps left", "makes a long jump to the left", "is leaping left"),
    "leap_right": ("leaps right", "makes a long jump to the right", "is leaping right"),
    "crouch": ("crouches", "ducks down", "is crouching"),
    "wave": ("waves", "waves hello", "is waving a hand"),
    "punch": ("punches", "throws a punch", "is punching"),
    "kick": ("kicks", "does a kick", "is kicking"),
    "talk": ("talks", "speaks", "is talking"),
}
assert tuple(VERBS) == ACTIONS
_PERSONS = ("a person", "someone", "a character", "a traveller")
_FORMS = (
    "{person} in {outfit} {verb} in {place} {time} {weather}",
    "{person} wearing {outfit} {verb}, {place}, {time}, {weather}",
    "{time} in {place} {weather}: {person} in {outfit} {verb}",
    "in {place}, {person} dressed in {outfit} {verb} {time} {weather}",
)


@lru_cache(maxsize=4096)
def verb_phrase(action_name: str, variant: int) -> str:
    """Return words for an action, such as "runs right"."""
    return _pick(VERBS[action_name], np.random.default_rng((variant, 1)))


@lru_cache(maxsize=4096)
def describe(scene: Scene, action_name: str, variant: int) -> str:
    """Return a sentence that says what the picture shows; equal arguments, equal sentence.

    Args:
        scene: What the stage looks like.
        action_name: One of ACTIONS.
        variant: Which wording, 0 or more. words.py understands all of them.
    """
    rng = np.random.default_rng((variant, 0))
    return _pick(_FORMS, rng).format(
        person=_pick(_PERSONS, rng),
        outfit=_pick(_OUTFIT_PHRASES[scene.outfit], rng),
        place=_pick(_PLACE_PHRASES[scene.place], rng),
        time=_pick(_TIME_PHRASES[scene.time_of_day], rng),
        weather=_pick(_WEATHER_PHRASES[scene.weather], rng),
        verb=verb_phrase(action_name, variant),
    )


def _pick(phrases: Sequence[str], rng: np.random.Generator) -> str:
    return phrases[int(rng.integers(len(phrases)))]
